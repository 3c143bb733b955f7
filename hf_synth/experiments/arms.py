"""Arms: runs that differ in named values and in nothing else, each with several seeds."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.errors import check_fields, json_dict, option
from hf_synth.metrics.intervals import mean_interval


@dataclasses.dataclass
class ArmsArguments:
    """Several runs by one command. Alone, a run is one arm with one seed, in the output directory itself."""

    arms: dict[str, Any] | str | None = option(
        None, "Arm name -> the values it differs in, as JSON; each arm is a run of its own.", json=True
    )
    seeds: list[int] | None = option(
        None, "Train each arm with these seeds; the model and its training, not the rows."
    )
    quick: bool = option(False, "Use the values of quick_args: minutes, to try.")
    quick_args: dict[str, Any] | str | None = option(
        None, "The values that --quick puts in place of others, as JSON.", json=True
    )

    def __post_init__(self) -> None:
        """Read JSON; refuse arms that are no mappings and seeds that are there twice."""
        check_fields(self)
        arms, quick_args = json_dict(self.arms, "arms"), json_dict(self.quick_args, "quick_args")
        for name, values in arms.items():
            if not isinstance(values, dict | None):
                raise ValueError(f"arms.{name}: got {values!r}, wanted a mapping of names to values, or nothing")
            _refuse(f"arms.{name}", values or {}, _NOT_AN_ARMS)
            if not name.strip(".") or not set(name) <= _PLAIN:
                raise ValueError(f"arms: got the name {name!r}, wanted letters, digits, '-', '_' and '.'")
        _refuse("quick_args", quick_args, {"quick", "quick_args", "hub_token"})
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}, wanted each once")
        if self.quick and not self.quick_args:
            raise ValueError("quick: got no quick_args to use; a config names them")


_NOT_AN_ARMS = {
    "arms", "seed", "seeds", "quick", "quick_args", "output_dir", "config", "hub_model_id", "hub_token", "push_to_hub",
    "push_arms", "push_samples",
}  # fmt: skip


def _refuse(where: str, values: Mapping[str, Any], refused: set[str]) -> None:
    if named := sorted(refused & values.keys()):
        raise ValueError(f"{where}: got {named[0]!r}, which is for the whole command; give it as a flag of its own")


_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: its arm, its seed, its folder, and the flags that it has beside the common ones.

    hub_model_id: the repository that it is pushed to, None for that of its folder's name.
    """

    arm: str
    seed: int
    folder: Path
    flags: tuple[str, ...]
    hub_model_id: str | None = None


def planned_runs(
    arguments: ArmsArguments, folder: Path, seed: int, hub_model_id: str | None = None
) -> list[PlannedRun]:
    """All runs, arm by arm; a single one lies in `folder` itself, others in ARM, seed-N or ARM/seed-N.

    Each has a repository of its own: `hub_model_id`, of several runs with -ARM, -seed-N or both behind it.
    """
    arms: Mapping[str, dict[str, Any] | None] = arguments.arms or {"": {}}  # type: ignore[assignment]
    seeds = arguments.seeds or [seed]
    planned = []
    for arm, values in arms.items():
        for number in seeds:
            place = folder / arm / (f"seed-{number}" if len(seeds) > 1 else "")
            flags = [*as_flags(values or {}), "--seed", str(number), "--output_dir", str(place)]
            name = hub_model_id and "-".join([hub_model_id, *place.relative_to(folder).parts])
            flags += ["--hub_model_id", name] if name else []
            planned.append(PlannedRun(arm, number, place, tuple(flags), name))
    return planned


def strength_folder(folder: Path, number: int, strength: float) -> Path:
    """Return where arm `number` of a run over sampling strengths lies: the first in the run's own folder."""
    return folder if number == 0 else folder / ("control" if strength == 0 else f"strength-{strength:g}")


def with_seed(value: Any, seed: int) -> Any:
    """A value of a config in which "{seed}" stands for the run's seed: alone as the number, in a text as digits."""
    if isinstance(value, dict):
        return {name: with_seed(item, seed) for name, item in value.items()}
    if isinstance(value, list):
        return [with_seed(item, seed) for item in value]
    if isinstance(value, str):
        return seed if value == "{seed}" else value.replace("{seed}", str(seed))
    return value


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Values of YAML as flags of the command line, which go before all others."""
    found = []
    for name, value in values.items():
        if value is None:
            raise ValueError(f"{name}: got nothing, wanted a value: an arm cannot take one away")
        found += [f"--{name}", *_words(value)]
    return found


def _words(value: Any) -> Sequence[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        return list(map(str, value))
    return [json.dumps(value) if isinstance(value, dict | list) else str(value)]


_MEASURES = {"loss", "accuracy", "row_accuracy", "excess", "perplexity", "probability", "language"}


def over_seeds(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Each arm's metrics as means over its seeds, `ARM/NAME`, with 95 % intervals `_low` and `_high` from two on.

    Intervals are of measures: sizes, times and bounds of intervals over the rows of one run have none. Where a seed
    has no finite value, `ARM/NAME_seeds` says how many have, and the mean is theirs.
    """
    means: dict[str, float] = {}
    for arm, runs in found.items():
        prefix = f"{arm}/" if arm else ""
        for name in set.union(*(set(run) for run in runs)):
            if len(runs) > 1 and name.endswith(("_low", "_high")):
                continue
            values = [run[name] for run in runs if math.isfinite(run.get(name, math.nan))]
            if len(values) < len(runs):
                means[f"{prefix}{name}_seeds"] = float(len(values))
            if not values:
                continue
            interval = mean_interval(values)
            means[f"{prefix}{name}"] = interval.mean
            if math.isfinite(interval.low) and name.partition("/")[0] in _MEASURES:
                means |= {f"{prefix}{name}_low": interval.low, f"{prefix}{name}_high": interval.high}
        means[f"{prefix}seeds"] = float(len(runs))
    return means
