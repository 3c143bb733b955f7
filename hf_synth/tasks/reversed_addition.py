"""Reversed addition: a sum of two numbers, lowest digits first."""

import dataclasses

from hf_synth.tasks.base import bounded
from hf_synth.tasks.families.arithmetic import MOST_DIGITS, ArithmeticConfig, ArithmeticTask, arithmetic_presets


@dataclasses.dataclass(frozen=True)
class ReversedAdditionConfig(ArithmeticConfig):
    """Operands of `digits` digits; from `min_digits` on, in tests beyond `digits` up to `test_digits`."""

    digits: int = bounded(10, 1, MOST_DIGITS)


class ReversedAddition(ArithmeticTask[ReversedAdditionConfig]):
    """`<bos> 2 1 + 9 3 <sep> r1 r5 <eos>` for 12 + 39: loss on the sum's digits and `<eos>`.

    >>> ReversedAddition().verify("2 1 + 9 3 <sep>", "r1 r5")
    1.0
    """

    name = "reversed_addition"
    version = 1
    config_class = ReversedAdditionConfig
    presets = arithmetic_presets(ReversedAdditionConfig, 10, 5, 3, 2, tested=20)
    sign = "+"
    lowest_first = True

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return (
            "After <sep> comes the sum of the two numbers before it, in digits r0 to r9; all three are written with "
            "the lowest digit first.",
        )
