"""Rows of a task, with prompt, target and floor.

For languages the rule in words comes first; --violations adds a wrong text of each kind, --tree draws derivations.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hf_synth.cli.common import BOLD, FAINT, add_selection, selected_task, styled
from hf_synth.errors import json_dict, whole_number
from hf_synth.rng import RowRandom
from hf_synth.tasks import Rows, Task

_SHOWN_AT_THE_END = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task, its rows, and what to show of them."""
    add_selection(parser, size=5, size_help="how many rows (default: 5)")
    parser.add_argument("--words", type=int, default=80, help="words shown of a longer text; 0: all (default: 80)")
    parser.add_argument("--violations", action="store_true", help="add a text of each kind of violation")
    parser.add_argument("--tree", action="store_true", help="draw the tree of each row, of rlm and dyck")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw how often each token comes in 20,000 rows")


def run(arguments: argparse.Namespace) -> None:
    """Print the rows."""
    if arguments.figure is not None and arguments.figure.suffix != ".png":
        raise ValueError(f"figure: got {str(arguments.figure)!r}, wanted a name that ends in .png")
    task = selected_task(arguments)
    if whole_number("size", arguments.size) < 1 or arguments.words < 0:
        raise ValueError(f"got size={arguments.size}, words={arguments.words}; wanted at least 1 row and 0 words")
    rows = task.rows(0, arguments.size, split=arguments.split, seed=arguments.seed)
    if arguments.figure is not None:
        _draw(task, arguments)
        return
    texts = described(task, rows, arguments.words)
    if arguments.tree:
        if task.config.holdout != "none":  # rows that were drawn again to keep splits apart have another tree
            raise ValueError('tree: got holdout="content", whose rows may be drawn more than once; wanted "none"')
        chosen = {"split": arguments.split, "seed": arguments.seed}
        texts = iter(task.trees(task.row_random(0, arguments.size, **chosen)))
    size = task.size(arguments.split)
    ends = "endless" if size is None else f"{size:,} rows per epoch"
    split = f"{arguments.split} split, seed {arguments.seed}, {ends}; {len(task.vocabulary()):,} tokens; {task.source}"
    for line in (f"{_called(task, arguments)} {task.config.to_json()}", split, *task.explanations()):
        print(styled(line, FAINT))
    for number, text in enumerate(texts):
        print(f"{styled(f'row {number}', BOLD)}\n{text}")
    if arguments.violations:
        for kind, text in violations(task, rows, arguments.words):
            print(f"{styled(kind, BOLD)}\n{text}")


def described(task: Task, rows: Rows, most: int) -> Iterator[str]:
    """Yield each row as lines: prompt, target, the task's own columns, and the floor (nats a token)."""
    words = _vocabulary(task)
    loss = -np.where(rows.loss_mask, task.optimal_log_probs(rows), 0.0).sum(axis=1) + 0.0
    for row in range(len(rows)):
        tokens, start = rows.tokens[row, : rows.lengths[row]], rows.loss_start[row]
        lines = {"prompt": shortened(words[tokens[:start]], most), "target": shortened(words[tokens[start:]], most)}
        lines |= {name: str(rows.columns[name][row]) for name in task.columns}
        lines["floor"] = f"{loss[row] / (rows.loss_stop[row] - start):.4f} nats/token"
        yield "\n".join(f"  {name:9} {text}" for name, text in lines.items())


def violations(task: Task, rows: Rows, most: int) -> Iterator[tuple[str, str]]:
    """Yield each kind of violation, with whether it keeps the length, and a text of it."""
    words = _vocabulary(task)
    for name, violation in (task.violations() if task.verifiable else {}).items():
        rng = RowRandom(seed=0, split="train", purpose="violation", index=np.arange(len(rows)))
        wrong = violation.make(rows, rng)
        kept = "same length" if violation.keeps_length else "another length"
        right_text, wrong_text = (words[block.tokens[0, : block.lengths[0]]] for block in (rows, wrong))
        yield f"violation {name} ({kept})", f"  {compared(wrong_text, right_text, most)}"


def compared(wrong: np.ndarray, right: np.ndarray, most: int) -> str:
    """Join words by spaces, >marked< where they are not those of `right`; >< where words are only missing.

    Of more than `most` words those around the first mark. Of texts of unequal length all is marked that stands between
    their common beginning and their common end.
    """
    marked = wrong.copy()
    differ = _differences(wrong, right)
    marked[differ] = [f">{word}<" for word in wrong[differ]]
    first = int(differ[0]) if differ.size else _agreeing(wrong, right)
    if not differ.size:
        marked = np.insert(marked, first, "><")
    if not most or len(marked) <= most:
        return " ".join(marked)
    start = min(max(first - most // 2, 0), len(marked) - most)
    stop = start + most
    before = f"{start:,} more … " if start else ""
    after = f" … {len(marked) - stop:,} more" if stop < len(marked) else ""
    return f"{before}{' '.join(marked[start:stop])}{after}"


def _differences(wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the positions in `wrong` that are to be marked, int [any]."""
    if len(wrong) == len(right):
        return np.flatnonzero(wrong != right)
    first = _agreeing(wrong, right)
    end = min(_agreeing(wrong[::-1], right[::-1]), min(len(wrong), len(right)) - first)
    return np.arange(first, len(wrong) - end)


def _agreeing(one: np.ndarray, other: np.ndarray) -> int:
    """Count the words at the beginning that are the same."""
    shorter = min(len(one), len(other))
    return int(np.argmin(np.append(one[:shorter] == other[:shorter], False)))


def shortened(words: np.ndarray | tuple[str, ...], most: int) -> str:
    """Join words by spaces; of more than `most` the beginning and the end."""
    if not most or len(words) <= most:
        return " ".join(words)
    end = min(_SHOWN_AT_THE_END, most // 2)
    return f"{' '.join(words[: most - end])} … {len(words) - most:,} more … {' '.join(words[len(words) - end :])}"


def _vocabulary(task: Task) -> np.ndarray:
    from hf_synth.tokenization import all_words

    return np.array(all_words(task), object)


def _called(task: Task, arguments: argparse.Namespace) -> str:
    """Name the task, its preset, and the values that override it."""
    preset = arguments.preset if arguments.preset is not None else next(iter(task.presets))
    changes = json_dict(arguments.task_args, "task_args")
    return " ".join([task.name, preset, *(f"{name}={value}" for name, value in changes.items())])


def _draw(task: Task, arguments: argparse.Namespace) -> None:
    from hf_synth.reports.figures import token_distribution

    rows = task.rows(0, 20_000, split=arguments.split, seed=arguments.seed)
    figure = token_distribution(task, rows, _called(task, arguments))
    try:
        figure.savefig(arguments.figure, dpi=150, metadata={"Software": None})
    except (OSError, ValueError) as error:
        raise ValueError(f"figure: {arguments.figure} cannot be written: {error}") from None
    print(arguments.figure)
