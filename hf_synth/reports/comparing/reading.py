"""A folder of recipes/compare.py, read once."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_synth.experiments.plan import COMPARISON, CompareArguments
from hf_synth.experiments.results import RunResult, check_primary, read_all, with_equal_kl
from hf_synth.experiments.statistics import Difference, all_measures, differences
from hf_synth.metrics.intervals import Interval, mean_interval
from hf_synth.reports.headlines import headlines
from hf_synth.training.arguments import read_yaml


@dataclasses.dataclass(frozen=True)
class Compared:
    """Everything that a report of a comparison is made from.

    runs: arm -> seed -> run. results: the same with the metrics alone, those at equal KL among them. missing: folders
    of runs that have not finished. Differences are of three families, p-values corrected within each: primary, in the
    primary measure; headlines, in the measures that tables show; others, in all that is left.
    """

    folder: Path
    arguments: CompareArguments
    base: dict[str, Any]
    runs: Mapping[str, Mapping[int, RunResult]]
    results: Mapping[str, Mapping[int, Mapping[str, float]]]
    primary: list[Difference]
    headlines: list[Difference]
    others: list[Difference]
    missing: list[str]

    @property
    def differences(self) -> list[Difference]:
        """Those of all families."""
        return [*self.primary, *self.headlines, *self.others]

    @property
    def shown(self) -> list[str]:
        """The measures that tables show, the primary one first."""
        return list(dict.fromkeys([self.arguments.primary, *headlines(all_measures(self.results))]))

    @property
    def arms(self) -> list[str]:
        """The arms with a finished run, in the order of the config."""
        return [arm for arm, found in self.results.items() if found]

    def values(self, arm: str, measure: str) -> list[float]:
        """A measure of each seed that has it."""
        runs = self.results.get(arm, {})
        return [runs[seed][measure] for seed in sorted(runs) if measure in runs[seed]]

    def interval(self, arm: str, measure: str) -> Interval | None:
        """The mean over seeds with Student's interval; None where no run has the measure."""
        values = self.values(arm, measure)
        return mean_interval(values) if values else None

    def of(self, measure: str, arm: str, other: str) -> Difference | None:
        """The difference of a pair in a measure."""
        return next((d for d in self.differences if (d.measure, d.arm, d.other) == (measure, arm, other)), None)


def read_compared(folder: Path) -> Compared:
    """Read all finished runs; ValueError where none has, or where arms differ in more than they may."""
    kept = read_yaml(folder / COMPARISON)
    base = kept.pop("base")
    arguments = CompareArguments(**kept)
    runs, missing = read_all(arguments, folder)
    if not any(runs.values()):
        raise ValueError(f"got {str(folder)!r}, where none of {len(missing)} runs has finished; wanted at least one")
    results = with_equal_kl(runs)
    check_primary(arguments.primary, results)
    measures = [name for name in all_measures(results) if name != arguments.primary]
    shown = [name for name in headlines(measures) if name != arguments.primary]
    pairs = arguments.pairs
    return Compared(
        folder,
        arguments,
        base,
        runs,
        results,
        differences(results, pairs, [arguments.primary]),
        differences(results, pairs, shown),
        differences(results, pairs, [name for name in measures if name not in shown]),
        missing,
    )
