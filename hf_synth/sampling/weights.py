"""From density to sampling weights: the one place where "crowded" turns into "drawn less often"."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

# exp(-700) is about 1e-304: the smallest positive weight, so that max_ratio=inf never makes a row undrawable.
_LARGEST_LOG_RATIO = 700.0


def rarity_weights(density: ArrayLike, *, strength: float = 1.0, max_ratio: float = 100.0) -> np.ndarray:
    """Sampling weights that favour the rare: proportional to density**-strength, with mean 1.

    Args:
        density: [N] positive numbers, LARGER = MORE CROWDED, any unit (`knn_density` gives them).
        strength: 0 makes every weight exactly 1 (the control of an experiment); 1 undoes the density.
        max_ratio: bound on max / min, kept by RAISING the smallest weights, never by cutting the largest.

    Returns:
        [N] float64, mean 1; a row rarer than average gets more than 1. Equal densities: exactly 1 everywhere.
        At strength 1 and before the bound, m copies of a row weigh together what one would.

    Raises:
        ValueError: density empty, not one-dimensional, NaN, infinite or not positive; strength negative or not
            finite; max_ratio below 1.

    Example:
        >>> rarity_weights([1.0, 4.0])
        array([1.6, 0.4])
    """
    density = _vector(density, "density")
    _refuse_rows(~(np.isfinite(density) & (density > 0)), density, "density", "finite numbers above 0")
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(
            f"strength={strength}: wanted a finite number of at least 0. A negative one would favour the crowded; "
            "if that is meant, pass 1 / density."
        )
    if not max_ratio >= 1:
        raise ValueError(f"max_ratio={max_ratio}: wanted at least 1 (1 gives uniform weights).")
    log_weights = -strength * np.log(density)
    log_weights -= log_weights.max()
    weights = np.exp(np.maximum(log_weights, -min(math.log(max_ratio), _LARGEST_LOG_RATIO)))
    return weights / weights.mean()


def effective_sample_size(weights: ArrayLike) -> float:
    """Kish's effective sample size (sum w)**2 / sum w**2, in rows: N for equal weights, 1 if one row has all.

    Args:
        weights: [N] numbers of at least 0, not all 0; their scale does not matter.

    Raises:
        ValueError: as `check_weights`.

    Source: L. Kish, Survey Sampling (1965), section 11.7.
    """
    weights = check_weights(weights)
    scaled = weights / weights.max()  # squares of very large or small weights would leave float64
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def check_weights(weights: ArrayLike, *, name: str = "weights") -> np.ndarray:
    """The weights as a new float64 array [N], or a ValueError that says what is wrong with which rows.

    Raises:
        ValueError: empty, not one-dimensional, not numbers, NaN, infinite, negative, or all zero.
    """
    array = _vector(weights, name)
    _refuse_rows(~(np.isfinite(array) & (array >= 0)), array, name, "finite numbers of at least 0")
    if not array.any():
        raise ValueError(f"{name}: all {len(array)} are 0, so no row could ever be drawn. Give at least one above 0.")
    return array


def _vector(values: ArrayLike, name: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: wanted one number per row, got values that are no numbers ({error}).") from error
    if array.ndim != 1:
        raise ValueError(f"{name}: wanted shape [N], one number per row, got shape {list(array.shape)}.")
    if len(array) == 0:
        raise ValueError(f"{name}: got none. Give one number per row.")
    return array


def _refuse_rows(bad: np.ndarray, values: np.ndarray, name: str, wanted: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        shown = ", ".join(f"row {row}: {values[row]}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise ValueError(f"{name}: wanted {wanted}, got {len(rows)} other ({shown}).")
