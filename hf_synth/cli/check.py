"""Check the properties that every task must have.

Prints a line for each property, with a row of some split where it is broken; exit code 1 if any is.
"""

import argparse
import sys
from pathlib import Path

from hf_synth.cli.common import BOLD, styled
from hf_synth.cli.show import shortened
from hf_synth.errors import raised_at
from hf_synth.tasks import UnfinishedTaskError, get_task, list_tasks, task_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task and its preset."""
    parser.add_argument("task", help="a task's name, or the path of its file")
    parser.add_argument("--preset", help="a preset of the task (all where none is named)")


def run(arguments: argparse.Namespace) -> None:
    """Print what each preset keeps and breaks; of a file that cannot be loaded, why."""
    try:
        kind = task_class(arguments.task)
    except UnfinishedTaskError:
        raise
    except Exception as error:  # what a file raises is its own
        if not (Path(arguments.task).is_file() or arguments.task in list_tasks()):
            raise
        print(arguments.task)
        _print_broken(
            "the file is a task that can be loaded", str(error) if type(error) is ValueError else raised_at(error)
        )
        sys.exit(1)
    if arguments.preset not in [None, *kind.presets]:
        get_task(arguments.task, arguments.preset)  # raises, naming the nearest
    broken = False

    from hf_synth.checks import check_properties

    for preset, config in kind.presets.items():
        if arguments.preset not in (None, preset):
            continue
        print(styled(f"{kind.name} {preset}", BOLD))
        for promise, problem in check_properties(kind, config):
            if problem is None:
                print(f"  ok      {promise}")
                continue
            broken = True
            row = f"{shortened(problem.prompt, 40)} | {shortened(problem.target, 40)}"
            _print_broken(promise, problem.what, *([f"{problem.address}: {row}"] if problem.address else []))
    if broken:
        sys.exit(1)


def _print_broken(promise: str, *why: str) -> None:
    print(f"  {styled('broken', BOLD)}  {promise}", *(f"          {line}" for line in why), sep="\n")
