"""Arguments of recipes: flags over YAML over defaults, flat names, unknown names refused."""

import argparse
import copy
import dataclasses
import enum
import inspect
import json
import math
import os
import re
import sys
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from huggingface_hub.utils import disable_progress_bars
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import SchedulerType, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from trl import ModelConfig, TrlParser

from hf_synth.errors import check_choices, check_fields, json_dict, nearest, option, read_json
from hf_synth.sampling.neighbors import BACKENDS
from hf_synth.sampling.weights import SCHEDULES

SOURCES = ("task", "mixture", "preferences", "prompts")
SAMPLING_BY = ("density", "permuted", "cluster", "source", "pass_rate", "curriculum", "uniform")
DUPLICATES = ("replace", "keep", "drop")
# In a URL before its host, under these names in a dictionary, and tokens of the Hub anywhere; `hub_token` itself is
# kept out of all files.
_SECRET = re.compile(
    r"://[^/\s@]+@|['\"]((hub_|hf_|access_|use_auth_)?token|api_key|password)['\"]: ['\"]|\bhf_[A-Za-z0-9]{34}\b"
)

_RULES = yaml.safe_load((Path(__file__).parent / "fields.yaml").read_text(encoding="utf-8"))


@dataclasses.dataclass
class DataArguments:
    """What a recipe trains on: tasks of this package, preference pairs, or a file of prompts."""

    task: str | None = option(None, "A task's name, or the path of its file.")
    preset: str | None = option(None, "A preset of the task.")
    task_args: dict[str, Any] | str | None = option(None, "Config values over the preset, as JSON.", json=True)
    mixture: dict[str, Any] | str | None = option(
        None, "Several tasks: cluster name -> {task, share, preset, task_args}, as JSON.", json=True
    )
    preferences: str | None = option(
        None,
        "Preference pairs: a Hub id as OWNER/NAME:CONFIG@REVISION, hh, uf or se for the published ones, a file (JSON, "
        "CSV, Parquet), or a folder, such as datasets_scripts/preferences.py writes.",
    )
    preferences_dir: str | None = option(None, "A subfolder of the Hub dataset or folder, such as harmless-base.")
    preferences_split: str | None = option(
        None, "The split of the Hub dataset or folder (default: train); a single file is read whole."
    )
    prompts: str | None = option(
        None,
        "Your own prompts: a file (JSON, CSV, Parquet), a folder, or a Hub id as OWNER/NAME:CONFIG@REVISION, with a "
        "`prompt`, `messages` or `instruction` in every row.",
    )
    prompts_split: str | None = option(None, "The split of the prompts' folder or Hub dataset (default: train).")
    num_rows: int = option(
        2000, "Rows to train on; for GRPO distinct prompts. Pairs are all used.", at_least=1, at_most=10**9
    )
    duplicates: str = option(
        "replace",
        "Prompts that tasks draw again: replace (num_rows distinct ones), keep (num_rows as drawn), or "
        "drop (the distinct ones of num_rows).",
        choices=DUPLICATES,
    )
    rows_seed: int = option(0, "The seed of the rows.", at_least=0)
    max_prompt_tokens: int | None = option(
        None, "Longer prompts are left out, and counted in metrics.json.", at_least=1
    )
    test_share: float = option(
        0.1, "The fraction of the prompts, of pairs or your own, that is held out.", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        for name in ("task", "preset", "preferences", "prompts"):
            setattr(self, name, getattr(self, name) or None)
        check_fields(self)
        named = [name for name in SOURCES if getattr(self, name)]
        if len(named) != 1:
            raise ValueError(
                f"got {' and '.join(named) or 'no source'} to train on, "
                "wanted exactly one of task, mixture, preferences, prompts"
            )


@dataclasses.dataclass
class WeightArguments:
    """How prompts are weighed: by their density, or by what else `sampling_by` names; several multiply."""

    sampling_by: list[str] = option(
        ["density"],
        "density; permuted (the same weights in random order: a control); cluster or source (equal mass "
        "to each cluster or `src`); pass_rate (learnt while GRPO trains); curriculum (easy first: the column "
        "difficulty, or else the prompt's length); uniform. Several multiply.",
    )
    source_shares: list[str] | dict[str, float] | None = option(
        None, "Of sampling_by source: NAME=FRACTION ..., the fraction of the draws; the others share the rest by rows."
    )
    sampling_strength: list[float] = option(
        [1.0], "Weights are density**-strength; 0 is uniform. Several numbers: one arm of the run each."
    )
    strength_schedule: str = option(
        "constant",
        "constant; rising (from 0 to sampling_strength over the run, dense prompts first); falling.",
        choices=SCHEDULES,
    )
    density_refresh: int | None = option(
        None, "Measure density again after every so many steps, on the policy's own hidden states.", at_least=1
    )
    round_size: int | None = option(
        None, "Draws in a round; weights change only between rounds. By default as many as prompts.", at_least=1
    )
    density_k: int = option(10, "Neighbours that measure density.", at_least=2)
    density_estimator: str = option("volume", "volume or mean_distance.", choices=("volume", "mean_distance"))
    density_smoothing: int = option(
        0, "Rounds of averaging each log density over the prompt and its neighbors.", at_least=0
    )
    max_ratio: float = option(100.0, "The largest weight over the smallest.", at_least=1)
    embedder: str = option(
        "hashing",
        "hashing, policy:NAME (the hidden states of a causal model), or a sentence-transformers model; "
        "NAME is a path or Hub id (OWNER/NAME@REVISION).",
    )
    embedder_layer: int = option(-1, "The layer of policy:NAME: 0 is the embeddings, -1 the last.")
    embedding_cache: str | None = option(None, "A folder that keeps embeddings by content, for any number of runs.")
    density_backend: str = option(
        "auto", "auto, or exact: sklearn, faiss, torch; or approximate: ivf.", choices=("auto", *BACKENDS)
    )
    density_from: str | None = option(None, "A folder written by recipes/density.py: use its densities, measure none.")

    def __post_init__(self) -> None:
        """Take one number for a list of one; refuse repeated and negative strengths."""
        value: Any = self.sampling_strength
        try:
            numbers = [float(strength) for strength in (value if isinstance(value, list) else [value])]
        except (TypeError, ValueError):
            numbers = []
        if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < math.inf for number in numbers):
            raise ValueError(f"sampling_strength: got {value!r}, wanted one or more different numbers of at least 0")
        self.sampling_strength, self.embedding_cache = numbers, self.embedding_cache or None
        self._check_kinds()
        self._read_shares()
        check_fields(self)

    @property
    def active(self) -> bool:
        """Whether any row could weigh more than another."""
        kinds = set(self.sampling_by) - {"uniform"}
        return any(self.sampling_strength) if kinds <= {"density", "permuted"} else True

    def one_strength(self) -> float:
        """The strength of a recipe that trains one model; ValueError where several are given."""
        if len(self.sampling_strength) != 1:
            raise ValueError(
                f"sampling_strength: got {self.sampling_strength}, wanted one number; recipes/compare.py runs arms"
            )
        return self.sampling_strength[0]

    def _check_kinds(self) -> None:
        """Refuse unknown kinds of weights, those that exclude one another, and arms that would not differ."""
        kinds = self.sampling_by = [self.sampling_by] if isinstance(self.sampling_by, str) else self.sampling_by
        check_choices("sampling_by", kinds, SAMPLING_BY)
        if not kinds or len(set(kinds)) < len(kinds) or {"density", "permuted"} <= set(kinds):
            raise ValueError(
                f"sampling_by: got {kinds}, wanted one or more different kinds, of density and permuted at most one"
            )
        if len(self.sampling_strength) > 1 and not {"density", "permuted"} & set(kinds):
            raise ValueError(
                f"sampling_strength: got {self.sampling_strength}, wanted one number: weights by {', '.join(kinds)} "
                "have no strength, so the arms would not differ"
            )

    def _read_shares(self) -> None:
        """Read NAME=FRACTION; refuse what is no distribution over sources, or that nothing would use."""
        named: Any = [self.source_shares] if isinstance(self.source_shares, str) else self.source_shares or {}
        if isinstance(named, list) and named[0].startswith("{"):  # a mapping among flags is JSON
            named = json_dict(" ".join(named), "source_shares")
        pairs = list(named.items() if isinstance(named, dict) else (text.rpartition("=")[::2] for text in named))
        try:
            shares = {str(name): float(str(share)) for name, share in pairs if name}
        except ValueError:
            shares = {}
        values = shares.values()
        if len(shares) < len(pairs) or not all(0 <= share <= 1 for share in values) or sum(values) > 1 + 1e-9:
            raise ValueError(
                f"source_shares: got {named}, wanted NAME=FRACTION for each source once, at least 0, at most 1 in all"
            )
        if shares and "source" not in self.sampling_by:
            raise ValueError(f"source_shares: got {shares} without source in sampling_by; add it, or leave them out")
        self.source_shares = shares or None


