"""From the metrics of runs to paired differences, and from those to a verdict."""

import dataclasses
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.signal import savgol_filter

from hf_synth.metrics.intervals import (
    Interval,
    holm,
    mean_interval,
    paired_interval,
    paired_test,
    smallest_detectable,
    units_needed,
)

Metrics = Mapping[str, float]
Results = Mapping[Any, Mapping[Any, Metrics]]  # arm -> seed -> name -> number
Pair = tuple[str, str]  # an arm, and the arm that it is compared with; or differences of two arms, "A - B"
MINUS = " - "

LEVEL = 0.05
POWER = 0.8
FEWEST_FOR_A_CLAIM = 8  # seeds
_FEWEST = 2  # pairs that a standard deviation takes
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
# Names of fractions, whose intervals end at 0 and 1: accuracy/test, halves/validity/rare, pass_at_4/head.
_RATE = re.compile(
    r"(^|[/_])(accuracy|accuracies|validity|coverage|completion|auroc|valid_and_new|finished|effective_share|probability|seen|in_training)(/|_|$)"
    r"|^(best|mean|all_right)/|pass_at_\d|pass_rate|variety|distinct|gini|repetition|self_bleu"
)
_NOT_NEGATIVE = re.compile(r"^kl/|em_dash|not_just|length|entropy|vendi|compression|perplexity/(valid|invalid|ratio)")


@dataclasses.dataclass(frozen=True)
class Difference:
    """A measure of one arm minus that of another, seed by seed.

    sd: of the differences over seeds. p: Student's paired test, 1 below the seeds that a claim takes; corrected:
    Holm's over the family that it is in, of so many tests.
    """

    measure: str
    arm: str
    other: str
    seeds: int
    interval: Interval
    sd: float
    p: float
    corrected: float
    tests: int = 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a difference says, and why.

    word: SUPPORTED, NOT_SUPPORTED or UNDECIDED. why: "few seeds", "other direction", "below the minimum effect", or
    empty. needed: where undecided, how many seeds detect the difference that was seen; None where a million do not.
    """

    word: str
    why: str = ""
    needed: int | None = None


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a file: NaN, infinity and whatever else it holds count as missing."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    }


def better_direction(metric: str) -> str:
    """Whether `higher` or `lower` is better in a metric: lower in a loss or an excess."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", metric)
    return "lower" if {"loss", "excess"} & {word.lower() for word in words} else "higher"


def seed_interval(values: Sequence[float], name: str) -> Interval:
    """The mean over seeds and Student's interval, NaN for one seed, within what the measure can be."""
    return clipped(mean_interval(values), name)


def clipped(interval: Interval, name: str) -> Interval:
    """The interval of a mean within the values that the measure can have: Student's may reach beyond."""
    if _RATE.search(name):
        return _within(interval, 0.0, 1.0)
    return _within(interval, 0.0, math.inf) if _NOT_NEGATIVE.search(name) else interval


def _within(interval: Interval, least: float, most: float) -> Interval:
    if not (math.isfinite(interval.low) and least <= interval.mean <= most):
        return interval
    return Interval(interval.mean, max(least, interval.low), min(most, interval.high))


def results_of(results: Results, name: str) -> dict[Any, Metrics]:
    """The metrics of an arm by seed; of `A - B` their differences, NaN where one has none."""
    if name in results or MINUS not in name:
        return dict(results.get(name, {}))
    one, two = (pd.DataFrame(results.get(part, {})) for part in name.split(MINUS))
    return (one - two).dropna(axis=1, how="all").to_dict()


