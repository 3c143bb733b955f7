"""Addition: the sum of two numbers."""

import dataclasses

from hf_synth.tasks.families.arithmetic import ArithmeticConfig, ArithmeticTask, arithmetic_presets


@dataclasses.dataclass(frozen=True)
class AdditionConfig(ArithmeticConfig):
    """Operands of `digits` digits; from `min_digits` on, in tests beyond `digits` up to `test_digits`."""


class Addition(ArithmeticTask[AdditionConfig]):
    """`<bos> 1 2 + 3 9 <sep> r5 r1 <eos>`: loss on the sum's digits and `<eos>`. `<sep>` is the paper's `=`.

    >>> Addition().verify("1 2 + 3 9 <sep>", "r5 r1")
    1.0
    """

    name = "addition"
    version = 1
    config_class = AdditionConfig
    presets = arithmetic_presets(AdditionConfig, 5, 3, 2, tested=8)
    sign = "+"

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("After <sep> comes the sum of the two numbers before it, in digits r0 to r9, the highest first.",)