@dataclasses.dataclass
class PolicyArguments(ModelConfig):
    """TRL's model arguments, and the architecture of a model made from nothing for when no model is named."""

    model_type: str = option(
        "rope_gpt", "A new model: rope_gpt, rlm_transformer, or any of transformers; small by default."
    )
    new_model: dict[str, Any] | str | None = option(None, "Config values of a new model, as JSON.", json=True)
    gpt2_size: str | None = option(None, "A new GPT-2, as layers_heads_hidden: 12_12_768.")
    tokenizer_vocab_size: int = option(4096, "Size of the byte-level BPE that a new model on natural text gets.")

    def __post_init__(self) -> None:
        if self.use_peft and not self.lora_target_modules:  # type: ignore[has-type]
            self.lora_target_modules = ["all-linear"]  # peft knows the layers of some architectures only
        super().__post_init__()
        module: Any = self.lora_target_modules
        if isinstance(module, str) and module.isidentifier():  # TRL takes one name out of its list, a pattern for PEFT
            self.lora_target_modules = [module]
        check_fields(self)
        self.gpt2_size = self.gpt2_size or None
        folder = self.model_name_or_path
        if self.model_revision != "main" and folder and Path(folder).is_dir():
            raise ValueError(
                f"model_revision: got {self.model_revision!r} of the folder {folder!r}, which has no revisions; leave "
                "it out, or name a model of the Hub"
            )


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the default of each flag."""


class RecipeParser(TrlParser):
    """TRL's parser, its errors as ValueError in one line, its help by dataclass."""

    def __init__(self, classes: Sequence[type], about: str | None, default: Path | None) -> None:
        """`about`: what the help begins with; `default`: the config that is read where none is named."""
        self.hints = _fields(classes)
        self.settings: dict[str, Any] = {}
        super().__init__(
            list(classes),
            allow_abbrev=False,
            description=about,
            formatter_class=HelpFormatter,
            usage="%(prog)s [--config FILE] [--name value ...]",
        )
        text = "A YAML file of these names and values. Precedence: flag, then file, then default."
        text += f" Without one: {default}." if default else ""
        self.add_argument("--config", metavar="FILE", help=text, default=argparse.SUPPRESS)
        self.named: set[str] = set()  # what flags and the config name, be it with its default
        # As parsing gives them, before a config takes their place; of `--name` and `--no_name` the first counts.
        self.defaults = {
            action.dest: self._get_value(action, action.default) if isinstance(action.default, str) else action.default
            for action in reversed(self._actions)
        }

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual, and JSON. `settings`: what differs from defaults, before dataclasses change any of it."""
        parsed, unknown = super().parse_known_args(args, namespace)
        for action in self._actions:
            name, value = action.dest, getattr(parsed, action.dest, None)
            if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and _fits(self.hints[name], {}):
                setattr(parsed, name, read_json(value, name))
            elif isinstance(value, list) and value is not action.default and len(value) == 1:  # of a flag
                kinds, whole = {*_kinds(self.hints[name])}, str(value[0])[:1] in ("", "[", "{")  # empty, or JSON
                alone = value == [None] or {str, list[str]} <= kinds or (whole and str in kinds)
                setattr(parsed, name, value[0] if alone else value)
            elif isinstance(value, list) and None in value:
                raise ValueError(f"{name}: got null beside other values, wanted it alone, or other values")
            elif value is False and "no" in (action.choices or ()):  # what YAML makes of it
                setattr(parsed, name, "no")
        values = copy.deepcopy(vars(parsed))
        self.settings = {name: value for name, value in values.items() if value != self.defaults[name]}
        check_honoured(self.settings, self.dataclass_types, self.named)
        choices = {action.dest: action.choices for action in self._actions if action.choices}
        rules = {name: rule for part in self.dataclass_types for name, rule in limits_of(part).items()}
        choices |= {name: rule["choices"] for name, rule in rules.items() if "choices" in rule}
        for name, known in choices.items():
            if (value := self.settings.get(name)) is not None:
                check_choices(name, value if isinstance(value, list) else [value], known)
        for rule in _RULES["needs"]:  # what is switched off by name is so in the settings too
            if self.settings.keys() & set(rule["fields"].split()):
                self.settings |= {name: values[name] for name in rule["beside"].split() if name in self.named}
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing some hundred flags."""
        raise ValueError(message)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Read a word of a flag as YAML does where the field takes null, or one of several types."""
        hint = self.hints.get(action.dest, str)
        value = arg_string if arg_string is action.default else yaml_value(arg_string)
        whole = isinstance(value, bool | int) and float not in _kinds(hint)
        if arg_string.strip() and (value is None or whole) and _fits(hint, value):
            return value
        return arg_string if str in _kinds(hint) else super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Leave choices to `parse_known_args`, which checks those of the config as well."""

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field) -> None:
        """Add the flag; argparse knows nothing of the limits that `option` gives a field."""
        plain, known = copy.copy(field), ("help", "aliases", "choices")
        plain.metadata = types.MappingProxyType({k: v for k, v in field.metadata.items() if k in known})
        kinds = {get_origin(kind): kind for kind in _kinds(field.type)}
        if dict in kinds or list in kinds:  # a mapping among flags is JSON, which is read later
            plain.type = kinds.get(list, str | None)
        if list in kinds and field.default is not dataclasses.MISSING:
            plain.default_factory = lambda: field.default
        TrlParser._parse_dataclass_field(parser, plain)

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        """As usual, in a group whose title is the class with the first line that it says of itself."""
        title = f"{dtype.__name__}: {(dtype.__doc__ or '').strip().splitlines()[0].rstrip('.')}"
        super()._add_dataclass_arguments(type(dtype.__name__, (dtype,), {"_argument_group_name": title}))


