"""Intervals and tests for means over independent units (training seeds, graphs, prompts), and the units they need.

A unit is what a claim generalises over. Values that share one, such as the test rows of a trained model or the facts
of a graph, are its clusters, not units of their own.
"""

import bisect
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtrinc, ndtri, stdtr, stdtrit

_MOST_FLIPPED = 16  # units of which all signs are tried
_MOST_UNITS = 1_000_000


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval; NaN bounds where one unit is all there is."""

    mean: float
    low: float
    high: float


def t_quantile(confidence: float, freedom: int) -> float:
    """How many standard errors a two-sided interval reaches to each side; NaN without a degree of freedom."""
    _check_confidence(confidence)
    return float(stdtrit(freedom, (1 + confidence) / 2)) if freedom > 0 else float("nan")


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of independent values [units] and Student's interval for it."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"mean_interval: got values of shape {values.shape}, wanted a list of at least one number")
    reach = t_quantile(confidence, values.size - 1)
    if values.size > 1:
        reach *= float(values.std(ddof=1)) / values.size**0.5
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach)


def paired_interval(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """The mean of first - second [units], both measured on the same units, and Student's interval for it."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired_interval: got {first.size} and {second.size} values, wanted one of each a unit")
    return mean_interval(first - second, confidence)


def paired_test(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Student's two-sided p-value for a mean of first - second [units] of 0, both measured on the same units.

    1 where one unit is all there is, or where no unit differs: nothing speaks against 0.
    """
    differences = _differences("paired_test", first, second)
    if differences.size == 1 or not differences.any():
        return 1.0
    error = float(differences.std(ddof=1)) / differences.size**0.5
    score = abs(float(differences.mean())) / error if error else np.inf
    return 2 * float(stdtr(differences.size - 1, -score))


def sign_flip_test(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """The two-sided permutation p-value for first - second [units]: how often random signs give as large a mean.

    It assumes no normal distribution, only that each difference is as likely as its opposite. All 2**n signs of n
    units are tried up to 16 units, and 65,535 random ones, the same each time, beyond. It is 2**(1 - n) at least.

    Source: Fisher (1935), The design of experiments, section 21.
    """
    differences = _differences("sign_flip_test", first, second)
    found = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()  # sums of one mean differ in their last bits
    if (units := differences.size) > _MOST_FLIPPED:
        signs = np.random.default_rng(0).integers(0, 2, (2**_MOST_FLIPPED - 1, units), np.int8)
        return float((1 + np.count_nonzero(np.abs((1 - 2 * signs) @ differences) >= found)) / 2**_MOST_FLIPPED)
    signs = np.arange(2**units)[:, None] >> np.arange(units) & 1
    return float(np.mean(np.abs((1 - 2 * signs) @ differences) >= found))


def _differences(name: str, first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> np.ndarray:
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != two.shape or one.ndim != 1 or not one.size:
        raise ValueError(f"{name}: got {one.size} and {two.size} values, wanted one of each a unit, one unit or more")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError(f"{name}: got NaN or infinity, wanted finite numbers; leave out units that have no value")
    differences = one - two
    differences[np.abs(differences) <= 1e-12 * np.maximum(np.abs(one), np.abs(two))] = 0.0  # rounding is no evidence
    return differences


def clustered_mean(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """The mean of the clusters' means, each cluster weighing alike, and Student's interval over clusters.

    values: [any]. clusters: the unit that each value belongs to, [any].
    """
    if len(values) != len(clusters):
        raise ValueError(f"clustered_mean: got {len(clusters)} clusters for {len(values)} values, wanted one each")
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(float(value))
    return mean_interval([float(np.mean(member)) for member in members.values()], confidence)


def ratio_interval(
    counts: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """sum(counts) / sum(sizes) over units, such as errors a word over prompts, and Student's interval for it.

    counts, sizes: [units]. From the residuals count - ratio * size; NaN where all sizes are 0.

    Source: Cochran (1977), Sampling techniques, section 6.3.
    """
    count, size = np.asarray(counts, np.float64), np.asarray(sizes, np.float64)
    if not size.sum():
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(count.sum() / size.sum())
    around = mean_interval((count - ratio * size) / size.mean(), confidence)  # of mean 0
    return Interval(ratio, ratio + around.low, ratio + around.high)


def jackknife_interval(whole: float, without: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """An estimate from all units and its interval, from what it is without each unit in turn, [units].

    For smooth functions of several means; not for medians or extremes. Source: Tukey (1958), Bias and confidence in
    not-quite large samples; Efron and Stein (1981), The jackknife estimate of variance.
    """
    left_out = np.asarray(without, np.float64)
    around = mean_interval((left_out.size - 1) * (left_out.mean() - left_out), confidence)  # of mean 0
    return Interval(whole, whole + around.low, whole + around.high)


def wilson_interval(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """The share of hits among independent trials and Wilson's score interval for it, which stays within [0, 1].

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    _check_confidence(confidence)
    if not 0 <= hits <= trials or not trials:
        raise ValueError(f"wilson_interval: got {hits} hits in {trials} trials, wanted 0 to trials, and one or more")
    share, z = hits / trials, float(ndtri((1 + confidence) / 2))
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))


def share_interval(share: float, trials: int) -> Interval:
    """A share on [0, 1] that need be no whole number of trials, with Wilson's interval for the nearest that is one.

    For a share of the tokens of rows, `trials` are the rows: tokens of one row are no independent trials.
    """
    found = wilson_interval(round(share * trials), trials)
    return Interval(share, min(share, found.low), max(share, found.high))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values of several tests, corrected so that all may be read at one level, float64 [tests], in the same order.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    given = np.asarray(p_values, np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"holm: got {given.tolist()}, wanted a list of p-values from 0 to 1")
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    out = np.empty_like(given)
    out[order] = np.minimum(stepped, 1.0)
    return out


def smallest_detectable(differences_sd: float, units: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true mean difference that `paired_test` finds, p < alpha, with the chance `power`.

    differences_sd: the standard deviation of the units' differences, of which there are `units`; infinity for one.

    Source: Cohen (1988), Statistical power analysis for the behavioral sciences, chapter 2; noncentral t distribution.
    """
    if not (0 < alpha < power < 1 and differences_sd >= 0 and units >= 1):
        raise ValueError(
            f"smallest_detectable: got differences_sd={differences_sd}, units={units}, power={power}, alpha={alpha}; "
            "wanted a standard deviation of 0 or more, one unit or more, and 0 < alpha < power < 1"
        )
    if units == 1:
        return float("inf")
    critical = stdtrit(units - 1, 1 - alpha / 2)
    return float(nctdtrinc(units - 1, 1 - power, critical)) * differences_sd / units**0.5


def units_needed(difference: float, differences_sd: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest units with which `paired_test` finds a true mean difference, p < alpha, with the chance `power`.

    None where a million would not do, as for a difference of 0. differences_sd: of the units' differences.
    """
    if not np.isfinite(difference):
        raise ValueError(f"units_needed: got difference={difference}, wanted a finite number")

    def found_with(units: int) -> bool:
        return smallest_detectable(differences_sd, units, power, alpha) <= abs(difference)

    if not difference or not found_with(_MOST_UNITS):
        return None
    return bisect.bisect_left(range(_MOST_UNITS), True, lo=2, key=found_with)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, wanted a number between 0 and 1, such as 0.95")
