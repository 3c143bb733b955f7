"""What several metrics refuse: numbers that are none, and numbers that cannot be what they are said to be."""

from collections.abc import Sequence

import numpy as np

_ROUNDING = 1e-3  # log probabilities taken in half precision may exceed 0 by as much


def between(name: str, values: Sequence[float] | np.ndarray, low: float, high: float, wanted: str) -> np.ndarray:
    """The values as float64, any shape; ValueError by the metric's name where one is NaN, below low or above high."""
    found = np.asarray(values, np.float64)
    right = (found >= low) & (found <= high)
    if not right.all():
        raise ValueError(f"{name}: got {found[~right][0]:g}, wanted {wanted}")
    return found


def log_probabilities(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values of ln P as float64, any shape; -inf is the probability 0. ValueError where one is NaN or above 0."""
    return between(name, values, -np.inf, _ROUNDING, "log probabilities, which are 0 at most")
