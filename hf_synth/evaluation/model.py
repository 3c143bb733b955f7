"""The model that is measured: loaded on its device, its tokenizer matched with the words of a task."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import PartialState
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth import models as _registered  # noqa: F401 - the Auto classes know our own models by it
from hf_synth.corpora.tokenizers import check_vocabulary
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS, Rows, Task, json_dict, nearest
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.tokenization import all_words
from hf_synth.training.models import from_pretrained, require_checkpoint
from hf_synth.training.pretraining_data import option
from hf_synth.training.run_directory import RESOLVED_CONFIG


@dataclasses.dataclass(frozen=True)
class Measured:
    """A causal language model and its tokenizer, and how many rows it takes at once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 128

    @property
    def positions(self) -> int | None:
        """The most tokens that a row may have, where there is a limit."""
        return getattr(self.model.config, "max_position_embeddings", None)


def load(arguments: MeasuringArguments) -> Measured:
    """The checkpoint on this process's device, ready to be measured; an adapter is merged into its model.

    Raises ValueError where there is no such checkpoint, or where the tokenizer has ids that the model has not.
    """
    path = str(arguments.model_name_or_path)
    options: dict[str, Any] = {"revision": arguments.model_revision}
    if arguments.dtype:
        options["dtype"] = arguments.dtype
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file():
        model = AutoPeftModelForCausalLM.from_pretrained(path, **options).merge_and_unload()
        tokenizer = AutoTokenizer.from_pretrained(path)
    else:
        model = from_pretrained(AutoModelForCausalLM, path, **options)
        tokenizer = from_pretrained(AutoTokenizer, path, revision=arguments.model_revision)
    check_vocabulary(model, tokenizer)
    return Measured(model.to(PartialState().device).eval(), tokenizer, arguments.batch_size)


def word_ids(measured: Measured, task: Task) -> np.ndarray | None:
    """The tokenizer's id of each word of a task, special tokens first, int32 [words]; None where it splits words.

    A tokenizer for text can measure languages only. Raises ValueError, naming words, where one for tasks lacks some.
    """
    words, known = all_words(task), measured.tokenizer.get_vocab()
    missing = [word for word in words if word not in known]
    if not missing:
        return np.array([known[word] for word in words], np.int32)
    if isinstance(task, Grammar) and _spells(measured.tokenizer, missing):
        return None
    some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
    raise ValueError(
        f"the tokenizer lacks {len(missing)} of the {len(words)} words of task {task.name}: {some}; "
        "wanted a model that was trained on this task, with these task_args"
    )


