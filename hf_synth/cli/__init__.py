"""The command hf-synth: what tasks there are; their rows in print, files and the browser; recipes, and reports."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hf_synth
from hf_synth.cli import check, compare, corpus, explore, export, recipes, show, tasks
from hf_synth.errors import disk_full_error, raised_at, user_errors

_COMMANDS = {
    "tasks": (tasks, "hf-synth tasks --json"),
    "show": (show, "hf-synth show sort --preset 8 --size 2 --violations"),
    "check": (check, "hf-synth check my_task.py"),
    "export": (export, "hf-synth export sort --size 1000 --output sort.parquet"),
    "compare": (compare, "hf-synth compare runs/plain runs/weighted --primary accuracy --smallest_effect 0.01"),
    "explore": (explore, "hf-synth explore runs"),
    "corpus": (corpus, "hf-synth corpus tivari --explanation_ratio 0.1 --size 20 --output -"),
    "recipes": (recipes, "hf-synth recipes my_recipes"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand; exit code 2 with one line for a user's error, and quietly where a pipe is closed."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return
    to_pipe = getattr(arguments, "output", None) == "-"
    with user_errors("hf-synth", interrupted="" if to_pipe else arguments.interrupted):
        try:
            arguments.run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read has read enough; the interpreter would complain once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception as error:
            own = str(getattr(arguments, "task", "")).endswith(".py")
            if isinstance(error, ValueError) or not own or disk_full_error(error):
                raise
            raise ValueError(raised_at(error)) from error  # the code of the user's task, not ours


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hf-synth", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {hf_synth.__version__}")
    parser.set_defaults(interrupted="")
    commands = parser.add_subparsers(dest="command")
    for name, (part, example) in _COMMANDS.items():
        about = (part.__doc__ or "").splitlines()[0]
        command = commands.add_parser(
            name, help=about[0].lower() + about[1:-1], description=part.__doc__, epilog=f"example: {example}"
        )
        part.add_arguments(command)
        command.set_defaults(run=part.run)
    report = commands.add_parser(
        "report", help="write the report of a run directory again", epilog="example: hf-synth report runs/sort"
    )
    report.add_argument("folder", type=Path)

    def write(arguments: argparse.Namespace) -> None:
        from hf_synth.reports import write_report

        print(write_report(arguments.folder))

    report.set_defaults(run=write)
    return parser
