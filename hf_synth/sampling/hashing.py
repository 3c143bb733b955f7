"""The embedder that needs no model: words, pairs of words and runs of characters, hashed and projected by fixed signs.

    text -> features -> MurmurHash3 -> counts in 2 x 2**15 buckets -> damped -> signs -> [D] -> unit length

Counts are damped to integers, so that sums are exact in any order and a vector is the same to the last bit anywhere.
The kernels are those of scikit-learn's HashingVectorizer (its test pins them to it), compiled over whole blocks.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import regex

from hf_synth.kernels import kernel

_FEATURES = 2**15  # buckets for words, and as many for character n-grams
_PROJECTION_KEY = 20240229  # fixes the projection for ever; another value would be another embedder
# Begin and end markers give every text, "" included, at least one n-gram that lands in a bucket.
_BEGIN, _END = "\x02\x02", "\x03\x03"
_WORD = regex.compile(r"[\w\p{M}\p{N}]+")  # a word with its vowel signs, which `re` takes for its end
_ASCII_WORDS = bytes(code if chr(code).isalnum() or code == ord("_") else ord(" ") for code in range(256))
_SPACES = re.compile(r"\s\s+")
_DAMPED = 2**16  # counts whose damped value is read from a table; larger ones are as good as this one
# Count -> weight of a word and of a run, integers: a word is worth two runs.
_DAMPING = [np.rint(scale * np.sqrt(np.arange(_DAMPED))).astype(np.int32) for scale in (8, 4)]
_BLOCK = 256  # texts a thread takes at a time


def hash_texts(texts: Sequence[str], dim: int) -> np.ndarray:
    """[N] strings -> [N, dim] float32 of unit length; equal texts, equal vectors, on any machine."""
    signs, out = _projection(dim), np.empty((len(texts), dim), dtype=np.float32)
    with ThreadPoolExecutor(threads()) as pool:
        starts = range(0, len(texts), _BLOCK)
        parts = pool.map(lambda start: _hash_block(texts, start, signs), starts)
        for start, vectors in zip(starts, parts, strict=True):
            out[start : start + len(vectors)] = vectors
    return out


def threads() -> int:
    """`OMP_NUM_THREADS`, as launchers set it for each of several processes; every core where it is unset."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))


def _hash_block(texts: Sequence[str], start: int, signs: np.ndarray) -> np.ndarray:
    # A lone surrogate is legal in a str but has no bytes to hash.
    lowered = [text.encode("utf-8", "replace").decode("utf-8").lower() for text in texts[start : start + _BLOCK]]
    words = _buffer([_words(text) for text in lowered])
    runs = _buffer([_SPACES.sub(" ", f"{_BEGIN}{text}{_END}").encode("utf-8") for text in lowered])
    return unit_rows(_project(*words, *runs, signs, *_DAMPING))


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """[N, D] non-zero rows -> float32 of unit length, the norm taken in float64."""
    wide = vectors.astype(np.float64)
    return (wide / np.sqrt(np.square(wide).sum(axis=1, keepdims=True))).astype(np.float32)


def _words(text: str) -> bytes:
    """Runs of word characters, parted by single spaces."""
    if text.isascii():  # the same several times as fast
        return b" ".join(text.encode("ascii").translate(_ASCII_WORDS).split())
    return " ".join(_WORD.findall(text)).encode("utf-8")


