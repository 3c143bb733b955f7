"""Distinct-n: the share of different n-grams among all."""

from collections.abc import Hashable, Sequence

from .base import SampleMetric
from .intervals import mean_interval
from .units import entries, equal_blocks
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
    """`distinct_N` for each of `orders`: different N-grams / N-grams, the mean over blocks of `size` N-grams.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. From 1 / size,
    one over and over, to 1, none twice.

    Source: Li et al. (2016), A diversity-promoting objective function for neural conversation models; blocks of equal
    size, because the share falls with the amount of text.
    """
    tokens = [split(text)[:first] for text in texts]
    found: dict[str, float] = {}
    for n in orders:
        name = f"distinct_{n}"
        blocks = equal_blocks([ngrams(text, n) for text in tokens], prompts, size, name)
        found |= entries(name, mean_interval([len(set().union(*block)) / size for block in blocks]))
    return found


class DistinctN(SampleMetric):
    """`distinct_n` as a metric of `evaluate`: `compute(predictions=texts, references=prompts, size=1000)`."""

    measure = staticmethod(distinct_n)
