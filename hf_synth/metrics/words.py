"""Splitting of a text into words, and into n-grams. Formal languages use `str.split` instead."""

from collections.abc import Callable, Sequence

import regex

Split = Callable[[str], Sequence[str]]

# Tokens read of each completion. Otherwise longer completions would be more similar, and a block would hold few.
FIRST = 64

# Letters and their vowel signs with apostrophes and hyphens inside, one character of a script without spaces (Chinese,
# Japanese, Thai, Lao, Khmer, Burmese), or one punctuation mark.
_WORD = regex.compile(
    r"[\p{lb=ID}\p{lb=CJ}\p{lb=SA}&&[\p{L}\p{N}\p{M}]]\p{M}*"
    r"|[[\w\p{M}]--[\p{lb=ID}\p{lb=CJ}\p{lb=SA}]]+(?:['\u2019-][\w\p{M}]+)*|[^\w\s]",
    regex.V1,
)


def words(text: str) -> list[str]:
    """Return the lower-case words and punctuation marks of a natural text.

    >>> words("It's not just well-kept — it's fast.")
    ["it's", 'not', 'just', 'well-kept', '—', "it's", 'fast', '.']
    """
    return _WORD.findall(text.lower())


def letters_only(tokens: Sequence[str]) -> list[str]:
    """Return the tokens that are not punctuation marks."""
    return [token for token in tokens if token[0].isalnum()]


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return each run of n tokens, in order."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))
