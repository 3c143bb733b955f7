"""A table of all tasks: what each is, and its presets."""

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence

from hf_synth.cli.common import BOLD, styled
from hf_synth.tasks import Task, list_tasks, task_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the form of the table."""
    parser.add_argument("--json", action="store_true", help="a list of objects, each preset with its whole config")


def run(arguments: argparse.Namespace) -> None:
    """Print one line a task, in columns; on a terminal that is too narrow the presets stand below."""
    tasks = [task_class(name) for name in list_tasks()]
    if arguments.json:
        print(json.dumps([described(task) for task in tasks], indent=2, ensure_ascii=False))
        return
    rows = [(task.name, about(task), ", ".join(task.presets)) for task in tasks]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    head, *lines = laid_out([("task", "what it is", "presets, the default first"), *rows], width)
    print("\n".join([styled(head, BOLD), *lines]))


def about(task: type[Task]) -> str:
    """Return the first line of the task's file."""
    return (sys.modules[task.__module__].__doc__ or "").strip().splitlines()[0].rstrip(".")


def described(task: type[Task]) -> dict[str, object]:
    """Return all that is known of a task without making rows, in values that JSON holds."""
    presets = {name: dataclasses.asdict(config) for name, config in task.presets.items()}
    return {
        "name": task.name,
        "about": about(task),
        "presets": presets,
        "verifiable": task.verifiable,
        "source": task.source,
    }


def laid_out(table: Sequence[tuple[str, str, str]], width: int | None) -> list[str]:
    """Return the table as lines; where one is longer than `width`, the last column stands below the others."""
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    lines = [f"{name:{first}}  {text:{second}}  {presets}" for name, text, presets in table]
    if width is None or max(map(len, lines)) <= width:
        return lines
    indent = " " * (first + 2)
    folded = []
    for name, text, presets in table:
        folded.append(textwrap.fill(f"{name:{first}}  {text}", width, subsequent_indent=indent))
        folded.append(textwrap.fill(presets, width, initial_indent=indent, subsequent_indent=indent))
    return folded
