"""Distinct-n: distinct n-grams as a fraction of all n-grams."""

from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, equal_blocks, mean_interval
from .words import FIRST, Split, ngrams, words


def distinct_n(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    orders: Sequence[int] = (1, 2, 3),
    size: int = 1000,
    first: int = FIRST,
    split: Split = words,
) -> dict[str, float]:
    """`distinct_N` for each of `orders`: distinct N-grams / all N-grams, the mean over blocks of `size` N-grams.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. From 1 / size,
    all the same, to 1, no two the same.

    Source: Li et al. (2016), A diversity-promoting objective function for neural conversation models; blocks of equal
    size, because the fraction falls with the amount of text.
    """
    tokens = [split(text)[:first] for text in texts]
    results: dict[str, float] = {}
    for n in orders:
        name = f"distinct_{n}"
        blocks = equal_blocks([ngrams(text, n) for text in tokens], prompts, size, name)
        results |= entries(name, mean_interval([len(set().union(*block)) / size for block in blocks]))
    return results


DistinctN = as_metric(distinct_n)
