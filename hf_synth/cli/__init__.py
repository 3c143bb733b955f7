"""The command hf-synth: what tasks there are, what their rows look like, files of them, and a run's report."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_synth.cli import check, corpus, export, show, tasks
from hf_synth.training.errors import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand; exit code 2 with one line for a user's error, and quietly where a pipe is closed."""
    parser = argparse.ArgumentParser(prog="hf-synth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, part in {"tasks": tasks, "show": show, "check": check, "export": export, "corpus": corpus}.items():
        about = (part.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=about[0].lower() + about[1:-1], description=part.__doc__)
        part.add_arguments(command)
        command.set_defaults(run=part.run)
    report = commands.add_parser("report", help="write the report of a run directory again")
    report.add_argument("folder", type=Path)
    report.set_defaults(run=_report)
    arguments = parser.parse_args(argv)
    with user_errors("hf-synth"):
        try:
            arguments.run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read has read enough; the interpreter would complain once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(arguments: argparse.Namespace) -> None:
    from hf_synth.reports import write_report

    print(write_report(arguments.folder))
