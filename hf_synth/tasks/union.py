"""Union: the distinct numbers of two sequences, by first appearance."""

import dataclasses
from typing import ClassVar

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import Rows, bounded
from hf_synth.tasks.families.sequences import LONGEST, SequenceConfig, sequence_presets
from hf_synth.tasks.set import Set


@dataclasses.dataclass(frozen=True)
class UnionConfig(SequenceConfig):
    """`length` counts the numbers of both sequences together: half each, of an odd number one more in the second."""

    length: int = bounded(64, 2, LONGEST)

    smallest: ClassVar[int] = 2


class Union(Set):
    """`<bos> 3 1 <sep> 1 2 <sep> 3 1 2 <eos>`: loss on the distinct numbers of both and `<eos>`.

    >>> Union(UnionConfig(length=4)).verify("3 1 <sep> 1 2 <sep>", "3 1 2")
    1.0
    """

    name = "union"
    version = 1
    config_class = UnionConfig
    presets = sequence_presets(UnionConfig)
    inputs = 2

    def generate(self, rng: RowRandom) -> Rows:
        """Uniform numbers, cut in the middle."""
        sequences, counts = self.uniform(rng)
        target, sizes = self.targets(sequences, counts)
        half, most = counts // 2, sequences.shape[1]
        at = np.minimum(half[:, None] + np.arange((most + 1) // 2), most - 1)  # beyond a row's end anything
        second = np.take_along_axis(sequences, at, axis=1)
        return Rows.transduction(sequences, second, target, counts=(half, counts - half, sizes))

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return (
            "After the second <sep> each number that stands in either sequence before it comes once, in order of "
            "first appearance.",
        )

    def content_rank(self, rows: Rows) -> np.ndarray:
        """That of both sequences in one."""
        joined = np.delete(rows.tokens, 1 + self.config.length // 2, axis=1)
        return super().content_rank(dataclasses.replace(rows, tokens=joined))