class Parsed(list[Any]):
    """Instances of a recipe's dataclasses. settings: what flags and YAML set, as far as it is not the default."""

    settings: dict[str, Any]


def parse_recipe(
    classes: Sequence[type], argv: Sequence[str] | None = None, default: Path | None = None, about: str | None = None
) -> Parsed:
    """Instances of the dataclasses from flags and `--config FILE`; without that flag, from the file `default`.

    `about`: what `--help` begins with, a recipe's own docstring.
    Raises ValueError for an unknown flag or key, naming the nearest known one, for a value of the wrong type or out of
    range, and for one that the recipe does not use. A dataclass whose values must fit those of the others has a
    method `check_beside(parsed)`.
    """
    rest = list(sys.argv[1:] if argv is None else argv)
    for number, word in enumerate(rest):  # argparse knows flags with hyphens, too, and what follows compares names
        name, equals, value = word.partition("=")
        rest[number] = f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word
    path, rest = _split_config(rest)
    path = path or default
    config = {} if path is None else _read_config(path, classes)
    flags = {word[2:].partition("=")[0] for word in rest if word.startswith("--")}
    for flag in flags:  # it says something else than the file does
        for name in set(_RULES["clears"].get(flag, "").split()) - flags:
            config.pop(name, None)
    parser = RecipeParser(classes, about, default)
    parser.named |= flags | config.keys()
    parser.set_defaults_with_config(**config)
    kinds = (ArithmeticError, AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(rest, return_remaining_strings=True)
    except kinds as error:
        # Of a library's own dataclass: a file that is not there, a package that is not installed, values that clash.
        text, given = " ".join(str(error).split()), parser.settings
        quoted = [f"{name}: got {value!r}" for name, value in given.items() if f"'{value}'" in text]
        if isinstance(error, ValueError) and (not quoted or any(name in text for name in given)):
            raise
        raise ValueError(f"{' and '.join(quoted) or 'got values that do not go together'}: {text}") from error
    if strange := [word for word in unknown if word.startswith("--")]:
        flag = strange[0].partition("=")[0]  # what follows may be a secret
        raise ValueError(f"got unknown flag {flag!r}; {_nearest_field(flag.lstrip('-'), classes)}")
    if unknown:
        raise ValueError(f"got unexpected argument {unknown[0]!r}, wanted --name value")
    for part in parsed:  # first, since other errors say what they got
        for name, value in vars(part).items():
            check_no_secret(name, value)
    for part in parsed:
        library = isinstance(part, TrainingArguments | ModelConfig)
        if library or not hasattr(part, "__post_init__"):  # which does it for the others
            check_fields(part, limits_of(type(part)) if library else None)
        if isinstance(part, TrainingArguments):
            check_schedule(part)
            if getattr(part, "activation_offloading", False) and part.device.type == "cpu":
                raise ValueError("activation_offloading: got true on a CPU, wanted a GPU to take activations off")
            if getattr(part, "precompute_ref_log_probs", False) and part.world_size > 1:
                raise ValueError(
                    "precompute_ref_log_probs: got true on several processes, wanted one: TRL shares none"
                )
        for name, value in vars(part).items():
            numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, float)]
            if not all(map(math.isfinite, numbers)) and (name, value) != ("max_ratio", math.inf):
                raise ValueError(f"{name}: got {value}, wanted a finite number")
        check_trackers(getattr(part, "report_to", []))
        if getattr(part, "disable_tqdm", False):
            disable_progress_bars("hf_synth")
        if hasattr(part, "check_beside"):
            part.check_beside(parsed)
    result = Parsed(parsed)
    result.settings = parser.settings
    return result


