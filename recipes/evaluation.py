"""From arguments to a folder of results: metrics.json, evaluation.csv and a report."""

import csv
import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.errors import user_errors
from hf_synth.evaluation.language import is_language, language_measures
from hf_synth.evaluation.lm_eval import command, write_lm_eval
from hf_synth.evaluation.model import (
    Measured,
    MeasuringArguments,
    Plan,
    Setting,
    check_positions,
    load,
    planned,
    word_ids,
)
from hf_synth.evaluation.rows import completed, foretold, prompted
from hf_synth.experiments.plan import COMPARISON
from hf_synth.io import is_main_process, whole_file
from hf_synth.reports.evaluation import Evaluation, write_evaluation
from hf_synth.tasks.base import Rows
from hf_synth.training.arguments import parse_recipe, read_yaml
from hf_synth.training.run_directory import RESOLVED_CONFIG, at_work_in, write_metrics

Measures = dict[str, float]


def evaluate(arguments: MeasuringArguments) -> Path:
    """Measure a checkpoint at every setting; returns the folder of the results. All processes of a launch call it."""
    started, plan = time.monotonic(), planned(arguments)
    with at_work_in(str(output_folder(arguments)), arguments) as folder:
        _measure_into(folder, plan, arguments, started)
    return folder


def _measure_into(folder: Path, plan: Plan, arguments: MeasuringArguments, started: float) -> None:
    measured = load(arguments)
    ids = [word_ids(measured, setting.task) for setting in plan.settings]
    test = [_rows(plan, setting, arguments, measured) for setting in plan.settings]
    if arguments.lm_eval and any(one is None for one in ids):
        raise ValueError("lm_eval: got a tokenizer that splits the task's words, wanted one that has them as tokens")
    found = {
        setting.name: _measured(measured, setting, rows, known, arguments, plan)
        for setting, rows, known in zip(plan.settings, test, ids, strict=True)
    }
    if not is_main_process():
        return
    write_table(folder / "evaluation.csv", found)
    told = None
    if arguments.lm_eval:
        tag = write_lm_eval(Path(arguments.lm_eval), plan, test)
        own_code = bool(getattr(measured.model.config, "auto_map", None))
        told = command(Path(arguments.lm_eval), tag, str(arguments.model_name_or_path), own_code)
    size = float(sum(parameter.numel() for parameter in measured.model.parameters()))
    others = {"parameters": size, "seconds/total": time.monotonic() - started}
    write_metrics(folder, {**flat(found), **others})
    write_evaluation(folder, Evaluation(arguments, plan, found, told))


def output_folder(arguments: MeasuringArguments) -> Path:
    """Where the results go. Raises ValueError for the folder of a model or a run, whose metrics.json would be lost."""
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


def flat(found: Mapping[str, Measures]) -> Measures:
    """Measure/SETTING, as a run's own metrics have measure/test: groups behind it, bounds at its end."""
    names = {}
    for setting, measures in found.items():
        for name, value in measures.items():
            measure, bound = re.fullmatch(r"(.*?)(_rows_low|_rows_high|_share)?", name).groups()  # type: ignore[union-attr]
            first, _, rest = measure.partition("/")
            names[f"{first}/{setting}" + (f"/{rest}" if rest else "") + (bound or "")] = value
    return names


def write_table(path: Path, found: Mapping[str, Measures]) -> None:
    """One row for each setting, one column for each measure."""
    columns = list(dict.fromkeys(name for measures in found.values() for name in measures))
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["setting", *columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"setting": setting, **measures} for setting, measures in found.items())


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
) -> Measures:
    task, found = setting.task, {"rows": float(min(len(rows), arguments.samples))}
    if ids is not None:
        found = foretold(measured, task, rows, ids)
        if task.verifiable and arguments.completions:
            some = rows.select(np.arange(min(len(rows), arguments.completions)))
            found |= completed(measured, task, prompted(some, arguments.split, plan.rows_seed), ids)
    if arguments.samples and is_language(task, rows):
        asked: dict[str, Any] = {"split": arguments.split, "samples": arguments.samples, "seed": plan.rows_seed}
        found |= language_measures(measured, task, rows, ids, **asked)
    return found


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory."""
    [arguments] = parse_recipe([MeasuringArguments], argv, about=__doc__)
    folder = evaluate(arguments)
    if is_main_process():
        print(f"Report: {folder / 'report.html'}")
    return folder


if __name__ == "__main__":
    with user_errors("evaluate.py", interrupted="nothing was measured"):
        main()
