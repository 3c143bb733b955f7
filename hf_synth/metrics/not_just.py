"""How often a text says "not just X but Y", a habit of language models."""

import re
from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, ratio_interval
from .words import letters_only, words

# A negation with "just" or a synonym; then, in the same sentence or at the start of the next, the alternative.
_NEGATION = r"(?:\bnot|n['\u2019]t|\bcannot)\s+(?:just|only|merely|simply|solely)\b"
_IS = r"(?:['\u2019](?:s|re)|\s+(?:is|are|was|were|also))\b"
_INSTEAD = (
    rf"(?:\bbut\b|\brather\b|[,;:\u2013\u2014-]\s*(?:it|they|this|that|he|she|we|you){_IS}"
    rf"|\.\s+(?:it|they|this|that){_IS})"
)
_FIGURE = re.compile(rf"{_NEGATION}[^.!?\n]{{1,120}}?{_INSTEAD}", re.IGNORECASE)


def not_just(texts: Sequence[str], prompts: Sequence[Hashable]) -> dict[str, float]:
    """`not_just`: figures "not just X but Y" per 1,000 words of all texts together, with its interval over prompts.

    texts: completions, in English. prompts: which prompt each belongs to. A figure is a negation (not, n't, cannot)
    with just, only, merely, simply or solely, then at most 120 characters, then "but", "rather", or punctuation and
    "it's", "they are", "this is" and the like: "It isn't just fast; it's free." It is a pattern of words: it also
    matches "not only a friend but a doctor", and misses "more than just X".
    """
    counts = [1000 * len(_FIGURE.findall(text)) for text in texts]
    sizes = [len(letters_only(words(text))) for text in texts]
    return entries("not_just", ratio_interval(counts, sizes, prompts, "not_just"))


NotJust = as_metric(not_just)
