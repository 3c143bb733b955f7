"""What the folder of a run, of arms or of a comparison holds: config, metrics, logs and weights, read once."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from hf_synth.errors import nearest
from hf_synth.experiments.arms import ArmsArguments, planned_runs
from hf_synth.experiments.plan import COMPARISON, CONFIG, RECIPES, CompareArguments, ComparedRun, run_folder
from hf_synth.experiments.statistics import Difference, all_measures, at_equal_kl, differences, known_measures
from hf_synth.metrics.intervals import Interval, mean_interval, paired_interval
from hf_synth.reports.tables import headlines
from hf_synth.training.arguments import DataArguments, read_yaml
from hf_synth.training.checkpoints import TRAINING_LOG, read_training_log
from hf_synth.training.run_directory import (
    FREE,
    METRICS,
    RESOLVED_CONFIG,
    WEIGHTS_TABLE,
    read_metrics,
    read_trained_on,
)

MEASURES = ("validity", "sampled_reward")  # the measures of sampled answers, as the logs call them


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The weights table of a run, one row a prompt; `cluster` is None where no task made the prompts.

    density: larger means more similar prompts near. weight: mean 1. place: [N, 2], the first two principal components.
    """

    text: list[str]
    cluster: np.ndarray | None
    density: np.ndarray
    weight: np.ndarray
    place: np.ndarray

    @property
    def uniform(self) -> bool:
        """Whether all prompts weigh the same."""
        return bool(np.ptp(self.weight) < 1e-9)

    def sizes(self) -> dict[str, int]:
        """Cluster -> number of prompts, the largest first; ties stay in the order of the table."""
        return {} if self.cluster is None else dict(Counter(self.cluster.tolist()).most_common())


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run in a folder: config, metrics and log as it wrote them, and what it was trained on.

    label: how tables call it. strength: that of the sampling weights, None where nothing was weighed. others: the
    other strengths of a GRPO run, in folders of their own; missing: the names of those that have not finished.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    log: dict[str, Any]
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    label: str = "run"
    strength: float | None = None
    others: list["Run"] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def arms(self) -> list["Run"]:
        """The run itself and the other strengths."""
        return [self, *self.others]

    @cached_property
    def prompts(self) -> Prompts | None:
        """The table of sampling weights, where there is one."""
        return _prompts(self.folder)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and logged values of one quantity; of two entries for a step the later counts."""
        logged = {entry["step"]: entry[name] for entry in self.log["history"] if name in entry and "step" in entry}
        steps = sorted(logged)
        return steps, [logged[step] for step in steps]

    def names(self) -> set[str]:
        """Everything that was ever logged."""
        return {name for entry in self.log["history"] for name in entry}

    @property
    def kinds(self) -> list[str]:
        """What prompts are weighed by, as `sampling_by` names it; density where the config says nothing."""
        return [kind for kind in self.config.get("sampling_by") or ["density"] if kind != "uniform"]

    @property
    def control(self) -> "Run | None":
        """The arm that draws all prompts alike."""
        return next((arm for arm in self.arms if arm.strength == 0), None)

    @property
    def weighted(self) -> list["Run"]:
        """The arms that draw rare prompts more often."""
        return [arm for arm in self.arms if arm.strength]

    @cached_property
    def measure(self) -> str | None:
        """The measure of sampled answers, where there is one."""
        return next((name for name in MEASURES if name in self.names()), None)

    @property
    def recipe(self) -> str:
        """The recipe that made the run; ValueError where its config names none."""
        if (recipe := self.config.get("recipe")) in RECIPES:
            return str(recipe)
        raise ValueError(
            f"got {str(self.folder)!r}, whose {RESOLVED_CONFIG} has recipe={recipe!r}, wanted one of "
            f"{', '.join(RECIPES)}; the command that made the run adds it, and so may you: a line such as recipe: grpo"
        )

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings that differ from the defaults, which make the run again; None where they were not kept."""
        return self.config.get("settings")

    @cached_property
    def groups(self) -> list[str]:
        """The groups that the measure is reported for: clusters, the largest first, or the crowded and the rare."""
        logged = dict.fromkeys(name for entry in self.log["history"] for name in entry)
        groups = [name.partition("/")[2] for name in logged if self.measure and name.startswith(f"{self.measure}/")]
        order = [*self.sizes, "crowded", "rare"]
        return sorted(groups, key=lambda group: order.index(group) if group in order else len(order))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Cluster -> number of prompts, the largest first; empty where no clusters are known."""
        return {} if self.prompts is None else self.prompts.sizes()

    @cached_property
    def ends(self) -> dict[str, str]:
        """`head` and `tail` -> their group; empty where there are not two different ones."""
        if {"crowded", "rare"} == set(self.groups):
            return {"head": "crowded", "tail": "rare"}
        # The first of the smallest, as the recipe chooses it: sizes are sorted, and stable.
        smallest = min(self.sizes, key=self.sizes.__getitem__, default=None)
        largest = next(iter(self.sizes), None)
        if smallest is None or largest is None or smallest == largest or not {smallest, largest} <= set(self.groups):
            return {}
        return {"head": largest, "tail": smallest}

    @property
    def main(self) -> "Run":
        """The arm whose weights are shown in detail: the first weighted one, or the run itself."""
        return (self.weighted or self.arms)[0]


def one_token(tokens: Sequence[float | None], rows: Sequence[float | None]) -> bool:
    """Whether rows have one token with loss each, judged by token and exact-match accuracy at the same evaluations.

    They are the same then; where all are 0 or 1 they are equal for rows of any length, and show nothing.
    """
    return list(tokens) == list(rows) and any(value not in (None, 0, 1) for value in tokens)


def read_finished(folder: Path) -> Run | None:
    """The run of a folder alone, or None while it has not finished; ValueError where a file of it is damaged."""
    try:
        if (log := read_training_log(folder)) is None:
            return None
        path, metrics = folder / RESOLVED_CONFIG, read_metrics(folder)
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        metrics = log.get("final", {}) if metrics is None else metrics
        return Run(folder, dict(config or {}), metrics, dict(log), read_trained_on(folder) or {})
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"got {str(folder)!r}, a run with a damaged file ({reason}); remove that folder, and the same command "
            "makes the run again"
        ) from error


def read_run(folder: Path) -> Run:
    """Read a run and its other strengths; raises ValueError where the folder holds no finished run."""
    if not folder.is_dir() or (run := read_finished(folder)) is None:
        raise ValueError(_no_run(folder))
    config = run.config
    names = _arm_names(config)
    strengths = _strengths(config) if (folder / WEIGHTS_TABLE).exists() or names else []
    kinds = [kind for kind in config.get("sampling_by") or ["density"] if kind != "uniform"]
    strengths = strengths if kinds else [0.0]
    others, missing = [], []
    for name in names:
        if (arm := read_finished(folder / name)) is None:
            missing.append(name)
            continue
        strength = 0.0 if name == "control" else float(name.removeprefix("strength-"))
        settings = run.settings and {**run.settings, "sampling_strength": [strength]}
        others.append(
            dataclasses.replace(
                arm,
                label=_label([strength], kinds),
                strength=strength,
                config={**config, "sampling_strength": [strength], "settings": settings},
                metrics=read_metrics(folder / name) or _without_prefix(run.metrics, f"{name}/"),
            )
        )
    return dataclasses.replace(
        run,
        label=_label(strengths, kinds),
        strength=strengths[0] if strengths else None,
        metrics={name: value for name, value in run.metrics.items() if name.partition("/")[0] not in names},
        others=others,
        missing=missing,
    )


def _no_run(folder: Path) -> str:
    if (folder / RESOLVED_CONFIG).exists():
        return (
            f"got {str(folder)!r}, a run that has not finished ({TRAINING_LOG} is missing); "
            "the command that started it goes on from its last checkpoint"
        )
    return (
        f"got {str(folder)!r}, which holds no run; wanted a folder with {TRAINING_LOG} and {METRICS}: "
        "accelerate launch recipes/grpo.py makes one, and so do the other recipes"
    )


def _strengths(config: dict[str, Any]) -> list[float]:
    value = config.get("sampling_strength")
    if value is None:
        return []
    return [float(item) for item in (value if isinstance(value, list) else [value])]


def _arm_names(config: dict[str, Any]) -> list[str]:
    """The folders of all arms but the first, in the config's order."""
    return ["control" if strength == 0 else f"strength-{strength:g}" for strength in _strengths(config)[1:]]


