"""Sampling weights, each kind by a small function [N] -> [N] of mean 1; kinds multiply (`combined_weights`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_synth.errors import check_choices

# exp(-700) is about 1e-304: the smallest positive weight, so that max_ratio=inf never makes a row undrawable.
_LARGEST_LOG_RATIO = 700.0
_NARROW = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # of which NumPy itself knows nothing
_PERMUTATION = 0x5045524D  # apart from the streams that a sampler draws from with the same seed
SCHEDULES = ("constant", "rising", "falling")


def rarity_weights(density: ArrayLike, *, strength: float = 1.0, max_ratio: float = 100.0) -> np.ndarray:
    """Sampling weights that favour the rare: proportional to density**-strength, with mean 1.

    density: [N] positive numbers, LARGER = DENSER, any unit (`knn_density` gives them).
    strength: 0 makes every weight exactly 1 (the control of an experiment); 1 undoes the density.
    max_ratio: bound on max / min, kept by RAISING the smallest weights, never by cutting the largest.

    At strength 1, before the bound and without smoothing, m copies weigh together what one would. Equal ones: all 1.
    Raises ValueError where a density is not positive and finite, a strength is negative, or max_ratio is below 1.

    Example:
        >>> rarity_weights([1.0, 4.0])
        array([1.6, 0.4])
    """
    density = _vector(density, "density")
    _refuse_rows(~(np.isfinite(density) & (density > 0)), density, "density", "finite numbers above 0")
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(
            f"strength={strength}: wanted a finite number of at least 0. A negative one would favour the dense; "
            "if that is meant, pass 1 / density."
        )
    if not max_ratio >= 1:
        raise ValueError(f"max_ratio={max_ratio}: wanted at least 1 (1 gives uniform weights).")
    log_weights = -min(strength, 1e300) * (np.log(density) - np.log(density.min()))
    weights = np.exp(np.maximum(log_weights, -min(math.log(max_ratio), _LARGEST_LOG_RATIO)))
    return weights / weights.mean()


def balanced_weights(groups: Sequence[str], shares: Mapping[str, float] | None = None) -> np.ndarray:
    """Weights that give each group of rows a share of all draws, however many rows it has; rows of a group are equal.

    groups: [N] names, such as clusters or sources. shares: every group -> its part of the draws, in any scale; equal
    parts where not given. Returns [N] float64, mean 1.
    Raises ValueError for shares that are negative, all 0, or do not name exactly the groups there are.

    Example:
        >>> balanced_weights(["a", "a", "a", "b"])
        array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if not len(groups):
        raise ValueError("groups: got none. Give one name per row.")
    groups = groups.tolist() if hasattr(groups, "tolist") else groups  # a tensor of cluster numbers, for one
    names, group, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    if shares is not None and set(shares) != set(names):
        raise ValueError(f"shares: got {', '.join(sorted(shares))}, wanted one for each of {', '.join(names)}.")
    mass = check_weights([shares[name] for name in names] if shares else np.ones(len(names)), name="shares")
    return (mass / mass.sum() * len(groups) / sizes)[group]


def permuted(values: ArrayLike, *, seed: int) -> np.ndarray:
    """The same values [N], dealt out to other rows at random: the control that keeps their distribution.

    Weights and permuted weights have one effective sample size; what only the latter's arm shows is not the density's.
    """
    array = _vector(values, "values")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_PERMUTATION,))))
    return array[rng.permutation(len(array))]


def pass_rate_weights(rates: ArrayLike, *, floor: float = 0.1) -> np.ndarray:
    """Weights that favour what is passed half of the time: proportional to floor + (1 - floor) * 4 p (1 - p), mean 1.

    With rewards of 0 and 1, p (1 - p) is the variance within a prompt's group, which is what GRPO learns from: a
    prompt that is always or never passed teaches nothing while that lasts. `floor`, above 0 and at most 1, keeps it
    drawable, so that a prompt that became passable is found: max / min is at most 1 / floor.

    rates: [N] pass rates. Raises ValueError for one outside 0 to 1, or such a floor.
    """
    rates = _vector(rates, "rates")
    _refuse_rows(~((rates >= 0) & (rates <= 1)), rates, "rates", "numbers from 0 to 1")
    if not 0 < floor <= 1:
        raise ValueError(f"floor={floor}: wanted above 0 (a prompt at 0 is never drawn again) and at most 1.")
    weights = floor + (1 - floor) * 4 * rates * (1 - rates)
    return weights / weights.mean()


