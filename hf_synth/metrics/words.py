"""Words of a text, for measures of text: one way for natural text; formal languages are split at white space."""

import re
from collections.abc import Callable, Sequence

Split = Callable[[str], Sequence[str]]

# Tokens of each completion that are read where completions are compared: long ones are not alike for their length, and
# a block of text holds many.
FIRST = 64

# Letters with what joins them, a Chinese or Japanese character by itself, or one mark.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])\w)+(?:['\u2019-]\w+)*|[^\w\s]"
)


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a natural text.

    >>> words("It's not just well-kept — it's fast.")
    ["it's", 'not', 'just', 'well-kept', '—', "it's", 'fast', '.']
    """
    return _WORD.findall(text.lower())


def letters_only(tokens: Sequence[str]) -> list[str]:
    """Those that are no punctuation marks."""
    return [token for token in tokens if token[0].isalnum()]


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Each run of n tokens, in their order."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))
