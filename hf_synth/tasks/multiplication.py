"""Multiplication: the product of two numbers."""

from hf_synth.tasks.families.arithmetic import ArithmeticConfig, ArithmeticTask


class Multiplication(ArithmeticTask[ArithmeticConfig]):
    """`<bos> 1 2 * 3 9 <sep> r4 r6 r8 <eos>`: loss on the product's digits and `<eos>`.

    >>> Multiplication().verify("1 2 * 3 9 <sep>", "r4 r6 r8")
    1.0
    """

    name = "multiplication"
    version = 1
    sign = "*"

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("After <sep> comes the product of the two numbers before it, in digits r0 to r9, the highest first.",)
