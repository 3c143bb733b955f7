"""The compiled hashing against scikit-learn's HashingVectorizer, to the last bit."""

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from hf_synth.sampling import hashing
from hf_synth.sampling.hashing import hash_texts, unit_rows

FEATURES = 2**15
DIM = 24


def oracle(texts, dim=DIM):
    """What the embedder is defined as: two vectorizers, damped counts, fixed signs."""
    texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    options = {"n_features": FEATURES, "alternate_sign": False, "norm": None}
    find = regex.compile(r"[\w\p{M}\p{N}]+").findall
    words = HashingVectorizer(analyzer="word", tokenizer=find, token_pattern=None, ngram_range=(1, 2), **options)
    runs = HashingVectorizer(analyzer="char", ngram_range=(3, 4), **options)
    word_counts, run_counts = words.transform(texts), runs.transform([f"\x02\x02{text}\x03\x03" for text in texts])
    word_counts.data, run_counts.data = np.rint(8 * np.sqrt(word_counts.data)), np.rint(4 * np.sqrt(run_counts.data))
    signs = hashing._projection(dim).astype(np.float64)
    return unit_rows(np.asarray(word_counts @ signs[:FEATURES] + run_counts @ signs[FEATURES:]))


ODD = [
    "",
    " ",
    "\n\n\t",
    "a",
    "a b",
    "A  B",
    "é" * 5000,
    "ΑΣ ΑΣΑ",
    "İstanbul ǅ ß ﷺ",
    "\ud800x",
    "\x00",
    "😀 中文 字",
    "a_b-c",
    "\u0926\u093f\u0928 \u0926\u0940\u0928 \u0bb2\u0bc8 \u00bc",  # vowel signs
]


@pytest.mark.parametrize("texts", [ODD, ["word " * 3000], [f"text {number}" for number in range(700)]])
def test_equals_the_vectorizers(texts):
    np.testing.assert_array_equal(hash_texts(texts, DIM), oracle(texts))


@given(st.lists(st.text(max_size=40), max_size=5))
def test_equals_the_vectorizers_on_any_text(texts):
    np.testing.assert_array_equal(hash_texts(texts, DIM), oracle(texts) if texts else np.empty((0, DIM), "f4"))


def test_more_buckets_than_fit_in_16_bits():
    """Sums over the buckets that are seen once must not run over."""
    counts, touched = np.ones(40_000, np.int32), np.arange(40_000, dtype=np.int32)
    signs, total = np.ones((40_000, 3), np.int8), np.zeros(3, np.int32)
    hashing._add_signs(counts, touched, np.array([0, 8], np.int32), signs, total, np.empty(3, np.int16))
    assert total.tolist() == [320_000] * 3
    assert not counts.any()


@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_change_nothing(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    texts = [f"a text about {number} things" for number in range(1000)]
    np.testing.assert_array_equal(hash_texts(texts, DIM), oracle(texts))
