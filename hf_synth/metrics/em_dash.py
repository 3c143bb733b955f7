"""Em dashes per 1,000 words, a habit of language models."""

from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, ratio_interval
from .words import letters_only, words

EM_DASH = "\u2014"


def em_dash(texts: Sequence[str], prompts: Sequence[Hashable]) -> dict[str, float]:
    """`em_dash`: em dashes (U+2014) per 1,000 words of all texts together, with its interval over prompts.

    texts: completions. prompts: which prompt each belongs to. Double hyphens and en dashes do not count.
    """
    counts = [1000 * text.count(EM_DASH) for text in texts]
    sizes = [len(letters_only(words(text))) for text in texts]
    return entries("em_dash", ratio_interval(counts, sizes, prompts, "em_dash"))


EmDash = as_metric(em_dash)
