"""Texts to unit vectors: hashed, by a sentence-transformers model, or by a language model's own hidden states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.sampling.cache import EmbeddingCache
from hf_synth.sampling.hashing import hash_texts, unit_rows

POLICY = "policy:"  # before the path or Hub id of a causal model


@dataclasses.dataclass(frozen=True)
class Embedder:
    """What makes vectors: `embed` takes N distinct texts and gives [N, D] unit rows.

    `fingerprint` says which embedder it is: it changes with whatever changes a vector, weights included.
    """

    embed: Callable[[list[str]], np.ndarray]
    fingerprint: Callable[[], str]

    def __call__(self, texts: Sequence[str], cache: str | Path | None = None) -> np.ndarray:
        """[N] texts -> [N, D]; equal texts get equal vectors. Those in the folder `cache` are not made again."""
        # Each text once: a model may give one text two slightly different vectors in two batches, and density counts
        # copies by equality.
        distinct = list(dict.fromkeys(texts))
        if cache is None or not distinct:
            vectors = self.embed(distinct)
        else:
            vectors = EmbeddingCache(cache, self.fingerprint()).embed(distinct, self.embed)
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[np.array([place[text] for text in texts], dtype=np.int64)]


def embed_texts(
    texts: Sequence[str],
    embedder: str = "hashing",
    *,
    dim: int = 384,
    batch_size: int = 256,
    layer: int = -1,
    cache: str | Path | None = None,
) -> np.ndarray:
    """One unit vector per text, in the order given; equal texts get equal vectors, whatever else is in the call.

    Args:
        texts: N strings (`prompt_text` makes one out of a conversation).
        embedder: "hashing": words, pairs of words and runs of 3 to 4 characters, lower-cased, hashed, and
            projected by fixed random signs. It is fitted to nothing, needs no download, gives every text a non-zero
            vector, and the same one on any machine. "policy:NAME": the mean hidden state of a causal model, by path
            or Hub id. Anything else: the path or Hub id of a sentence-transformers model.
        dim: length D of the hashing vectors; a model has its own.
        batch_size: texts on the device at a time; batches are of like length, and padding changes nothing.
        layer: of `policy:`; 0 is the embeddings, -1 the last layer.
        cache: a folder that keeps vectors by content, for any number of runs.

    Returns:
        [N, D] float32, L2-normalised.

    Raises:
        ValueError: something other than a list of strings; dim or batch_size below 1.
        ImportError: a model is asked for and sentence-transformers is not installed.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts: wanted a list of str. Pass conversations through prompt_text first.")
    return load_embedder(embedder, dim=dim, batch_size=batch_size, layer=layer)(texts, cache)


def load_embedder(name: str = "hashing", *, dim: int = 384, batch_size: int = 256, layer: int = -1) -> Embedder:
    """An embedder by name; arguments and errors as `embed_texts`."""
    for argument, value in (("dim", dim), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument}={value}: wanted at least 1.")
    if name == "hashing":
        return Embedder(lambda texts: hash_texts(texts, dim), lambda: f"hashing-{dim}")
    if name.startswith(POLICY):
        return _policy_embedder(name.removeprefix(POLICY), batch_size, layer)
    return _sentence_embedder(name, batch_size)


def prompt_text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """One string for a prompt: a str as it is, a single user turn its content, more turns "role: content" blocks.

    Args:
        prompt: a str, or TRL's conversational format, a list of {"role", "content"}; content may be a list of parts
            {"type": "text", "text"}, of which the texts are kept.

    Raises:
        ValueError: anything else.
    """
    if isinstance(prompt, str):
        return prompt
    if not all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in prompt):
        raise ValueError(f'prompt: wanted a str or a list of {{"role", "content"}}, got {prompt!r:.200}.')
    turns = [(turn["role"], _content_text(turn["content"])) for turn in prompt]
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) and "type" in part for part in content):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    raise ValueError(f'content: wanted a str or a list of {{"type", ...}} parts, got {content!r:.200}.')


def _sentence_embedder(name: str, batch_size: int) -> Embedder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"embedder={name!r} is a sentence-transformers model, and that package is not installed. Install it "
            "with pip install 'hf_synth[embeddings]', or use embedder='hashing'."
        ) from error
    model = SentenceTransformer(name)

    def embed(texts: list[str]) -> np.ndarray:
        # encode() batches by length
        vectors = model.encode(texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
        return unit_rows(np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1))

    return Embedder(embed, lambda: f"sentence-{_fingerprint(model)}")


def _policy_embedder(name: str, batch_size: int, layer: int) -> Embedder:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_synth.sampling.hidden_states import embed_hidden_states

    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    return Embedder(
        lambda texts: embed_hidden_states(model, tokenizer, texts, layer=layer, batch_size=batch_size),
        lambda: f"policy-{_fingerprint(model)}-layer{layer}",
    )


def _fingerprint(model: Any) -> str:
    from hf_synth.sampling.hidden_states import fingerprint_model

    return fingerprint_model(model)
