"""Tasks whose prompt determines the one right completion: nothing to lose at best, and how to spoil an answer."""

from abc import abstractmethod

import numpy as np
from numba import njit

from hf_synth.rng import RowRandom, draw, unit
from hf_synth.tasks.base import EOS, FIRST_CONTENT, ConfigT, Rows, Task


class Determined(Task[ConfigT]):
    """A task with one right completion a prompt; a subclass says which by `answer`."""

    @abstractmethod
    def answer(self, prompt: list[str]) -> list[str] | None:
        """The words of the right completion after a prompt's words; None where those are no prompt of this task."""

    def spoiling_ids(self) -> tuple[int, int]:
        """The half-open range of ids, at least two, that `corrupt` takes another word of an answer from."""
        return FIRST_CONTENT, FIRST_CONTENT + len(self.vocabulary())

    def verify(self, prompt: str, completion: str) -> float:
        """Whether the completion is the prompt's answer, word by word."""
        expected = self.answer(prompt.split())
        return float(expected is not None and completion.split() == expected)

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two neighbours of the answer that differ; where there are none, one word becomes another."""
        wrong = rows.select(np.arange(len(rows)))
        low, high = self.spoiling_ids()
        _spoil(wrong.tokens, wrong.lengths, wrong.loss_start, rng.keys(), low, high)
        return wrong

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """0 everywhere: the prompt determines the answer."""
        return np.zeros(rows.tokens.shape)


@njit(cache=True, nogil=True)
def _spoil(tokens, lengths, loss_start, keys, low, high):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        words, first = tokens[row], loss_start[row]
        stop = lengths[row] - (words[lengths[row] - 1] == EOS)
        pick = unit(draw(keys[row], 0))
        steps = 0
        for at in range(first, stop - 1):
            steps += words[at] != words[at + 1]
        if steps == 0:
            place = first + np.int64(pick * (stop - first))
            words[place] = low if words[place] != low else low + 1
            continue
        left = np.int64(pick * steps)
        for at in range(first, stop - 1):
            left -= words[at] != words[at + 1]
            if left < 0:
                words[at], words[at + 1] = words[at + 1], words[at]
                break
