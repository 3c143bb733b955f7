"""What the runs of a comparison left in their folders, read once, and whether they may be compared at all."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_synth.errors import nearest
from hf_synth.experiments.plan import CONFIG, CompareArguments, ComparedRun, run_folder
from hf_synth.experiments.statistics import at_equal_kl, known_measures
from hf_synth.training.arguments import DataArguments, read_yaml
from hf_synth.training.checkpoints import read_training_log
from hf_synth.training.run_directory import FREE, RESOLVED_CONFIG, read_metrics, read_trained_on


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, config as resolved, metrics, the log of its training, and what it trained on."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_all(arguments: CompareArguments, folder: Path) -> tuple[dict[str, dict[int, RunResult]], list[str]]:
    """Arm -> seed -> run, of the finished ones, and the names of the others.

    Raises ValueError where arms of a seed differ in more than they may.
    """
    arms = arguments.arms
    found: dict[str, dict[int, RunResult]] = {arm: {} for arm in arms}
    missing = []
    for arm in found:
        for seed in arguments.seeds:
            if (result := read_result(run_folder(folder, arm, seed))) is None:
                missing.append(run_folder(Path(), arm, seed).as_posix())
            else:
                found[arm][seed] = result
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


def read_result(folder: Path) -> RunResult | None:
    """The run of a folder, or None while it has not finished."""
    try:
        metrics, log = read_metrics(folder), read_training_log(folder)
        if metrics is None or log is None:
            return None
        config = yaml.safe_load((folder / RESOLVED_CONFIG).read_text(encoding="utf-8"))
        return RunResult(folder, dict(config), metrics, log["history"], read_trained_on(folder) or {})
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"got {str(folder)!r}, a run with a damaged file ({reason}); remove that folder, and the same command "
            "makes the run again"
        ) from error


def check_alike(runs: Mapping[str, RunResult], varied: Iterable[str]) -> None:
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


def _compared(run: RunResult, other: RunResult) -> dict[str, Any]:
    """The config, and what trained_on.json says where both have one."""
    both = {f"trained_on.{name}": value for name, value in run.trained_on.items() if name in other.trained_on}
    return {**run.config, **both}


def with_equal_kl(runs: Mapping[str, Mapping[int, RunResult]]) -> dict[str, dict[int, dict[str, float]]]:
    """Arm -> seed -> metrics, with those at equal KL for the seeds that all arms have."""
    results = {arm: {seed: dict(run.metrics) for seed, run in found.items()} for arm, found in runs.items()}
    for seed in set.intersection(*(set(found) for found in runs.values())):
        for arm, found in at_equal_kl({arm: found[seed].history for arm, found in runs.items()}).items():
            results[arm][seed] |= found
    return results


def check_primary(primary: str, results: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    """Raise ValueError where no run has the primary measure."""
    known = known_measures(results)
    if primary not in known:
        raise ValueError(f"primary: got {primary!r}, which no run has; {nearest(primary, known)[:400]}")
