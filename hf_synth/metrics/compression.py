"""Compression: how much smaller text becomes when what it repeats is written once."""

import zlib
from collections.abc import Hashable, Sequence

from .base import SampleMetric
from .intervals import mean_interval
from .units import entries, equal_blocks
from .words import FIRST, Split, words


def compression(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    size: int = 1000,
    first: int = FIRST,
    split: Split = words,
) -> dict[str, float]:
    """`compression`: bytes / compressed bytes, the mean over blocks of `size` tokens; higher is more repetitive.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read. They are joined
    by blanks, texts by line ends, and zlib compresses at level 9. Ratios of blocks of different sizes, or of languages
    of longer words, do not compare.

    Source: Shaib et al. (2024), Standardizing the measurement of text diversity, arXiv 2403.00553.
    """
    blocks = equal_blocks([split(text)[:first] for text in texts], prompts, size, "compression")
    return entries("compression", mean_interval([_ratio(block) for block in blocks]))


def _ratio(block: Sequence[Sequence[str]]) -> float:
    text = "\n".join(map(" ".join, block)).encode()
    return len(text) / len(zlib.compress(text, 9))


class Compression(SampleMetric):
    """`compression` as a metric of `evaluate`: `compute(predictions=texts, references=prompts, size=1000)`."""

    measure = staticmethod(compression)
