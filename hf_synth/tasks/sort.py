"""Sort: the input's numbers in ascending order."""

import dataclasses

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, Rows, Task, TaskConfig, bounded


@dataclasses.dataclass(frozen=True)
class SortConfig(TaskConfig):
    """`length` numbers a row, each drawn from 1 .. vocab_size - 1; 0 is never drawn."""

    length: int = bounded(64, 1, 65_536)
    vocab_size: int = bounded(100, 2, 1_000_000)


class Sort(Task[SortConfig]):
    """`<bos> 3 1 2 <sep> 1 2 3 <eos>`: loss on the sorted numbers and `<eos>`.

    >>> Sort(SortConfig(length=3)).verify("3 1 2 <sep>", "1 2 3")
    1.0
    """

    name = "sort"
    version = 1
    config_class = SortConfig
    presets = {
        "64": SortConfig(),
        "32": SortConfig(length=32),
        "16": SortConfig(length=16),
        "8": SortConfig(length=8),
    }
    source = "Procedural pretraining, arXiv 2601.21725"

    def vocabulary(self) -> tuple[str, ...]:
        """The numbers 0 .. vocab_size - 1 in decimal."""
        return tuple(map(str, range(self.config.vocab_size)))

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform numbers, then the same in order."""
        first, last = FIRST_CONTENT + 1, FIRST_CONTENT + self.config.vocab_size
        given = rng.integers(first, last, self.config.length)
        return Rows.transduction(given, np.sort(given, axis=1))

    def verify(self, prompt: str, completion: str) -> float:
        """Whether the completion is the prompt's numbers, all of them, in ascending order; any length counts."""
        *given, separator = prompt.split() or [""]
        known = set(self.vocabulary()[1:])
        if separator != "<sep>" or not given or not known.issuperset(given):
            return 0.0
        return float(completion.split() == sorted(given, key=int))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two neighbours of the target that differ; where all are equal, one of them becomes another number."""
        wrong = rows.select(np.arange(len(rows)))
        length = self.config.length
        target = wrong.tokens[:, -1 - length : -1]
        every = np.arange(len(rows))
        pick = rng.random(1)[:, 0]
        steps = np.diff(target, axis=1) != 0
        left = _random_true(steps, pick)
        swap = steps.any(axis=1)
        row, at = every[swap], left[swap]
        target[row, at], target[row, at + 1] = target[row, at + 1], target[row, at].copy()
        same, place = every[~swap], (pick[~swap] * length).astype(np.int64)
        target[same, place] = np.where(target[same, place] == FIRST_CONTENT, FIRST_CONTENT + 1, FIRST_CONTENT)
        return wrong

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """0 everywhere: the input determines the target."""
        return np.zeros(rows.tokens.shape)

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("The numbers after <sep> are those before it, each as often, in ascending order.",)

    def contents(self) -> int:
        """The number of distinct inputs."""
        return (self.config.vocab_size - 1) ** self.config.length

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The input as a number in base vocab_size - 1."""
        digits = rows.tokens[:, 1 : 1 + self.config.length].astype(np.int64) - FIRST_CONTENT - 1
        return digits @ (np.int64(self.config.vocab_size - 1) ** np.arange(self.config.length))


def _random_true(mask: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """For each row of `mask` the position of its floor(pick * n)-th True, n of them; 0 where there is none."""
    order = np.cumsum(mask, axis=1)
    if not mask.shape[1]:
        return np.zeros(len(mask), np.int64)
    wanted = np.floor(pick * order[:, -1]).astype(np.int64) + 1
    return np.argmax(order == wanted[:, None], axis=1)
