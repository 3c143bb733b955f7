"""The runs of a comparison: the config of each, written out before anything is trained."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_synth.training.arguments import read_yaml
from hf_synth.training.comparing.arguments import CompareArguments
from hf_synth.training.runs import is_finished

CONFIG = "config.yaml"  # in the folder of a run: all that its recipe is given
SHARED = "shared"


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """One run: the recipe, its config, and its folder. arm: None for what the arms of a seed share."""

    recipe: str
    arm: str | None
    seed: int
    folder: Path
    config: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The recipe's command line."""
        return ["--config", str(self.folder / CONFIG)]

    @property
    def finished(self) -> bool:
        """Whether the recipe has nothing left to do."""
        return is_finished(self.folder)

    def write(self) -> None:
        """Write the config, whole or not at all, and only where it changes: a finished run keeps its time."""
        path, text = self.folder / CONFIG, self.text()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)

    def text(self) -> str:
        """The config as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)


def planned(arguments: CompareArguments, base: Mapping[str, Any], folder: Path, configs: Path) -> list[ComparedRun]:
    """All runs, seed by seed, what the arms of a seed share before the arms.

    base: the recipe's own values. configs: where the `config` of a shared run is looked for, after the working folder.
    """
    runs = []
    for seed in arguments.seeds:
        places = {name: folder / SHARED / name / f"seed-{seed}" for name in arguments.shared}
        names = {"seed": seed, **{name: str(place) for name, place in places.items()}}
        for name, values in arguments.shared.items():
            own = {key: value for key, value in values.items() if key not in ("recipe", "config")}
            merged = {**read_yaml(_found(values["config"], configs)), **own}
            runs.append(_run(values["recipe"], None, seed, places[name], merged, names))
        for arm, values in arguments.arms.items():
            runs.append(
                _run(arguments.recipe, arm, seed, run_folder(folder, arm, seed), {**base, **(values or {})}, names)
            )
    return runs


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where the run of an arm and a seed lies."""
    return folder / arm / f"seed-{seed}"


def _run(
    recipe: str, arm: str | None, seed: int, folder: Path, config: Mapping[str, Any], names: Mapping[str, Any]
) -> ComparedRun:
    filled = {**filled_in(dict(config), names), "seed": seed, "output_dir": str(folder)}
    return ComparedRun(recipe, arm, seed, folder, filled)


def filled_in(value: Any, names: Mapping[str, Any]) -> Any:
    """A value in which {seed} and the names of shared runs stand for what they are; "{seed}" alone is the number."""
    if isinstance(value, dict):
        return {key: filled_in(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, names) for item in value]
    if not isinstance(value, str):
        return value
    if value == "{seed}":
        return names["seed"]
    for name, known in names.items():
        value = value.replace(f"{{{name}}}", str(known))
    return value


def split_config(words: Sequence[str], own: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A command line and its YAML as (values of the comparison, values of the recipe), flags over YAML.

    own: the names that are the comparison's.
    """
    flags = read_flags(words)
    path = flags.pop("config", None)
    if path is not None and not isinstance(path, str):
        raise ValueError(f"--config: got {path!r}, wanted one YAML file")
    given = {**(read_yaml(Path(path)) if path is not None else {}), **flags}
    return (
        {name: value for name, value in given.items() if name in own},
        {name: value for name, value in given.items() if name not in own},
    )


def read_flags(words: Sequence[str]) -> dict[str, Any]:
    """`--name value`, `--name=value` and `--name value value` as values; an underscore or a hyphen is the same."""
    found: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name in found:
                raise ValueError(f"got --{name} twice; give all its values after one")
            found[name] = [value] if equals else []
        elif name is None:
            raise ValueError(f"got unexpected argument {word!r}, wanted --name value")
        else:
            found[name].append(word)
    return {name: _value(values) for name, values in found.items()}


def _value(words: list[str]) -> Any:
    if not words:
        return True
    values = [_parsed(word) for word in words]
    return values[0] if len(values) == 1 else values


def _parsed(word: str) -> Any:
    """What a word of the command line says, read as YAML; text where it is none, such as `a: b: c` or {seed}."""
    if re.fullmatch(r"\{\w+\}", word):
        return word
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return word


def _found(config: str, configs: Path) -> Path:
    """A config by its path, or by its path below the recipes' configs."""
    return Path(config) if Path(config).is_file() else configs / config
