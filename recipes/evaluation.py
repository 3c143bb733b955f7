# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""Measure a checkpoint on a task: how far from the floor it is, what it writes, and at which lengths that holds.

    accelerate launch recipes/evaluation.py --model_name_or_path runs/procedural/sort --lengths 8 16 24 32
    accelerate launch recipes/evaluation.py --model_name_or_path ORG/MODEL --task sort --task_args '{"length": 16}'

Any checkpoint will do whose tokenizer knows the task's words; for a language of words any tokenizer will. Nothing is
trained. With --lm_eval FOLDER the same rows are written as tasks for lm-eval, whose numbers are the same.
"""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_synth.errors import check_fields, nearest, option, user_errors
from hf_synth.evaluation.generation import add_prompts, greedy_completion_metrics
from hf_synth.evaluation.language import language_measures
from hf_synth.evaluation.lm_eval import command, write_lm_eval
from hf_synth.evaluation.model import Measured, Plan, Setting, check_positions, word_ids
from hf_synth.evaluation.scoring import by_position, scored, teacher_forced_metrics
from hf_synth.experiments.arms import COMPARISON
from hf_synth.io import is_main_process, whole_file
from hf_synth.reports.evaluation import write_evaluation
from hf_synth.sampling.language_models import check_vocabulary, load_checkpoint
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS, Rows, is_language
from hf_synth.training.arguments import parse_recipe, read_yaml
from hf_synth.training.models import from_pretrained, require_checkpoint
from hf_synth.training.run_directory import RESOLVED_CONFIG, run_directory, write_metrics

Measures = dict[str, float]
COUNTS = {"rows": (4096, 512), "completions": (1024, 128), "samples": (1000, 200)}  # by default, and of a large model
LARGE = 30_000_000  # weights
_INSIDE_RUNS = ("checkpoint-", "best", "step-", "snapshots")  # folders that a run makes for its models


@dataclasses.dataclass
class MeasuringArguments:
    """Which checkpoint is measured on which rows, and where the results go."""

    model_name_or_path: str | None = option(None, "A folder or Hub id: a run, a checkpoint or a PEFT adapter.")
    model_revision: str | None = option(None, "A branch, tag or commit of the Hub id.")
    dtype: str | None = option(None, "float32, bfloat16, ...; that of the checkpoint by default.")
    task: str | None = option(None, "A task's name, or the path of its file; by default that of the run.")
    preset: str | None = option(None, "A preset of the task.")
    task_args: dict[str, Any] | str | None = option(None, "Config values over the preset, as JSON.", json=True)
    lengths: list[int] | None = option(
        None, "Values of length_field, each measured by itself; they may exceed training's."
    )
    length_field: str | None = option(None, "A field of the task's config; by default its size, such as length.")
    split: str = option("test", "The split whose rows are measured.", choices=SPLITS)
    rows: int | None = option(
        None,
        "Rows for loss and accuracy, of each length; by default 4096, or 512 for a model of over 30M weights.",
        at_least=2,
    )
    rows_seed: int | None = option(
        None, "The seed of rows and of samples; that of the run by default, else 0.", at_least=0
    )
    completions: int | None = option(
        None, "How many of the rows are also completed greedily; by default 1024, or 128; 0: none.", at_least=0
    )
    samples: int | None = option(
        None, "Strings sampled of a language; by default 1000, or 200; 0: no measures of a language.", at_least=0
    )
    top_p: float = option(1.0, "The top_p at which strings of a language are sampled.", above=0, at_most=1)
    batch_size: int = option(128, "Rows in a batch, on each process.", at_least=1)
    output_dir: str | None = option(None, "By default MODEL/evaluation, and runs/evaluation/NAME for a Hub id.")
    lm_eval: str | None = option(None, "Also write tasks for lm-eval into this folder.")
    disable_tqdm: bool = option(False, "Show no progress bars.")

    def __post_init__(self) -> None:
        """Read JSON, and refuse unknown choices and numbers out of range."""
        self.task, self.model_revision = self.task or None, self.model_revision or None
        check_fields(self)
        if not self.model_name_or_path:
            raise ValueError("got no model_name_or_path, wanted the folder or Hub id of a model to measure")
        if self.lengths is not None and len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths: got {self.lengths}, wanted each once")
        if self.length_field and not self.lengths:
            raise ValueError(f"length_field: got {self.length_field!r} without lengths, wanted its values as well")
        if self.dtype not in (None, "auto") and not isinstance(getattr(torch, str(self.dtype), None), torch.dtype):
            raise ValueError(f"dtype: got {self.dtype!r}, wanted one of torch's, such as 'bfloat16'")


def planned(arguments: MeasuringArguments) -> Plan:
    """Return the settings of the arguments; what they leave open is as in the run that made the model.

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
    """Read the config of the run that a model's folder, one of its checkpoints or snapshots, is of; else nothing."""
    folder = Path(name_or_path)
    for parent in (folder, *list(folder.parents)[:2]):
        if (path := parent / RESOLVED_CONFIG).is_file():
            return read_yaml(path)
        if not parent.name.startswith(_INSIDE_RUNS):
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


