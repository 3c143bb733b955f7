"""A table of all tasks: what each is, and its presets."""

import argparse
import sys

from hf_synth.cli.terminal import Terminal
from hf_synth.tasks import list_tasks, task_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: the table is of all tasks."""


def run(arguments: argparse.Namespace) -> None:
    """One line a task, in columns."""
    terminal = Terminal(sys.stdout)
    table = [("task", "what it is", "presets, the default first")]
    for name in list_tasks():
        found = task_class(name)
        about = (sys.modules[found.__module__].__doc__ or "").strip().splitlines()[0]
        table.append((name, about.rstrip("."), ", ".join(found.presets)))
    widths = [max(len(line[column]) for line in table) for column in (0, 1)]
    for number, (name, about, presets) in enumerate(table):
        line = f"{name:{widths[0]}}  {about:{widths[1]}}  {presets}"
        print(terminal.strong(line) if number == 0 else line)
