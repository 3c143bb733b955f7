"""What the subcommands share: arguments that choose a task and some of its rows, and letters on a terminal."""

import argparse
import os
import sys

from hf_synth.errors import json_dict
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS

BOLD, FAINT = 1, 2


def add_selection(parser: argparse.ArgumentParser, *, size: int | None, size_help: str) -> None:
    """Add `task`, `--preset`, `--task_args`, `--split`, `--seed` and `--size`."""
    parser.add_argument("task", help="a task's name, or the path of its file")
    parser.add_argument("--preset", help="a preset of the task (the first where none is named)")
    parser.add_argument("--task_args", default="{}", help="config values over the preset, such as '{\"length\": 5}'")
    parser.add_argument("--split", default="train", choices=SPLITS, help="default: train")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the rows (default: 0)")
    parser.add_argument("--size", type=int, default=size, help=size_help)


def add_output(parser: argparse.ArgumentParser, *, default: str | None, help: str) -> None:
    """Add `--output`, required where it has no default, and `--overwrite`."""
    parser.add_argument("--output", default=default, required=default is None, help=help)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there (without it: an error)")


def selected_task(arguments: argparse.Namespace) -> Task:
    """Return the task that the arguments name."""
    return get_task(arguments.task, arguments.preset, **json_dict(arguments.task_args, "task_args"))


def styled(text: str, style: int) -> str:
    """Return text in BOLD or FAINT on a terminal; as it is for pipes and files, and wherever NO_COLOR is set."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"
