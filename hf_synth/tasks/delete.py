"""Delete: the input without the first occurrence of a number."""

import dataclasses
from typing import ClassVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below_wide, draw
from hf_synth.tasks.base import FIRST_CONTENT, Rows, bounded
from hf_synth.tasks.families.sequences import FIRST_NUMBER, LONGEST, SequenceConfig, SequenceTask, sequence_presets


@dataclasses.dataclass(frozen=True)
class DeleteConfig(SequenceConfig):
    """`token_present` is the fraction of rows whose input holds the number to delete, in steps of 2**-32.

    Two numbers at least: the only one, deleted, would leave no target.
    """

    length: int = bounded(64, 2, LONGEST)
    token_present: float = bounded(1.0, 0.0, 1.0)

    smallest: ClassVar[int] = 2


class Delete(SequenceTask[DeleteConfig]):
    """`<bos> 3 1 3 2 <sep> 3 <sep> 1 3 2 <eos>`: loss on what is left and `<eos>`.

    The number to delete is that of a uniform place of the input; in a fraction 1 - token_present of the rows one that
    the input does not hold, uniform among those, unless the input holds all. In the paper 53 % of the rows are such.

    >>> Delete(DeleteConfig(length=4)).verify("3 1 3 2 <sep> 3 <sep>", "1 3 2")
    1.0
    """

    name = "delete"
    version = 1
    config_class = DeleteConfig
    presets = sequence_presets(DeleteConfig) | {"64-paper": DeleteConfig(token_present=0.47)}
    inputs = 2

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform numbers, one to delete, and the others."""
        sequences, counts = self.uniform(rng)
        threshold = round(self.config.token_present * 2**32)
        token, target, sizes = _delete(sequences, counts, rng.keys(), self.config.vocab_size, threshold)
        return Rows.transduction(sequences, token, target, counts=(counts, None, sizes))

    def target(self, *inputs: list[str]) -> list[str] | None:
        """The input without the first occurrence, as it is where there is none."""
        sequence, token = inputs
        if len(token) != 1 or sequence == token:
            return None
        left = list(sequence)
        if token[0] in left:
            left.remove(token[0])
        return left

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return (
            "After the second <sep> come the numbers before the first, without the first occurrence of the "
            "number between the two.",
        )


@kernel
def _delete(sequences, counts, keys, vocab_size, threshold):  # type: ignore[no-untyped-def]
    rows = sequences.shape[0]
    token, sizes = np.empty((rows, 1), np.int32), np.empty(rows, np.int32)
    target = np.empty(sequences.shape, np.int32)
    met = np.zeros(FIRST_CONTENT + vocab_size, np.int32)  # the row, counted from 1, that met an id last
    for row in range(rows):
        words, key = sequences[row, : counts[row]], keys[row]
        gone = words[below_wide(draw(key, 0), len(words))]
        if draw(key, 1) >> np.uint64(32) >= np.uint64(threshold):
            gone = _absent(words, gone, key, vocab_size, met, row + 1)
        size, deleted = 0, False
        for word in words:
            target[row, size] = word
            first = (word == gone) & (not deleted)
            deleted |= first
            size += 1 - first
        token[row, 0], sizes[row] = gone, size
    return token, target, sizes


@kernel
def _absent(words, default, key, vocab_size, met, stamp):  # type: ignore[no-untyped-def]
    """A number that is not among the words, each as likely; the default where all are."""
    distinct = 0
    for word in words:
        distinct += met[word] != stamp
        met[word] = stamp
    if distinct == vocab_size - 1:
        return default
    position = 2
    while True:
        word = np.int32(FIRST_NUMBER + below_wide(draw(key, position), vocab_size - 1))
        if met[word] != stamp:
            return word
        position += 1
