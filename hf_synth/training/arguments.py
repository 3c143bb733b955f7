"""Arguments of recipes: flags over YAML over defaults, flat names, unknown names refused."""

import argparse
import copy
import dataclasses
import math
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import ModelConfig, TrlParser

from hf_synth.errors import check_fields, nearest, option
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
TRACKERS = ("tensorboard", "trackio", "wandb")


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
        "Preference pairs: a Hub id, hh, uf or se for the published ones, a .jsonl, .jsonl.gz or .parquet "
        "file, or a folder, such as datasets_scripts/preferences.py writes.",
    )
    preferences_dir: str | None = option(None, "A subfolder of the Hub dataset or folder, such as harmless-base.")
    preferences_split: str | None = option(
        None, "The split of the Hub dataset or folder (default: train); a single file is read whole."
    )
    prompts: str | None = option(None, "Your own prompts: a .jsonl file with a `prompt` in every line.")
    num_rows: int = option(2000, "Rows to train on; for GRPO distinct prompts. Pairs are all used.", at_least=1)
    duplicates: str = option(
        "replace",
        "Prompts that tasks draw again: replace (num_rows distinct ones), keep (num_rows as drawn), or "
        "drop (the distinct ones of num_rows).",
        choices=DUPLICATES,
    )
    rows_seed: int = option(0, "The seed of the rows.")
    max_prompt_tokens: int | None = option(None, "Longer prompts are left out, and counted in metrics.json.")
    test_share: float = option(
        0.1, "The share of the prompts, of pairs or your own, that is held out.", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        """Read JSON values, and check that exactly one source is named."""
        self.task, self.preset, self.preferences, self.prompts = (
            name or None for name in (self.task, self.preset, self.preferences, self.prompts)
        )
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
        "density; permuted (its weights, dealt out at random: a control); cluster or source (equal mass "
        "to each cluster or `src`); pass_rate (learnt while GRPO trains); curriculum (easy first: the column "
        "difficulty, or else the prompt's length); uniform. Several multiply.",
    )
    sampling_strength: list[float] = option(
        [1.0], "Weights are density**-strength; 0 is uniform. Several numbers: one arm of the run each."
    )
    strength_schedule: str = option(
        "constant",
        "constant; rising (from 0 to sampling_strength over the run, crowded first); falling.",
        choices=SCHEDULES,
    )
    density_refresh: int | None = option(
        None, "Measure density again every so many steps, by the policy's own hidden states as they are.", at_least=1
    )
    round_size: int | None = option(
        None, "Draws in a round, between which weights may change; as many as prompts where not given.", at_least=1
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
        "NAME is a path or Hub id.",
    )
    embedder_layer: int = option(-1, "The layer of policy:NAME: 0 is the embeddings, -1 the last.")
    embedding_cache: str | None = option(None, "A folder that keeps embeddings by content, for any number of runs.")
    density_backend: str = option(
        "auto", "auto, or exact: sklearn, faiss, torch; or approximate: ivf.", choices=("auto", *BACKENDS)
    )
    density_from: str | None = option(None, "A folder of recipes/density.py: its densities instead of measuring any.")

    def __post_init__(self) -> None:
        """Take one number for a list of one; refuse repeated and negative strengths."""
        given: Any = self.sampling_strength
        try:
            numbers = [float(strength) for strength in (given if isinstance(given, list) else [given])]
        except (TypeError, ValueError):
            numbers = []
        if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < math.inf for number in numbers):
            raise ValueError(f"sampling_strength: got {given!r}, wanted one or more different numbers of at least 0")
        self.sampling_strength = numbers
        self._check_kinds()
        check_fields(self)

    @property
    def by_density(self) -> bool:
        """Whether the strength means anything: weights follow the density, or a permutation of it."""
        return bool({"density", "permuted"} & set(self.sampling_by))

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
        for kind in kinds:
            if kind not in SAMPLING_BY:
                raise ValueError(f"sampling_by: got {kind!r}; {nearest(str(kind), SAMPLING_BY)}")
        if not kinds or len(set(kinds)) < len(kinds) or {"density", "permuted"} <= set(kinds):
            raise ValueError(
                f"sampling_by: got {kinds}, wanted one or more different kinds, of density and permuted at most one"
            )
        if len(self.sampling_strength) > 1 and not self.by_density:
            raise ValueError(
                f"sampling_strength: got {self.sampling_strength}, wanted one number: weights by {', '.join(kinds)} "
                "have no strength, so the arms would not differ"
            )


