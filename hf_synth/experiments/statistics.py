"""From the metrics of runs to paired differences, and from those to a verdict."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hf_synth.experiments.plan import CompareArguments
from hf_synth.metrics.intervals import Interval, holm, paired_interval, paired_test, smallest_detectable, units_needed

Metrics = Mapping[str, float]
Results = Mapping[str, Mapping[int, Metrics]]  # arm -> seed -> name -> number

LEVEL = 0.05
POWER = 0.8
FEWEST_FOR_A_CLAIM = 8  # seeds
_FEWEST = 2  # pairs that a standard deviation takes


@dataclasses.dataclass(frozen=True)
class Difference:
    """A measure of one arm minus that of another, seed by seed.

    sd: of the differences over seeds. p: Student's paired test, 1 below the seeds that a claim takes; corrected:
    Holm's over the family that it is in.
    """

    measure: str
    arm: str
    other: str
    seeds: int
    interval: Interval
    sd: float
    p: float
    corrected: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the primary measure says of one pair of arms: the word, and why."""

    word: str
    reason: str


def differences(results: Results, pairs: Sequence[tuple[str, str]], measures: Iterable[str]) -> list[Difference]:
    """Each measure for each pair of arms, with p-values corrected over all of them together.

    Left out are measures that fewer than two seeds have in both arms.
    """
    found = []
    for measure in measures:
        for arm, other in pairs:
            mine, theirs = paired_values(results, measure, arm, other)
            if len(mine) >= _FEWEST:
                sd = float(np.std(np.subtract(mine, theirs), ddof=1))
                # Below eight seeds two equal differences can give a p-value of 0, and decide nothing.
                p = paired_test(mine, theirs) if len(mine) >= FEWEST_FOR_A_CLAIM else 1.0
                found.append(Difference(measure, arm, other, len(mine), paired_interval(mine, theirs), sd, p, p))
    corrected = holm([difference.p for difference in found])
    return [
        dataclasses.replace(difference, corrected=float(p)) for difference, p in zip(found, corrected, strict=True)
    ]


def paired_values(results: Results, measure: str, arm: str, other: str) -> tuple[list[float], list[float]]:
    """The values of a measure in two arms, of the seeds that have it in both, in the order of the seeds."""
    one, two = results.get(arm, {}), results.get(other, {})
    seeds = [seed for seed in sorted(one) if seed in two and measure in one[seed] and measure in two[seed]]
    return [one[seed][measure] for seed in seeds], [two[seed][measure] for seed in seeds]


def verdict(difference: Difference, better: str, smallest_effect: float | None, *, tests: int = 1) -> Verdict:
    """Supported, not supported or undecided: does the arm do better than the other in this measure?

    Supported: the corrected p-value is below 0.05 and the difference is in the right direction. Not supported: it is
    significantly in the wrong one, or the interval leaves out every difference that would matter (`smallest_effect`).
    Undecided otherwise, with the seeds that would decide if the difference is what it seems. Fewer than eight seeds
    decide nothing. tests: of the family that p is corrected over.
    """
    sign = 1.0 if better == "higher" else -1.0
    mean, low, high = sign * difference.interval.mean, *sorted(sign * end for end in difference.interval[1:])
    seen = f"{sign * mean:+.3g} [{difference.interval.low:+.3g}, {difference.interval.high:+.3g}]"
    told = f"{seen}, {difference.seeds} seeds"
    if difference.seeds < FEWEST_FOR_A_CLAIM:
        return Verdict("undecided", f"{told}; a claim takes {FEWEST_FOR_A_CLAIM} seeds; {needed(difference, tests)}")
    told += f", corrected p = {difference.corrected:.2g}"
    if difference.corrected < LEVEL and low > 0:
        return Verdict("supported", told)
    if difference.corrected < LEVEL and high < 0:
        return Verdict("not supported", f"{told}; in the other direction")
    if smallest_effect is not None and high < smallest_effect:
        return Verdict("not supported", f"{told}; smaller than the minimum effect of {smallest_effect:g}")
    return Verdict("undecided", f"{told}; {needed(difference, tests)}")


def needed(difference: Difference, tests: int = 1) -> str:
    """How many seeds would decide, if the true difference is the one that was seen, at the strictest of `tests`."""
    seeds = units_needed(difference.interval.mean, difference.sd, POWER, LEVEL / tests) if difference.sd else None
    if seeds is None:
        return "a million seeds would not distinguish a difference this small from none"
    seeds = max(seeds, FEWEST_FOR_A_CLAIM)
    return f"if that is the true difference, {seeds} seeds detect it with {100 * POWER:.0f} % power"


