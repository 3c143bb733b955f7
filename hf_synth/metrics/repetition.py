"""Repetition: how much of a text says again what it said just before."""

from collections import Counter
from collections.abc import Hashable, Sequence

from .base import SampleMetric
from .intervals import ratio_interval
from .units import entries, sums_by_prompt
from .words import Split, ngrams, words


def repetition(
    texts: Sequence[str], prompts: Sequence[Hashable], *, order: int = 4, window: int = 64, split: Split = words
) -> dict[str, float]:
    """`repetition`: the share of n-grams of `order` tokens that one of the `window` n-grams before was, from 0 to 1.

    texts: completions. prompts: which prompt each belongs to. Of all texts together, with its interval over prompts;
    NaN where no text has n-grams. The window keeps a long text from counting as repetitive for its length.

    Source: Welleck et al. (2020), Neural text generation with unlikelihood training: seq-rep-n, within a window as
    their rep/l.
    """
    grams = [ngrams(split(text), order) for text in texts]
    again = [_repeated(text, window) for text in grams]
    return entries(
        "repetition", ratio_interval(*sums_by_prompt(again, [len(text) for text in grams], prompts, "repetition"))
    )


def _repeated(grams: Sequence[tuple[str, ...]], window: int) -> int:
    """How many were among the `window` before them."""
    recent: Counter[tuple[str, ...]] = Counter()
    found = 0
    for place, gram in enumerate(grams):
        found += recent[gram] > 0
        recent[gram] += 1
        if place >= window:
            recent[grams[place - window]] -= 1
    return found


class Repetition(SampleMetric):
    """`repetition` as a metric of `evaluate`: `compute(predictions=texts, references=prompts)`."""

    measure = staticmethod(repetition)
