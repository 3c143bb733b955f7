"""Claims of publications against intervals measured here, and what a number of seeds allows to say."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from hf_synth.experiments.statistics import FEWEST_FOR_A_CLAIM as ENOUGH_SEEDS
from hf_synth.experiments.statistics import NOT_SUPPORTED, SUPPORTED, UNDECIDED, Difference, verdict
from hf_synth.metrics.intervals import Interval, holm, mean_interval, paired_test, wilson_interval
from hf_synth.reports.tables import MISSING, table

COMPARED = ("agrees", "does not agree")  # published numbers without a test
TOO_FEW = "too few runs"
LEAST_FOR_INTERVAL = 3  # of two values it would be thirteen times their distance
_WORDS = {SUPPORTED: "reproduced", NOT_SUPPORTED: "not reproduced", UNDECIDED: "undecided"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that holds where a number is above `bar`, and its interval here.

    units: seeds or the like. p: two-sided, that the number is the bar. without: why the claim gets no verdict, such as
    a setting that is not the published one. smallest_effect: the smallest difference from the bar that matters.
    """

    claim: str
    measured: str
    interval: Interval
    units: int
    p: float
    bar: float = 0.0
    digits: int = 3
    without: str = ""
    own: bool = False
    smallest_effect: float | None = None

    def here(self) -> str:
        """Return the number found here, and its interval where there are units enough for one."""
        few = self.units < LEAST_FOR_INTERVAL
        return with_interval(self.interval._replace(low=math.nan) if few else self.interval, self.digits)


def compared_claim(
    claim: str, measured: str, values: Sequence[float], published: float, within: float = 0.0005, single: bool = False
) -> Claim:
    """Return whether a published number, known to `within`, lies in the interval of the mean here; no test.

    single: the number is of one unit, so it is compared with the 95 % prediction interval of one.
    """
    interval, wider = mean_interval(values), math.sqrt(len(values) + 1) if single else 1.0
    interval = Interval(interval.mean, *(interval.mean + wider * (end - interval.mean) for end in interval[1:]))
    word = COMPARED[not interval.low - within <= published <= interval.high + within]
    word = word if len(values) >= ENOUGH_SEEDS else TOO_FEW
    return Claim(claim, measured, interval, len(values), 1.0, without=word)


def mean_claim(claim: str, measured: str, values: Sequence[float], bar: float = 0.0, digits: int = 3) -> Claim:
    """Return a claim that a mean over units is above the bar; NaN where there is no unit."""
    if not len(values):
        return Claim(claim, measured, Interval(math.nan, math.nan, math.nan), 0, 1.0, bar, digits)
    return Claim(claim, measured, mean_interval(values), len(values), paired_test(values, [bar] * len(values)), bar,
                 digits)  # fmt: skip


def share_claim(claim: str, measured: str, hits: int, units: int, bar: float = 0.5) -> Claim:
    """Return a claim that a fraction of the units is above the bar, by the exact binomial test."""
    p = float(stats.binomtest(hits, units, bar).pvalue)
    return Claim(claim, measured, wilson_interval(hits, units), units, p, bar, digits=2)


def verdicts(claims: Sequence[Claim]) -> list[tuple[str, float]]:
    """Return a word for each claim of a page, and its p-value, corrected over all that are tested (Holm), or NaN."""
    tested = [claim for claim in claims if not claim.without]
    corrected = iter(holm([claim.p if claim.units >= ENOUGH_SEEDS else 1.0 for claim in tested]))
    answers = []
    for claim in claims:
        p = math.nan if claim.without else float(next(corrected))
        if claim.without or claim.units < ENOUGH_SEEDS:
            answers.append((claim.without or TOO_FEW, math.nan))
            continue
        above = Interval(*(end - claim.bar for end in claim.interval))
        difference = Difference(claim.claim, "", "", claim.units, above, 0.0, claim.p, p)
        word = verdict(difference, "higher", claim.smallest_effect).word
        answers.append((word if claim.own else _WORDS[word], p))
    return answers


def claims_table(claims: Sequence[Claim], answers: Sequence[tuple[str, float]]) -> str:
    """Return a table of claims, and what the intervals measured here say of each."""
    rows = [
        [claim.claim, claim.measured, claim.here(), with_p(p), word]
        for claim, (word, p) in zip(claims, answers, strict=True)
    ]
    return table(["claim", "measured by", "here", "corrected p", "verdict"], rows, text_columns=2)


def with_p(p: float) -> str:
    """Return a p-value with two digits; `-` where there is none."""
    return MISSING if math.isnan(p) else f"{p:.2g}"


def seed_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Return first - second of the seeds that both have."""
    shared = sorted(first.keys() & second.keys())
    return np.subtract([first[seed] for seed in shared], [second[seed] for seed in shared]).tolist()


def over_units(values: Sequence[float], digits: int = 3) -> str:
    """Return a mean, and its 95 % interval over the units where there are three or more; `-` where there is none."""
    if len(values) < LEAST_FOR_INTERVAL:
        return f"{np.mean(values):.{digits}f}" if len(values) else MISSING
    return with_interval(mean_interval(values), digits)


def share_over_units(values: Sequence[float], digits: int = 2) -> str:
    """Return the same for fractions: bounds stay within 0 and 1."""
    if len(values) < LEAST_FOR_INTERVAL:
        return over_units(values, digits)
    mean, low, high = mean_interval(values)
    return with_interval(Interval(mean, max(0.0, low), min(1.0, high)), digits)


def with_interval(interval: Interval, digits: int = 3) -> str:
    """Return `0.312 [0.298, 0.326]`, or the number alone; `-` where there is none."""
    if math.isnan(interval.mean):
        return MISSING
    if not math.isfinite(interval.low):
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def sample_size_note(counts: Sequence[int], unit: str = "seeds") -> str:
    """Return what the numbers of units of the arms allow to say; each has a training seed of its own."""
    seeds = min(counts)
    some = f"{seeds}" if seeds == max(counts) else f"{seeds} to {max(counts)}"
    own = "" if unit == "seeds" else ", each with a training seed of its own"
    if seeds >= ENOUGH_SEEDS:
        return f"{some} {unit}{own}; intervals are 95 % over {unit}: Student's for means, Wilson's for counts."
    over = f"Intervals, from {LEAST_FOR_INTERVAL} on, are over {unit}."
    return f"{some} {unit}, of the {ENOUGH_SEEDS} that a claim takes. {over}"