def power_statement(arguments: CompareArguments) -> list[str]:
    """The smallest difference that the seeds can detect in the primary measure, said before anything is trained."""
    seeds = len(arguments.seeds)
    if seeds < _FEWEST:
        return ["One seed shows that it ran. It cannot distinguish a difference from chance."]
    lines = []
    for pairs in sorted({1, len(arguments.pairs)}):
        corrected = f", corrected for {pairs} pairs" if pairs > 1 else ""
        size = smallest_detectable(1.0, seeds, POWER, LEVEL / pairs)
        noise = f" ({size * arguments.noise:.3g})" if arguments.noise else ""
        lines.append(
            f"Minimum detectable effect in {arguments.primary} ({100 * POWER:.0f} % power, {seeds} seeds{corrected}): "
            f"{size:.2f} standard deviations of the paired differences{noise}."
        )
    return lines


def known_measures(results: Results) -> list[str]:
    """Names that any run has, sorted; sizes, times and bounds left out."""
    return sorted(name for name in set().union(*_runs(results)) if _is_measure(name))


def all_measures(results: Results) -> list[str]:
    """The known measures without those that repeat another in every run.

    A run that lacks a measure is left out of what is said of it.
    """
    told: dict[tuple[str, tuple[float | None, ...]], str] = {}
    for name in sorted(known_measures(results), key=_rank):
        kind = name.rpartition("/")[0].replace("reward", "validity")
        told.setdefault((kind, tuple(run.get(name) for run in _runs(results))), name)
    return sorted(told.values())


def _runs(results: Results) -> list[Metrics]:
    return [run for arm in results.values() for run in arm.values()]


def _rank(name: str) -> tuple[bool, int, str]:
    """Validity before the reward that repeats it, the head and the tail before the clusters that they are."""
    part = name.rpartition("/")[2]
    return name.startswith("reward/"), 0 if part in ("all", "head", "tail") else 1, name


_NO_MEASURES = (
    "equal_kl/kl",  # the same in all arms, by what it is
    "seconds/",
    "weights/",
    "prompts/",
    "pairs/",
    "parameters",
    "steps",
    "rows/",
    "floor/",
    "sampling/",
)
_BOUNDS = ("/low", "/high", "_low", "_high", "/standard_error")
# Single looks while training; the samples of the trained policy say more.
_LOOKS = ("validity/warmup", "validity/final", "sampled_reward/warmup", "sampled_reward/final")


def _is_measure(name: str) -> bool:
    return not (name.startswith(_NO_MEASURES) or name.endswith(_BOUNDS) or name.startswith(_LOOKS))


PREFIX = "equal_kl/"
_KL = "held_out/kl"


def at_equal_kl(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Arm -> name -> value where the arm first came to the KL divergence that every arm came to; of one seed.

    histories: arm -> its log, of which entries with `held_out/kl` (nats a completion, 0 before training) are the
    looks.
    Between two looks values are interpolated along the largest KL so far. `equal_kl/kl` is that divergence itself.
    Empty where an arm has no two looks.
    """
    looks = {arm: [entry for entry in history if _KL in entry] for arm, history in histories.items()}
    if any(len(found) < 2 for found in looks.values()):
        return {arm: {} for arm in looks}
    reached = {arm: np.maximum.accumulate([entry[_KL] for entry in found]) for arm, found in looks.items()}
    common = float(min(distances[-1] for distances in reached.values()))
    return {arm: _read_off(found, reached[arm], common) for arm, found in looks.items()}


def _read_off(looks: Sequence[Mapping[str, float]], distances: np.ndarray, at: float) -> dict[str, float]:
    after = int(np.searchsorted(distances, at))  # the first look that is as far
    before = max(0, after - 1)
    gap = distances[after] - distances[before]
    share = (at - distances[before]) / gap if gap > 0 else 1.0
    names = (set(looks[before]) & set(looks[after])) - {"step", "epoch", _KL}
    found = {
        PREFIX + name.removeprefix("held_out/"): float((1 - share) * looks[before][name] + share * looks[after][name])
        for name in sorted(names)
    }
    return {**found, PREFIX + "kl": at}
