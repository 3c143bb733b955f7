"""Intervals and tests over independent units, power, and the grouping of values into units and equal blocks.

It imports no other file of this folder, because `evaluate.load` copies only what a metric's own file imports.

A unit is what a claim generalises over: training seeds, graphs or prompts. Values that share a unit, such as the test
rows of one trained model or the facts of one graph, form a cluster; they are not units.

An interval is over prompts, not over completions, because a claim about sampled text generalises over prompts.
Metrics whose value depends on the amount of text are computed on blocks of one size. A block holds whole prompts and
no prompt is in two blocks, so that blocks are independent. A bootstrap would not do: it repeats prompts, and
repetition is what these metrics measure.
"""

import bisect
from collections.abc import Hashable, Sequence, Sized
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy import stats
from scipy.special import nctdtrinc

T = TypeVar("T")

_MOST_UNITS = 1_000_000


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval; the bounds are NaN if there is only one unit."""

    mean: float
    low: float
    high: float


def same_length(metric: str, **columns: Sized) -> None:
    """Raise ValueError unless all columns have the same number of values, one or more."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"{metric}: got {counts}; wanted the same number of each, one or more")


def _floats(values: Any) -> np.ndarray:
    """Return numbers as float64; a tensor's on whatever device and of whatever type."""
    return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, np.float64)


def t_quantile(confidence: float, freedom: int) -> float:
    """Return the half-width of a two-sided t interval in standard errors; NaN for 0 degrees of freedom."""
    _check_confidence(confidence)
    return float(stats.t.ppf((1 + confidence) / 2, freedom)) if freedom > 0 else float("nan")


def mean_per_token(name: str, sums: np.ndarray, tokens: np.ndarray, confidence: float) -> dict[str, float]:
    """`name`: the mean over tokens of sums [rows] over tokens [rows]; its standard error over rows, and an interval.

    A ratio estimator, with a t quantile: `name/rows_standard_error`, `_low`, `_high`; NaN for one row with tokens.
    """
    mean, rows = float(sums.sum() / tokens.sum()), int(np.count_nonzero(tokens))
    residuals = sums - tokens * mean
    error = float(np.sqrt(rows / (rows - 1) * np.square(residuals).sum()) / tokens.sum()) if rows > 1 else float("nan")
    reach = error * t_quantile(confidence, rows - 1)
    ends = {"standard_error": error, "low": mean - reach, "high": mean + reach}
    return {name: mean, **{f"{name}/rows_{end}": value for end, value in ends.items()}}


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Return the mean of independent values [units] and its t interval."""
    values = _floats(values)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"mean_interval: got values of shape {values.shape}, wanted a list of at least one number")
    reach = t_quantile(confidence, values.size - 1)
    if values.size > 1:
        reach *= float(stats.sem(values))
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach)


def paired_interval(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Return the mean of first - second [units], both measured on the same units, and its t interval."""
    same_length("paired_interval", first=first, second=second)
    return mean_interval(_floats(first) - _floats(second), confidence)