def load(arguments: MeasuringArguments) -> Measured:
    """Load the checkpoint on this process's device, ready to be measured; an adapter is merged into its model.

    Raises ValueError where there is no such checkpoint, or where the tokenizer has ids that the model has not.
    """
    path = str(arguments.model_name_or_path)
    options: dict[str, Any] = {"revision": arguments.model_revision}
    if arguments.dtype:
        options["dtype"] = arguments.dtype
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file():
        model = load_checkpoint(AutoPeftModelForCausalLM, path, **options).merge_and_unload()
        tokenizer = load_checkpoint(AutoTokenizer, path)
    else:
        model = from_pretrained(AutoModelForCausalLM, path, **options)
        tokenizer = from_pretrained(AutoTokenizer, path, revision=arguments.model_revision)
    check_vocabulary(model, tokenizer)
    return Measured(model.to(PartialState().device).eval(), tokenizer, arguments.batch_size, arguments.top_p)


def evaluate(arguments: MeasuringArguments) -> Path:
    """Measure a checkpoint at every setting; returns the folder of the results. All processes of a launch call it."""
    started, plan = time.monotonic(), planned(arguments)
    with run_directory(str(output_folder(arguments)), arguments) as folder:
        _measure_into(folder, plan, arguments, started)
    return folder


def _measure_into(folder: Path, plan: Plan, arguments: MeasuringArguments, started: float) -> None:
    measured = load(arguments)
    size = sum(parameter.numel() for parameter in measured.model.parameters())
    counts = {name: both[size > LARGE] for name, both in COUNTS.items() if getattr(arguments, name) is None}
    arguments = dataclasses.replace(arguments, **counts)
    ids = [word_ids(measured, setting.task) for setting in plan.settings]
    test = [_rows(plan, setting, arguments, measured) for setting in plan.settings]
    if arguments.lm_eval and any(one is None for one in ids):
        raise ValueError("lm_eval: got a tokenizer that splits the task's words, wanted one that has them as tokens")
    measures, positions = {}, {}
    for setting, rows, known in zip(plan.settings, test, ids, strict=True):
        measures[setting.name] = _measured(measured, setting, rows, known, arguments, plan, positions)
    if not is_main_process():
        return
    _write_csv(folder / "evaluation.csv", pd.DataFrame.from_dict(measures, orient="index").rename_axis("setting"))
    (folder / "positions.csv").unlink(missing_ok=True)
    if positions:
        _write_csv(folder / "positions.csv", pd.concat(positions, names=["setting"]).droplevel(1))
    lm_eval_command = None
    if arguments.lm_eval:
        tag = write_lm_eval(Path(arguments.lm_eval), plan, test)
        own_code = bool(getattr(measured.model.config, "auto_map", None))
        lm_eval_command = command(Path(arguments.lm_eval), tag, str(arguments.model_name_or_path), own_code)
    others = {"parameters": float(size), "seconds/total": time.monotonic() - started}
    write_metrics(folder, {**flat(measures), **others})
    name, split = str(arguments.model_name_or_path), arguments.split
    more = {"lm_eval": lm_eval_command, "top_p": measured.top_p}
    write_evaluation(folder, plan, measures, positions, model=name, split=split, **more)


