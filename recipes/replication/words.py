"""How the page says a mean with its interval, and how much a number of seeds allows to say."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hf_synth.metrics.intervals import Interval, mean_interval, paired_interval
from hf_synth.reports.tables import MISSING, table

ENOUGH_SEEDS = 8  # for a claim; fewer say only that it ran


@dataclasses.dataclass(frozen=True)
class Claim:
    """What would show as a number above `bar`, and the interval of that number here; `units`: seeds or the like."""

    claim: str
    measured: str
    found: Interval
    units: int
    bar: float = 0.0
    digits: int = 3

    def verdict(self) -> str:
        """What the interval says of the claim; nothing where units are too few."""
        if self.units < ENOUGH_SEEDS:
            return "are too few"
        if self.found.low > self.bar:
            return "agree"
        return "contradict" if self.found.high < self.bar else "do not decide"


def claims(found: Sequence[Claim]) -> str:
    """A table of claims, and what the intervals found here say of each."""
    rows = [
        [claim.claim, claim.measured, with_interval(claim.found, claim.digits), claim.verdict()] for claim in found
    ]
    return table(["claim", "shows in", "found", "so the data"], rows, text_columns=2)


def seed_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[Interval, int]:
    """First - second of the seeds that both have, and how many these are; NaN where there is none."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return Interval(math.nan, math.nan, math.nan), 0
    return paired_interval([first[seed] for seed in shared], [second[seed] for seed in shared]), len(shared)


def over_units(values: Sequence[float], digits: int = 3) -> str:
    """A mean, and its 95 % interval over the units where there are two or more."""
    return with_interval(mean_interval(values), digits)


def share_over_units(values: Sequence[float], digits: int = 2) -> str:
    """The same for shares: bounds do not leave 0 to 1."""
    mean, low, high = mean_interval(values)
    if math.isfinite(low):
        low, high = max(0.0, low), min(1.0, high)
    return with_interval(Interval(mean, low, high), digits)


def with_interval(found: Interval, digits: int = 3) -> str:
    """`0.312 [0.298, 0.326]`, or the number alone; `-` where there is none."""
    if math.isnan(found.mean):
        return MISSING
    if not math.isfinite(found.low):
        return f"{found.mean:.{digits}f}"
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def standing(seeds: int, unit: str = "seeds") -> str:
    """What so many units allow to say; each has a training seed of its own."""
    own = "" if unit == "seeds" else ", each with a training seed of its own"
    if seeds >= ENOUGH_SEEDS:
        return f"{seeds} {unit}{own}; intervals are 95 % over {unit} (Student's t)."
    few = f"{seeds} of the {ENOUGH_SEEDS} {unit} that a claim takes"
    return f"{few}: this says that it ran, and no more." + (f" Intervals are over {unit}." if seeds > 1 else "")
