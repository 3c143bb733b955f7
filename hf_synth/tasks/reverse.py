"""Reverse: the input's numbers from last to first."""

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.tasks.families.sequences import SequenceConfig, UniformSequenceTask


class Reverse(UniformSequenceTask[SequenceConfig]):
    """`<bos> 3 1 2 <sep> 2 1 3 <eos>`: loss on the reversed numbers and `<eos>`.

    >>> Reverse(SequenceConfig(length=3)).verify("3 1 2 <sep>", "2 1 3")
    1.0
    """

    name = "reverse"
    version = 1

    def targets(self, sequences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each row from its own end."""
        return _reversed(sequences, counts), counts

    def target(self, *inputs: list[str]) -> list[str]:
        """The same numbers from last to first."""
        return inputs[0][::-1]

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("The numbers after <sep> are those before it in reverse order: the last comes first.",)


@kernel
def _reversed(sequences, counts):  # type: ignore[no-untyped-def]
    target = np.empty(sequences.shape, np.int32)
    for row in range(sequences.shape[0]):
        last = counts[row] - 1
        for at in range(last + 1):
            target[row, at] = sequences[row, last - at]
    return target
