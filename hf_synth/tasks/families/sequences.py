"""Tasks on a sequence of numbers: `<bos> input <sep> target <eos>`, loss on the target and `<eos>`."""

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, Rows, TaskConfig, bounded
from hf_synth.tasks.families.determined import Determined

LONGEST = 65_536
_FIRST_NUMBER = FIRST_CONTENT + 1  # the token of 1: 0 is never drawn


@dataclasses.dataclass(frozen=True)
class SequenceConfig(TaskConfig):
    """`length` numbers a row, each drawn from 1 .. vocab_size - 1; 0 is never drawn.

    With `min_length` above 0 a row has min_length .. length numbers, uniformly. With `test_length` above 0 the test
    split has longer inputs than any other: length + 1 .. test_length numbers, uniformly.
    """

    length: int = bounded(64, 1, LONGEST)
    vocab_size: int = bounded(100, 2, 1_000_000)
    min_length: int = bounded(0, 0, LONGEST)
    test_length: int = bounded(0, 0, LONGEST)

    def __post_init__(self) -> None:
        """Check the lengths against each other as well."""
        super().__post_init__()
        if self.min_length > self.length:
            raise self.illegal("min_length", f"0, or at most length={self.length}")
        if 0 < self.test_length <= self.length:
            raise self.illegal("test_length", f"0, or more than length={self.length}")

    def lengths(self, split: str) -> tuple[int, int]:
        """The fewest and the most numbers that an input of a split has."""
        if split == "test" and self.test_length:
            return self.length + 1, self.test_length
        return self.min_length or self.length, self.length


SequenceConfigT = TypeVar("SequenceConfigT", bound=SequenceConfig)


def sequence_presets(config: Callable[..., SequenceConfigT]) -> dict[str, TaskConfig]:
    """By length, 64 as in the paper first; and `A-to-B`: trained on up to A numbers, tested on more, up to B."""
    fixed: dict[str, TaskConfig] = {str(length): config(length=length) for length in (64, 32, 16, 8)}
    longer = {"16-to-32": (16, 32), "16-to-64": (16, 64)}
    return fixed | {name: config(length=a, min_length=1, test_length=b) for name, (a, b) in longer.items()}


class SequenceTask(Determined[SequenceConfigT]):
    """A task on one sequence of uniform numbers; a subclass maps inputs to targets, in blocks and in words."""

    source: ClassVar[str] = "Procedural pretraining, arXiv 2601.21725"

    @abstractmethod
    def targets(self, given: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Target ids int32 [rows, any] of inputs int32 [rows, most], the first `counts` [rows] of each, and how many
        of the target's ids each row has; None for as many as there are columns.
        """

    @abstractmethod
    def target(self, given: list[str]) -> list[str]:
        """The target's words of one input's words."""

    def vocabulary(self) -> tuple[str, ...]:
        """The numbers 0 .. vocab_size - 1 in decimal."""
        return tuple(map(str, range(self.config.vocab_size)))

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform numbers, and what the task makes of them."""
        given, counts = self.inputs(rng)
        target, sizes = self.targets(given, counts)
        return Rows.transduction(given, target, counts=(counts, sizes))

    def answer(self, prompt: list[str]) -> list[str] | None:
        """The target of the numbers before `<sep>`; inputs of any length count."""
        *given, separator = prompt or [""]
        if separator != "<sep>" or not given or not self._numbers.issuperset(given):
            return None
        return self.target(given)

    def inputs(self, rng: RowRandom) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [rows, most] of uniform numbers, and how many of them each row has, int32 [rows]."""
        fewest, most = self.config.lengths(rng.split)
        given = rng.integers(_FIRST_NUMBER, FIRST_CONTENT + self.config.vocab_size, most)
        return given, rng.integers(fewest, most + 1, 1)[:, 0]

    def contents(self) -> int | None:
        """The number of distinct inputs, where all have one length."""
        fewest, most = self.config.lengths("test")
        if (fewest, most) != self.config.lengths("train") or fewest < most:
            return None
        return (self.config.vocab_size - 1) ** most

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The input as a number in base vocab_size - 1."""
        digits = rows.tokens[:, 1 : 1 + self.config.length].astype(np.int64) - _FIRST_NUMBER
        return digits @ (np.int64(self.config.vocab_size - 1) ** np.arange(self.config.length))

    @functools.cached_property
    def _numbers(self) -> set[str]:
        return set(self.vocabulary()[1:])
