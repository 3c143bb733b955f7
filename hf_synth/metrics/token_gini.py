"""Gini of token frequencies: whether a few words do all the work."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from .base import SampleMetric
from .intervals import mean_interval
from .units import entries, equal_blocks
from .words import FIRST, Split, words


def token_gini(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    size: int = 1000,
    first: int = FIRST,
    vocabulary: int | None = None,
    split: Split = words,
) -> dict[str, float]:
    """`token_gini`: how unevenly tokens are used, the mean over blocks of `size` tokens; 0 even, 1 one token alone.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. vocabulary: how
    many different tokens there could be, those that never come counted too; by default `size`. Over the tokens that do
    come, a text of a single word would be perfectly even.

    Source: Gini (1912), as in Zhu et al. (2018) for words; blocks, because frequencies are the less even the longer a
    text is.
    """
    blocks = equal_blocks([split(text)[:first] for text in texts], prompts, size, "token_gini")
    return entries("token_gini", mean_interval([gini(_counts(block), vocabulary or size) for block in blocks]))


def _counts(block: Sequence[Sequence[str]]) -> list[int]:
    return list(Counter(token for tokens in block for token in tokens).values())


def gini(counts: Sequence[int], kinds: int) -> float:
    """The Gini coefficient of counts over `kinds` kinds, those without a count being 0; from 0 to 1 - 1 / kinds."""
    if len(counts) > kinds:
        raise ValueError(f"token_gini: got {len(counts)} different tokens, more than the {kinds} that there could be")
    ordered = np.sort(np.asarray(counts, np.float64))
    ranks = kinds - len(counts) + np.arange(1, len(counts) + 1)
    return float(2 * (ranks * ordered).sum() / (kinds * ordered.sum()) - (kinds + 1) / kinds)


class TokenGini(SampleMetric):
    """`token_gini` as a metric of `evaluate`: `compute(predictions=texts, references=prompts, size=1000)`."""

    measure = staticmethod(token_gini)