def differences(
    results: Mapping[Pair, Results], measures: Iterable[str], *, interactions: Collection[Pair] = ()
) -> list[Difference]:
    """Each measure for each pair of arms, with p-values corrected over all of them together.

    results: those of each pair. interactions: the pairs of differences of two arms. Left out are measures that fewer
    than two seeds have in both arms. A pair that has none of the measures counts as a test of each: its runs may come.
    """
    measures, raw = list(measures), []
    for measure in measures:
        for (arm, other), of_pair in results.items():
            mine, theirs = paired_values(of_pair, measure, arm, other)
            if len(mine) < _FEWEST:
                continue
            sd = float(np.std(np.subtract(mine, theirs), ddof=1))
            # Below eight seeds two equal differences can give a p-value of 0, and decide nothing.
            p = paired_test(mine, theirs) if len(mine) >= FEWEST_FOR_A_CLAIM else 1.0
            interval = paired_interval(mine, theirs)
            most = 1.0 + ((arm, other) in interactions)
            if _RATE.search(measure) and all(1 - most <= value <= 1 for value in (*mine, *theirs)):  # no percentages
                interval = _within(interval, -most, most)
            raw.append(Difference(measure, arm, other, len(mine), interval, sd, p, p))
    unanswered = len(results.keys() - {(difference.arm, difference.other) for difference in raw})
    corrected = holm([difference.p for difference in raw] + [1.0] * unanswered * len(measures))
    return [
        dataclasses.replace(difference, corrected=float(p), tests=len(corrected))
        for difference, p in zip(raw, corrected, strict=False)
    ]


def paired_values(results: Results, measure: str, arm: str, other: str) -> tuple[list[float], list[float]]:
    """The values of a measure in two arms, of the seeds that have it in both, in the order of the seeds.

    NaN and infinite values count as missing.
    """
    one, two = results.get(arm, {}), results.get(other, {})
    values = [
        (one[seed].get(measure, math.nan), two[seed].get(measure, math.nan)) for seed in sorted(one) if seed in two
    ]
    both = [pair for pair in values if all(map(math.isfinite, pair))]
    return [mine for mine, _ in both], [theirs for _, theirs in both]


def verdict(difference: Difference, better: str, smallest_effect: float | None = None) -> Verdict:
    """Supported, not supported or undecided: does the arm do better than the other in this measure?

    Not supported: the difference is significantly in the wrong direction, or the interval leaves out every difference
    that would matter (`smallest_effect`). Supported: the corrected p-value is below 0.05, in the right direction.
    Undecided otherwise, with the seeds that would decide if the difference is what it seems. Fewer than eight seeds
    decide nothing.
    """
    sign = 1.0 if better == "higher" else -1.0
    low, high = sorted(sign * end for end in difference.interval[1:])
    if difference.seeds < FEWEST_FOR_A_CLAIM:
        return Verdict(UNDECIDED, "few seeds", needed(difference))
    if difference.corrected < LEVEL and high < 0:
        return Verdict(NOT_SUPPORTED, "other direction")
    if smallest_effect is not None and high < smallest_effect:
        return Verdict(NOT_SUPPORTED, "below the minimum effect")
    if difference.corrected < LEVEL and low > 0:
        return Verdict(SUPPORTED)
    return Verdict(UNDECIDED, "", needed(difference))


def needed(difference: Difference) -> int | None:
    """How many seeds detect the difference that was seen, at the strictest test; None where a million do not."""
    seeds = units_needed(difference.interval.mean, difference.sd, POWER, LEVEL / difference.tests)
    return None if seeds is None else max(seeds, FEWEST_FOR_A_CLAIM)


def detectable(seeds: int, pairs: int) -> dict[int, float]:
    """Tests -> the minimum detectable effect, in standard deviations of the paired differences.

    Of one test, and of `pairs` corrected for their number. Empty for so few seeds that they decide nothing.
    """
    if seeds < FEWEST_FOR_A_CLAIM:
        return {}
    return {tests: smallest_detectable(1.0, seeds, POWER, LEVEL / tests) for tests in sorted({1, pairs})}


_MEASURES = {"loss", "accuracy", "row_accuracy", "excess", "perplexity", "probability", "language"}