@dataclasses.dataclass
class PolicyArguments(ModelConfig):
    """TRL's model arguments, and the architecture of a model made from nothing for when no model is named."""

    model_type: str = option(
        "rope_gpt", "A model made from nothing: rope_gpt, rlm_transformer, or any of transformers, small."
    )
    new_model: dict[str, Any] | str | None = option(
        None, "Config values of a model made from nothing, as JSON.", json=True
    )
    gpt2_size: str | None = option(None, "A GPT-2 made from nothing, as layers_heads_hidden: 12_12_768.")
    tokenizer_vocab_size: int = option(4096, "Size of the byte-level BPE that a fresh model on natural text gets.")

    def __post_init__(self) -> None:
        """Read JSON values; let LoRA adapt every linear layer unless some are named."""
        if self.use_peft and not self.lora_target_modules:  # type: ignore[has-type]
            self.lora_target_modules = ["all-linear"]  # peft knows the layers of some architectures only
        super().__post_init__()
        check_fields(self)
        self.gpt2_size = self.gpt2_size or None


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the default of each flag."""


class RecipeParser(TrlParser):
    """TRL's parser, its errors as ValueError in one line, its help by dataclass."""

    def __init__(self, classes: Sequence[type], about: str | None, default: Path | None) -> None:
        """`about`: what the help begins with; `default`: the config that is read where none is named."""
        super().__init__(
            list(classes),
            allow_abbrev=False,
            description=about,
            formatter_class=HelpFormatter,
            usage="%(prog)s [--config FILE] [--name value ...]",
        )
        text = "A YAML file of these names and values. Precedence: flag, then file, then default."
        text += f" Without one: {default}." if default else ""
        # Not a value of its own: TRL's parser takes the flag away before the others are read.
        self.add_argument("--config", metavar="FILE", help=text, default=argparse.SUPPRESS)
        # As parsing gives them, before a config takes their place; of `--name` and `--no_name` the first counts.
        self.defaults = {
            action.dest: self._get_value(action, action.default) if isinstance(action.default, str) else action.default
            for action in reversed(self._actions)
        }

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual; `values` keeps what the dataclasses are made of, before they change any of it."""
        parsed, unknown = super().parse_known_args(args, namespace)
        self.values = copy.deepcopy(vars(parsed))
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing some hundred flags."""
        raise ValueError(message)

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field) -> None:
        """Add the flag; argparse knows nothing of the limits that `option` gives a field."""
        plain = copy.copy(field)
        plain.metadata = types.MappingProxyType({k: v for k, v in field.metadata.items() if k in ("help", "aliases")})
        TrlParser._parse_dataclass_field(parser, plain)

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        """As usual, in a group whose title is the class with the first line that it says of itself."""
        title = f"{dtype.__name__}: {(dtype.__doc__ or '').strip().splitlines()[0].rstrip('.')}"
        super()._add_dataclass_arguments(type(dtype.__name__, (dtype,), {"_argument_group_name": title}))


class Parsed(list[Any]):
    """Instances of a recipe's dataclasses. settings: what flags and YAML set, as far as it is not the default."""

    def __init__(self, parts: Sequence[Any], settings: dict[str, Any]) -> None:
        """Keep both."""
        super().__init__(parts)
        self.settings = settings