def limits_of(kind: type) -> dict[str, dict[str, Any]]:
    """Field -> what a value of a library's dataclass must be."""
    mine = {each.__name__ for each in kind.__mro__}
    rules = [rule for rule in _RULES["limits"] if "of" not in rule or mine & set(rule["of"].split())]
    return {name: rule for rule in rules for name in rule["fields"].split()}


def check_honoured(settings: Mapping[str, Any], classes: Sequence[type], named: Collection[str]) -> None:
    """Raise ValueError for a setting that the recipe of these dataclasses would take and not act on.

    settings: what differs from its default. named: what flags or YAML name, be it with its default.
    """
    kinds = {kind.__name__ for part in classes for kind in part.__mro__}
    kinds |= {f"only:{part.__name__}" for part in classes}
    values = {name: value for name, value in settings.items() if value not in (None, "", {}, [])}

    def idle(rule: Mapping[str, Any]) -> list[str]:
        ours = "of" not in rule or kinds & set(rule["of"].split())
        shown = {**values, "hub_token": "a token"}
        return [f"{name}: got {shown[name]!r}" for name in rule["fields"].split() if ours and name in values]

    for rule in _RULES["refused"]:
        for got in idle(rule):
            raise ValueError(f"{got}, which this recipe does not use; {rule['do']}")
    for rule in _RULES["needs"]:
        beside = rule["beside"].split()
        for got in [] if set(beside) & set(named) else idle(rule):
            raise ValueError(f"{got}, which says nothing without {' or '.join(beside)}; give both, or none")
    for rule in _RULES["clashes"]:
        for got in idle(rule) if rule["given"] in values else []:
            raise ValueError(f"{got} beside {rule['given']}, which leaves it nothing to say; give one of them")
    steps, epochs = settings.get("max_steps", -1), settings.get("num_train_epochs", 1)
    if steps != -1 and steps < 1:
        raise ValueError(f"max_steps: got {steps}, wanted at least 1, or -1 for num_train_epochs")
    if (steps == -1 or epochs != -1) and not 0 < epochs < math.inf:
        raise ValueError(f"num_train_epochs: got {epochs}, wanted a finite number above 0, or max_steps above 0")
    if not str(settings.get("output_dir", "runs")).strip():
        raise ValueError("output_dir: got an empty name, wanted that of a folder")


