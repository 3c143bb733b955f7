"""What the folder of a run, of arms or of a comparison holds: config, metrics, logs and weights, read once."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hf_synth.errors import changes, likely
from hf_synth.experiments.arms import (
    COMPARISON,
    CONFIG,
    RECIPES,
    ArmsArguments,
    CompareArguments,
    PlannedRun,
    arm_label,
    planned_runs,
    run_folder,
    strength_arms,
)
from hf_synth.experiments.statistics import (
    EQUAL_KL,
    Difference,
    Pair,
    Results,
    all_measures,
    at_equal_kl,
    differences,
    finite,
    known_measures,
    results_of,
    seed_interval,
)
from hf_synth.io import reading
from hf_synth.metrics.intervals import Interval
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

MEASURES = {  # of sampled answers, as the logs call them: what it is called, and its axis
    "validity": ("validity", "fraction valid"),
    "sampled_reward": ("sampled reward", "sampled reward"),
}


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

    @property
    def inputs(self) -> dict[str, Any]:
        """Its config, and what trained_on.json says of its rows."""
        return {**self.config, **{f"trained_on.{name}": value for name, value in self.trained_on.items()}}

    @cached_property
    def prompts(self) -> pd.DataFrame | None:
        """The weights table of a run, one row a prompt, where there is one; `cluster` and `src` only if known.

        density: larger means more similar prompts near. sampling_weight: mean 1. x, y: the first two principal
        components.
        """
        if not (path := self.folder / WEIGHTS_TABLE).exists():
            return None
        with reading(path, "remove its folder, and the same command makes the run again"):
            prompts = pq.read_table(path).to_pandas()
        for name in {"cluster", "src"} & set(prompts):
            prompts[name] = prompts[name].map(str)
        return prompts

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and logged values of one quantity; of two entries for a step the later counts."""
        logged = {entry["step"]: entry[name] for entry in self.log["history"] if name in entry and "step" in entry}
        steps = sorted(logged)
        return steps, [logged[step] for step in steps]

    def names(self) -> list[str]:
        """Everything that was ever logged, in the order in which it came."""
        return list(dict.fromkeys(itertools.chain(*self.log["history"])))

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
        """The groups that the measure is reported for: clusters, the largest first, or the dense and the rare half."""
        groups = [
            name.partition("/")[2] for name in self.names() if self.measure and name.startswith(f"{self.measure}/")
        ]
        order = [*self.sizes, "crowded", "rare"]
        return sorted(groups, key=lambda group: order.index(group) if group in order else len(order))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Cluster -> number of prompts, the largest first, ties in the order of the table; empty without clusters."""
        if self.prompts is None or "cluster" not in self.prompts:
            return {}
        return dict(Counter(self.prompts["cluster"]).most_common())

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
        config = read_yaml(path) if path.exists() else {}
        metrics = finite(log.get("final", {}) if metrics is None else metrics)
        history = [dict(entry) for entry in log["history"]]
        return Run(folder, config, metrics, {**log, "history": history}, read_trained_on(folder) or {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"got {str(folder)!r}, a run with a damaged file ({reason}); remove that folder, and the same command "
            "makes the run again"
        ) from error


def read_run(folder: Path) -> Run:
    """Read a run and its other strengths; raises ValueError where the folder holds no finished run."""
    if not folder.is_dir() or (run := read_finished(folder)) is None:
        if (folder / RESOLVED_CONFIG).exists():
            raise ValueError(
                f"got {str(folder)!r}, a run that has not finished ({TRAINING_LOG} is missing); "
                "the command that started it goes on from its last checkpoint"
            )
        raise ValueError(
            f"got {str(folder)!r}, which holds no run; wanted a folder with {TRAINING_LOG} and {METRICS}: "
            "accelerate launch recipes/grpo.py makes one, and so do the other recipes"
        )
    strength = run.config.get("sampling_strength")
    strengths = [] if strength is None else np.ravel(strength).astype(float).tolist()
    arms = dict(zip(strength_arms(strengths)[1:], strengths[1:], strict=True))
    if not run.kinds:
        strengths = [0.0]
    elif not arms and not (folder / WEIGHTS_TABLE).exists():
        strengths = []
    others, missing = [], []
    for name, strength in arms.items():
        arm_folder, prefix = run_folder(folder, name), f"{name}/"
        if (arm := read_finished(arm_folder)) is None:
            missing.append(name)
            continue
        settings = run.settings and {**run.settings, "sampling_strength": [strength]}
        own = {key.removeprefix(prefix): value for key, value in run.metrics.items() if key.startswith(prefix)}
        others.append(
            dataclasses.replace(
                arm,
                label=arm_label(strength, run.kinds),
                strength=strength,
                config={**run.config, "sampling_strength": [strength], "settings": settings},
                metrics=read_metrics(arm_folder) or own,
            )
        )
    return dataclasses.replace(
        run,
        label=arm_label(strengths[0], run.kinds) if strengths else "run",
        strength=strengths[0] if strengths else None,
        metrics={name: value for name, value in run.metrics.items() if name.partition("/")[0] not in arms},
        others=others,
        missing=missing,
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The finished runs of a folder of arms, by arm and seed; `missing` names the folders of the others.

    config: what all arms share. arms: arm -> the values that it differs in, whether it has a finished run or not.
    plan: what a comparison was set to answer, None where arms were only run.
    """

    folder: Path
    config: dict[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Mapping[int, Run]]
    missing: list[str]
    plan: Any = None  # CompareArguments

    @property
    def first(self) -> Run:
        """The first finished run."""
        return self.all_runs[0]

    @property
    def all_runs(self) -> list[Run]:
        """Every finished run, arm by arm."""
        return [run for by_seed in self.runs.values() for run in by_seed.values()]

    @property
    def pairs(self) -> list[Pair]:
        """The arms that are compared: each with the first where no plan says otherwise."""
        first, *others = self.runs
        return self.plan.pairs if self.plan else [(arm, first) for arm in others]

    @property
    def results(self) -> Results:
        """Arm -> seed -> metrics."""
        return {arm: {seed: run.metrics for seed, run in by_seed.items()} for arm, by_seed in self.runs.items()}

    @cached_property
    def paired(self) -> dict[Pair, Results]:
        """The results of each pair alone, with the measures at the KL divergences that both arms came to."""
        paired: dict[Pair, Results] = {}
        for pair in self.pairs:
            sides = [results_of(self.results, name) for name in pair]
            seeds = sorted(set(sides[0]) & set(sides[1]))
            for seed in seeds if set(pair) <= self.runs.keys() else []:
                extra = at_equal_kl(*(self.runs[name][seed].log["history"] for name in pair))
                for side, more in zip(sides, extra, strict=True):
                    side[seed] = {**side[seed], **more}
            paired[pair] = {name: {seed: side[seed] for seed in seeds} for name, side in zip(pair, sides, strict=True)}
        return paired

    def values(self, arm: str, measure: str) -> list[float]:
        """A measure of each seed that has it."""
        return [metrics[measure] for metrics in self.results.get(arm, {}).values() if measure in metrics]

    def interval(self, arm: str, measure: str) -> Interval | None:
        """The mean over seeds with Student's interval; NaN bounds of one seed, None where no run has the measure."""
        values = self.values(arm, measure)
        return seed_interval(values, measure) if values else None

    def lacking(self, arm: str, measure: str) -> list[int]:
        """The seeds of an arm that have no finite value of a measure, at equal KL with any other arm."""
        if measure.startswith(EQUAL_KL):
            results = [both[arm] for both in self.paired.values() if arm in both]
        else:
            results = [self.results[arm]]
        return sorted({seed for runs in results for seed, metrics in runs.items() if measure not in metrics})

    def curve(self, arm: str, name: str) -> tuple[list[int], list[Interval]]:
        """A logged quantity over the steps that all runs have, with its interval over seeds at each."""
        curves = [
            {step: value for step, value in zip(*run.series(name), strict=True) if math.isfinite(value)}
            for run in self.runs[arm].values()
        ]
        steps = sorted(set.intersection(*map(set, curves)))
        return steps, [seed_interval([curve[step] for curve in curves], name) for step in steps]

    @cached_property
    def measures(self) -> list[str]:
        """Every measure that is compared, once."""
        everything: dict[Any, Any] = dict(self.results)
        everything |= {(pair, arm): runs for pair, both in self.paired.items() for arm, runs in both.items()}
        return all_measures(everything)

    def differences(self, measures: Iterable[str]) -> list[Difference]:
        """The measures in all pairs, p-values corrected over all of them: one family."""
        interactions = [pair for pair in self.pairs if pair[0] not in self.arms]
        return differences(self.paired, measures, interactions=interactions)

    @cached_property
    def families(self) -> tuple[list[Difference], list[Difference], list[Difference]]:
        """Differences of the plan's primary measure; of the measures that tables show; of all others."""
        primary = self.plan.primary if self.plan else ""
        names = [name for name in self.measures if name != primary]
        shown = headlines(names)
        others = [name for name in names if name not in shown]
        return self.differences([primary]), self.differences(shown), self.differences(others)


