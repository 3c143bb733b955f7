"""Languages of brackets of k types: `<bos> (0 (3 )3 )0 <eos>`, loss on every bracket and `<eos>`."""

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import BOS, EOS, FIRST_CONTENT, PAD, DecisionPoint, Rows, Task, TaskConfig, Violation, bounded
from hf_synth.tasks.families.bracket_words import corrupt_rows, is_word, next_brackets
from hf_synth.tasks.families.grammars import place_of, random_below, replaced, swapped

LONGEST = 65_536
MOST_TYPES = 32_768


@dataclasses.dataclass(frozen=True)
class BracketConfig(TaskConfig):
    """`length` brackets a row, of `k` types; with `test_length` above 0 the test split's rows have that many instead.

    `p_open` counts in steps of 2**-32: where either bracket is allowed, one opens with probability
    open_threshold / 2**32, the same on every machine.
    """

    k: int = bounded(8, 1, MOST_TYPES)
    length: int = bounded(64, 2, LONGEST)
    p_open: float = bounded(0.49, 0.0, 1.0)
    test_length: int = bounded(0, 0, LONGEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("length", "test_length"):
            if self.closes and getattr(self, name) % 2:
                raise self.illegal(name, "an even number: brackets in pairs are never odd in number")
        if self.test_length and self.test_length < self.length + 2:
            raise self.illegal("test_length", f"0, or at least length + 2 = {self.length + 2}")

    @property
    def deepest(self) -> int:
        """How many brackets may be open at once."""
        return LONGEST

    @property
    def closes(self) -> bool:
        """Whether every bracket that opens is closed in the end."""
        return True

    @property
    def open_threshold(self) -> int:
        """P(open) times 2**32 where either bracket is allowed, a whole number."""
        return round(self.p_open * 2**32)


BracketConfigT = TypeVar("BracketConfigT", bound=BracketConfig)


class BracketTask(Task[BracketConfigT]):
    """A language of brackets; a subclass writes its rows, and says by `nested` which bracket a closing one closes."""

    source: ClassVar[str] = "Procedural pretraining, arXiv 2601.21725"
    nested: ClassVar[bool]  # True: the one that was opened last. False: any of its type

    @abstractmethod
    def walk(self, tokens: np.ndarray, keys: np.ndarray) -> None:
        """Write a word into columns 1 .. length of int32 [rows, length + 2]; `keys`: one stream a row."""

    def vocabulary(self) -> tuple[str, ...]:
        """`(0` .. `(k-1`, then `)0` .. `)k-1`."""
        return tuple(f"{side}{kind}" for side in "()" for kind in range(self.config.k))

    def generate(self, rng: RowRandom) -> Rows:
        """Words of one length."""
        config = self.config
        length = config.test_length if rng.split == "test" and config.test_length else config.length
        tokens = np.empty((rng.rows, length + 2), np.int32)
        tokens[:, 0], tokens[:, -1] = BOS, EOS
        self.walk(tokens, rng.keys())
        return _whole(tokens)

    def verify(self, prompt: str, completion: str) -> float:
        """Whether both together are a word of the language, of any length where all brackets are closed.

        Words whose brackets may stay open have exactly `length` or `test_length` of them: their beginnings would be
        words too. A prompt is a proper beginning, so a completion without a word is wrong.
        """
        added, config = completion.split(), self.config
        words = [*prompt.split(), *added]
        if not added or not self._ids.keys() >= set(words):
            return 0.0
        if not config.closes and len(words) not in (config.length, config.test_length):
            return 0.0
        ids = np.array([PAD, *(self._ids[word] for word in words)], np.int32)
        return float(is_word(ids, len(ids), *self._rule))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two brackets that differ; where no swap makes the word invalid, one bracket becomes another.

        Where brackets may stay open, a few swaps are tried; and where every bracket is right in every place that was
        tried, one becomes `<sep>`.
        """
        return rows.changed(corrupt_rows, rng.keys(), *self._rule)

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """P(open) / k for an opening, P(close) / (types it may close) for a closing, 1 for `<eos>` at the end.

        A predictor reads off the prefix what is open, and knows from the config how many brackets are left.
        """
        order = np.argsort(positions, axis=1, kind="stable")
        share = self.config.open_threshold / 2**32
        return next_brackets(rows.tokens, rows.lengths, positions, order, tokens, share, *self._rule)

    def violations(self) -> Mapping[str, Violation]:
        """Brackets exchanged, of another type, without a partner, before theirs, one too many, too many open."""
        config = self.config
        kinds = {
            "corrupted": Violation(self.corrupt),
            "unmatched_close": Violation(self._unmatched_close),
            "odd_length" if config.closes else "wrong_length": Violation(_one_twice, keeps_length=False),
        }
        if config.closes:
            kinds["unmatched_open"] = Violation(self._unmatched_open)
            kinds["wrong_order"] = Violation(self._wrong_order)
            if config.k > 1:
                kinds["wrong_type"] = Violation(self._wrong_type)
        if config.length // 2 > config.deepest:
            kinds["too_deep"] = Violation(self._too_deep)
        return kinds

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """After a pair, with one, two and as many as allowed open, and before the last bracket."""
        config, every = self.config, self.vocabulary()
        room = min(config.length // 2, config.deepest)
        closing = (")1",) if self.nested else (")0", ")1")
        ends = config.closes and not config.test_length  # a row that is this long is over
        points = [
            ("a pair closed", "(0 )0", True, (), config.length > 2),
            ("one open", "(0", True, (")0",), room > 1),
            ("two open", "(0 (1", True, closing, room > 2 and config.k > 1),
            ("most open", " ".join(["(0"] * room), False, (")0",), room == config.deepest),
            ("one left", "(0 )0 " * (config.length // 2 - 1) + "(0", False, (")0",), ends),
        ]
        decided = []
        for name, prefix, opens, closes, reached in points:
            valid = (*(every[: config.k] if opens else ()), *closes)
            invalid = tuple(word for word in (every[config.k :] if opens else every) if word not in closes)
            if reached and invalid:
                decided.append(DecisionPoint(name, prefix, valid, invalid))
        return tuple(decided)

    def alphabet(self) -> str:
        """The vocabulary in a sentence, to begin an explanation with."""
        last = self.config.k - 1
        if not last:
            return "There is one type of brackets: (0 opens a bracket, and )0 closes it."
        types = "0 and 1" if last == 1 else f"0 to {last}"
        return f"There are {last + 1} types of brackets, {types}: (0 opens a bracket of type 0, and )0 closes it."

    def count(self) -> str:
        """How many brackets a text has, for an explanation: in tests as well, where those differ."""
        tested = f", {self.config.test_length} in tests" if self.config.test_length else ""
        return f"{self.config.length} brackets{tested}"

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: FIRST_CONTENT + number for number, word in enumerate(self.vocabulary())}

    @property
    def _rule(self) -> tuple[int, bool, bool, int]:
        """The rule of the language, as the kernels take it."""
        return self.config.k, self.nested, self.config.closes, self.config.deepest

    def _unmatched_close(self, rows: Rows, rng: RowRandom) -> Rows:
        """A bracket that opens where none is open closes instead."""
        at, _ = self._outermost(rows, rng)
        return replaced(rows, (at, rows.tokens[np.arange(len(rows)), at] + self.config.k))

    def _unmatched_open(self, rows: Rows, rng: RowRandom) -> Rows:
        """A closing bracket opens."""
        at = place_of(self._closings(rows), rng)
        return replaced(rows, (at, rows.tokens[np.arange(len(rows)), at] - self.config.k))

    def _wrong_order(self, rows: Rows, rng: RowRandom) -> Rows:
        """A bracket that opens where none is open, and the closing after which none is again, change places."""
        return swapped(rows, *self._outermost(rows, rng))

    def _wrong_type(self, rows: Rows, rng: RowRandom) -> Rows:
        """A closing bracket becomes one of another type."""
        k, at = self.config.k, place_of(self._closings(rows), rng)
        kind = rows.tokens[np.arange(len(rows)), at] - FIRST_CONTENT - k
        return replaced(rows, (at, FIRST_CONTENT + k + (kind + rng.integers(1, k, 1)[:, 0]) % k))

    def _too_deep(self, rows: Rows, rng: RowRandom) -> Rows:
        """All openings come first, in their order, then all closings."""
        position = np.where(rows.tokens == EOS, 2, np.where(rows.tokens == PAD, 3, self._closings(rows)))
        wrong = rows.copy()
        wrong.tokens = np.take_along_axis(rows.tokens, np.argsort(position, axis=1, kind="stable"), axis=1)
        return wrong

    def _closings(self, rows: Rows) -> np.ndarray:
        return rows.tokens >= FIRST_CONTENT + self.config.k

    def _outermost(self, rows: Rows, rng: RowRandom) -> tuple[np.ndarray, np.ndarray]:
        """Where in each row a random bracket opens while none is open, and where none is again."""
        closings = self._closings(rows)
        step = np.where(rows.tokens < FIRST_CONTENT, 0, np.where(closings, -1, 1)).astype(np.int32)
        depth = np.cumsum(step, axis=1, dtype=np.int32)
        start = place_of((depth == 1) & (step == 1), rng)
        after = np.arange(depth.shape[1]) > start[:, None]
        return start, np.argmax(after & (depth == 0), axis=1)


def _whole(tokens: np.ndarray) -> Rows:
    """Rows of one length without padding; loss after `<bos>`."""
    lengths = np.full(len(tokens), tokens.shape[1], np.int32)
    return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())


def _one_twice(rows: Rows, rng: RowRandom) -> Rows:
    twice = 1 + random_below(rows.lengths - 2, rng)[:, None]
    at = np.arange(rows.tokens.shape[1] + 1)
    tokens = np.take_along_axis(rows.tokens, at - (at > twice), axis=1)
    lengths = rows.lengths + np.int32(1)
    return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())