def output_folder(arguments: MeasuringArguments) -> Path:
    """Return the folder of the results; ValueError for that of a model or run, whose metrics.json would be lost."""
    model = Path(str(arguments.model_name_or_path))
    if arguments.output_dir is None:
        return model / "evaluation" if model.is_dir() else Path("runs/evaluation") / model.name
    folder = Path(arguments.output_dir)
    if folder.resolve() == model.resolve() or (folder / "config.json").exists():
        raise ValueError(f"got output_dir={arguments.output_dir!r}, which holds a model; wanted another folder")
    config = folder / RESOLVED_CONFIG
    names = {field.name for field in dataclasses.fields(arguments)}
    if (folder / COMPARISON).exists() or (config.exists() and not read_yaml(config).keys() <= names):
        raise ValueError(
            f"got output_dir={arguments.output_dir!r}, which holds the run of another recipe; wanted another folder"
        )
    return folder


def flat(results: Mapping[str, Measures]) -> Measures:
    """Return Measure/SETTING, as a run's own metrics have measure/test: groups behind it, bounds at its end."""
    names = {}
    for setting, metrics in results.items():
        for name, value in metrics.items():
            measure, bound = re.fullmatch(r"(.*?)(_rows_low|_rows_high|_rows_standard_error|_share)?", name).groups()  # type: ignore[union-attr]
            first, _, rest = measure.partition("/")
            names[f"{first}/{setting}" + (f"/{rest}" if rest else "") + (bound or "")] = value
    return names


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as part:
        table.to_csv(part)


def _rows(plan: Plan, setting: Setting, arguments: MeasuringArguments, measured: Measured) -> Rows:
    count = min(arguments.rows, setting.task.size(arguments.split) or arguments.rows)
    rows = setting.task.rows(0, count, split=arguments.split, seed=plan.rows_seed)
    check_positions(measured, rows, f"task {setting.task.name}, setting {setting.name}")
    return rows


def _measured(
    measured: Measured,
    setting: Setting,
    rows: Rows,
    ids: np.ndarray | None,
    arguments: MeasuringArguments,
    plan: Plan,
    positions: dict[str, pd.DataFrame],
) -> Measures:
    """Return the measures of one setting; those of each position are added to `positions`."""
    task, metrics = setting.task, {"rows": float(min(len(rows), arguments.samples))}
    if ids is not None:
        scores = scored(measured, rows, task, ids)
        metrics, positions[setting.name] = teacher_forced_metrics(scores, rows), by_position(scores)
        if task.verifiable and arguments.completions:
            some = rows.select(np.arange(min(len(rows), arguments.completions)))
            metrics |= greedy_completion_metrics(
                measured, task, add_prompts(some, arguments.split, plan.rows_seed), ids
            )
    if arguments.samples and is_language(task, rows):
        options: dict[str, Any] = {"split": arguments.split, "samples": arguments.samples, "seed": plan.rows_seed}
        metrics |= language_measures(measured, task, rows, ids, **options)
    return metrics


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory."""
    [arguments] = parse_recipe([MeasuringArguments], argv, about=__doc__)
    folder = evaluate(arguments)
    if is_main_process():
        print(f"Report: {folder / 'report.html'}")
    return folder


if __name__ == "__main__":
    with user_errors("evaluation.py", interrupted="nothing was measured"):
        main()
