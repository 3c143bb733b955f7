"""The command hf-synth: what tasks there are, what their rows look like, and a run's report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_synth.tasks import get_task, list_tasks, task_class
from hf_synth.training.errors import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand; exit code 2 with one line for a user's error."""
    parser = argparse.ArgumentParser(prog="hf-synth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tasks", help="a table of all tasks")
    show = commands.add_parser("show", help="rows of a task, with prompt, target and floor")
    show.add_argument("task", help="a task's name, or the path of its file")
    show.add_argument("--preset", help="a preset of the task")
    show.add_argument("--task_args", default="{}", help="config values over the preset, such as '{\"length\": 5}'")
    show.add_argument("--rows", type=int, default=5)
    report = commands.add_parser("report", help="write the report of a run directory again")
    report.add_argument("folder", type=Path)
    arguments = parser.parse_args(argv)
    with user_errors("hf-synth"):
        if arguments.command == "tasks":
            print_tasks()
        elif arguments.command == "show":
            print_rows(arguments)
        else:
            from hf_synth.reports import write_report

            print(write_report(arguments.folder))
    sys.stdout.flush()


def print_tasks() -> None:
    """One line a task: its name, its presets and what it is."""
    for name in list_tasks():
        found = task_class(name)
        about = (sys.modules[found.__module__].__doc__ or "").strip().splitlines()[0]
        print(f"{name:16} {', '.join(found.presets):24} {about}")


def print_rows(arguments: argparse.Namespace) -> None:
    """Rows of the train split in words, and the loss of the best predictor on each."""
    from hf_synth.tokenization import all_words
    from hf_synth.training.arguments import json_dict

    task = get_task(arguments.task, arguments.preset, **json_dict(arguments.task_args, "task_args"))
    rows = task.rows(0, arguments.rows)
    words = np.array(all_words(task), object)
    losses = (
        -np.where(rows.loss_mask, task.optimal_log_probs(rows), 0.0).sum(axis=1) / rows.loss_mask.sum(axis=1) + 0.0
    )
    for row in range(len(rows)):
        start, stop = rows.loss_start[row], rows.lengths[row]
        given, target = words[rows.tokens[row, :start]], words[rows.tokens[row, start:stop]]
        print(f"{' '.join(given)} | {' '.join(target)}   floor {losses[row]:.4f} nats/token")
