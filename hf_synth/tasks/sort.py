"""Sort: the input's numbers in ascending order."""

import numpy as np

from hf_synth.tasks.families.sequences import SequenceConfig, UniformSequenceTask


class Sort(UniformSequenceTask[SequenceConfig]):
    """`<bos> 3 1 2 <sep> 1 2 3 <eos>`: loss on the sorted numbers and `<eos>`.

    >>> Sort(SequenceConfig(length=3)).verify("3 1 2 <sep>", "1 2 3")
    1.0
    """

    name = "sort"
    version = 1

    def targets(self, sequences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each row in order; what lies behind a shorter row is moved to its end first."""
        beyond = np.arange(sequences.shape[1]) >= counts[:, None]
        return np.sort(np.where(beyond, np.iinfo(np.int32).max, sequences), axis=1), counts

    def target(self, *inputs: list[str]) -> list[str]:
        """The same numbers in ascending order."""
        return sorted(inputs[0], key=int)

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("The numbers after <sep> are those before it, each as often, in ascending order.",)
