"""Vendi score: the effective number of different completions."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from .base import SampleMetric
from .intervals import mean_interval
from .units import across, entries, within
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
    """The effective number of different texts among m: 1 where all are the same, m where no two are alike.

    texts: completions. prompts: which prompt each belongs to. embeddings: float [texts, width], for the cosine that
    says how alike two are; by default of their n-gram counts, n = 1 to 4, which know no meaning.
    first: how many tokens of each are read for these, so that long texts are not alike for their length.

    `vendi`: among the completions of a prompt, m the fewest that one has. `vendi/across`: among one completion each of
    `prompts_at_once` prompts, which `seed` groups. Means, with intervals over prompts; each is left out where there
    is no group. Scores of different m do not compare.

    Source: Friedman and Dieng (2023), The Vendi score, arXiv 2210.02410, definition 3.1, of order 1.
    """
    if embeddings is None:
        rows = normalize(_profiles([split(text)[:first] for text in texts]))
    else:
        rows = _directions(np.asarray(embeddings, np.float64), len(texts))
    numbers = list(range(len(texts)))
    found: dict[str, float] = {}
    if groups := within(numbers, prompts, "vendi"):
        found |= entries("vendi", mean_interval([vendi_score(rows[group]) for group in groups]))
    if groups_across := across(numbers, prompts, prompts_at_once, "vendi", seed):
        means = [float(np.mean([vendi_score(rows[list(group)]) for group in many])) for many in groups_across]
        found |= entries("vendi/across", mean_interval(means))
    return found


def vendi_score(directions: Any) -> float:
    """Exp of the entropy of the eigenvalues of the similarities / m, of unit vectors [m, width], dense or sparse."""
    similar = directions @ directions.T
    chances = np.linalg.eigvalsh(np.asarray(similar.todense() if hasattr(similar, "todense") else similar))
    chances = np.clip(chances / len(chances), 1e-12, None)  # rounding leaves zeros a little below
    return float(np.exp(-(chances * np.log(chances)).sum()))


def _profiles(texts: Sequence[Sequence[str]]) -> Any:
    """How often each n-gram comes in each text, sparse [texts, n-grams]; an empty text has one of its own."""

    def every_order(tokens: Sequence[str]) -> list[tuple[str, ...]]:
        return [gram for n in range(1, _ORDERS + 1) for gram in ngrams(tokens, n)] or [()]

    return CountVectorizer(analyzer=every_order).fit_transform(texts)


def _directions(embeddings: np.ndarray, texts: int) -> np.ndarray:
    """The rows scaled to unit length."""
    if embeddings.ndim != 2 or len(embeddings) != texts:
        raise ValueError(f"vendi: got embeddings of shape {embeddings.shape} for {texts} texts, wanted one row each")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if (bad := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))).size:
        raise ValueError(
            f"vendi: got an embedding of zeros, NaN or infinity in row {bad[0]}; drop it or embed it again"
        )
    return embeddings / lengths


class Vendi(SampleMetric):
    """`vendi` as a metric of `evaluate`: `compute(predictions=texts, references=prompts, embeddings=...)`."""

    measure = staticmethod(vendi)
