"""Repetition: how much of a text repeats what stands shortly before."""

from collections import Counter
from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, ratio_interval
from .words import Split, ngrams, words


def repetition(
    texts: Sequence[str], prompts: Sequence[Hashable], *, order: int = 4, window: int = 64, split: Split = words
) -> dict[str, float]:
    """`repetition`: the fraction of n-grams of `order` tokens that are among the `window` n-grams before them.

    texts: completions. prompts: which prompt each belongs to. Of all texts together, with its interval over prompts;
    NaN if no text has n-grams. Without the window, a longer text would be more repetitive by its length alone.

    Source: Welleck et al. (2020), Neural text generation with unlikelihood training: seq-rep-n, within a window as
    their rep/l.
    """
    grams = [ngrams(split(text), order) for text in texts]
    counts = [_repeated(text, window) for text in grams]
    return entries("repetition", ratio_interval(counts, [len(text) for text in grams], prompts, "repetition"))


def _repeated(grams: Sequence[tuple[str, ...]], window: int) -> int:
    """Return how many n-grams were among the `window` before them."""
    recent: Counter[tuple[str, ...]] = Counter()
    repeated = 0
    for position, gram in enumerate(grams):
        repeated += recent[gram] > 0
        recent[gram] += 1
        if position >= window:
            recent[grams[position - window]] -= 1
    return repeated


Repetition = as_metric(repetition)
