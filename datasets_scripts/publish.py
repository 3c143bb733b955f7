"""Publishes any task, installed or your own: python datasets_scripts/publish.py my_task.py --repo_id user/repo."""

import dataclasses
import functools
import sys
from collections.abc import Sequence

from hf_synth.errors import disk_full_error, raised_at, user_errors
from hf_synth.hub import command
from hf_synth.hub.publication import Publication, offered_tasks

PUBLICATION = Publication(
    name="publish",
    title="Synthetic tasks",
    about="Rows of synthetic tasks, each a pure function of its number.",
    offers=dict,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Publish every preset of the named tasks, or those of --configs; exit code 2 with one line for an error."""
    parser = command.parser_of(PUBLICATION)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="a task's name, or the path of its file")
    arguments = parser.parse_args(argv)
    with user_errors("publish.py"):
        try:
            offers = functools.partial(offered_tasks, *arguments.tasks)
            command.run(dataclasses.replace(PUBLICATION, offers=offers), arguments)
        except Exception as error:
            if isinstance(error, ValueError) or disk_full_error(error):
                raise
            raise ValueError(raised_at(error)) from error  # the code of a task


if __name__ == "__main__":
    main(sys.argv[1:])