def paired_test(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided p-value of the paired t-test of first and second [units].

    It is 1 for one unit, and where no unit differs.
    """
    same_length("paired_test", first=first, second=second)
    one, two = _floats(first), _floats(second)
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("paired_test: got NaN or infinity, wanted finite numbers; leave out units that have no value")
    differences = one - two
    differences[np.abs(differences) <= 1e-12 * np.maximum(np.abs(one), np.abs(two))] = 0.0  # rounding is no evidence
    if differences.size == 1 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return 0.0  # what scipy returns too, with a warning
    return float(stats.ttest_1samp(differences, 0).pvalue)


def clustered_mean(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Return the mean of the clusters' means, with equal weights, and its t interval over clusters.

    values: [any]. clusters: the unit that each value belongs to, [any].
    """
    groups = by_group([float(value) for value in values], clusters, "clustered_mean")
    return mean_interval([float(np.mean(group)) for group in groups.values()], confidence)


def ratio_interval(
    counts: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray, prompts: Sequence[Hashable], name: str
) -> Interval:
    """Return sum(counts) / sum(sizes), such as errors per word, and its 95 % t interval over prompts.

    counts, sizes, prompts: one each for every completion; `name` is for the error. The interval is from the residuals
    count - ratio * size of each prompt. NaN if all sizes are 0.

    Source: Cochran (1977), Sampling techniques, section 6.3.
    """
    same_length(name, counts=counts, sizes=sizes, prompts=prompts)
    groups = by_group(np.stack([_floats(counts), _floats(sizes)], axis=1), prompts, name)
    count, size = np.array([np.sum(rows, axis=0) for rows in groups.values()]).T
    if not size.sum():
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(count.sum() / size.sum())
    around = mean_interval((count - ratio * size) / size.mean())  # of mean 0
    return Interval(ratio, ratio + around.low, ratio + around.high)


def jackknife_interval(whole: float, without: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Return an estimate and its jackknife interval, from the estimates without each unit in turn, [units].

    For smooth functions of several means; not for medians or extremes. Source: Tukey (1958), Bias and confidence in
    not-quite large samples; Efron and Stein (1981), The jackknife estimate of variance.
    """
    left_out = _floats(without)
    around = mean_interval((left_out.size - 1) * (left_out.mean() - left_out), confidence)  # of mean 0
    return Interval(whole, whole + around.low, whole + around.high)


def wilson_interval(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the fraction of hits among independent trials and Wilson's score interval, which is within [0, 1]."""
    _check_confidence(confidence)
    if not 0 <= hits <= trials or not trials:
        raise ValueError(f"wilson_interval: got {hits} hits in {trials} trials, wanted 0 to trials, and one or more")
    bounds = stats.binomtest(hits, trials).proportion_ci(confidence, method="wilson")
    return Interval(hits / trials, float(bounds.low), float(bounds.high))


def share_interval(share: float, trials: int) -> Interval:
    """Return a fraction on [0, 1] and Wilson's interval for the nearest whole number of hits among the trials.

    For a fraction of tokens, `trials` are the rows, because tokens of one row are not independent.
    """
    nearest = wilson_interval(round(share * trials), trials)
    return Interval(share, min(share, nearest.low), max(share, nearest.high))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the p-values of several tests with Holm's correction, float64 [tests], in the same order.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    p = _floats(p_values)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"holm: got {p.tolist()}, wanted a list of p-values from 0 to 1")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return corrected


def smallest_detectable(differences_sd: float, units: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the minimum detectable effect of `paired_test`: the mean difference it detects with the given power.

    differences_sd: the standard deviation of the units' differences; units: how many there are (infinity for one).

    Source: Cohen (1988), Statistical power analysis for the behavioral sciences, chapter 2; noncentral t distribution.
    """
    if not (0 < alpha < power < 1 and differences_sd >= 0 and units >= 1):
        raise ValueError(
            f"smallest_detectable: got differences_sd={differences_sd}, units={units}, power={power}, alpha={alpha}; "
            "wanted a standard deviation of 0 or more, one unit or more, and 0 < alpha < power < 1"
        )
    if units == 1:
        return float("inf")
    critical = stats.t.ppf(1 - alpha / 2, units - 1)
    return float(nctdtrinc(units - 1, 1 - power, critical)) * differences_sd / units**0.5


def units_needed(difference: float, differences_sd: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the fewest units with which `paired_test` detects a true mean difference with the given power.

    None if a million units would not do, as for a difference of 0. differences_sd: of the units' differences.
    """
    if not np.isfinite(difference):
        raise ValueError(f"units_needed: got difference={difference}, wanted a finite number")

    def detected(units: int) -> bool:
        return smallest_detectable(differences_sd, units, power, alpha) <= abs(difference)

    if not difference or not detected(_MOST_UNITS):
        return None
    return bisect.bisect_left(range(_MOST_UNITS), True, lo=2, key=detected)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, wanted a number between 0 and 1, such as 0.95")


def entries(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    """Return an `Interval` as `name`, `name/low` and `name/high`."""
    return dict(zip((name, f"{name}/low", f"{name}/high"), interval, strict=True))


def by_group(
    values: Sequence[Any] | np.ndarray, labels: Sequence[Hashable] | np.ndarray, name: str
) -> dict[Hashable, list[Any]]:
    """Return the values of each group, such as a prompt, in order of first occurrence; `name` is for the error."""
    same_length(name, values=values, groups=labels)
    groups: dict[Hashable, list[Any]] = {}
    for value, label in zip(values, labels, strict=True):
        groups.setdefault(label, []).append(value)
    return groups


def grouped_mean(scores: Sequence[float], groups: Sequence[Hashable] | None, *, name: str) -> dict[str, float]:
    """Return `name`, the mean over groups of their means, and `name/GROUP` for each group."""
    if groups is None:
        if not len(scores):
            raise ValueError(f"{name}: got no completion, wanted at least one")
        return {name: float(np.mean(scores))}
    means = {f"{name}/{group}": float(np.mean(own)) for group, own in by_group(scores, groups, name).items()}
    return {name: float(np.mean(list(means.values()))), **means}


def shuffled(prompts: Sequence[Hashable], seed: int) -> list[Hashable]:
    """Return the distinct prompts in a random order that the seed determines."""
    distinct = list(dict.fromkeys(prompts))
    return [distinct[number] for number in np.random.default_rng(seed).permutation(len(distinct))]


def equal_blocks(
    sequences: Sequence[Sequence[T]], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[Sequence[T]]]:
    """Return blocks of `size` items each: the sequences of shuffled prompts, the last one of a block cut short.

    Each block starts with a new prompt. Items left over at the end are dropped. Raises ValueError if there are too
    few items for one block.
    """
    groups, blocks = by_group(sequences, prompts, name), []
    block: list[Sequence[T]] = []
    room = size
    for prompt in shuffled(prompts, seed):
        for sequence in groups[prompt]:
            if room:
                block.append(sequence[:room])
                room -= len(block[-1])
        if not room:
            blocks.append(block)
            block, room = [], size
    if not blocks:
        total = sum(map(len, sequences))
        raise ValueError(
            f"{name}: got {total} items in all, wanted {size} or more; sample more, or ask for smaller blocks"
        )
    return blocks


def within(values: Sequence[T], prompts: Sequence[Hashable], name: str) -> list[list[T]]:
    """Return the first m values of each prompt, m being the smallest number a prompt has; [] if m is 1."""
    groups = list(by_group(values, prompts, name).values())
    fewest = min(map(len, groups))
    return [group[:fewest] for group in groups] if fewest > 1 else []


def across(
    values: Sequence[T], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[tuple[T, ...]]]:
    """Return, for each of disjoint sets of `size` shuffled prompts, tuples with one value of each prompt.

    There are as many tuples as the prompt with the fewest values has. Prompts left over are dropped; [] if there are
    fewer than `size` prompts.
    """
    groups = by_group(values, prompts, name)
    order = shuffled(prompts, seed)
    sets = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return [list(zip(*(groups[prompt] for prompt in chosen), strict=False)) for chosen in sets]
