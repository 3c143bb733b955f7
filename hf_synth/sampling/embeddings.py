"""Texts to unit vectors: offline and fitted to nothing by default, or any sentence-transformers model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

_FEATURES = 2**15  # buckets for words, and as many for character n-grams
_PROJECTION_KEY = 20240229  # fixes the projection for ever; another value would be another embedder
# Begin and end markers give every text, "" included, at least one n-gram that lands in a bucket.
_BEGIN, _END = "\x02\x02", "\x03\x03"


def embed_texts(
    texts: Sequence[str], embedder: str = "hashing", *, dim: int = 384, batch_size: int = 256
) -> np.ndarray:
    """One unit vector per text, in the order given; equal texts get equal vectors, whatever else is in the call.

    Args:
        texts: N strings (`prompt_text` makes one out of a conversation).
        embedder: "hashing": words, pairs of words and runs of 3 to 4 characters, lower-cased, hashed, and
            projected by fixed random signs. It is fitted to nothing, needs no download, gives every text a non-zero
            vector, and the same one on any machine. Anything else: the path or Hub id of a sentence-transformers
            model.
        dim: length D of the hashing vectors; a model has its own.
        batch_size: texts in memory (or on the device) at a time; no effect on the result.

    Returns:
        [N, D] float32, L2-normalised.

    Raises:
        ValueError: something other than a list of strings; dim or batch_size below 1.
        ImportError: a model is asked for and sentence-transformers is not installed.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts: wanted a list of str. Pass conversations through prompt_text first.")
    for name, value in (("dim", dim), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}={value}: wanted at least 1.")
    # Each text once: a model may give one text two slightly different vectors in two batches, and density counts
    # copies by equality.
    distinct = list(dict.fromkeys(texts))
    if embedder == "hashing":
        vectors = _hash_embed(distinct, dim, batch_size)
    else:
        vectors = _model_embed(distinct, embedder, batch_size)
    place = {text: row for row, text in enumerate(distinct)}
    return vectors[np.array([place[text] for text in texts], dtype=np.int64)]


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


def _hash_embed(texts: list[str], dim: int, batch_size: int) -> np.ndarray:
    signs = _projection(dim).astype(np.float32)  # [2 * features, D]
    out = np.empty((len(texts), dim), dtype=np.float32)
    for start in range(0, len(texts), batch_size):
        block = texts[start : start + batch_size]
        # A lone surrogate is legal in a str but has no bytes to hash.
        block = [text.encode("utf-8", "replace").decode("utf-8") for text in block]
        words = _hasher(analyzer="word", token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2)).transform(block)
        runs = _hasher(analyzer="char", ngram_range=(3, 4)).transform([_BEGIN + text + _END for text in block])
        # Counts are damped and rounded to integers, a word worth two runs. Sums of integers are exact in any order,
        # so the vectors are the same to the last bit on every machine.
        words.data, runs.data = np.rint(8 * np.sqrt(words.data)), np.rint(4 * np.sqrt(runs.data))
        projected = words.astype(np.float32) @ signs[:_FEATURES] + runs.astype(np.float32) @ signs[_FEATURES:]
        out[start : start + len(block)] = _normalise(projected)
    return out


def _hasher(**options: Any) -> HashingVectorizer:
    # No alternating signs: two features in one bucket must not cancel, or a short text could vanish.
    return HashingVectorizer(n_features=_FEATURES, alternate_sign=False, norm=None, **options)


@functools.lru_cache(maxsize=2)
def _projection(dim: int) -> np.ndarray:
    """[2 * features, dim] int8, each -1 or 1: raw Philox bits, which no version of NumPy changes."""
    count = 2 * _FEATURES * dim
    raw = np.random.Philox(key=_PROJECTION_KEY).random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8))[:count]
    return (2 * bits.astype(np.int8) - 1).reshape(2 * _FEATURES, dim)


def _model_embed(texts: list[str], embedder: str, batch_size: int) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"embedder={embedder!r} is a sentence-transformers model, and that package is not installed. Install it "
            "with pip install 'hf_synth[embeddings]', or use embedder='hashing'."
        ) from error
    model = SentenceTransformer(embedder)
    vectors = model.encode(texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
    return _normalise(np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1))


def _normalise(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return (wide / np.sqrt(np.square(wide).sum(axis=1, keepdims=True))).astype(np.float32)
