"""Vendi score: the effective number of distinct completions."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from .base import as_metric
from .checks import as_float64
from .intervals import across, entries, mean_interval, within
from .words import FIRST, Split, ngrams, words

_ORDERS = 4


def vendi(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
    prompts_at_once: int = 16,
    first: int = FIRST,
    split: Split = words,
    seed: int = 0,
) -> dict[str, float]:
    """The effective number of distinct texts among m: 1 if all are the same, m if no two have anything in common.

    texts: completions. prompts: which prompt each belongs to. embeddings: float [texts, width], whose cosine is
    the similarity of two texts; by default counts of n-grams, n = 1 to 4, which ignore meaning.
    first: how many tokens of each are read for n-grams; otherwise longer texts would be more similar.

    `vendi`: among the completions of a prompt, m being the smallest number a prompt has. `vendi/across`: among one
    completion each of `prompts_at_once` prompts, grouped at random by `seed`. Means, with intervals over prompts; each
    is left out if there is no group. Scores of different m are not comparable.

    Source: Friedman and Dieng (2023), The Vendi score, arXiv 2210.02410, definition 3.1, of order 1.
    """
    if embeddings is None:
        # Empty texts have one n-gram, ().
        counter = CountVectorizer(
            analyzer=lambda own: [gram for n in range(1, _ORDERS + 1) for gram in ngrams(own, n)] or [()]
        )
        rows = normalize(counter.fit_transform([split(text)[:first] for text in texts]))
    else:
        rows = _directions(as_float64("vendi", embeddings), len(texts))
    numbers = list(range(len(texts)))
    results: dict[str, float] = {}
    if groups := within(numbers, prompts, "vendi"):
        results |= entries("vendi", mean_interval([vendi_score(rows[group]) for group in groups]))
    if groups_across := across(numbers, prompts, prompts_at_once, "vendi", seed):
        means = [float(np.mean([vendi_score(rows[list(group)]) for group in many])) for many in groups_across]
        results |= entries("vendi/across", mean_interval(means))
    return results


def vendi_score(directions: Any) -> float:
    """Return exp(entropy of the eigenvalues of similarities / m) of unit vectors [m, width], dense or sparse."""
    similar = directions @ directions.T
    p = np.linalg.eigvalsh(np.asarray(similar.todense() if hasattr(similar, "todense") else similar))
    p = np.clip(p / len(p), 1e-12, None)  # rounding makes zeros slightly negative
    return float(np.exp(-(p * np.log(p)).sum()))


def _directions(embeddings: np.ndarray, texts: int) -> np.ndarray:
    """Return the rows scaled to unit length."""
    if embeddings.ndim != 2 or len(embeddings) != texts:
        raise ValueError(f"vendi: got embeddings of shape {embeddings.shape} for {texts} texts, wanted one row each")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if (bad := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))).size:
        raise ValueError(
            f"vendi: got an embedding of zeros, NaN or infinity in row {bad[0]}; drop it or embed it again"
        )
    return embeddings / lengths


Vendi = as_metric(vendi)
