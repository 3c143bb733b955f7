"""Several runs by one command, read once: arms that differ in named values, each with its seeds."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hf_synth.experiments.arms import ArmsArguments, planned_runs
from hf_synth.metrics.intervals import Interval, mean_interval, paired_interval
from hf_synth.reports.run import Arm, read_run
from hf_synth.training.checkpoints import TRAINING_LOG
from hf_synth.training.run_directory import RESOLVED_CONFIG, read_metrics

_SHARE = re.compile(r"accuracy|validity|coverage|completion")


@dataclasses.dataclass(frozen=True)
class SeededArm:
    """One arm: its name, the values that it differs in, and its finished runs by seed."""

    name: str
    values: Mapping[str, Any]
    runs: Mapping[int, Arm]

    @property
    def label(self) -> str:
        """How a table calls the arm; one that has no other beside it has no name."""
        return self.name or "as configured"

    def of(self, name: str) -> list[float]:
        """A metric of each run that has it."""
        return [run.metrics[name] for run in self.runs.values() if name in run.metrics]

    def interval(self, name: str) -> Interval | None:
        """The mean over seeds and Student's interval; NaN bounds of one seed, None where no run has it.

        The bounds of a share are cut at 0 and 1.
        """
        values = self.of(name)
        return _cut(mean_interval(values), name) if values else None

    def curve(self, name: str) -> tuple[list[int], list[Interval]]:
        """A logged quantity over the steps that all runs have, with its interval over seeds at each."""
        found = [dict(zip(*run.series(name), strict=True)) for run in self.runs.values()]
        steps = sorted(set.intersection(*map(set, found))) if found else []
        return steps, [_cut(mean_interval([values[step] for values in found]), name) for step in steps]


def _cut(interval: Interval, name: str) -> Interval:
    if not _SHARE.search(name) or not math.isfinite(interval.high - interval.low):
        return interval
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A folder of arms and seeds; `missing` names the folders of runs that have not finished."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    arms: list[SeededArm]
    missing: list[str]

    @property
    def seeds(self) -> int:
        """The fewest seeds of an arm."""
        return min(len(arm.runs) for arm in self.arms)

    def difference(self, arm: SeededArm, name: str) -> Interval | None:
        """A metric of an arm less that of the first, seed by seed; None without two seeds that both have."""
        first = self.arms[0]
        seeds = [seed for seed in arm.runs if seed in first.runs]
        pairs = [(arm.runs[seed].metrics.get(name), first.runs[seed].metrics.get(name)) for seed in seeds]
        if len(pairs) < 2 or any(value is None for pair in pairs for value in pair):
            return None
        mine, other = np.array(pairs, dtype=np.float64).T
        return paired_interval(mine, other)


def holds_arms(folder: Path) -> bool:
    """Whether a folder is that of several runs, not of one."""
    path = folder / RESOLVED_CONFIG
    if not path.exists() or (folder / TRAINING_LOG).exists():
        return False
    config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return bool(config.get("arms")) or len(config.get("seeds") or []) > 1


def read_comparison(folder: Path) -> Comparison:
    """Read all finished runs of a folder of arms; raises ValueError where none has finished."""
    config = yaml.safe_load((folder / RESOLVED_CONFIG).read_text(encoding="utf-8"))
    arguments = ArmsArguments(arms=config.get("arms"), seeds=config.get("seeds"))
    runs: dict[str, dict[int, Arm]] = {}
    missing = []
    for planned in planned_runs(arguments, folder, config.get("seed", 0)):
        if not (planned.folder / TRAINING_LOG).exists():
            missing.append(planned.folder.relative_to(folder).as_posix())
            continue
        runs.setdefault(planned.arm, {})[planned.seed] = read_run(planned.folder).arms[0]
    if not runs:
        raise ValueError(f"got {str(folder)!r}, where none of {len(missing)} runs has finished; wanted at least one")
    values = config.get("arms") or {}
    arms = [SeededArm(name, values.get(name) or {}, found) for name, found in runs.items()]
    return Comparison(folder, config, read_metrics(folder) or {}, arms, missing)
