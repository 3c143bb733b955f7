"""Set: the input's distinct numbers in order of first appearance."""

import numpy as np

from hf_synth.tasks.families.sequences import SequenceConfig, UniformSequenceTask, distinct


class Set(UniformSequenceTask[SequenceConfig]):
    """`<bos> 3 1 3 2 <sep> 3 1 2 <eos>`: loss on the distinct numbers and `<eos>`.

    >>> Set(SequenceConfig(length=4)).verify("3 1 3 2 <sep>", "3 1 2")
    1.0
    """

    name = "set"
    version = 1

    def targets(self, sequences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each row's distinct numbers."""
        return distinct(sequences, counts, self.config.vocab_size)

    def target(self, *inputs: list[str]) -> list[str]:
        """Each number where it first appears."""
        return list(dict.fromkeys(number for numbers in inputs for number in numbers))

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("After <sep> each number that stands before it comes once, in order of first appearance.",)
