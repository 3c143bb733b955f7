"""A table of all tasks: what each is, and its presets."""

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence

from hf_synth.cli.common import BOLD, styled
from hf_synth.cli.show import described as row_lines
from hf_synth.tasks import Task, list_tasks, task_class
from hf_synth.tasks.base import about

_GALLERY_ROWS = 1_000
_GALLERY = """\
Written by `hf-synth tasks --markdown > docs/gallery.md`. Of each task: the first training row of its first preset and
the floor (the lowest achievable loss) of this row, the mean floor over test rows, and the presets. `prompt` is what
comes before the tokens with loss: for a language `<bos>` alone. (The views with prompts cut its strings at random.)
Other lines are columns of the row. `hf-synth show TASK --preset PRESET` prints more rows.

Presets: a number is the length, the digits or the keys. `A-to-B`: training up to size A, test up to size B. `paper`:
the number to delete is missing as often as in the paper. `kK-lL`: K types of brackets, length L; `truncated`: cut off
at L. `RULE-wW-sS`: width W, S steps. `vV-lL-bB`: V symbols, depth L, beta B ([rlm.md](rlm.md)); `all`: loss on all
leaves. `eN`: N entities; `inverse`: with facts of the functor's inverse; `atomic-ood`: atomic facts held out, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the form of the table."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects, each preset with its whole config")
    form.add_argument("--markdown", action="store_true", help="a page with an example and the floor of each task")


def run(arguments: argparse.Namespace) -> None:
    """Print one line a task, in columns; on a terminal that is too narrow the presets stand below."""
    tasks = [task_class(name) for name in list_tasks()]
    if arguments.json:
        print(json.dumps([described(task) for task in tasks], indent=2, ensure_ascii=False))
        return
    if arguments.markdown:
        print("\n\n".join(["# Gallery of tasks", _GALLERY, *map(on_a_page, tasks)]))
        return
    rows = [(task.name, about(task).rstrip("."), ", ".join(task.presets)) for task in tasks]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    head, *lines = laid_out([("task", "what it is", "presets, the default first"), *rows], width)
    print("\n".join([styled(head, BOLD), *lines]))


def on_a_page(kind: type[Task]) -> str:
    """Return a section of the gallery: the first training row of the first preset, and the floor over test rows."""
    from hf_synth.hub.facts import floor

    first, config = next(iter(kind.presets.items()))
    known = floor(task := kind(config), "test", _GALLERY_ROWS, 0)
    mean, error = (f"{known[name]:.4f}" for name in ("nats_per_token", "standard_error"))
    mean += f" ± {error} (standard error)" if float(error) else ""
    facts = [f"Floor of `{first}`: {mean} nats per token, over {known['rows']:,} test rows"]
    facts += [f"Presets: {', '.join(f'`{name}`' for name in kind.presets)}", f"Source: {kind.source}"]
    example = next(row_lines(task, task.rows(0, 1), most=40))
    lines = [f"## {kind.name}", about(kind), f"```\n{example}\n```", "\n".join(f"- {fact}." for fact in facts)]
    return "\n\n".join(lines)


def described(task: type[Task]) -> dict[str, object]:
    """Return all that is known of a task without making rows, in values that JSON holds."""
    presets = {name: dataclasses.asdict(config) for name, config in task.presets.items()}
    return {
        "name": task.name,
        "about": about(task).rstrip("."),
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
