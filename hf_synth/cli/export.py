"""Rows of a task in a view, as a file: JSONL, Parquet or Arrow by its ending, or JSONL on standard output."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from hf_synth.cli.common import add_output, add_selection, selected_task
from hf_synth.io import json_lines, refuse_existing, write_tables

_BLOCK_ROWS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task, its rows, the view and the file."""
    add_selection(parser, size=None, size_help="how many rows; may be left out for a finite task")
    parser.add_argument("--view", default="text", help="tokens, text, distribution, or another of load_dataset")
    add_output(parser, default="-", help="a .jsonl, .jsonl.gz, .parquet or .arrow file; -: JSONL (default)")
    parser.set_defaults(interrupted="nothing was written")


def run(arguments: argparse.Namespace) -> None:
    """Write the file, with a progress bar where standard error is a terminal."""
    if arguments.output != "-":
        refuse_existing(Path(arguments.output), arguments.overwrite)
    task = selected_task(arguments)

    from tqdm import tqdm

    from hf_synth.builder import dataset_spec
    from hf_synth.views import block_rows, view_features, view_table

    chosen = {name: getattr(arguments, name) for name in ("split", "size", "seed", "view")}
    size = dataset_spec(arguments.task, task, **chosen)["size"]

    def tables() -> Iterator[pa.Table]:
        with tqdm(total=size, unit=" rows", disable=None, desc=task.name) as bar:
            most = block_rows(task, arguments.split, _BLOCK_ROWS, arguments.view)
            for start in range(0, size, most):
                count = min(most, size - start)
                yield view_table(task, arguments.view, start, count, split=arguments.split, seed=arguments.seed)
                bar.update(count)

    if arguments.output == "-":
        sys.stdout.writelines(map(json_lines, tables()))
        return
    write_tables(Path(arguments.output), view_features(task, arguments.view).arrow_schema, tables())
    print(arguments.output)
