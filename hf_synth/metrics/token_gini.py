"""Gini coefficient of token frequencies: how unequally often tokens are used."""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from .base import as_metric
from .intervals import entries, equal_blocks, mean_interval
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
    """`token_gini`: the mean over blocks of `size` tokens; from 0, all equally often, to 1, one token alone.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. vocabulary: the
    number of possible tokens, by default `size`; unused ones count as 0. Over used tokens alone, a text of a single
    word would be perfectly equal.

    Source: Gini (1912), as in Zhu et al. (2018) for words; blocks, because inequality grows with the amount of text.
    """
    blocks = equal_blocks([split(text)[:first] for text in texts], prompts, size, "token_gini")
    counts = [list(Counter(chain.from_iterable(block)).values()) for block in blocks]
    return entries("token_gini", mean_interval([gini(own, vocabulary or size) for own in counts]))


def gini(counts: Sequence[int], kinds: int) -> float:
    """Return the Gini coefficient of counts over `kinds` kinds, unlisted ones being 0; from 0 to 1 - 1 / kinds."""
    if len(counts) > kinds:
        raise ValueError(f"token_gini: got {len(counts)} different tokens, wanted at most {kinds}; raise `vocabulary`")
    ordered = np.sort(np.asarray(counts, np.float64))
    ranks = kinds - len(counts) + np.arange(1, len(counts) + 1)
    return float(2 * (ranks * ordered).sum() / (kinds * ordered.sum()) - (kinds + 1) / kinds)


TokenGini = as_metric(token_gini)
