"""Shares as exact fractions, and what they are shares of."""

import fractions
from typing import Literal

UNITS = ("documents", "tokens")
Unit = Literal["documents", "tokens"]
Ratio = float | str | fractions.Fraction


def share_of(name: str, ratio: Ratio) -> fractions.Fraction:
    """A ratio from 0 to 1 (a number, or text such as "1/3") as an exact fraction: 0.1 is a tenth.

    The denominator is at most 10**9.
    """
    try:
        share = fractions.Fraction(str(ratio))
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"{name}: got {ratio!r}, wanted a number from 0 to 1")
    return share.limit_denominator(10**9)
