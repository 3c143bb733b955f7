"""Tasks on sequences of numbers: `<bos> input <sep> target <eos>`, loss on the target and `<eos>`."""

import dataclasses
from abc import abstractmethod
from typing import ClassVar, TypeVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, Rows, TaskConfig, bounded
from hf_synth.tasks.families.determined import Determined, SizedConfig, is_number, parts_of

LONGEST = 65_536
LARGEST_VOCABULARY = 1_000_000
FIRST_NUMBER = FIRST_CONTENT + 1  # the id of 1: as an input 0 is never drawn


@dataclasses.dataclass(frozen=True)
class SequenceConfig(SizedConfig):
    """`length` numbers of 1 .. vocab_size - 1; from `min_length` on, in tests beyond `length` up to `test_length`.

    With `min_length` above 0 a row has min_length .. length numbers, uniformly. With `test_length` above 0 the test
    split has longer inputs than any other: length + 1 .. test_length numbers, uniformly.
    """

    length: int = bounded(64, 1, LONGEST)
    vocab_size: int = bounded(100, 2, LARGEST_VOCABULARY)
    min_length: int = bounded(0, 0, LONGEST)
    test_length: int = bounded(0, 0, LONGEST)

    size_field: ClassVar[str] = "length"


SequenceConfigT = TypeVar("SequenceConfigT", bound=SequenceConfig)


def sequence_presets(config: type[SequenceConfig]) -> dict[str, TaskConfig]:
    """By length, 64 as in the paper first; and `A-to-B`: trained on up to A numbers, tested on more, up to B."""
    fixed: dict[str, TaskConfig] = {str(length): config(length=length) for length in (64, 32, 16, 8)}
    longer = {"16-to-32": (16, 32), "16-to-64": (16, 64)}
    return fixed | {
        name: config(length=most, min_length=config.smallest, test_length=tested)
        for name, (most, tested) in longer.items()
    }


class SequenceTask(Determined[SequenceConfigT]):
    """A task on numbers; a subclass draws its rows by `generate`, and says what is right in words by `target`."""

    config_class: ClassVar[type[TaskConfig]] = SequenceConfig
    presets: ClassVar[dict[str, TaskConfig]] = sequence_presets(SequenceConfig)
    source: ClassVar[str] = "Procedural pretraining, arXiv 2601.21725"
    inputs: ClassVar[int] = 1  # how many sequences, each ended by `<sep>`, stand before the target
    least: ClassVar[int] = 1  # the least number that may stand in them

    @abstractmethod
    def target(self, *inputs: list[str]) -> list[str] | None:
        """The target's words of the inputs' words, none of them empty; None where the task has no such inputs."""

    def vocabulary(self) -> tuple[str, ...]:
        """The numbers 0 .. vocab_size - 1 in decimal."""
        return tuple(map(str, range(self.config.vocab_size)))

    def corruption_ids(self) -> tuple[int, int]:
        """The ids of the numbers that are drawn; with 0 where there is but one."""
        low = FIRST_NUMBER if self.config.vocab_size > 2 else FIRST_CONTENT
        return low, FIRST_CONTENT + self.config.vocab_size

    def answer(self, prompt: list[str]) -> list[str] | None:
        """The target of the numbers before each `<sep>`; inputs of any length count."""
        *inputs, rest = parts_of(prompt)
        if rest or len(inputs) != self.inputs or not all(inputs):
            return None
        most = self.config.vocab_size - 1
        if not all(is_number(word, self.least, most) for words in inputs for word in set(words)):
            return None
        return self.target(*inputs)

    def counts(self, rng: RowRandom) -> np.ndarray:
        """How many numbers each row has, int32 [rows]."""
        fewest, most = self.config.sizes(rng.split)
        return rng.integers(fewest, most + 1, 1)[:, 0]

    def uniform(self, rng: RowRandom) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [rows, most] of uniform numbers, and how many of them each row has, int32 [rows]."""
        most = self.config.sizes(rng.split)[1]
        sequences = rng.integers(FIRST_NUMBER, FIRST_CONTENT + self.config.vocab_size, most)
        return sequences, self.counts(rng)


class UniformSequenceTask(SequenceTask[SequenceConfigT]):
    """A task on uniform numbers, which determine the row; a subclass maps them to targets, in blocks and in words."""

    @abstractmethod
    def targets(self, sequences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target ids int32 [rows, any] of inputs int32 [rows, most], the first `counts` [rows] of each, and how many
        of the target's ids each row has, int32 [rows].
        """

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform numbers, and what the task makes of them."""
        sequences, counts = self.uniform(rng)
        target, sizes = self.targets(sequences, counts)
        return Rows.transduction(sequences, target, counts=(counts, sizes))

    def contents(self) -> int | None:
        """The number of distinct inputs, where all have one length."""
        length = self.config.only_size()
        return None if length is None else (self.config.vocab_size - 1) ** length

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The input as a number in base vocab_size - 1."""
        digits = rows.tokens[:, 1 : 1 + self.config.length].astype(np.int64) - FIRST_NUMBER
        return digits @ (np.int64(self.config.vocab_size - 1) ** np.arange(self.config.length))


@kernel
def distinct(sequences, counts, vocab_size):  # type: ignore[no-untyped-def]
    """The distinct ids among the first `counts` of each row in order of first appearance, and how many they are."""
    target = np.empty(sequences.shape, np.int32)
    sizes = np.empty(sequences.shape[0], np.int32)
    met = np.zeros(FIRST_CONTENT + vocab_size, np.int32)  # the row, counted from 1, that met an id last
    for row in range(sequences.shape[0]):
        size = 0
        for at in range(counts[row]):
            word = sequences[row, at]
            target[row, size] = word
            size += met[word] != row + 1
            met[word] = row + 1
        sizes[row] = size
    return target, sizes


@kernel(inline="always")
def exchange(moved, position, other):  # type: ignore[no-untyped-def]
    """Exchange the numbers at two positions of a permutation of 0, 1, ...; returns the one that is now at `position`.

    `moved` holds number minus position: all zeros before the first exchange, so that a long permutation costs nothing.
    """
    here, there = position + moved[position], other + moved[other]
    moved[position], moved[other] = there - position, here - other
    return there