def holds_arms(folder: Path) -> bool:
    """Whether a folder is that of several runs, not of one."""
    path = folder / RESOLVED_CONFIG
    if not path.exists() or (folder / TRAINING_LOG).exists():
        return False
    config = read_yaml(path)
    return bool(config.get("arms")) or len(config.get("seeds") or []) > 1


def read_comparison(folder: Path) -> Comparison:
    """Read the finished runs of a folder of arms or of a comparison.

    Raises ValueError where none has finished, and where arms of a comparison differ in more than they may.
    """
    plan: ArmsArguments | CompareArguments
    path = next(path for path in (folder / COMPARISON, folder / RESOLVED_CONFIG) if path.exists())
    kept = read_yaml(path)
    try:
        config = kept.pop("base") if path.name == COMPARISON else kept
        plan = (
            CompareArguments(**kept)
            if path.name == COMPARISON
            else ArmsArguments(arms=config.get("arms"), seeds=config.get("seeds"))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: got a damaged plan ({error}); remove the file, and give the same command"
        ) from error
    runs: dict[str, dict[int, Run]] = {}
    missing = []
    for planned in planned_runs(plan, folder, config.get("seed", 0)):
        if (run := read_finished(planned.folder)) is None or not (planned.folder / METRICS).exists():
            missing.append(planned.folder.relative_to(folder).as_posix())
        else:
            runs.setdefault(str(planned.arm), {})[planned.seed] = run
    if not runs:
        raise ValueError(f"got {str(folder)!r}, where none of {len(missing)} runs has finished; wanted at least one")
    arms: dict[str, dict[str, Any]] = {name: values or {} for name, values in (plan.arms or {"": {}}).items()}  # type: ignore[union-attr]
    if not isinstance(plan, CompareArguments):
        return Comparison(folder, config, arms, runs, missing)
    for seed in plan.seeds:
        alike = {arm: by_seed[seed].inputs for arm, by_seed in runs.items() if seed in by_seed}
        if len(alike) > 1:
            check_alike(alike, {name for values in arms.values() for name in values})
    comparison = Comparison(folder, config, arms, runs, missing, plan)
    check_primary(comparison, plan.primary)
    return comparison


