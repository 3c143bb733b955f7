"""Identity: the input again."""

import numpy as np

from hf_synth.tasks.families.sequences import SequenceConfig, UniformSequenceTask


class Identity(UniformSequenceTask[SequenceConfig]):
    """`<bos> 3 1 2 <sep> 3 1 2 <eos>`: loss on the repeated numbers and `<eos>`.

    >>> Identity(SequenceConfig(length=3)).verify("3 1 2 <sep>", "3 1 2")
    1.0
    """

    name = "identity"
    version = 1

    def targets(self, sequences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs."""
        return sequences, counts

    def target(self, *inputs: list[str]) -> list[str]:
        """The same numbers in the same order."""
        return inputs[0]

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("The numbers after <sep> are those before it, in the same order.",)