def _label(strengths: list[float], kinds: list[str]) -> str:
    if not strengths:
        return "run"
    by_strength = {"density", "permuted"} & set(kinds)
    if strengths[0] == 0 and not set(kinds) - by_strength:
        return "control"
    strength = f"strength {strengths[0]:g}"
    if kinds == ["density"]:
        return strength
    return f"weights by {' and '.join(kinds)}" + (f", {strength}" if by_strength else "")


def _without_prefix(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _prompts(folder: Path) -> Prompts | None:
    path = folder / WEIGHTS_TABLE
    if not path.exists():
        return None
    table = pq.read_table(path)
    number = {name: table[name].to_numpy() for name in ("density", "sampling_weight", "x", "y")}
    cluster = None
    if "cluster" in table.column_names:
        cluster = np.array([str(name) for name in table["cluster"].to_pylist()], dtype=object)
    place = np.stack([number["x"], number["y"]], axis=1)
    return Prompts(table["prompt"].to_pylist(), cluster, number["density"], number["sampling_weight"], place)


_SHARE = re.compile(r"accuracy|validity|coverage|completion")


@dataclasses.dataclass(frozen=True)
class SeededArm:
    """One arm: its name, the values that it differs in, and its finished runs by seed."""

    name: str
    values: Mapping[str, Any]
    runs: Mapping[int, Run]

    @property
    def label(self) -> str:
        """How a table calls the arm; one that has no other beside it has no name."""
        return self.name or "as configured"

    def of(self, name: str) -> list[float]:
        """A metric of each run that has it."""
        return [run.metrics[name] for run in self.runs.values() if name in run.metrics]

    def interval(self, name: str) -> Interval | None:
        """The mean over seeds and Student's interval; NaN bounds of one seed, None where no run has it.

        The bounds of a fraction are clipped to 0 and 1.
        """
        values = self.of(name)
        return _cut(mean_interval(values), name) if values else None

    def curve(self, name: str) -> tuple[list[int], list[Interval]]:
        """A logged quantity over the steps that all runs have, with its interval over seeds at each."""
        curves = [dict(zip(*run.series(name), strict=True)) for run in self.runs.values()]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        return steps, [_cut(mean_interval([curve[step] for curve in curves]), name) for step in steps]


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
        """A metric of an arm minus that of the first, seed by seed; None without two seeds that both have."""
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
    runs: dict[str, dict[int, Run]] = {}
    missing = []
    for planned in planned_runs(arguments, folder, config.get("seed", 0)):
        if (run := read_finished(planned.folder)) is None:
            missing.append(planned.folder.relative_to(folder).as_posix())
        else:
            runs.setdefault(planned.arm, {})[planned.seed] = run
    if not runs:
        raise ValueError(f"got {str(folder)!r}, where none of {len(missing)} runs has finished; wanted at least one")
    values = config.get("arms") or {}
    arms = [SeededArm(name, values.get(name) or {}, by_seed) for name, by_seed in runs.items()]
    return Comparison(folder, config, read_metrics(folder) or {}, arms, missing)


@dataclasses.dataclass(frozen=True)
class Compared:
    """Everything that a report of a comparison is made from.

    runs: arm -> seed -> run, with metrics at equal KL. missing: folders of runs that have not finished. Differences
    are of three families, p-values corrected within each: primary, in the primary measure; headlines, in the measures
    that tables show; others, in all that is left.
    """

    folder: Path
    arguments: CompareArguments
    base: dict[str, Any]
    runs: Mapping[str, Mapping[int, Run]]
    primary: list[Difference]
    headlines: list[Difference]
    others: list[Difference]
    missing: list[str]

    @property
    def results(self) -> dict[str, dict[int, dict[str, float]]]:
        """Arm -> seed -> metrics."""
        return metrics_of(self.runs)

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
        return [arm for arm, runs in self.runs.items() if runs]

    def values(self, arm: str, measure: str) -> list[float]:
        """A measure of each seed that has it."""
        runs = sorted(self.runs.get(arm, {}).items())
        return [run.metrics[measure] for _, run in runs if measure in run.metrics]

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
    runs = with_equal_kl(runs)
    results = metrics_of(runs)
    check_primary(arguments.primary, results)
    measures = [name for name in all_measures(results) if name != arguments.primary]
    shown = [name for name in headlines(measures) if name != arguments.primary]
    pairs = arguments.pairs
    return Compared(
        folder,
        arguments,
        base,
        runs,
        differences(results, pairs, [arguments.primary]),
        differences(results, pairs, shown),
        differences(results, pairs, [name for name in measures if name not in shown]),
        missing,
    )


def read_all(arguments: CompareArguments, folder: Path) -> tuple[dict[str, dict[int, Run]], list[str]]:
    """Arm -> seed -> run, of the finished ones, and the names of the others.

    Raises ValueError where arms of a seed differ in more than they may.
    """
    arms = arguments.arms
    found: dict[str, dict[int, Run]] = {arm: {} for arm in arms}
    missing = []
    for arm in found:
        for seed in arguments.seeds:
            place = run_folder(folder, arm, seed)
            if (run := read_finished(place)) is None or not (place / METRICS).exists():
                missing.append(run_folder(Path(), arm, seed).as_posix())
            else:
                found[arm][seed] = run
    varied = {name for values in arms.values() for name in values or {}}
    for seed in arguments.seeds:
        alike = {arm: results[seed] for arm, results in found.items() if seed in results}
        if len(alike) > 1:
            check_alike(alike, varied)
    return found, missing


def check_finished(run: ComparedRun) -> None:
    """Raise ValueError where the folder of a run was begun with another config, naming what differs."""
    path = run.folder / CONFIG
    if not path.exists() or not (run.folder / RESOLVED_CONFIG).exists():
        return
    before = read_yaml(path)
    names = sorted((before.keys() | run.config.keys()) - FREE)
    if differing := [name for name in names if before.get(name) != run.config.get(name)]:
        name = differing[0]
        raise ValueError(
            f"got {str(run.folder)!r}, which was begun with other values of {', '.join(differing[:5])} ({name}: "
            f"{before.get(name)!r} there, {run.config.get(name)!r} now); give another --output_dir, or remove it"
        )


def check_alike(runs: Mapping[str, Run], varied: Iterable[str]) -> None:
    """Raise ValueError where the arms of a seed differ in more than the values that are varied.

    runs: arm -> run, all of one seed. Where a run writes and what it says while it runs may differ, and their rows
    where a value is varied that says what these are.
    """
    free = {*varied, *FREE}
    if free & {field.name for field in dataclasses.fields(DataArguments)}:
        free |= {"trained_on.rows", "trained_on.fingerprint"}
    (first, one), *others = runs.items()
    for arm, run in others:
        values, others_values = _compared(one, run), _compared(run, one)
        names = sorted((values.keys() | others_values.keys()) - free)
        if differing := [name for name in names if values.get(name) != others_values.get(name)]:
            name = differing[0]
            raise ValueError(
                f"got arms {first!r} and {arm!r} that differ in {', '.join(differing[:5])} too "
                f"({name}: {values.get(name)!r} and {others_values.get(name)!r}), wanted them to differ in "
                f"{', '.join(sorted(varied)) or 'nothing'} alone; no difference could be put down to that"
            )


def _compared(run: Run, other: Run) -> dict[str, Any]:
    """The config, and what trained_on.json says where both have one."""
    both = {f"trained_on.{name}": value for name, value in run.trained_on.items() if name in other.trained_on}
    return {**run.config, **both}


def with_equal_kl(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, dict[int, Run]]:
    """The same runs, with metrics at equal KL for the seeds that all arms have."""
    extended = {arm: dict(by_seed) for arm, by_seed in runs.items()}
    for seed in set.intersection(*map(set, runs.values())):
        histories = {arm: by_seed[seed].log["history"] for arm, by_seed in runs.items()}
        for arm, more in at_equal_kl(histories).items():
            run = extended[arm][seed]
            extended[arm][seed] = dataclasses.replace(run, metrics=run.metrics | more)
    return extended


def metrics_of(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, dict[int, dict[str, float]]]:
    """Arm -> seed -> metrics of runs by arm and seed."""
    return {arm: {seed: run.metrics for seed, run in by_seed.items()} for arm, by_seed in runs.items()}


def check_primary(primary: str, results: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    """Raise ValueError where no run has the primary measure."""
    known = known_measures(results)
    if primary not in known:
        raise ValueError(f"primary: got {primary!r}, which no run has; {nearest(primary, known)[:400]}")