def check_schedule(args: TrainingArguments) -> None:
    """Raise ValueError for a learning rate schedule that does not take its arguments: Trainer learns it last."""
    extra, name = args.lr_scheduler_kwargs or {}, SchedulerType(args.lr_scheduler_type)
    plateau = name == SchedulerType.REDUCE_ON_PLATEAU  # it hands them on to torch
    schedule: Any = ReduceLROnPlateau if plateau else TYPE_TO_SCHEDULER_FUNCTION[name]
    parameters = inspect.signature(schedule).parameters
    known = set(parameters) - {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}  # Trainer's own
    needed = {each for each in known if parameters[each].default is inspect.Parameter.empty} - {"kwargs"}
    if any("=" not in each for each in (args.optim_args or "=").split(",")):
        raise ValueError(f"optim_args: got {args.optim_args!r}, wanted name=value, several with a comma between")
    if args.warmup_steps > 1 and args.warmup_steps % 1:  # Trainer would cut what stands behind the point
        raise ValueError(f"warmup_steps: got {args.warmup_steps}, wanted a whole number, or a fraction below 1")
    if not isinstance(extra, dict) or not needed <= extra.keys() or not ("kwargs" in known or extra.keys() <= known):
        raise ValueError(
            f"lr_scheduler_kwargs: got {extra!r}, wanted a mapping with names that the schedule {name.value} takes: "
            f"{', '.join(sorted(known)) or 'it takes none, so leave them out'}"
            + (f"; it needs {', '.join(sorted(needed))}" if needed else "")
        )


