"""The plan of several runs: which arms and seeds there are, where each run lies, and what its recipe is given."""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.errors import check_choices, check_fields, json_dict, option
from hf_synth.experiments.statistics import EQUAL_KL, MINUS, better_direction
from hf_synth.io import is_main_process, write_text
from hf_synth.training.arguments import check_no_secret, read_yaml, yaml_text, yaml_value
from hf_synth.training.callbacks import names_for_trackers
from hf_synth.training.run_directory import is_finished

RECIPES = ("grpo", "sft", "reward", "dpo", "pretrain")
DIRECTIONS = ("higher", "lower")
PLANS = (False, True, "slurm", "jobs")
COMPARISON = "comparison.yaml"  # the comparison's own values, and under `base` the recipe's
CONFIG = "config.yaml"  # in the folder of a run of a comparison: all that its recipe is given
SHARED = "shared"
_LONGEST_NAME = 80
_MOST_SEEDS = 10_000
_PLAIN = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
# What recipes put beside the folders of arms, and so no name for one.
_TAKEN = re.compile(
    rf"{SHARED}|figures|warmup|work|runs|(seed|checkpoint)-\d+|\.lock"
    r"|.*\.(json|jsonl|yaml|md|html|csv|parquet|safetensors|bin|txt|sh)",
    re.IGNORECASE,
)
_NOT_AN_ARMS = {
    "arms", "seed", "seeds", "quick", "quick_args", "output_dir", "config", "hub_model_id", "hub_token", "push_to_hub",
    "push_arms", "push_samples", "overwrite_card",
}  # fmt: skip
_UPLOADS = ("push_to_hub", "push_samples", "push_arms", "overwrite_card")
_SECRET = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD)(_|$)", re.IGNORECASE)  # and no TOKENIZERS_PARALLELISM


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
        check_fields(self)
        quick_args = json_dict(self.quick_args, "quick_args")
        check_arms(json_dict(self.arms, "arms"), self.seeds)
        _refuse("quick_args", quick_args, {"quick", "quick_args", "hub_token"})
        if self.quick and not quick_args:
            raise ValueError("quick: got no quick_args to use; a config names them")


