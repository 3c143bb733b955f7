"""Checks of inputs that several metrics share: ranges, and both valid and invalid strings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_ROUNDING = 1e-3  # log probabilities computed in half precision may exceed 0 by as much


def as_float64(metric: str, values: Any) -> np.ndarray:
    """Return numbers as float64: lists, tables, or tensors of any device and type. Raise ValueError for others."""
    try:
        if hasattr(values, "detach"):  # NumPy takes no gradient, no GPU's memory and no bfloat16
            values = values.detach().cpu().double()
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{metric}: got values that are no numbers ({reason}), wanted an array of numbers") from error


def between(metric: str, values: Sequence[float] | np.ndarray, low: float, high: float, wanted: str) -> np.ndarray:
    """Return the values as float64, of any shape. Raise ValueError if one is NaN, below low or above high."""
    array = as_float64(metric, values)
    inside = (array >= low) & (array <= high)
    if not inside.all():
        raise ValueError(f"{metric}: got {array[~inside][0]:g}, wanted {wanted}")
    return array


def log_probabilities(metric: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return ln P as float64, of any shape; -inf is allowed. Raise ValueError if one is NaN or above 0."""
    return between(metric, values, -np.inf, _ROUNDING, "log probabilities, which are at most 0")


def valid_and_invalid(metric: str, valid: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Return the labels as bool. Raise ValueError unless there are valid and invalid strings."""
    labels = as_float64(metric, valid) != 0
    if labels.all() or not labels.any():
        raise ValueError(f"{metric}: got {labels.sum()} valid strings of {labels.size}, wanted valid and invalid ones")
    return labels
