"""Claims of publications against intervals measured here, and what a number of seeds allows to say."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hf_synth.metrics.intervals import Interval, mean_interval, paired_interval
from hf_synth.reports.tables import MISSING, table

ENOUGH_SEEDS = 8  # for a claim; fewer say only that it ran


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that holds where a number is above `bar`, and its interval here; `units`: seeds or the like."""

    claim: str
    measured: str
    interval: Interval
    units: int
    bar: float = 0.0
    digits: int = 3

    def verdict(self) -> str:
        """Return what the interval says of the claim; nothing where units are too few."""
        if self.units < ENOUGH_SEEDS:
            return "are too few"
        if self.interval.low > self.bar:
            return "agree"
        return "contradict" if self.interval.high < self.bar else "do not decide"


def claims_table(claims: Sequence[Claim]) -> str:
    """Return a table of claims, and what the intervals measured here say of each."""
    rows = [
        [claim.claim, claim.measured, with_interval(claim.interval, claim.digits), claim.verdict()] for claim in claims
    ]
    return table(["claim", "shows in", "found", "so the data"], rows, text_columns=2)


def seed_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[Interval, int]:
    """Return first - second of the seeds that both have, and how many these are; NaN where there is none."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return Interval(math.nan, math.nan, math.nan), 0
    return paired_interval([first[seed] for seed in shared], [second[seed] for seed in shared]), len(shared)


def over_units(values: Sequence[float], digits: int = 3) -> str:
    """Return a mean, and its 95 % interval over the units where there are two or more."""
    return with_interval(mean_interval(values), digits)


def share_over_units(values: Sequence[float], digits: int = 2) -> str:
    """Return the same for fractions: bounds stay within 0 and 1."""
    mean, low, high = mean_interval(values)
    if math.isfinite(low):
        low, high = max(0.0, low), min(1.0, high)
    return with_interval(Interval(mean, low, high), digits)


def with_interval(interval: Interval, digits: int = 3) -> str:
    """Return `0.312 [0.298, 0.326]`, or the number alone; `-` where there is none."""
    if math.isnan(interval.mean):
        return MISSING
    if not math.isfinite(interval.low):
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def sample_size_note(seeds: int, unit: str = "seeds") -> str:
    """Return what so many units allow to say; each has a training seed of its own."""
    own = "" if unit == "seeds" else ", each with a training seed of its own"
    if seeds >= ENOUGH_SEEDS:
        return f"{seeds} {unit}{own}; intervals are 95 % over {unit} (Student's t)."
    few = f"{seeds} of the {ENOUGH_SEEDS} {unit} that a claim takes"
    return f"{few}: this says that it ran, and no more." + (f" Intervals are over {unit}." if seeds > 1 else "")
