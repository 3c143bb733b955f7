"""Addition: the sum of two numbers."""

from hf_synth.tasks.families.arithmetic import ArithmeticConfig, ArithmeticTask


class Addition(ArithmeticTask[ArithmeticConfig]):
    """`<bos> 1 2 + 3 9 <sep> r5 r1 <eos>`: loss on the sum's digits and `<eos>`. `<sep>` is the paper's `=`.

    >>> Addition().verify("1 2 + 3 9 <sep>", "r5 r1")
    1.0
    """

    name = "addition"
    version = 1
    sign = "+"

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return ("After <sep> comes the sum of the two numbers before it, in digits r0 to r9, the highest first.",)