def check_arms(arms: Mapping[str, Any], seeds: Sequence[int] | None) -> None:
    """Raise ValueError for names that are no folders of their own, values that no arm may have, and seeds twice."""
    for name, values in arms.items():
        if not isinstance(values, dict | None):
            raise ValueError(f"arms.{name}: got {values!r}, wanted a mapping of names to values, or nothing")
        _refuse(f"arms.{name}", values or {}, _NOT_AN_ARMS)
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _PLAIN.fullmatch(name):
            raise ValueError(
                f"arms: got the name {name!r}, wanted letters, digits, '-', '_' and '.', at most {_LONGEST_NAME}"
            )
        if _TAKEN.fullmatch(name):
            raise ValueError(f"arms: got the name {name!r}, which a file or folder of a run has; wanted another")
    if seeds is not None and not (isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise ValueError(f"seeds: got {seeds!r}, wanted a list of whole numbers of at least 0")
    if seeds is not None and len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: got {seeds}, wanted each once")


def _refuse(where: str, values: Mapping[str, Any], refused: set[str]) -> None:
    for name in values:  # a flag may be written with hyphens
        if str(name).replace("-", "_") in refused:
            raise ValueError(f"{where}: got {name!r}, which is for the whole command; give it as a flag of its own")
        if not str(name).isidentifier():
            raise ValueError(f"{where}: got {name!r}, wanted letters, digits and '_', as the names in a config")


@dataclasses.dataclass
class CompareArguments:
    """A comparison; all other names in its config are the recipe's."""

    recipe: str = option("grpo", "The recipe that makes a run, without .py.", choices=RECIPES)
    vary: list[str] = option([], "NAME=VALUE,VALUE...: an arm for each value, the first is what others meet.")
    arms: dict[str, Any] = option({}, "Instead of vary: arm name -> the values it differs in, as JSON.", json=True)
    against: dict[str, Any] = option(
        {},
        "Arm -> the arms that it is compared with; each with the first by default. For an interaction: 'A - B' -> "
        "['C - D'].",
        json=True,
    )
    seeds: list[int] = option([0], "How many seeds, 8 for 0 to 7; or several of them by name.")
    shared: dict[str, Any] = option(
        {}, "What the arms of a seed share: name -> {recipe, config, ...}; {name} is its folder.", json=True
    )
    primary: str = option("validity/tail", "The one measure that the answer rests on, as metrics.json has it.")
    better: str | None = option(None, "higher, or lower as in losses and excesses by default.", choices=DIRECTIONS)
    smallest_effect: float | None = option(
        None, "The smallest difference in it that would matter, in its own unit.", above=0, below=math.inf
    )
    noise: float | None = option(
        None, "The standard deviation over seeds of a paired difference in it, from earlier runs.",
        above=0, below=math.inf,
    )  # fmt: skip
    plan: bool | str = option(
        False, "Write the configs of all runs and stop; slurm or jobs: and a script of them.", choices=PLANS
    )
    title: str = option("A comparison", "The heading of the report.")
    page: str | None = option(None, "Write the report to this Markdown file too, its figures beside it.")
    page_prompts: int = option(
        6, "Prompts shown there with their answers; 0 where they are not yours to publish.", at_least=0
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self.vary = self.vary if isinstance(self.vary, list) else [self.vary] if self.vary else []
        if bool(self.vary) == bool(self.arms):
            raise ValueError("got both vary and arms" if self.vary else "got nothing to vary: set vary or arms")
        self.seeds = seed_numbers(self.seeds)
        if self.vary:  # kept as arms alone, which say all that it did
            self.arms, self.vary = varied(self.vary), []
        if len(self.arms) < 2:
            raise ValueError(f"arms: got {', '.join(self.arms)} alone, wanted at least two to compare")
        self.title, self.primary = str(self.title), str(self.primary)
        self.better = self.better or better_direction(self.primary)
        if self.page is not None and (not isinstance(self.page, str) or Path(self.page).is_dir()):
            raise ValueError(f"page: got {self.page!r}, wanted the path of a Markdown file")
        check_arms(self.arms, self.seeds)
        self._check_against()
        self._check_shared()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(arm, the arm that it is compared with), the first pair first."""
        first = next(iter(self.arms))
        against = self.against or {arm: [first] for arm in self.arms if arm != first}
        return [(arm, other) for arm, others in against.items() for other in others]

    def _check_against(self) -> None:
        for arm, others in self.against.items():
            if not isinstance(others, list) or not others or len(set(map(str, others))) < len(others):
                raise ValueError(f"against.{arm}: got {others!r}, wanted a list of arms, each once")
            for name in (arm, *others):
                parts = name.split(MINUS) if isinstance(name, str) else [name]
                check_choices("against", parts, list(self.arms), "arm ")
                if not len(parts) == len(set(parts)) == len(str(arm).split(MINUS)) <= 2:
                    raise ValueError(f"against.{arm}: got {name!r}, wanted arms with arms, or 'A - B' with 'C - D'")
                if len(parts) == 2 and self.primary.startswith(EQUAL_KL):
                    raise ValueError(f"against.{arm}: got a difference, wanted an arm: {self.primary} is of two arms")
            if arm in others:
                raise ValueError(f"against.{arm}: got {arm!r} itself, wanted other arms")

    def _check_shared(self) -> None:
        for name, values in self.shared.items():
            if not isinstance(values, dict) or not {"recipe", "config"} <= values.keys():
                raise ValueError(f"shared.{name}: got {values!r}, wanted a mapping with at least recipe and config")
            check_choices(f"shared.{name}.recipe", [values["recipe"]], RECIPES)
            if name == "seed" or not str(name).isidentifier():
                raise ValueError(f"shared: got the name {name!r}, wanted letters, digits and '_', and not 'seed'")


def seed_numbers(seeds: Any) -> list[int]:
    """8 -> 0 ... 7; a list -> these; nothing -> 0 alone."""
    numbers = seeds if isinstance(seeds, list) else [0] if seeds is None else seeds
    if isinstance(numbers, int) and not isinstance(numbers, bool) and 0 < numbers <= _MOST_SEEDS:
        return list(range(numbers))
    if not isinstance(numbers, list) or not numbers or not all(type(seed) is int and seed >= 0 for seed in numbers):
        raise ValueError(f"seeds: got {seeds!r}, wanted a number of seeds, or a list of seeds of at least 0")
    return numbers


def varied(texts: list[str]) -> dict[str, dict[str, Any]]:
    """["sampling_strength=0,1", ...] as arms: all combinations of the values, the first ones first.

    A dot in a name is an underscore: sampling.strength is sampling_strength.
    """
    axes = []
    for text in texts:
        name, equals, values = str(text).partition("=")
        parts = re.split(r",(?![^\[]*\])", values)  # not at the commas of a list
        if not equals or not name or not all(value.strip() for value in parts):
            raise ValueError(f"vary: got {text!r}, wanted NAME=VALUE,VALUE such as sampling_strength=0,1")
        axes.append([(re.sub("[.-]", "_", name), value.strip()) for value in parts])
    arms = {}
    for chosen in itertools.product(*axes):
        label = "-".join(f"{name}-{re.sub('[^A-Za-z0-9_.-]', '_', value)}" for name, value in chosen)
        if label in arms:
            raise ValueError(f"vary: got {', '.join(texts)}, in which a value comes twice")
        arms[label] = {name: _parsed(value) for name, value in chosen}
    return arms


def run_folder(folder: Path, arm: str = "", seed: int | None = None) -> Path:
    """Return where an arm and a seed lie: ARM/seed-N, without a part that is not given.

    So a run alone, and the first arm over sampling strengths, lie in the folder itself.
    """
    return folder / arm / ("" if seed is None else f"seed-{seed}")


def strength_arms(strengths: Sequence[float]) -> list[str]:
    """Return the arms of a run over sampling strengths, "" for the first."""
    return ["", *map(strength_name, strengths[1:])]


def strength_name(strength: float) -> str:
    """Return how an arm over sampling strengths is called."""
    return "control" if strength == 0 else f"strength-{strength:g}"


def arm_label(strength: float, kinds: Sequence[str]) -> str:
    """Return what tables call an arm of this strength, whose prompts are weighed by these kinds."""
    kinds = [kind for kind in kinds if kind != "uniform"]
    by_strength = {"density", "permuted"} & set(kinds)
    if not kinds or (strength == 0 and not set(kinds) - by_strength):
        return "control"
    if kinds == ["density"]:
        return f"strength {strength:g}"
    return f"weights by {' and '.join(kinds)}" + (f", strength {strength:g}" if by_strength else "")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    arm: None for what the arms of a seed share. values: what its recipe is given; in a comparison all of it, else what
    it has beside the command line that all runs share. pushed: whether it goes to the Hub.
    """

    arm: str | None
    seed: int
    folder: Path
    values: dict[str, Any]
    pushed: bool = False
    recipe: str = "pretrain"

    @property
    def hub_model_id(self) -> str | None:
        """The repository that it is pushed to, None for that of its folder's name."""
        return self.values.get("hub_model_id")

    @property
    def flags(self) -> list[str]:
        """Its values as flags, which take precedence over those before them."""
        return as_flags(self.values)

    @property
    def argv(self) -> list[str]:
        """The command line of a run whose config is written."""
        return ["--config", str(self.folder / CONFIG)]

    @property
    def finished(self) -> bool:
        """Whether the recipe has nothing left to do."""
        return is_finished(self.folder)

    def write(self) -> None:
        """Write its values as config, where that changes it: a finished run keeps its time."""
        path = self.folder / CONFIG
        text = yaml_text(self.values, allow_unicode=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def planned_runs(
    arguments: ArmsArguments | CompareArguments, folder: Path, seed: int = 0, common: Mapping[str, Any] | None = None
) -> list[PlannedRun]:
    """All runs, arm by arm; a single seed has no folder of its own, except in a comparison.

    common: the values of all runs, of which these count. Each run has a repository of its own: `hub_model_id`, of
    several runs with -ARM, -seed-N or both behind it. With `push_to_hub` the first arm is pushed, with `push_arms` all
    of them. Trackers call several runs by arm and seed, in the `project` and behind the `run_name`.
    """
    common = common or {}
    push, hub_model_id = bool(common.get("push_to_hub")), common.get("hub_model_id")
    names = {name: common.get(name) for name in ("project", "run_name")}
    arms: Mapping[str, dict[str, Any] | None] = arguments.arms or {"": {}}  # type: ignore[assignment]
    seeds = arguments.seeds or [seed]
    several = len(seeds) > 1 or isinstance(arguments, CompareArguments)
    if push and len(arms) * len(seeds) > 1 and not hub_model_id:
        raise ValueError("hub_model_id: got none for several runs, wanted the name that theirs begin with")
    runs = []
    for arm, values in arms.items():
        for number in seeds:
            run_dir = run_folder(folder, arm, number if several else None)
            own = {**(values or {}), "seed": number, "output_dir": str(run_dir)}
            if len(arms) * len(seeds) > 1:
                own |= names_for_trackers(folder, arm, number, **names)
            if hub_model_id:
                own["hub_model_id"] = "-".join([hub_model_id, *run_dir.relative_to(folder).parts])
            pushed = push and (bool(common.get("push_arms")) or arm == next(iter(arms)))
            runs.append(PlannedRun(arm, number, run_dir, own, pushed))
    return runs


def compared_runs(
    arguments: CompareArguments, base: Mapping[str, Any], folder: Path, configs: Path
) -> list[PlannedRun]:
    """All runs of a comparison, seed by seed, what the arms of a seed share before the arms.

    base: the recipe's own values. configs: where the `config` of a shared run is looked for, after the working folder.
    """
    for name in ("project", "run_name", "hub_model_id"):
        if not isinstance(base.get(name), str | None):
            raise ValueError(f"{name}: got {base[name]!r}, wanted text")
    arms, runs = planned_runs(arguments, folder, 0, base), []
    for seed in arguments.seeds:
        shared_dirs = {name: run_folder(folder / SHARED, name, seed) for name in arguments.shared}
        known = {"seed": seed, **{name: str(shared_dir) for name, shared_dir in shared_dirs.items()}}
        of_seed = []
        for name, shared_dir in shared_dirs.items():
            own = {**arguments.shared[name]}
            recipe, config = own.pop("recipe"), Path(own.pop("config"))
            own = {**read_yaml(config if config.is_file() else configs / config), **own, "seed": seed}
            own |= names_for_trackers(folder, name, seed, project=base.get("project"))
            of_seed.append(PlannedRun(None, seed, shared_dir, own, recipe=recipe))
        mine = (run for run in arms if run.seed == seed)
        of_seed += [dataclasses.replace(run, values={**base, **run.values}, recipe=arguments.recipe) for run in mine]
        for run in of_seed:
            _check_no_secret(run.values)
            if run.values.get("push_to_hub") and not run.pushed:
                run = dataclasses.replace(run, values={**run.values, **dict.fromkeys(_UPLOADS, False)})
            values = {**filled_in(run.values, known), "output_dir": str(run.folder)}
            runs.append(dataclasses.replace(run, values=values))
    return runs


def _check_no_secret(config: Mapping[str, Any]) -> None:
    """Refuse what the config of a run would keep before it is written; the recipe would refuse it too late."""
    env = json_dict(config.get("env"), "env")
    for name, value in {**env, "hub_token": config.get("hub_token")}.items():
        if value and _SECRET.search(str(name)):
            raise ValueError(
                f"{name}: got one, which the config of every run would keep; wanted none there: set it in the "
                "environment, or use `hf auth login`"
            )
    for name, value in config.items():
        check_no_secret(name, value)


def in_turn(runs: Sequence[PlannedRun]) -> Iterator[PlannedRun]:
    """Yield one run after the other, saying which where there are several."""
    for number, run in enumerate(runs, start=1):
        if is_main_process() and len(runs) > 1:
            name = run.folder.parent.name if run.arm is None else run.arm
            title = f"{name}, seed {run.seed}" if name else f"seed {run.seed}"
            done = ", finished before" if run.finished else ""
            print(f"Run {number} of {len(runs)}: {title}, in {run.folder}{done}", flush=True)
        yield run


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


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Values of YAML as flags of the command line; `read_flags` gives them back."""
    flags = []
    for name, value in values.items():
        if value is None:
            raise ValueError(f"{name}: got nothing, wanted a value: an arm cannot take one away")
        plain = isinstance(value, list) and not any(isinstance(item, dict) for item in value)
        items = value if plain else [json.dumps(value) if isinstance(value, dict | list) else value]
        flags += [f"--{name}", *(str(item).lower() if isinstance(item, bool) else str(item) for item in items)]
    return flags


def read_flags(argv: Sequence[str]) -> dict[str, Any]:
    """`--name value`, `--name=value` and `--name value value` as values; an underscore or a hyphen is the same."""
    flags: dict[str, list[Any]] = {}
    name = None
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name in flags:
                raise ValueError(f"got --{name} twice; give all its values after one")
            flags[name] = [_parsed(value)] if equals else []
        elif name is None:
            raise ValueError(f"got unexpected argument {word!r}, wanted --name value")
        else:
            flags[name].append(_parsed(word))
    return {name: values[0] if len(values) == 1 else values or True for name, values in flags.items()}


def _parsed(word: str) -> Any:
    """What a word of the command line says; text where it is no YAML, such as `a: b: c`, and for {seed}."""
    return word if re.fullmatch(r"\{\w+\}", word) else yaml_value(word)


def split_config(argv: Sequence[str], own: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A command line and its YAML as (values of the comparison, values of the recipe), flags over YAML.

    own: the names that are the comparison's.
    """
    flags = read_flags(argv)
    path = flags.pop("config", None)
    if path is not None and not isinstance(path, str):
        raise ValueError(f"--config: got {path!r}, wanted one YAML file")
    values = {**(read_yaml(Path(path)) if path is not None else {}), **flags}
    return (
        {name: value for name, value in values.items() if name in own},
        {name: value for name, value in values.items() if name not in own},
    )
