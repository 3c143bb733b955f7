"""Compression ratio: how much of a text is repetition, of any length."""

import zlib
from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, equal_blocks, mean_interval
from .words import FIRST, Split, words


def compression(
    texts: Sequence[str], prompts: Sequence[Hashable], *, size: int = 1000, first: int = FIRST, split: Split = words
) -> dict[str, float]:
    """`compression`: bytes / compressed bytes, the mean over blocks of `size` tokens; higher means more repetitive.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. Tokens are
    joined by spaces, texts by newlines, and compressed by zlib at level 9. Ratios of different block sizes, or of
    languages with different word lengths, are not comparable.

    Source: Shaib et al. (2024), Standardizing the measurement of text diversity, arXiv 2403.00553.
    """
    blocks = equal_blocks([split(text)[:first] for text in texts], prompts, size, "compression")
    raw = ["\n".join(map(" ".join, block)).encode() for block in blocks]
    return entries("compression", mean_interval([len(text) / len(zlib.compress(text, 9)) for text in raw]))


Compression = as_metric(compression)
