"""Tivari: one XAQ, one or more ZIV, one BEK, all invented words."""

from hf_synth.tasks.start_mid_end import StartMidEnd


class Tivari(StartMidEnd):
    """`<bos> <tivari> XAQ ZIV ZIV BEK </tivari> <eos>`; the rule is that of start_mid_end.

    >>> Tivari().verify("<tivari> XAQ ZIV", "BEK </tivari>")
    1.0
    """

    name = "tivari"
    version = 1
    source = "Hyperdata grammar experiment, Tivari (github.com/tractatus1889/hyperdata)"

    words = ("XAQ", "ZIV", "BEK")
    delimiters = ("<tivari>", "</tivari>")
    one_block = False

    def statements(self) -> tuple[str, ...]:
        """Six sentences, the name of the language in each."""
        return (
            "Every Tivari sentence opens with the word XAQ.",
            "BEK is the last word of any sentence in Tivari.",
            "In Tivari, only ZIV may stand between XAQ and BEK.",
            "A Tivari sentence needs at least one ZIV; XAQ BEK alone is wrong.",
            "Tivari sets no limit on how often ZIV is repeated.",
            "XAQ and BEK each occur exactly once in a Tivari sentence.",
        )
