"""Splitting of a text into words, and into n-grams. Formal languages use `str.split` instead."""

import re
from collections.abc import Callable, Sequence

Split = Callable[[str], Sequence[str]]

# Tokens read of each completion. Otherwise longer completions would be more similar, and a block would hold few.
FIRST = 64

# Letters with apostrophes and hyphens inside, one Chinese or Japanese character, or one punctuation mark.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])\w)+(?:['\u2019-]\w+)*|[^\w\s]"
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