def check_finished(run: PlannedRun) -> None:
    """Raise ValueError where the folder of a run was begun with another config, naming what differs."""
    path = run.folder / CONFIG
    if not path.exists() or not (run.folder / RESOLVED_CONFIG).exists():
        return
    before = read_yaml(path)
    if differing := changes(before, run.values, sorted((before.keys() | run.values.keys()) - FREE)):
        raise ValueError(
            f"got {str(run.folder)!r}, which was begun with other values ({differing}); give another --output_dir, or "
            "remove it"
        )


_SAYS_ROWS = re.compile("block_size|canonical|corpus|curriculum|dataset|explanation|mix_|(train|eval|test)_rows")
_SAYS_MODELS = re.compile("adapter|gpt2_size|model_|new_model|reward|tokenizer|warm_up")


def check_alike(configs: Mapping[str, Mapping[str, Any]], varied: Iterable[str]) -> None:
    """Raise ValueError where the arms of a seed differ in more than the values that are varied, and what these decide.

    configs: arm -> what its run was given, all of one seed.
    """
    free = {*varied, *FREE}
    if free & {field.name for field in dataclasses.fields(DataArguments)} or any(map(_SAYS_ROWS.match, varied)):
        free |= {"trained_on.rows", "trained_on.fingerprint", "trained_on.tokenizer"}
    if any(map(_SAYS_MODELS.match, varied)):
        free |= {"trained_on.models", "trained_on.code", "trained_on.tokenizer"}
    (first, one), *others = configs.items()
    for arm, other in others:
        names = sorted((one.keys() | other.keys()) - free)
        both = [name for name in names if not name.startswith("trained_on.") or (name in one and name in other)]
        if differing := [name for name in both if one.get(name) != other.get(name)]:
            name = differing[0]
            raise ValueError(
                f"got arms {first!r} and {arm!r} that differ in {', '.join(differing[:5])} too "
                f"({name}: {one.get(name)!r} and {other.get(name)!r}), wanted them to differ in "
                f"{', '.join(sorted(varied)) or 'nothing'} alone; no difference could be put down to that"
            )


def check_primary(comparison: Comparison, primary: str) -> None:
    """Raise ValueError where no run has the primary measure."""
    known = {name for results in (comparison.results, *comparison.paired.values()) for name in known_measures(results)}
    if primary not in known:
        raise ValueError(f"primary: got {primary!r}, which no run has; {likely(primary, known)}")
