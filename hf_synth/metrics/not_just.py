"""Not just X but Y: how often a text has this figure of speech, a habit that language models fall into."""

import re
from collections.abc import Hashable, Sequence

from .base import SampleMetric
from .intervals import ratio_interval
from .units import entries, sums_by_prompt
from .words import letters_only, words

# A negation with "just" or its like, then in its sentence, or at the start of the next, what it is instead.
_DENIED = r"(?:\bnot|n['\u2019]t|\bcannot)\s+(?:just|only|merely|simply|solely)\b"
_IS = r"(?:['\u2019](?:s|re)|\s+(?:is|are|was|were|also))\b"
_INSTEAD = (
    rf"(?:\bbut\b|\brather\b|[,;:\u2013\u2014-]\s*(?:it|they|this|that|he|she|we|you){_IS}"
    rf"|\.\s+(?:it|they|this|that){_IS})"
)
_FIGURE = re.compile(rf"{_DENIED}[^.!?\n]{{1,120}}?{_INSTEAD}", re.IGNORECASE)


def not_just(texts: Sequence[str], prompts: Sequence[Hashable]) -> dict[str, float]:
    """`not_just`: figures "not just X but Y" per 1,000 words of all texts together, with its interval over prompts.

    texts: completions, in English. prompts: which prompt each belongs to. A figure is a negation (not, n't, cannot)
    with just, only, merely, simply or solely, then at most 120 characters, then "but", "rather", or a mark and "it's",
    "they are", "this is" and the like: "It isn't just fast; it's free." A pattern of words: it takes "not only a
    friend but a doctor" for the figure too, and misses "more than just X".
    """
    counts = [1000 * len(_FIGURE.findall(text)) for text in texts]
    sizes = [len(letters_only(words(text))) for text in texts]
    return entries("not_just", ratio_interval(*sums_by_prompt(counts, sizes, prompts, "not_just")))


class NotJust(SampleMetric):
    """`not_just` as a metric of `evaluate`: `compute(predictions=texts, references=prompts)`."""

    measure = staticmethod(not_just)
