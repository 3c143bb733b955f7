"""What a comparison varies, over which seeds, and what would count as an answer."""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_synth.errors import check_fields, nearest, option
from hf_synth.experiments.arms import ArmsArguments
from hf_synth.io import write_text
from hf_synth.training.arguments import check_no_secret, read_yaml
from hf_synth.training.run_directory import is_finished

RECIPES = ("grpo", "sft", "reward", "dpo", "pretrain")
DIRECTIONS = ("higher", "lower")
COMPARISON = "comparison.yaml"  # the comparison's own values, and under `base` the recipe's
_LONGEST_NAME = 80
_TAKEN = {
    "shared", "figures", ".lock", "plan.json", COMPARISON, "report.md", "report.html", "differences.csv",
    "samples.parquet",
}  # fmt: skip


@dataclasses.dataclass
class CompareArguments:
    """A comparison; all other names in its config are the recipe's."""

    recipe: str = option("grpo", "The recipe that makes a run, without .py.", choices=RECIPES)
    vary: list[str] = option([], "NAME=VALUE,VALUE...: an arm for each value, the first is what others meet.")
    arms: dict[str, Any] = option({}, "Instead of vary: arm name -> the values it differs in, as JSON.", json=True)
    against: dict[str, Any] = option(
        {}, "Arm -> the arms that it is compared with; each with the first by default.", json=True
    )
    seeds: list[int] = option([0], "How many seeds, 8 for 0 to 7; or several of them by name.")
    shared: dict[str, Any] = option(
        {}, "What the arms of a seed share: name -> {recipe, config, ...}; {name} is its folder.", json=True
    )
    primary: str = option("validity/tail", "The one measure that the answer rests on, as metrics.json has it.")
    better: str = option("higher", "Whether higher or lower is better in it.", choices=DIRECTIONS)
    smallest_effect: float | None = option(None, "The smallest difference in it that would matter, in its own unit.")
    noise: float | None = option(
        None, "The standard deviation over seeds of a paired difference in it, from earlier runs."
    )
    plan: bool = option(False, "Write the configs of all runs and stop: each is a job of its own for its recipe.")
    title: str = option("A comparison", "The heading of the report.")
    page: str | None = option(None, "Write the report to this Markdown file too, its figures beside it.")
    page_prompts: int = option(
        6, "Prompts shown there with their answers; 0 where they are not yours to publish.", at_least=0
    )

    def __post_init__(self) -> None:
        """Read JSON; one number of seeds is a count; refuse what cannot be compared."""
        check_fields(self)
        given: Any = self.vary
        self.vary = [given] if isinstance(given, str) else list(given or [])
        if bool(self.vary) == bool(self.arms):
            raise ValueError("got both vary and arms" if self.vary else "got nothing to vary: set vary or arms")
        self.seeds = seed_numbers(self.seeds)
        if self.vary:  # kept as arms alone, which say all that it did
            self.arms, self.vary = varied(self.vary), []
        if len(self.arms) < 2:
            raise ValueError(f"arms: got {', '.join(self.arms)} alone, wanted at least two to compare")
        self.title = str(self.title)
        self._check_arms()
        for name in ("smallest_effect", "noise"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, _above_zero(name, value))
        self._check_against()
        self._check_shared()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(arm, the arm that it is compared with), the first pair first."""
        first = next(iter(self.arms))
        against = self.against or {arm: [first] for arm in self.arms if arm != first}
        return [(arm, other) for arm, others in against.items() for other in others]

    def _check_arms(self) -> None:
        for name in self.arms:
            if not isinstance(name, str) or len(name) > _LONGEST_NAME or name in _TAKEN:
                raise ValueError(
                    f"arms: got the name {name!r}, wanted text of at most {_LONGEST_NAME} characters that is not the "
                    f"name of a file of the comparison: {', '.join(sorted(_TAKEN))}"
                )
        ArmsArguments(arms=self.arms, seeds=self.seeds)  # other names and values are checked there

    def _check_against(self) -> None:
        for arm, others in self.against.items():
            if not isinstance(others, list) or not others:
                raise ValueError(f"against.{arm}: got {others!r}, wanted a list of arms")
            for name in (arm, *others):
                if name not in self.arms:
                    raise ValueError(f"against: got arm {name!r}; {nearest(str(name), self.arms)}")
            if arm in others:
                raise ValueError(f"against.{arm}: got {arm!r} itself, wanted other arms")

    def _check_shared(self) -> None:
        for name, values in self.shared.items():
            if not isinstance(values, dict) or not {"recipe", "config"} <= values.keys():
                raise ValueError(f"shared.{name}: got {values!r}, wanted a mapping with at least recipe and config")
            if values["recipe"] not in RECIPES:
                raise ValueError(
                    f"shared.{name}.recipe: got {values['recipe']!r}; {nearest(values['recipe'], RECIPES)}"
                )
            if name == "seed" or not name.isidentifier():
                raise ValueError(f"shared: got the name {name!r}, wanted letters, digits and '_', and not 'seed'")


def _above_zero(name: str, value: Any) -> float:
    try:  # YAML takes 1e-2 for text
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: got {value!r}, wanted a number above 0")
    return number


def seed_numbers(given: Any) -> list[int]:
    """8 -> 0 ... 7; a list -> these; nothing -> 0 alone."""
    numbers = given if isinstance(given, list) else [0] if given is None else given
    if isinstance(numbers, int) and not isinstance(numbers, bool) and numbers > 0:
        return list(range(numbers))
    if not isinstance(numbers, list) or not numbers or not all(type(seed) is int and seed >= 0 for seed in numbers):
        raise ValueError(f"seeds: got {given!r}, wanted a number of seeds, or a list of seeds of at least 0")
    return numbers


def varied(given: list[str]) -> dict[str, dict[str, Any]]:
    """["sampling_strength=0,1", ...] as arms: all combinations of the values, the first ones first.

    A dot in a name is an underscore: sampling.strength is sampling_strength.
    """
    axes = []
    for text in given:
        name, equals, values = text.partition("=")
        parts = re.split(r",(?![^\[]*\])", values)  # not at the commas of a list
        if not equals or not name or not all(value.strip() for value in parts):
            raise ValueError(f"vary: got {text!r}, wanted NAME=VALUE,VALUE such as sampling_strength=0,1")
        axes.append([(name.replace(".", "_"), value.strip()) for value in parts])
    arms = {}
    for chosen in itertools.product(*axes):
        label = "-".join(f"{name}-{_plain(value)}" for name, value in chosen)
        if label in arms:
            raise ValueError(f"vary: got {', '.join(given)}, in which a value comes twice")
        arms[label] = {name: yaml.safe_load(value) for name, value in chosen}
    return arms


def _plain(value: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in value)


CONFIG = "config.yaml"  # in the folder of a run: all that its recipe is given
SHARED = "shared"
_UPLOADS = ("push_to_hub", "push_samples", "push_arms")
_SECRET = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD)(_|$)", re.IGNORECASE)  # and no TOKENIZERS_PARALLELISM


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
        write_text(path, text)

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
            for uploading in _UPLOADS if merged.get("push_to_hub") else ():  # every seed's would go to one place
                merged.pop(uploading, None)
            runs.append(_run(values["recipe"], None, seed, places[name], merged, names))
        for number, (arm, values) in enumerate(arguments.arms.items()):
            config = {**base, **(values or {})}
            if config.get("push_to_hub"):
                if not config.get("hub_model_id"):
                    raise ValueError("hub_model_id: got none for several runs, wanted the name that theirs begin with")
                config["hub_model_id"] = f"{config['hub_model_id']}-{arm}-seed-{seed}"
                for uploading in _UPLOADS if number and not config.get("push_arms") else ():
                    config.pop(uploading, None)
            runs.append(_run(arguments.recipe, arm, seed, run_folder(folder, arm, seed), config, names))
    return runs


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where the run of an arm and a seed lies."""
    return folder / arm / f"seed-{seed}"


def _run(
    recipe: str, arm: str | None, seed: int, folder: Path, config: Mapping[str, Any], names: Mapping[str, Any]
) -> ComparedRun:
    for name, value in {**(config.get("env") or {}), "hub_token": config.get("hub_token")}.items():
        if value and _SECRET.search(name):
            raise ValueError(
                f"{name}: got one, which the config of every run would keep; wanted none there: set it in the "
                "environment, or use `hf auth login`"
            )
    for name, value in config.items():  # before it is written; the recipe refuses it too, having read it
        check_no_secret(name, value)
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
