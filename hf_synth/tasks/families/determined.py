"""Tasks whose prompt determines the one right completion: a floor of 0, and how an answer is corrupted."""

import dataclasses
import itertools
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below_wide, draw, unit
from hf_synth.tasks.base import EOS, FIRST_CONTENT, ConfigT, Rows, Task, TaskConfig


@dataclasses.dataclass(frozen=True)
class SizedConfig(TaskConfig):
    """A config whose inputs have a size. A subclass adds it, `test_` of it and perhaps `min_`, 0 where not wanted.

    With the minimum above 0 sizes are uniform from there on. With the test size above 0 the test split has larger
    inputs than any other: of size + 1 up to the test size, uniformly.
    """

    size_field: ClassVar[str]
    smallest: ClassVar[int] = 1  # the least size at which the task is defined

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.size_field
        fewest, most, tested = self._sizes
        if fewest and not self.smallest <= fewest <= most:
            raise self.illegal(f"min_{name}", f"0, or from {self.smallest} to {name}={most}")
        if 0 < tested <= most:
            raise self.illegal(f"test_{name}", f"0, or more than {name}={most}")

    def sizes(self, split: str) -> tuple[int, int]:
        """The least and the greatest size of a split's inputs."""
        fewest, most, tested = self._sizes
        if split == "test" and tested:
            return most + 1, tested
        return fewest or most, most

    def only_size(self) -> int | None:
        """The size, where all inputs of all splits have the same."""
        fewest, most, tested = self._sizes
        return None if tested or 0 < fewest < most else most

    @property
    def _sizes(self) -> tuple[int, int, int]:
        name = self.size_field
        return getattr(self, f"min_{name}", 0), getattr(self, name), getattr(self, f"test_{name}")


class Determined(Task[ConfigT]):
    """A task with one right completion a prompt; a subclass says which by `answer`."""

    @abstractmethod
    def answer(self, prompt: list[str]) -> list[str] | None:
        """The words of the right completion after a prompt's words; None where those are no prompt of this task."""

    def corruption_ids(self) -> tuple[int, int]:
        """The half-open range of ids, at least two, that `corrupt` takes another word of an answer from."""
        return FIRST_CONTENT, FIRST_CONTENT + len(self.vocabulary())

    def verify(self, prompt: str, completion: str) -> float:
        """Whether the completion is the prompt's answer, word by word."""
        expected = self.answer(prompt.split())
        return float(expected is not None and completion.split() == expected)

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two neighbours of the answer that differ; where there are none, one word becomes another."""
        return rows.changed(corrupt_rows, rng.keys(), *self.corruption_ids())

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """0 everywhere: the prompt determines the answer."""
        return np.zeros(rows.tokens.shape)


def parts_of(prompt: list[str]) -> list[list[str]]:
    """The words before each `<sep>`, and those after the last."""
    bounds = [-1, *(at for at, word in enumerate(prompt) if word == "<sep>"), len(prompt)]
    return [prompt[before + 1 : at] for before, at in itertools.pairwise(bounds)]


def is_number(word: str, low: int, high: int) -> bool:
    """Whether a word is a whole number from low to high, at least 0, written as Python writes it."""
    if not (word.isascii() and word.isdecimal() and len(word) <= len(str(high))):
        return False
    return low <= int(word) <= high and str(int(word)) == word


@kernel
def corrupt_rows(tokens, lengths, loss_start, keys, low, high):  # type: ignore[no-untyped-def]
    """Swap two neighbours that differ, from loss_start on; where there are none, put another id of low .. high - 1."""
    for row in range(tokens.shape[0]):
        words, first = tokens[row], loss_start[row]
        stop = lengths[row] - (words[lengths[row] - 1] == EOS)
        pick = unit(draw(keys[row], 0))
        steps = 0
        for at in range(first, stop - 1):
            steps += words[at] != words[at + 1]
        if steps == 0:
            position = first + np.int64(pick * (stop - first))
            other = 1 + below_wide(draw(keys[row], 1), high - low - 1)
            words[position] = low + (words[position] - low + other) % (high - low)
            continue
        left = np.int64(pick * steps)
        for at in range(first, stop - 1):
            left -= words[at] != words[at + 1]
            if left < 0:
                words[at], words[at + 1] = words[at + 1], words[at]
                break