def check_no_secret(name: str, value: Any) -> None:
    """Raise ValueError for a value with a token or a password in it, which files of a run would keep."""
    if _SECRET.search(str(value)):
        raise ValueError(
            f"{name}: got a value with a token, or with a URL's user or password, in it, which files of the run would "
            "keep; wanted one without: HF_TOKEN, `hf auth login` and ~/.netrc say who you are"
        )


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker that is not known, or not installed."""
    missing = set(INTEGRATION_TO_CALLBACK) - {"flyte", *get_available_reporting_integrations()} if names else set()
    check_choices("report_to", names, INTEGRATION_TO_CALLBACK)
    for name in names:
        if name in missing:
            raise ValueError(f"report_to: got {name!r}, which is not installed here; pip install {name}, or take none")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as in YAML 1.2, and no key stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Make it as usual, and raise where a key would take the place of another."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """YAML that `_Loader` reads as it was: a text of that form stands in quotes."""


# Of YAML 1.1, 010 is 8 and 1:30 is 90; nobody means that.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F]+)$"), list("+-0123456789")
)
_Dumper.add_multi_representer(enum.Enum, lambda dumper, value: dumper.represent_data(value.value))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("+-0123456789")
    )


def yaml_text(values: Any, **options: Any) -> str:
    """Return values as YAML that `read_yaml` reads as they were; options are those of `yaml.dump`."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, **options))


def yaml_value(text: str) -> Any:
    """Return what a word of a command line says, read as `read_yaml` does; the text itself where it is no YAML."""
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = _Loader) -> dict[str, Any]:
    """A config file; ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"--config: got {str(path)!r}, which is no file{_likely_config(path)}")
    try:
        config = loader(path.read_text(encoding="utf-8")).get_single_data()
        json.dumps(config, default=str, skipkeys=True)  # an anchor may hold itself
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may hold a secret
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}: got no valid YAML{where}: {error.problem}") from None
    except RecursionError:
        raise ValueError(f"{path}: got values that are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: got no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: got {type(config).__name__}, wanted a mapping of names to values")
    return config


def _likely_config(path: Path) -> str:
    """Name the config in a folder beside a missing one's that shares most words of its name: configs have moved."""

    def words(config: Path) -> set[str]:
        return set(re.split("[/_]", f"{config.parent.name}/{config.stem}"))

    def likeness(config: Path) -> tuple[int, int]:
        return len(words(config) & words(path)), -len(words(config))

    likely = max(path.parent.parent.glob("*/*.yaml"), key=likeness, default=path)
    return f"; did you mean {likely}?" if likely != path and likeness(likely)[0] else ""