def over_seeds(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Each arm's metrics as means over its seeds, `ARM/NAME`, with 95 % intervals `_low` and `_high` from two on.

    Intervals are of measures: sizes, times and bounds of intervals over the rows of one run have none. Where a seed
    has no finite value, `ARM/NAME_seeds` says how many have, and the mean is theirs.
    """
    means: dict[str, float] = {}
    for arm, runs in metrics.items():
        prefix = f"{arm}/" if arm else ""
        for name in set.union(*(set(run) for run in runs)):
            if len(runs) > 1 and name.endswith(("_low", "_high")):
                continue
            values = [run[name] for run in map(finite, runs) if name in run]
            if len(values) < len(runs):
                means[f"{prefix}{name}_seeds"] = float(len(values))
            if not values:
                continue
            interval = seed_interval(values, name)
            means[f"{prefix}{name}"] = interval.mean
            if math.isfinite(interval.low) and name.partition("/")[0] in _MEASURES:
                means |= {f"{prefix}{name}_low": interval.low, f"{prefix}{name}_high": interval.high}
        means[f"{prefix}seeds"] = float(len(runs))
    return means


def known_measures(results: Results) -> list[str]:
    """Names that any run has, sorted; sizes, times and bounds left out."""
    names = set().union(*_runs(results))
    return sorted(name for name in names if not f"{name}/".startswith(_NO_MEASURES) and not name.endswith(_BOUNDS))


def all_measures(results: Results) -> list[str]:
    """The known measures without those that repeat another in every run.

    A run that lacks a measure is left out of what is said of it.
    """
    first_names: dict[tuple[str, tuple[float | None, ...]], str] = {}
    for name in sorted(known_measures(results), key=_rank):
        kind = name.rpartition("/")[0].replace("reward", "validity")
        first_names.setdefault((kind, tuple(run.get(name) for run in _runs(results))), name)
    return sorted(first_names.values())


def _runs(results: Results) -> list[Metrics]:
    return [run for arm in results.values() for run in arm.values()]


def _rank(name: str) -> tuple[bool, int, str]:
    """Validity before the reward that repeats it, the head and the tail before the clusters that they are."""
    part = name.rpartition("/")[2]
    return name.startswith("reward/"), 0 if part in ("all", "head", "tail") else 1, name


_NO_MEASURES = (
    "equal_kl/kl",  # the same in both arms, by what it is
    "seconds/", "weights/", "prompts/", "pairs/", "parameters/", "steps/", "rows/", "floor/", "sampling/",
    "completions/",
    # Single evaluations while training; the samples of the trained policy say more.
    "validity/warmup", "validity/final", "sampled_reward/warmup", "sampled_reward/final",
)  # fmt: skip
_BOUNDS = ("/low", "/high", "_low", "_high", "/standard_error")


# What each recipe writes into metrics.json, as far as it is compared. `*` is any name; PART is all, head, tail, or a
# cluster of the prompts.
_LANGUAGE = """validity valid_and_new in_training coverage coverage/of_rows distinct validity_by_length
    validity_by_length/* completion completion/strict completion/*/passed completion/*/strict completion/*/p_valid
    completion/*/p_invalid auroc auroc/same_length auroc/length auroc/length_table pairs/same_length perplexity/valid
    perplexity/invalid perplexity/ratio perplexity/gap perplexity/kind/* perplexity/same_length/* string/excess
    string/loss string/floor string_perplexity/*"""
RECIPE_MEASURES = {
    "sft": "loss/final",
    "reward": "accuracy/held_out accuracy/held_out/* loss/held_out",
    "dpo": "accuracy/held_out margin/held_out loss/held_out",
    "pretrain": """excess/test loss/test accuracy/test row_accuracy/test excess/test_share seen/test loss/test/*
        accuracy/test/* row_accuracy/test/* perplexity/test/* probability/test/* best/validation*
        mean/validation* all_right/validation* tokens/* documents/*
        """
    + " ".join(f"language/{name}" for name in _LANGUAGE.split()),
    "grpo": """validity/PART reward/PART halves/validity/rare halves/validity/common halves/sampled_reward/rare
        halves/sampled_reward/common pass_at_*/PART variety/PART coverage/PART reward/decile_* entropy/mean
        entropy/token kl/mean kl/token length finished equal_kl/* collapse/variety collapse/variety/PART
        collapse/em_dash collapse/not_just collapse/tone_spread collapse/token_gini collapse/distinct_1
        collapse/distinct_2 collapse/compression collapse/repetition collapse/self_bleu collapse/self_bleu/PART
        collapse/self_bleu/across collapse/self_bleu/across/PART collapse/vendi collapse/vendi/PART
        collapse/vendi/across collapse/vendi/across/PART""",
}


def recipe_measures(recipe: str, clusters: Iterable[str] = ()) -> list[str]:
    """The names that the runs of a recipe may have, as patterns of fnmatch; clusters: of the prompts."""
    parts = dict.fromkeys(["all", "head", "tail", *clusters])
    names = [name.replace("PART", part) for name in RECIPE_MEASURES[recipe].split() for part in parts]
    return list(dict.fromkeys(names))


EQUAL_KL = "equal_kl/"
_KL = "held_out/kl"
_FEWEST_SMOOTHED = 5  # evaluations; fewer are taken as they are


def at_equal_kl(
    one: Sequence[Mapping[str, float]], two: Sequence[Mapping[str, float]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Measures of two arms of one seed at equal KL divergence: means over all divergences that both came to.

    one, two: their logs, of which entries with `held_out/kl` (nats a completion, 0 before training) are evaluations.
    KL and measures are smoothed over the steps, since sampled answers are few; each divergence is read off where the
    arm first came to it. `equal_kl/kl` is the largest of them. Empty where an arm has no two evaluations.
    """
    arms = [_evaluations(history) for history in (one, two)]
    if any(len(steps) < 2 for steps, _ in arms):
        return {}, {}
    low, high = (choose(measures[_KL][end] for _, measures in arms) for choose, end in ((max, 0), (min, -1)))
    if low > high:
        return {}, {}
    at = np.linspace(low, high, 101)
    at_equal = []
    for steps, measures in arms:
        kl = measures.pop(_KL)
        first = np.append(True, np.diff(kl) > 0)
        where = np.interp(at, kl[first], steps[first])
        read = {name: np.interp(where, steps, values) for name, values in measures.items()}
        means = {
            name: np.trapezoid(values, at) / (high - low) if high > low else values[0] for name, values in read.items()
        }
        named = {EQUAL_KL + name.removeprefix("held_out/"): float(mean) for name, mean in sorted(means.items())}
        at_equal.append({**named, EQUAL_KL + "kl": float(high)})
    return at_equal[0], at_equal[1]


def _evaluations(history: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Evenly spaced steps, and the measures that every evaluation has, smoothed; the KL never falls.

    Smoothed by cubics through the nearer half of them (Savitzky and Golay, 1964): lines cut the faster arm's bends.
    """
    entries = {entry["step"]: finite(entry) for entry in history if "step" in entry and _KL in finite(entry)}
    logged = np.array(sorted(entries), dtype=np.float64)
    if not entries:
        return logged, {}
    names = set.intersection(*(set(entry) for entry in entries.values())) - {"step", "epoch"}
    steps, window = np.linspace(logged[0], logged[-1], len(logged)), max(_FEWEST_SMOOTHED, len(logged) // 2 | 1)
    measures = {name: np.interp(steps, logged, [entries[step][name] for step in logged]) for name in names}
    if len(logged) >= _FEWEST_SMOOTHED:
        measures = {name: savgol_filter(values, window, 3) for name, values in measures.items()}
    peak = int((kl := measures[_KL]).argmax())
    kl[: peak + 1], kl[peak:] = isotonic_regression(kl[: peak + 1]).x, kl[peak]
    return steps, measures