def parse_recipe(
    classes: Sequence[type],
    argv: Sequence[str] | None = None,
    default: Path | None = None,
    about: str | None = None,
) -> Parsed:
    """Instances of the dataclasses from flags and `--config FILE`; without that flag, from the file `default`.

    `about`: what `--help` begins with, a recipe's own docstring.
    Raises ValueError for an unknown flag or key, naming the nearest known one, and for a value of the wrong type. A
    dataclass whose values must fit those of the others has a method `check_beside(parsed)`.
    """
    given = sys.argv[1:] if argv is None else argv
    words = [part for word in given for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" not in words and default is not None:
        words = ["--config", str(default), *words]
    if "--config" in words:
        _check_config(words, classes)
    parser = RecipeParser(classes, about, default)
    cleared = _cleared(words, classes)
    clearing = [f"--{name}={'{}' if name in ('mixture', 'task_args') else ''}" for name in cleared]
    *parsed, unknown = parser.parse_args_and_config([*words, *clearing], return_remaining_strings=True)
    if flags := [word for word in unknown if word.startswith("--")]:
        flag = flags[0].partition("=")[0]  # what follows may be a secret
        raise ValueError(f"got unknown flag {flag!r}; {_nearest_field(flag.lstrip('-'), classes)}")
    if unknown:
        raise ValueError(f"got unexpected argument {unknown[0]!r}, wanted --name value")
    for part in parsed:
        for name, value in vars(part).items():
            check_no_secret(name, value)
        check_trackers(getattr(part, "report_to", []))
        if hasattr(part, "check_beside"):
            part.check_beside(parsed)
    # As they were set: what a dataclass derives from them, it derives again. Its reading of JSON is easier to read.
    settings = {}
    for name, value in parser.values.items():
        if value != parser.defaults[name] and name not in cleared:
            read = next(getattr(part, name) for part in parsed if hasattr(part, name))
            is_json = isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and isinstance(read, dict | list)
            settings[name] = read if is_json else value
    return Parsed(parsed, settings)


def check_no_secret(name: str, value: Any) -> None:
    """Raise ValueError for a value with a token or a password in it, which files of a run would keep."""
    if _SECRET.search(str(value)):
        raise ValueError(
            f"{name}: got a value with a token, or with a URL's user or password, in it, which files of the run would "
            "keep; wanted one without: HF_TOKEN, `hf auth login` and ~/.netrc say who you are"
        )


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker that is not known, or is one of TRACKERS and not installed."""
    missing = set(TRACKERS) - set(get_available_reporting_integrations() if names else TRACKERS)
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"report_to: got {name!r}; {nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name in missing:
            raise ValueError(f"report_to: got {name!r}, which is not installed here; pip install {name}, or take none")


def read_yaml(path: Path) -> dict[str, Any]:
    """A config file; ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"--config: got {str(path)!r}, which is no file{_likely_config(path)}")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may hold a secret
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}: got no valid YAML{where}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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


def _cleared(words: list[str], classes: Sequence[type]) -> list[str]:
    """Names whose YAML values a flag clears, since it says something else: a source, a task's values, an architecture.

    Each of them is None by default.
    """
    known = [name for name in SOURCES if name in _fields(classes)]
    given = [name for name in known if _named(words, name)]
    others = [name for name in known if given and name not in given]
    if given == ["task"] or _named(words, "preset"):  # another task, or another preset, has values of its own
        left = ["preset", "task_args"] if given == ["task"] else ["task_args"]
        others += [name for name in left if name in _fields(classes) and not _named(words, name)]
    if "gpt2_size" in _fields(classes) and _named(words, "model_type") and not _named(words, "gpt2_size"):
        others.append("gpt2_size")
    return others


def _named(words: list[str], name: str) -> bool:
    return any(word.split("=")[0] == f"--{name}" for word in words)


def _check_config(words: list[str], classes: Sequence[type]) -> None:
    position = words.index("--config") + 1
    if position == len(words):
        raise ValueError("--config: got nothing after it, wanted a YAML file")
    path = Path(words[position])
    config = read_yaml(path)
    fields = _fields(classes)
    for key, value in config.items():
        if key not in fields and key != "env":
            raise ValueError(f"{path}: got unknown key {key!r}; {_nearest_field(str(key), classes)}")
        if not _accepts(fields.get(key), value):
            wanted = " or ".join(kind.__name__ for kind in _kinds(fields[key]) if kind is not NoneType)
            quotes = "; put it in quotes" if wanted == "str" else ""
            raise ValueError(f"{path}: {key}: got {value!r} ({type(value).__name__}), wanted {wanted}{quotes}")


def _fields(classes: Sequence[type]) -> dict[str, Any]:
    """Field name -> type, of all classes."""
    hints = [(part, get_type_hints(part)) for part in classes]
    return {field.name: known[field.name] for part, known in hints for field in dataclasses.fields(part)}


def _accepts(hint: Any, value: Any) -> bool:
    """Whether YAML's value can stand for a plain field; text is left to argparse, and other fields to themselves."""
    kinds = _kinds(hint)
    if isinstance(value, str) or not set(kinds) <= {bool, int, float, str, NoneType}:
        return True
    return type(value) in kinds or (type(value) is int and float in kinds)


def _kinds(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _nearest_field(name: str, classes: Sequence[type]) -> str:
    hint, _, known = nearest(name, _fields(classes)).partition("Known: ")
    return hint.strip() or f"known are {len(known.split(','))} names, see --help"
