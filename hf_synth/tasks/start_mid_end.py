"""START MID{n} END: one START, one or more MID, one END."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, TaskConfig, Violation, bounded
from hf_synth.tasks.families.grammars import Grammar, end_chance, framed, random_below, replaced

_START, _MIDDLE, _END, _OPEN, _CLOSE = range(FIRST_CONTENT, FIRST_CONTENT + 5)


@dataclasses.dataclass(frozen=True)
class StartMidEndConfig(TaskConfig):
    """The number of middles is uniform on 1 .. max_middle."""

    max_middle: int = bounded(10, 1, 10_000)


class StartMidEnd(Grammar[StartMidEndConfig]):
    """`<bos> START MID MID END <eos>`; loss on every token after `<bos>`.

    >>> StartMidEnd().verify("START MID", "MID END")
    1.0
    """

    name = "start_mid_end"
    version = 1
    config_class = StartMidEndConfig
    presets = {"default": StartMidEndConfig(), "long": StartMidEndConfig(max_middle=100)}
    source = "Hyperdata grammar experiment, grammar 1 (github.com/tractatus1889/hyperdata)"

    words: ClassVar[tuple[str, str, str]] = ("START", "MID", "END")

    def vocabulary(self) -> tuple[str, ...]:
        """The three words, then the delimiters where the language has them."""
        return (*self.words, *self.delimiters)

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform number of middles."""
        middles = rng.integers(1, self.config.max_middle + 1, 1)[:, 0]
        return self._with_middles(middles)

    def is_sentence(self, words: list[str]) -> bool:
        """One start, middles, one end."""
        start, middle, end = self.words
        return len(words) >= 3 and words == [start, *[middle] * (len(words) - 2), end]

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Move the last word of what may change to an earlier place; a single word becomes another one."""
        every, last, position = np.arange(len(rows)), rows.lengths - 2, np.arange(rows.tokens.shape[1])
        movable = last - rows.loss_start
        target = rows.loss_start + random_below(movable, rng)
        later = (position > target[:, None]) & (position <= last[:, None])
        wrong = rows.copy()
        wrong.tokens = np.take_along_axis(rows.tokens, position - later, axis=1)
        wrong.tokens[every, target] = np.where(movable > 0, rows.tokens[every, last], _MIDDLE)
        return wrong

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """After m middles the string ends with probability 1 / (max_middle - m + 1); all else is certain."""
        seen = positions[:, :, None] - 1 - self._first
        end = end_chance(seen, self.config.max_middle)
        chance = np.where(tokens == _END, end, (1.0 - end) * (tokens == _MIDDLE))
        among = (seen >= 0) & (seen <= self._middles(rows)[:, None, None])
        return np.where(among, chance, rows.have(positions, tokens))

    def statements(self) -> tuple[str, ...]:
        """The two ends, the middle, and the shortest sentence."""
        start, middle, end = self.words
        language = f"the language of {start}, {middle} and {end}"
        return (
            f"A sentence of {language} opens with a single {start} and closes with a single {end}.",
            f"In {language}, only {middle} stands between {start} and {end}, once or several times.",
            f"The shortest sentence of {language} is {start} {middle} {end}; {start} {end} is not a sentence.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """Each word missing or doubled, and a wrong order; only a missing middle cannot keep the length."""
        return {
            "missing_middle": Violation(lambda rows, rng: self._with_middles(0 * rows.lengths), keeps_length=False),
            "missing_start": Violation(lambda rows, rng: replaced(rows, (self._first, _MIDDLE))),
            "missing_end": Violation(lambda rows, rng: replaced(rows, (self._last(rows), _MIDDLE))),
            "wrong_order": Violation(self._wrong_order),
            "doubled_start": Violation(self._doubled(_START)),
            "doubled_end": Violation(self._doubled(_END)),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """After the start only a middle; after fewer middles than the most, both a middle and the end."""
        start, middle, end = self.words
        opening = " ".join([*self.delimiters[:1], start])
        points = {
            0: DecisionPoint("after start", opening, (middle,), (end, start)),
            1: DecisionPoint("after one middle", f"{opening} {middle}", (middle, end), (start,)),
            3: DecisionPoint("after three middles", f"{opening} {middle} {middle} {middle}", (middle, end), (start,)),
        }
        return tuple(point for seen, point in points.items() if seen < self.config.max_middle)

    def contents(self) -> int:
        """One string a number of middles."""
        return self.config.max_middle

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The number of middles, less one."""
        return self._middles(rows).astype(np.int64) - 1

    @property
    def _first(self) -> int:
        return 1 + len(self.delimiters) // 2

    def _last(self, rows: Rows) -> np.ndarray:
        return self._first + 1 + self._middles(rows)

    def _middles(self, rows: Rows) -> np.ndarray:
        return rows.lengths - 4 - len(self.delimiters)

    def _wrong_order(self, rows: Rows, rng: RowRandom) -> Rows:
        """Start and end at two random places, any but the right two."""
        middles = self._middles(rows)
        start, end = np.divmod(1 + random_below((middles + 2) * (middles + 1) - 1, rng), middles + 1)
        end = middles - end  # among the places that the start leaves, so that 0 would be the right order
        end += end >= start
        ends = ((self._first, _MIDDLE), (self._last(rows), _MIDDLE))
        return replaced(rows, *ends, (self._first + start, _START), (self._first + end, _END))

    def _doubled(self, word: int) -> Callable[[Rows, RowRandom], Rows]:
        """`word` instead of a random middle."""
        return lambda rows, rng: replaced(rows, (self._first + 1 + random_below(self._middles(rows), rng), word))

    def _with_middles(self, middles: np.ndarray) -> Rows:
        """Rows of as many middles as given, int [rows]."""
        words = np.broadcast_to(np.int32(_MIDDLE), (len(middles), int(middles.max(initial=0))))
        opening, closing = ((_OPEN,), (_CLOSE,)) if self.delimiters else ((), ())
        return framed(words, middles, (*opening, _START), (_END, *closing))