def _buffer(encoded: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Texts in UTF-8 -> their bytes one after the other, and where each begins and the last ends, [N + 1]."""
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


@functools.lru_cache(maxsize=2)
def _projection(dim: int) -> np.ndarray:
    """[2 * features, dim] int8, each -1 or 1: raw Philox bits, which no version of NumPy changes."""
    count = 2 * _FEATURES * dim
    raw = np.random.Philox(key=_PROJECTION_KEY).random_raw(-(-count // 64)).astype("<u8")
    return (2 * np.unpackbits(raw.view(np.uint8))[:count].astype(np.int8) - 1).reshape(2 * _FEATURES, dim)


@kernel
def _project(words, word_offsets, runs, run_offsets, signs, word_weights, run_weights):  # type: ignore[no-untyped-def]
    rows, dim = len(word_offsets) - 1, signs.shape[1]
    out = np.empty((rows, dim), np.float32)
    counts, touched = np.zeros(_FEATURES, np.int32), np.empty(_FEATURES, np.int32)
    total, once = np.empty(dim, np.int32), np.empty(dim, np.int16)
    for row in range(rows):
        total[:] = 0
        seen = _count_words(words, word_offsets[row], word_offsets[row + 1], counts, touched)
        _add_signs(counts, touched[:seen], word_weights, signs[:_FEATURES], total, once)
        seen = _count_runs(runs, run_offsets[row], run_offsets[row + 1], counts, touched)
        _add_signs(counts, touched[:seen], run_weights, signs[_FEATURES:], total, once)
        for column in range(dim):
            out[row, column] = total[column]
    return out


@kernel
def _add_signs(counts, touched, weights, signs, total, once):  # type: ignore[no-untyped-def]
    """Adds each touched bucket's signs, and leaves its count at 0 for the next text."""
    # Most buckets are seen once. Their signs add up in 16 bits, of which twice as many fit a register, and are
    # weighed together; the limit keeps the sum inside.
    once[:] = 0
    singles = 0
    for bucket in touched:
        row = signs[bucket]
        if counts[bucket] == 1 and singles < 32_767:
            singles += 1
            for column in range(len(once)):
                once[column] += np.int16(row[column])
        else:
            weight = weights[min(counts[bucket], len(weights) - 1)]
            for column in range(len(total)):
                total[column] += weight * np.int32(row[column])
        counts[bucket] = 0
    for column in range(len(total)):
        total[column] += weights[1] * np.int32(once[column])


@kernel
def _count_words(text, begin, stop, counts, touched):  # type: ignore[no-untyped-def]
    """Words parted by single spaces, and pairs of neighbours with their space between; returns the buckets touched."""
    seen, before, first = 0, begin, begin
    for at in range(begin, stop + 1):
        if at == stop or text[at] == 32:
            if at > begin:
                seen = _count(text, begin, at, counts, touched, seen)
                if begin > first:
                    seen = _count(text, before, at, counts, touched, seen)
            before, begin = begin, at + 1
    return seen


@kernel
def _count_runs(text, begin, stop, counts, touched):  # type: ignore[no-untyped-def]
    """Runs of 3 and of 4 characters, each of one to four bytes; returns the buckets touched."""
    seen = characters = 0
    fourth = third = second = last = begin  # where the characters before the one at hand begin
    for at in range(begin, stop + 1):
        if at < stop and (text[at] & 0xC0) == 0x80:  # inside a character
            continue
        if characters >= 3:
            seen = _count(text, third, at, counts, touched, seen)
        if characters >= 4:
            seen = _count(text, fourth, at, counts, touched, seen)
        fourth, third, second, last = third, second, last, at
        characters += 1
    return seen


@kernel(inline="always")
def _count(text, begin, stop, counts, touched, seen):  # type: ignore[no-untyped-def]
    bucket = np.uint32(abs(np.int64(np.int32(_murmur3(text, begin, stop))))) % np.uint32(_FEATURES)
    if counts[bucket] == 0:
        touched[seen] = bucket
        seen += 1
    counts[bucket] += 1
    return seen


@kernel(inline="always")
def _murmur3(data, begin, stop):  # type: ignore[no-untyped-def]
    """MurmurHash3 x86 32 of data[begin:stop], seed 0 (A. Appleby, 2011, public domain)."""
    hashed, whole = np.uint32(0), begin + (stop - begin) // 4 * 4
    for at in range(begin, whole, 4):
        word = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
        word |= np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)
        hashed = np.uint32(hashed ^ _mixed(np.uint32(word)))
        hashed = np.uint32(np.uint32(hashed << np.uint32(13)) | np.uint32(hashed >> np.uint32(19)))
        hashed = np.uint32(hashed * np.uint32(5) + np.uint32(0xE6546B64))
    tail = np.uint32(0)
    for at in range(stop - 1, whole - 1, -1):
        tail = np.uint32(np.uint32(tail << np.uint32(8)) | np.uint32(data[at]))
    hashed = np.uint32(hashed ^ _mixed(tail) ^ np.uint32(stop - begin))
    hashed = np.uint32((hashed ^ (hashed >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    hashed = np.uint32((hashed ^ (hashed >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(hashed ^ (hashed >> np.uint32(16)))


@kernel(inline="always")
def _mixed(word):  # type: ignore[no-untyped-def]
    word = np.uint32(word * np.uint32(0xCC9E2D51))
    word = np.uint32(word << np.uint32(15)) | np.uint32(word >> np.uint32(17))
    return np.uint32(word * np.uint32(0x1B873593))
