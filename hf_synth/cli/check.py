"""Hold a task to the promises that every task keeps.

Prints a line for each promise, with a row of some split where it is broken; exit code 1 if any is.
"""

import argparse
import sys

from hf_synth.cli.common import BOLD, styled
from hf_synth.cli.show import shortened
from hf_synth.tasks import get_task, task_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task and its preset."""
    parser.add_argument("task", help="a task's name, or the path of its file")
    parser.add_argument("--preset", help="a preset of the task (all where none is named)")


def run(arguments: argparse.Namespace) -> None:
    """Print what each preset keeps and breaks."""
    presets = task_class(arguments.task).presets if arguments.preset is None else [arguments.preset]
    broken = False

    from hf_synth.checks import check_properties

    for preset in presets:
        task = get_task(arguments.task, preset)
        print(styled(f"{task.name} {preset}", BOLD))
        for promise, problem in check_properties(task):
            if problem is None:
                print(f"  ok      {promise}")
                continue
            broken = True
            print(f"  {styled('broken', BOLD)}  {promise}\n          {problem.what}")
            if problem.address:
                row = f"{shortened(problem.prompt, 40)} | {shortened(problem.target, 40)}"
                print(f"          {problem.address}: {row}")
    if broken:
        sys.exit(1)
