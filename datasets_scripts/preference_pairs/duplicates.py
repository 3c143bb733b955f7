"""Near duplicates: an exact search for texts that nearly repeat an earlier one."""

from collections.abc import Sequence

import numpy as np

from hf_synth.preferences.segmentation import Parts, taken_apart

SIMILARITY = 0.8  # what it drops from real data is in docs/preferences.md
_BLOCK = 1024


class NearDuplicates:
    """An index of texts, added batch by batch, that finds the first kept text that each nearly repeats.

    Texts are compared in parts: sentences, lines, turns. Two are near duplicates where all parts but one are the same,
    and in the part that differs the similarity is high enough: of all runs of three tokens of both, the share that
    both have (Jaccard's). Numbers, symbols and indentation must be the same; case, and marks that only end a
    sentence, do not count. So a long shared context makes no two questions alike.

    The search is exact: of two sets of such a similarity, the first few runs in any fixed order have one in common
    (Chaudhuri et al., 2006, A primitive operator for similarity joins in data cleaning); long runs come first, as they
    are rare. Runs are compared by hashes of 54 bits. Memory: about three kilobytes for each text that repeats none.

    Attributes:
        similarities: the similarity of each text that repeats another, by its number.
    """

    def __init__(self, similarity: float = SIMILARITY) -> None:
        """`similarity`: from which two texts are near duplicates, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity is {similarity}: wanted a number above 0 and at most 1, such as 0.8.")
        self.similarities: dict[int, float] = {}
        self._similarity = float(similarity)
        self._kept: dict[int, Parts] = {}
        self._first_with: dict[int, int] = {}  # a key -> the first kept text that has it
        self._others_with: dict[int, list[int]] = {}  # and the others, of a key that more than one has
        self._rows = 0

    def add(self, texts: Sequence[str]) -> list[int]:
        """Return for each text its number, counted over all calls, or that of the first kept text that it repeats."""
        rows: list[int] = []
        for start in range(0, len(texts), _BLOCK):
            rows += map(self._add, taken_apart(texts[start : start + _BLOCK], self._similarity))
        return rows

    def _add(self, parts: Parts) -> int:
        row, self._rows = self._rows, self._rows + 1
        shared = self._first_with.keys() & parts.keys
        rows = {self._first_with[key] for key in shared}
        rows.update(*(self._others_with.get(key, ()) for key in shared))
        for other in sorted(rows):
            similarity = _similarity(parts, self._kept[other])
            if similarity >= self._similarity:
                self.similarities[row] = similarity
                return other
        self._kept[row] = parts._replace(keys=[])
        self._first_with |= dict.fromkeys(shared.symmetric_difference(parts.keys) if shared else parts.keys, row)
        for key in shared:
            self._others_with.setdefault(key, []).append(row)
        return row


def _similarity(parts: Parts, twin: Parts) -> float:
    """Return the highest similarity of parts in the same place; 0 where short parts say other things."""
    fewer, more = sorted((parts.short, twin.short), key=len)
    left = iter(more)
    if not all(short in left for short in fewer):  # `Please.` may be added; `Why?` is not `How?`
        return 0.0
    highest = 0.0
    for runs, others in zip(np.split(parts.runs, parts.run_stops[:-1]), parts.others, strict=True):
        for of_twin, place in zip(np.split(twin.runs, twin.run_stops[:-1]), twin.others, strict=True):
            if place == others:
                both = np.intersect1d(runs, of_twin, assume_unique=True).size
                highest = max(highest, both / (runs.size + of_twin.size - both))
    return highest
