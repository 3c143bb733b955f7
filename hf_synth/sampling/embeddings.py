"""Texts to unit vectors: hashed, by a sentence-transformers model, or by a language model's own hidden states.

Vectors are kept by content: a text that an embedder has seen is never embedded again, by whatever run.

    cache/<fingerprint of the embedder>/part-<hash of its keys>.safetensors     keys [n, 16] uint8, vectors [n, D]

A part is written whole or not at all: a run that was killed goes on where it was, and processes can share a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hf_synth.errors import MissingPackageError, install_hint
from hf_synth.io import reading, write_bytes
from hf_synth.sampling.hashing import hash_texts, unit_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POLICY = "policy:"  # before the path or Hub id of a causal model
PART = 8192  # texts in a part of a cache: what a killed run may have to embed again
_KEY_BYTES = 16
AGAIN = "remove it, and the same command makes it again"


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
            vectors = self._cached(distinct, Path(cache, self.fingerprint()))
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[np.array([row_of[text] for text in texts], dtype=np.int64)]

    def _cached(self, texts: list[str], folder: Path) -> np.ndarray:
        """[N] distinct texts -> [N, D]: those known are read, the others embedded, in parts kept one by one."""
        row_of = {text_key(text): row for row, text in enumerate(texts)}
        known = {key for _, keys in _parts(folder) for key in keys}
        unknown = [(key, texts[row]) for key, row in row_of.items() if key not in known]
        for start in range(0, len(unknown), PART):
            part = dict(unknown[start : start + PART])
            joined, vectors = b"".join(part), np.ascontiguousarray(self.embed(list(part.values())))
            content = save({"keys": np.frombuffer(joined, np.uint8).reshape(-1, _KEY_BYTES), "vectors": vectors})
            name = hashlib.blake2b(joined, digest_size=_KEY_BYTES).hexdigest()
            write_bytes(folder / f"part-{name}.safetensors", content)
        out = None
        for path, keys in _parts(folder):
            if rows := [(row_of[key], row) for row, key in enumerate(keys) if key in row_of]:
                with reading(path, AGAIN), safe_open(path, framework="numpy") as file:
                    vectors = file.get_tensor("vectors")
                out = np.empty((len(texts), vectors.shape[1]), vectors.dtype) if out is None else out
                to, at = np.array(rows).T
                out[to] = vectors[at]
        assert out is not None
        return out


def _parts(folder: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Yield the parts of a cache, each with the keys of its rows."""
    for path in sorted(folder.glob("part-*.safetensors")):
        with reading(path, AGAIN), safe_open(path, framework="numpy") as part:
            keys = part.get_tensor("keys")
        yield path, [key.tobytes() for key in keys]


