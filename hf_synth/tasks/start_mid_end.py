"""START MID{n} END with n >= 1: the simplest language of the hyperdata experiments."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, Task, TaskConfig, Violation, bounded

_START, _MIDDLE, _END, _OPEN, _CLOSE = range(FIRST_CONTENT, FIRST_CONTENT + 5)


@dataclasses.dataclass(frozen=True)
class StartMidEndConfig(TaskConfig):
    """The number of middles is uniform on 1 .. max_middle."""

    max_middle: int = bounded(10, 1, 10_000)


class StartMidEnd(Task[StartMidEndConfig]):
    """`<bos> START MID MID END <eos>`; loss on every token after `<bos>`.

    >>> StartMidEnd().verify("START MID", "MID END")
    1.0
    """

    name = "start_mid_end"
    version = 1
    config_class = StartMidEndConfig
    presets = {"default": StartMidEndConfig()}
    source = "Hyperdata grammar experiment, grammar 1"

    words: ClassVar[tuple[str, str, str]] = ("START", "MID", "END")
    delimiters: ClassVar[tuple[str, ...]] = ()

    def vocabulary(self) -> tuple[str, ...]:
        """The three words, then the delimiters where the language has them."""
        return (*self.words, *self.delimiters)

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform number of middles."""
        middles = rng.integers(1, self.config.max_middle + 1, 1)[:, 0]
        return self._shaped(middles, (_START,), (_END,))

    def verify(self, prompt: str, completion: str) -> float:
        """Whether prompt and completion together are one string of the language, and nothing else."""
        words = f"{prompt} {completion}".split()
        if self.delimiters:
            if len(words) < 2 or (words[0], words[-1]) != self.delimiters:
                return 0.0
            words = words[1:-1]
        start, middle, end = self.words
        return float(len(words) >= 3 and words == [start, *[middle] * (len(words) - 2), end])

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Move the last word of what may change to an earlier place; a single word becomes another one."""
        wrong = rows.select(np.arange(len(rows)))
        every = np.arange(len(rows))
        last = rows.lengths - 2
        movable = last - rows.loss_start
        target = rows.loss_start + np.floor(rng.random(1)[:, 0] * movable).astype(np.int32)
        position = np.arange(rows.tokens.shape[1])
        shifted = np.roll(rows.tokens, 1, axis=1)
        inside = (position > target[:, None]) & (position <= last[:, None])
        np.copyto(wrong.tokens, shifted, where=inside & (movable > 0)[:, None])
        final = rows.tokens[every, last]
        wrong.tokens[every, target] = np.where(movable > 0, final, _MIDDLE)
        return wrong

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """After m middles the string ends with probability 1 / (max_middle - m + 1); all else is certain."""
        first = 2 + len(self.delimiters) // 2
        count = self._middles(rows)[:, None]
        seen = np.arange(rows.tokens.shape[1]) - first
        left = np.where((seen >= 1) & (seen <= count), self.config.max_middle - seen + 1.0, 1.0)
        chance = np.where(seen == count, 1.0 / left, 1.0 - 1.0 / left)
        decided = (seen >= 1) & (seen <= count) & rows.loss_mask
        return np.log(np.where(decided, chance, 1.0))

    def explanations(self) -> tuple[str, ...]:
        """One block."""
        start, middle, end = self.words
        return (
            f"A sentence of this language opens with a single {start} and closes with a single {end}. "
            f"Between them stands {middle}, once or several times, and no other word. "
            f"The shortest sentence is {start} {middle} {end}; {start} {end} is not a sentence.",
        )

    def document(self, text: str) -> str:
        """`text` between the delimiters, unless it already stands there."""
        if not self.delimiters or text.startswith(self.delimiters[0]):
            return text
        opening, closing = self.delimiters
        return f"{opening} {text} {closing}"

    def violations(self) -> Mapping[str, Violation]:
        """Each word missing or doubled, and a wrong order; only a missing middle cannot keep the length."""
        start, end = _START, _END
        return {
            "missing_middle": Violation(lambda rows, rng: self._shaped(0 * rows.lengths, (start,), (end,)), False),
            "missing_start": self._same_length((), (end,)),
            "missing_end": self._same_length((start,), ()),
            "wrong_order": self._same_length((end,), (start,)),
            "doubled_start": self._same_length((start, start), (end,)),
            "doubled_end": self._same_length((start,), (end, end)),
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

    def _middles(self, rows: Rows) -> np.ndarray:
        return rows.lengths - 4 - len(self.delimiters)

    def _same_length(self, head: tuple[int, ...], tail: tuple[int, ...]) -> Violation:
        def make(rows: Rows, rng: RowRandom) -> Rows:
            return self._shaped(self._middles(rows) + 2 - len(head) - len(tail), head, tail)

        return Violation(make, keeps_length=True)

    def _shaped(self, middles: np.ndarray, head: tuple[int, ...], tail: tuple[int, ...]) -> Rows:
        """Rows of `head`, then as many middles as given, then `tail`, all between the delimiters."""
        opening, closing = ((_OPEN,), (_CLOSE,)) if self.delimiters else ((), ())
        head, tail = opening + head, tail + closing
        most = len(head) + len(tail) + int(middles.max(initial=0))
        words = np.full((len(middles), most), _MIDDLE, np.int32)
        words[:, : len(head)] = head
        at = (len(head) + middles)[:, None] + np.arange(len(tail))
        np.put_along_axis(words, at, np.array(tail, np.int32)[None], axis=1)
        return Rows.language(words, len(head) + len(tail) + middles)
