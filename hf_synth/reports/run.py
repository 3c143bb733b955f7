"""What a run directory holds, read once: its arms, their logs, metrics and weights, and its config."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from hf_synth.training.checkpoints import TRAINING_LOG, read_training_log
from hf_synth.training.run_directory import METRICS, RESOLVED_CONFIG, WEIGHTS_TABLE, read_metrics

MEASURES = ("validity", "sampled_reward")  # the measures of sampled answers, as the logs call them


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The weights table of an arm, one row a prompt; `cluster` is None where no task made the prompts.

    density: larger is more crowded. weight: mean 1. place: [N, 2], the first two principal components.
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
class Arm:
    """One training run: `label` is how the report calls it; `strength` is None where nothing was weighed."""

    label: str
    strength: float | None
    folder: Path
    metrics: dict[str, float]
    log: dict[str, Any]
    prompts: Prompts | None

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and logged values of one quantity; of two entries for a step the later counts."""
        found = {entry["step"]: entry[name] for entry in self.log["history"] if name in entry and "step" in entry}
        steps = sorted(found)
        return steps, [found[step] for step in steps]

    def names(self) -> set[str]:
        """Everything that was ever logged."""
        return {name for entry in self.log["history"] for name in entry}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory; `arms` starts with the run itself. `missing` names arms that have not finished."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    arms: list[Arm]
    missing: list[str]

    @property
    def kinds(self) -> list[str]:
        """What prompts are weighed by, as `sampling_by` names it; density where the config says nothing."""
        return [kind for kind in self.config.get("sampling_by") or ["density"] if kind != "uniform"]

    @property
    def control(self) -> Arm | None:
        """The arm that draws all prompts alike."""
        return next((arm for arm in self.arms if arm.strength == 0), None)

    @property
    def weighted(self) -> list[Arm]:
        """The arms that draw rare prompts more often."""
        return [arm for arm in self.arms if arm.strength]

    @cached_property
    def measure(self) -> str | None:
        """The measure of sampled answers, where there is one."""
        return next((name for name in MEASURES if name in self.arms[0].names()), None)

    @cached_property
    def recipe(self) -> str:
        """The recipe that made the run, told by what it logged."""
        names = self.arms[0].names()
        if "rows/trained" in self.metrics or "eval_validation_loss" in names:
            return "pretrain"
        if self.measure or "reward" in names:
            return "grpo"
        if "rewards/margins" in names:
            return "dpo"
        return "reward" if "accuracy/held_out" in self.metrics or {"margin", "eval_accuracy"} & names else "sft"

    @cached_property
    def groups(self) -> list[str]:
        """The groups that the measure is reported for: clusters, the largest first, or the crowded and the rare."""
        found = [name.partition("/")[2] for name in _logged(self.arms[0], f"{self.measure}/")] if self.measure else []
        order = [*self.sizes, "crowded", "rare"]
        return sorted(found, key=lambda group: order.index(group) if group in order else len(order))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Cluster -> number of prompts, the largest first; empty where no clusters are known."""
        prompts = self.arms[0].prompts
        return {} if prompts is None else prompts.sizes()

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
    def main(self) -> Arm:
        """The arm whose weights are looked at closely: the first weighted one, or the run itself."""
        return (self.weighted or self.arms)[0]


def one_token(tokens: Sequence[float | None], rows: Sequence[float | None]) -> bool:
    """Whether rows have one token with loss each, told by the accuracies of tokens and of rows at the same looks.

    They are the same then; where all are 0 or 1 they are the same for rows of any length, and tell nothing.
    """
    return list(tokens) == list(rows) and any(value not in (None, 0, 1) for value in tokens)


def read_run(folder: Path) -> Run:
    """Read a run directory; raises ValueError where it holds no finished run."""
    log = read_training_log(folder) if folder.is_dir() else None
    if log is None:
        raise ValueError(_no_run(folder))
    path = folder / RESOLVED_CONFIG
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    metrics = read_metrics(folder) or log.get("final", {})
    others = _arm_folders(folder, config)
    own = {
        name: value for name, value in metrics.items() if name.partition("/")[0] not in {arm.name for arm in others}
    }
    strengths = _strengths(config) if (folder / WEIGHTS_TABLE).exists() or others else []
    kinds = [kind for kind in config.get("sampling_by") or ["density"] if kind != "uniform"]
    strengths = strengths if kinds else [0.0]
    arms = [Arm(_label(strengths, kinds), strengths[0] if strengths else None, folder, own, log, _prompts(folder))]
    missing = []
    for arm in others:
        if (arm_log := read_training_log(arm)) is None:
            missing.append(arm.name)
            continue
        strength = 0.0 if arm.name == "control" else float(arm.name.removeprefix("strength-"))
        found = read_metrics(arm) or _without_prefix(metrics, f"{arm.name}/")
        arms.append(Arm(_label([strength], kinds), strength, arm, found, arm_log, _prompts(arm)))
    return Run(folder, config, metrics, arms, missing)


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


def _arm_folders(folder: Path, config: dict[str, Any]) -> list[Path]:
    """The folders of all arms but the first, in the config's order; without a config, those that are there."""
    if config:
        names = ["control" if strength == 0 else f"strength-{strength:g}" for strength in _strengths(config)[1:]]
        return [folder / name for name in names]
    return [*sorted(folder.glob("strength-*")), *folder.glob("control")]


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


def _logged(arm: Arm, prefix: str) -> Iterable[str]:
    return dict.fromkeys(name for entry in arm.log["history"] for name in entry if name.startswith(prefix))


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
