"""Multiplication: the product of two numbers."""

import dataclasses

from hf_synth.tasks.families.arithmetic import ArithmeticConfig, ArithmeticTask, arithmetic_presets


@dataclasses.dataclass(frozen=True)
class MultiplicationConfig(ArithmeticConfig):
    """Operands of `digits` digits; from `min_digits` on, in tests beyond `digits` up to `test_digits`."""


class Multiplication(ArithmeticTask[MultiplicationConfig]):
    """`<bos> 1 2 * 3 9 <sep> r4 r6 r8 <eos>`: loss on the product's digits and `<eos>`.

    >>> Multiplication().verify("1 2 * 3 9 <sep>", "r4 r6 r8")
    1.0
    """

    name = "multiplication"
    version = 1
    config_class = MultiplicationConfig
    presets = arithmetic_presets(MultiplicationConfig, 5, 3, 2, tested=8)
    sign = "*"

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("After <sep> comes the product of the two numbers before it, in digits r0 to r9, the highest first.",)