def _spells(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> bool:
    """Whether a tokenizer can write words that are no tokens of its own, as those for text can."""
    try:
        spelled = tokenizer(words, add_special_tokens=False)["input_ids"]
    except Exception:  # the class that the `tokenizers` library has for a word that it does not know
        return False
    return all(tokenizer.decode(ids).strip() == word for ids, word in zip(spelled, words, strict=True))


def check_positions(measured: Measured, rows: Rows, name: str) -> None:
    """Raise ValueError where a row is longer than the model's positions."""
    longest, most = int(rows.lengths.max()), measured.positions
    if most is not None and longest > most:
        raise ValueError(
            f"{name}: got rows of {longest} tokens, and a model of {most} positions; wanted shorter rows, or a model "
            "made with more max_position_embeddings"
        )


_INSIDE_RUNS = ("checkpoint-", "best", "step-", "snapshots")  # folders that a run makes for its models


@dataclasses.dataclass(frozen=True)
class Setting:
    """One config of a task; `length` is the value that sets it apart, None where the config is measured as it is."""

    name: str
    task: Task
    length: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """All settings, the seed of their rows, the field that differs, and its value in training where that is known."""

    settings: tuple[Setting, ...]
    rows_seed: int
    length_field: str | None = None
    trained_length: int | None = None

    @property
    def task_name(self) -> str:
        """The task of all settings."""
        return self.settings[0].task.name


def planned(arguments: MeasuringArguments) -> Plan:
    """The settings that the arguments ask for; what they leave open is as in the run that made the model.

    At a length rows have exactly that one: a field's `min_` and `test_` companions are set to 0.
    Raises ValueError for no task, an unknown length field, and values out of range.
    """
    run = run_config(str(arguments.model_name_or_path))
    name = arguments.task or run.get("task")
    if not name:
        require_checkpoint(str(arguments.model_name_or_path))
        raise ValueError(
            f"got no task, and beside {arguments.model_name_or_path!r} no run that names one; wanted --task"
        )
    same = run if name == run.get("task") else {}
    args: dict[str, Any] = arguments.task_args or ({} if arguments.preset else same.get("task_args")) or {}  # type: ignore[assignment]
    task = get_task(name, arguments.preset or same.get("preset"), **args)
    seed = arguments.rows_seed if arguments.rows_seed is not None else int(same.get("rows_seed") or 0)
    if not arguments.lengths:
        return Plan((Setting(arguments.split, task),), seed)
    field = str(arguments.length_field or getattr(task.config, "size_field", "length"))
    settings = tuple(Setting(str(value), _at(task, field, value), value) for value in arguments.lengths)
    trained = get_task(name, same.get("preset"), **(same.get("task_args") or {})) if same else None
    return Plan(settings, seed, field, getattr(trained.config, field) if trained else None)


def run_config(name_or_path: str) -> dict[str, Any]:
    """The config of the run that a model's folder, or one of its checkpoints or snapshots, is of; else nothing."""
    folder = Path(name_or_path)
    for place in (folder, *list(folder.parents)[:2]):
        if (path := place / RESOLVED_CONFIG).is_file():
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        if not place.name.startswith(_INSIDE_RUNS):
            break
    return {}


def _at(task: Task, field: str, value: int) -> Task:
    known = [one.name for one in dataclasses.fields(task.config)]
    numeric = [name for name in known if type(getattr(task.config, name)) is int]
    if field not in numeric:
        raise ValueError(
            f"length_field: task {task.name} got {field!r}, wanted one of its whole numbers; {nearest(field, numeric)}"
        )
    companions = {name: 0 for name in (f"min_{field}", f"test_{field}") if name in known}
    return type(task)(task.config.replace(**companions, **{field: value}))


@dataclasses.dataclass
class MeasuringArguments:
    """Which checkpoint is measured on which rows, and where the results go."""

    model_name_or_path: str | None = option(None, "A folder or Hub id: a run, a checkpoint or a PEFT adapter.")
    model_revision: str | None = option(None, "A branch, tag or commit of the Hub id.")
    dtype: str | None = option(None, "float32, bfloat16, ...; that of the checkpoint by default.")
    task: str | None = option(None, "A task's name, or the path of its file; by default that of the run.")
    preset: str | None = option(None, "A preset of the task.")
    task_args: dict[str, Any] | str | None = dataclasses.field(
        default=None, metadata={"help": "Config values over the preset, as JSON."}
    )
    lengths: list[int] | None = dataclasses.field(
        default=None, metadata={"help": "Values of length_field, each measured by itself; they may exceed training's."}
    )
    length_field: str | None = option(None, "A field of the task's config; by default its size, such as length.")
    split: str = option("test", "The split whose rows are measured.")
    rows: int = option(4096, "Rows for loss and accuracy, of each length.")
    rows_seed: int | None = option(None, "The seed of rows and of samples; that of the run by default, else 0.")
    completions: int = option(1024, "How many of the rows are also completed greedily; 0: none.")
    samples: int = option(1000, "Strings sampled of a language; 0: no measures of a language.")
    batch_size: int = option(128, "Rows in a batch, on each process.")
    output_dir: str | None = option(None, "By default MODEL/evaluation, and runs/evaluation/NAME for a Hub id.")
    lm_eval: str | None = option(None, "Also write tasks for lm-eval into this folder.")

    def __post_init__(self) -> None:
        """Read JSON, and refuse words that are not known and numbers out of range."""
        self.task = self.task or None
        self.task_args = json_dict(self.task_args, "task_args")
        if not self.model_name_or_path:
            raise ValueError("got no model_name_or_path, wanted the folder or Hub id of a model to measure")
        if self.split not in SPLITS:
            raise ValueError(f"split: got {self.split!r}, wanted one of {', '.join(SPLITS)}")
        for name, least in (("rows", 2), ("completions", 0), ("samples", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least {least}")
        if self.lengths is not None and len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths: got {self.lengths}, wanted each once")
        if self.length_field and not self.lengths:
            raise ValueError(f"length_field: got {self.length_field!r} without lengths, wanted its values as well")
        if self.dtype not in (None, "auto") and not isinstance(getattr(torch, str(self.dtype), None), torch.dtype):
            raise ValueError(f"dtype: got {self.dtype!r}, wanted one of torch's, such as 'bfloat16'")
