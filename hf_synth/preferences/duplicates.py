"""Near duplicates: an exact search for texts that nearly repeat an earlier one."""

import functools
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import regex

SIMILARITY = 0.8  # what it drops from real data is in docs/preferences.md
_SHORT = 3  # tokens: what is shorter (`Please.`, `user:`) belongs to the part before it

# Parts of a line, what says nothing inside them taken out, and their tokens: of ASCII, and of all others. Tokens are
# those of Unicode's word segmentation: words with their vowel signs, characters of scripts without spaces, symbols.
_ASCII = (
    re.compile(r"[.?!:;]+['\")\]]*(?:\s|\Z)").split,
    re.compile(r"['\",]+(?=\s|\Z)|(?:(?<=\s)|\A)['\"]+").sub,
    re.compile(r"\w+(?:(?:(?<=[^\W\d_])['.:](?=[^\W\d_])|(?<=\d)['.,;](?=\d))\w+)*|[^\w\s]").findall,
)
_OTHERS = (
    regex.compile(r"(?V1)[.?!:;]+['\")\]\p{QMark}]*(?:\s|\Z)|[[\p{STerm}\uff1a\uff1b\u2026]--[\x00-\x7f]]+").split,
    regex.compile(
        r"(?V1)[',\p{QMark}]+(?=\s|\Z)|(?:(?<=\s)|\A)['\p{QMark}]+|[[\p{Term}\p{QMark}\u00bf\u00a1]--[\x00-\x7f]]"
    ).sub,
    regex.compile(r"(?V1w)\b").split,
)
_EXACT = regex.compile(r"\p{N}|\A[\p{S}\p{P}]")
_FACTORIAL = re.compile(r"(?<=[\d)\]])!")


@dataclass(frozen=True)
class _Parts:
    """A text in parts: sentences, lines and turns, as runs of three tokens.

    A shared word says little, a shared run of three says that text was copied.

    runs: of each part. others: for each part, a hash of all other parts, and of what has to be the same. short: parts
    of one or two tokens, which were added to the ones before.
    """

    runs: tuple[frozenset[str], ...]
    others: tuple[int, ...]
    short: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def _parts(text: str) -> _Parts:
    lowered = text.lower()
    if "!" in lowered:
        lowered = _FACTORIAL.sub("\u2757", lowered)
    split_line, remove_silent, split_part = _ASCII if lowered.isascii() else _OTHERS
    if not lowered.isascii():
        lowered = unicodedata.normalize("NFC", lowered).replace("\u2019", "'")
    parts: list[list[str]] = []
    exact: list[str] = []  # numbers, symbols and indentation: a text that differs there asks for something else
    short: list[str] = []
    for number, line in enumerate(lowered.split("\n")):
        if number and line[:1] in ("\t", " ") and line.strip():
            exact.append(line[: len(line) - len(line.lstrip())])
        for piece in split_line(line):
            tokens = [token for token in split_part(remove_silent(" ", piece)) if token.strip()]
            exact += [token for token in tokens if not token.isalpha() and _EXACT.search(token)]
            if parts and 0 < len(tokens) < _SHORT:
                parts[-1] += tokens
                short.append(" ".join(tokens))
            elif tokens:
                parts.append(tokens)
    runs = [
        frozenset(" ".join(run) for run in zip(part, part[1:], part[2:], strict=False)) or frozenset([" ".join(part)])
        for part in parts or [[text.strip()]]
    ]
    hashes = list(map(hash, runs))
    total, same = sum(hashes), hash(tuple(exact))
    return _Parts(tuple(runs), tuple(hash((total - own, same)) for own in hashes), tuple(short))


class NearDuplicates:
    """An index of texts, added batch by batch, that finds the first kept text that each nearly repeats.

    Two texts are near duplicates where all parts (sentences, lines, turns) but one are the same, and of all runs of
    three tokens of that part in both, the fraction that both have (Jaccard's similarity) is high enough. Numbers,
    symbols and indentation must be the same; case, and marks that only end a sentence, do not count.

    The search is exact: of two sets of such a similarity, the first few runs in any fixed order have one in common
    (Chaudhuri et al., 2006, A primitive operator for similarity joins in data cleaning); long runs come first, as they
    are rare. Memory: about three kilobytes for each text that repeats none.

    Attributes:
        similarities: the similarity of each text that repeats another, by its number.
    """

    def __init__(self, similarity: float = SIMILARITY) -> None:
        """`similarity`: from which two texts are near duplicates, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity is {similarity}: wanted a number above 0 and at most 1, such as 0.8.")
        self.similarities: dict[int, float] = {}
        self._similarity = similarity
        self._texts: dict[int, str] = {}  # those that were kept
        self._rows_with: dict[int, list[int]] = {}  # hash of a run and of the other parts -> kept texts
        self._rows = 0

    def add(self, texts: Iterable[str]) -> list[int]:
        """Return for each text its number, counted over all calls, or that of the first kept text that it repeats."""
        return [self._add(text) for text in texts]

    def _add(self, text: str) -> int:
        row, parts, keys, first = self._rows, _parts(text), [], None
        self._rows += 1
        for runs, others in zip(parts.runs, parts.others, strict=True):
            ordered = sorted(sorted(runs), key=len, reverse=True)
            prefix = ordered[: len(ordered) - math.ceil(self._similarity * len(ordered) - 1e-9) + 1]
            own = [hash((run, others)) for run in prefix]
            keys += own
            for other in sorted({kept for key in own for kept in self._rows_with.get(key, ())}):
                if first is not None and other >= first:
                    break
                similarity = _similarity(parts, runs, others, _parts(self._texts[other]))
                if similarity >= self._similarity:
                    first, self.similarities[row] = other, similarity
        if first is not None:
            return first
        self._texts[row] = text
        for key in keys:
            self._rows_with.setdefault(key, []).append(row)
        return row


def _similarity(parts: _Parts, runs: frozenset[str], others: int, twin: _Parts) -> float:
    """Return the similarity of a part with the twin's in the same place; 0 where short parts say other things."""
    fewer, more = sorted((parts.short, twin.short), key=len)
    left = iter(more)
    if not all(short in left for short in fewer):  # `Please.` may be added; `Why?` is not `How?`
        return 0.0
    of_twin = [own for own, rest in zip(twin.runs, twin.others, strict=True) if rest == others]
    return max((len(runs & other) / len(runs | other) for other in of_twin), default=0.0)


def near_duplicates(texts: Iterable[str], *, similarity: float = SIMILARITY) -> np.ndarray:
    """Return for each of N texts the row of the first kept text that it nearly repeats, or its own row: [N] int64."""
    return np.array(NearDuplicates(similarity).add(texts), dtype=np.int64)
