"""Texts to unit vectors: hashed, by a sentence-transformers model, or by a language model's own hidden states.

Vectors are kept by content: a text that an embedder has seen is never embedded again, by whatever run.

    cache/<fingerprint of the embedder>/part-<hash of its keys>.safetensors     keys [n, 16] uint8, vectors [n, D]

A part is written whole or not at all: a run that was killed goes on where it was, and processes can share a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hf_synth.io import write_bytes
from hf_synth.sampling.hashing import hash_texts, unit_rows

POLICY = "policy:"  # before the path or Hub id of a causal model
PART = 8192  # texts in a part of a cache: what a killed run may have to embed again
_KEY_BYTES = 16


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


class EmbeddingCache:
    """The vectors of one embedder in a folder; `fingerprint` changes with anything that changes its vectors."""

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        """Nothing is read or written before `embed`."""
        self.folder = Path(folder) / fingerprint

    def embed(self, texts: Sequence[str], embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        """[N] texts -> [N, D]: those known are read, the others embedded, in parts that are kept one by one."""
        keys = [text_key(text) for text in texts]
        known = self._places()
        unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for start in range(0, len(unknown), PART):
            part = list(unknown)[start : start + PART]
            self._write(part, embed([unknown[key] for key in part]))
        return self._read(keys, self._places() if unknown else known)

    def _places(self) -> dict[bytes, tuple[Path, int]]:
        """Key -> its part and its row there."""
        places = {}
        for path in sorted(self.folder.glob("part-*.safetensors")):
            with safe_open(path, framework="numpy") as part:
                keys = part.get_tensor("keys")
            places.update({key.tobytes(): (path, row) for row, key in enumerate(keys)})
        return places

    def _read(self, keys: list[bytes], places: Mapping[bytes, tuple[Path, int]]) -> np.ndarray:
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            path, place = places[key]
            wanted.setdefault(path, []).append((row, place))
        out = None
        for path, rows in wanted.items():
            with safe_open(path, framework="numpy") as part:
                vectors = part.get_tensor("vectors")
            out = np.empty((len(keys), vectors.shape[1]), vectors.dtype) if out is None else out
            to, at = np.array(rows).T
            out[to] = vectors[at]
        return np.empty((0, 0), np.float32) if out is None else out

    def _write(self, keys: list[bytes], vectors: np.ndarray) -> None:
        joined = b"".join(keys)
        path = self.folder / f"part-{hashlib.blake2b(joined, digest_size=_KEY_BYTES).hexdigest()}.safetensors"
        table = np.frombuffer(joined, dtype=np.uint8).reshape(-1, _KEY_BYTES)
        write_bytes(path, save({"keys": table, "vectors": np.ascontiguousarray(vectors)}))


def text_key(text: str) -> bytes:
    """16 bytes that stand for a text: the same on any machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