def embed_texts(
    texts: Sequence[str], embedder: str = "hashing", *, cache: str | Path | None = None, **options: int
) -> np.ndarray:
    """One unit vector per text, in the order given; equal texts get equal vectors, whatever else is in the call.

    texts: N strings (`prompt_text` makes one out of a conversation) -> [N, D] float32.
    embedder: "hashing": words, pairs of words and runs of 3 to 4 characters, lower-cased, hashed, and projected by
    fixed random signs. It is fitted to nothing, needs no download, gives every text a non-zero vector, and the same
    one on any machine. "policy:NAME": the mean hidden state of a causal model, by path or Hub id. Anything else: the
    path or Hub id of a sentence-transformers model. A Hub id may be OWNER/NAME@REVISION.
    cache: a folder that keeps vectors by content, for any number of runs.
    options: dim, batch_size and layer, as `load_embedder` takes them.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts: wanted a list of str. Pass conversations through prompt_text first.")
    return load_embedder(embedder, **options)(texts, cache)


def load_embedder(name: str = "hashing", *, dim: int = 384, batch_size: int = 256, layer: int = -1) -> Embedder:
    """An embedder by the name that `embed_texts` takes.

    dim: length D of the hashing vectors; a model has its own.
    batch_size: texts on the device at a time; batches are of like length, and padding changes nothing.
    layer: of `policy:`; 0 is the embeddings, -1 the last layer.
    """
    for argument, value in (("dim", dim), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument}={value}: wanted at least 1.")
    if not name.removeprefix(POLICY):
        raise ValueError(f"embedder: got {name!r}, wanted hashing, or the path or Hub id of a model.")
    if name == "hashing":
        return Embedder(lambda texts: hash_texts(texts, dim), lambda: f"hashing-{dim}")
    if name.startswith(POLICY):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from hf_synth.sampling.language_models import load_checkpoint

        name = name.removeprefix(POLICY)
        policy, tokenizer = (load_checkpoint(auto, name) for auto in (AutoModelForCausalLM, AutoTokenizer))
        config = policy.config.to_diff_dict()
        settings = f"{type(policy).__name__} {[(key, config[key]) for key in sorted(config) if key[0] != '_']}"
        return Embedder(
            lambda texts: embed_hidden_states(policy, tokenizer, texts, layer=layer, batch_size=batch_size),
            lambda: f"policy-{fingerprint_model(policy, settings, _tokenizer_parts(tokenizer))}-layer{layer}",
        )
    try:
        import sentence_transformers
    except ImportError as error:
        hint = install_hint("sentence-transformers", "embeddings")
        raise MissingPackageError(f"embedder={name!r}: {hint}; or use embedder='hashing'") from error
    from hf_synth.sampling.language_models import named_revision

    with reading(name):
        path, revision = named_revision(name)
        model = sentence_transformers.SentenceTransformer(path, revision=revision)

    def embed(texts: list[str]) -> np.ndarray:
        # encode() batches by length
        vectors = model.encode(texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
        return unit_rows(np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1))

    def fingerprint() -> str:
        # The model's own description names its modules with their settings, such as how tokens are pooled.
        settings = f"{sentence_transformers.__version__} {model!r} {model.prompts} {model.default_prompt_name}"
        return f"sentence-{fingerprint_model(model, settings, _tokenizer_parts(model.tokenizer))}"

    return Embedder(embed, fingerprint)


def prompt_text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """One string for a prompt: a str as it is, a single user turn its content, more turns "role: content" blocks.

    prompt: a str, or TRL's conversational format, a list of {"role", "content"}; content may be a list of parts
    {"type": "text", "text"}, of which the texts are kept. ValueError for anything else.
    """
    if isinstance(prompt, str):
        return prompt
    if not all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in prompt):
        raise ValueError(f'prompt: wanted a str or a list of {{"role", "content"}}, got {prompt!r:.200}.')
    texts = []
    for content in (turn["content"] for turn in prompt):
        if isinstance(content, Sequence) and all(isinstance(part, Mapping) and "type" in part for part in content):
            content = "\n".join(str(part.get("text") or "") for part in content if part["type"] == "text")
        if not isinstance(content, str):
            raise ValueError(f'content: wanted a str or a list of {{"type", ...}} parts, got {content!r:.200}.')
        texts.append(content)
    if len(texts) == 1 and prompt[0]["role"] == "user":
        return texts[0]
    return "\n\n".join(f"{turn['role']}: {text}" for turn, text in zip(prompt, texts, strict=True))


def embed_hidden_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    layer: int = -1,
    batch_size: int = 32,
    max_length: int | None = None,
) -> np.ndarray:
    """One unit vector per text: the mean over its real tokens of one layer's hidden states; padding never counts.

    Texts are batched by length, each distinct text once, and the model is left in the mode in which it came.

    model: any causal model of transformers, on its own device; not a wrapper such as DDP.
    texts: N strings -> [N, D] float32, D the model's hidden size; ValueError for one without tokens, by its row.
    layer: an index into the model's `hidden_states`: 0 is the embeddings, -1 the last layer.
    batch_size: texts on the device at a time.
    max_length: longer texts keep their last so many tokens; by default as many as the model has positions.
    """
    from hf_synth.sampling.language_models import evaluating, most_tokens, right_padded

    max_length = min((most for most in (max_length, most_tokens(model)) if most), default=0)
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = list(row_of)
    ids = [list(row)[-max_length:] for row in tokenizer(distinct).input_ids] if distinct else []
    if empty := [row for row, text in enumerate(texts) if not ids[row_of[text]]]:
        raise ValueError(f"texts: {len(empty)} of {len(texts)} have no tokens: rows {empty[:10]}. Drop them.")
    out = np.empty((len(ids), model.config.get_text_config().hidden_size), np.float32)
    longest_first = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    with evaluating(model):
        for start in range(0, len(ids), batch_size):
            rows = longest_first[start : start + batch_size]
            batch = right_padded([ids[row] for row in rows], model.device)
            mask = batch["attention_mask"]
            states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
            if not -len(states) <= layer < len(states):
                last = len(states) - 1
                raise ValueError(f"layer={layer}: the model has {last + 1}, from 0 (the embeddings) to {last}.")
            sums = (states[layer].float() * mask[..., None]).sum(dim=1)
            out[rows] = (sums / mask.sum(dim=1, keepdim=True)).cpu().numpy()
    return unit_rows(out)[np.array([row_of[text] for text in texts], dtype=np.int64)]


def fingerprint_model(model: torch.nn.Module, *parts: str) -> str:
    """32 hex digits of a hash over all that vectors depend on: weights wherever they come from, and `parts`.

    Parts describe what weights do not show: settings, the tokenizer; versions of the libraries are added.
    """
    import torch
    import transformers

    hashed = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        hashed.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for part in (torch.__version__, transformers.__version__, *parts):
        hashed.update(f"\0{len(part)} {part}".encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()


def _tokenizer_parts(tokenizer: Any) -> str:
    """What a tokenizer's ids depend on; not how it cut and padded when it was last called."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    for changing in ("truncation", "padding") if backend is not None else ():
        known.pop(changing)
    return f"{type(tokenizer).__name__} {tokenizer.model_max_length} {json.dumps(known, sort_keys=True)}"


def text_key(text: str) -> bytes:
    """16 bytes that stand for a text: the same on any machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