def _split_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file after `--config`, and the other arguments; ValueError for none or several."""
    parts = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    positions = [position for position, part in enumerate(parts) if part == "--config"]
    if not positions:
        return None, parts
    if positions[-1] + 1 == len(parts):
        raise ValueError("--config: got nothing after it, wanted a YAML file")
    if len(positions) > 1:
        raise ValueError(f"--config: got {len(positions)} files, wanted one; put their values into one file")
    return Path(parts[positions[0] + 1]), parts[: positions[0]] + parts[positions[0] + 2 :]


def _read_config(path: Path, classes: Sequence[type]) -> dict[str, Any]:
    """The values of a file by name, each of the type of its field; those of its `env` go into the environment."""
    config, texts, fields = read_yaml(path), read_yaml(path, yaml.SafeLoader), _fields(classes)
    variables = config.pop("env", None) or {}
    if not isinstance(variables, dict):
        raise ValueError(f"{path}: env: got {variables!r}, wanted a mapping of environment variables")
    for name, value in variables.items():
        named = re.fullmatch(r"[A-Za-z_]\w*", str(name))
        if not named or not isinstance(value, str | int | float) or "\0" in str(value):
            raise ValueError(f"{path}: env: got {name!r}: {value!r}, wanted a variable's name and a text or a number")
        os.environ[str(name)] = str(value)
    for key, value in config.items():
        if key not in fields:
            raise ValueError(f"{path}: got unknown key {key!r}; {_nearest_field(str(key), classes)}")
        if key != "hub_token":
            check_no_secret(key, value)
        if isinstance(texts[key], str) and str in _kinds(fields[key]):  # such as a revision, 12e4
            config[key] = texts[key]
        elif not isinstance(value, list) and not _fits(fields[key], value) and _fits(fields[key], [value]):
            config[key] = [value]
        elif not _fits(fields[key], value):
            kinds = [kind for kind in _kinds(fields[key]) if kind is not NoneType]
            wanted = " or ".join(getattr(get_origin(kind) or kind, "__name__", str(kind)) for kind in kinds)
            quotes = "; put it in quotes" if wanted == "str" and not isinstance(value, list | dict) else ""
            raise ValueError(f"{path}: {key}: got {value!r} ({type(value).__name__}), wanted {wanted}{quotes}")
    return config


def _fields(classes: Sequence[type]) -> dict[str, Any]:
    """Field name -> type, of all classes; not those that no user sets."""
    hints = [(part, get_type_hints(part)) for part in classes]
    return {each.name: known[each.name] for part, known in hints for each in dataclasses.fields(part) if each.init}


def _fits(hint: Any, value: Any) -> bool:
    """Whether YAML's value can stand for a field; what text means is left to argparse, and None to a list of ours."""
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return any(_fits(one, value) for one in get_args(hint))
    if isinstance(value, str):
        return kind is not NoneType and hint != list[str]
    if kind is list and isinstance(value, list):
        inner = get_args(hint)[0]
        textual = not isinstance(inner, type) or issubclass(inner, str)  # a path may stand for a mapping
        return all(_fits(inner, item) and (textual or not isinstance(item, str)) for item in value)
    if kind is Literal:
        return value in get_args(hint)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):  # the parser knows its names
        return not isinstance(value, list | dict | None)
    return kind is Any or type(value) is kind or (type(value) is int and kind is float)


def _kinds(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _nearest_field(name: str, classes: Sequence[type]) -> str:
    hint, _, known = nearest(name, _fields(classes)).partition("Known: ")
    return hint.strip() or f"known are {len(known.split(','))} names, see --help"