def curriculum_weights(
    difficulty: ArrayLike, progress: float, *, begin: float = 0.1, floor: float = 0.01
) -> np.ndarray:
    """Easy rows first: at progress t the easiest c(t) of all rows weigh alike, the others `floor` as much; mean 1.

    c(t) = sqrt(t (1 - begin^2) + begin^2): from the fraction `begin` at the start to all rows at the end. Rows of
    equal difficulty enter together.

    difficulty: [N] finite numbers, larger is harder, any unit: only their order counts. progress: 0 at the start of
    training, 1 at its end. Raises ValueError where progress, begin or floor is outside 0 to 1.

    Source: Platanios et al. (2019), Competence-based Curriculum Learning for NMT, equation 7 (c_sqrt).
    """
    difficulty = _vector(difficulty, "difficulty")
    _refuse_rows(~np.isfinite(difficulty), difficulty, "difficulty", "finite numbers")
    for name, value in (("progress", progress), ("begin", begin), ("floor", floor)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: wanted a number from 0 to 1.")
    competence = math.sqrt(progress * (1 - begin**2) + begin**2)
    last = max(1, math.ceil(competence * len(difficulty)))
    weights = np.where(difficulty <= np.sort(difficulty)[last - 1], 1.0, floor)
    return weights / weights.mean()


def combined_weights(*factors: ArrayLike) -> np.ndarray:
    """The product of several weights [N], scaled to mean 1.

    Raises ValueError for different lengths, weights that are none, or a product that is 0 in each row.
    """
    checked = [check_weights(factor, name=f"weights {number}") for number, factor in enumerate(factors, start=1)]
    if not checked:
        raise ValueError("combined_weights: got none. Give at least one array of weights.")
    if len({len(factor) for factor in checked}) > 1:
        raise ValueError(f"weights to combine: got {[len(factor) for factor in checked]} rows, wanted one number.")
    scaled = [factor / factor.max() for factor in checked]
    product = np.maximum(np.prod(scaled, axis=0), np.all(scaled, axis=0) * np.finfo(np.float64).tiny)  # still drawable
    check_weights(product, name="the product of the weights")
    return product / product.mean()


def scheduled_strength(strength: float, schedule: str, progress: float) -> float:
    """The strength of density's weights at a point of training, by one of `SCHEDULES`.

    `constant`: always `strength`. `rising`: linear from 0 to it, dense prompts first, the rare later. `falling`:
    from it to 0. A strength of 0 stays the control under each.
    progress: 0 at the start of training, 1 at its end. Raises ValueError for another, or an unknown schedule.
    """
    check_choices("schedule", [schedule], SCHEDULES)
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress}: wanted a number from 0 to 1.")
    return strength * {"constant": 1.0, "rising": progress, "falling": 1.0 - progress}[schedule]


def effective_sample_size(weights: ArrayLike) -> float:
    """Kish's effective sample size (sum w)**2 / sum w**2, in rows: N for equal weights, 1 if one row has all.

    weights: [N], as `check_weights` wants them; their scale does not matter.

    Source: L. Kish, Survey Sampling (1965), section 11.7.
    """
    weights = check_weights(weights)
    scaled = weights / weights.max()  # squares of very large or small weights would leave float64
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def check_weights(weights: ArrayLike, *, name: str = "weights") -> np.ndarray:
    """The weights as a new float64 array [N]; ValueError for none, all 0, and those not finite or below 0, by row."""
    array = _vector(weights, name)
    _refuse_rows(~(np.isfinite(array) & (array >= 0)), array, name, "finite numbers of at least 0")
    if not array.any():
        raise ValueError(f"{name}: all {len(array)} are 0, so no row could ever be drawn. Give at least one above 0.")
    return array


def as_numbers(values: Any, name: str) -> np.ndarray:
    """Whatever NumPy can take as real numbers: lists, tables, tensors of any device, memory maps; not a copy of these.

    Raises ValueError for text, complex numbers, dates, rows of several lengths, and whatever else is no such array.
    """
    try:
        if hasattr(values, "detach"):  # a tensor, which NumPy takes on the CPU, without its gradient, not in bfloat16
            values = values.detach().cpu()
            values = values.float() if str(values.dtype).removeprefix("torch.") in _NARROW else values
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)  # what is masked is missing
        array = np.asarray(values)
        if array.dtype == object and not any(isinstance(value, str | bytes) for value in array.flat):
            array = array.astype(np.float64)
        elif array.dtype.name in _NARROW:
            array = array.astype(np.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name}: wanted an array of numbers, got a {type(values).__name__} ({reason}).") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: wanted numbers, got values of type {array.dtype}.")
    return array


def _vector(values: Any, name: str) -> np.ndarray:
    array = as_numbers(values, name).astype(np.float64)
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
