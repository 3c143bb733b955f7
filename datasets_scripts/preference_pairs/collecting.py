"""First pass: the pairs of all sources on disk, which of them repeat, and which prompts they have."""

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TextIO

import numpy as np
import pyarrow as pa

from hf_synth.preferences import FEATURES, PairStream, RejectedRow, Source
from hf_synth.preferences.pairs import batches
from hf_synth.sampling import prompt_text

_SCHEMA = pa.schema([*FEATURES.arrow_schema, ("text", pa.string()), ("file", pa.string()), ("line", pa.int64())])


@dataclasses.dataclass
class SourceCounts:
    """Counts of one source. Rows give pairs, pairs have prompts:

    rows_read = rows_used + sum of rows_dropped, and pairs_made = pairs_kept + sum of pairs_dropped.
    joined: rows used with neighbouring turns of one role put together. unread: how many fields no pair is made of.
    prompts: distinct ones, counted at the first source that has them; prompts_kept: those that are no near duplicate.
    """

    schema: str
    rows_read: int
    rows_used: int
    joined: int
    rows_dropped: dict[str, int]
    unread: int
    pairs_made: int
    pairs_dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    pairs_kept: int = 0
    prompts: int = 0
    prompts_kept: int = 0


class DroppedRows:
    """A file of JSON lines {src, file, line, reason, row}, of every row and pair that was left out."""

    def __init__(self, path: Path) -> None:
        """Begin a new file."""
        self._lines: TextIO = path.open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> "DroppedRows":
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._lines.close()

    def add(self, src: str, row: RejectedRow, **more: str | float) -> None:
        """Keep a row, with what else is to be known of it."""
        self._lines.write(json.dumps({"src": src, **dataclasses.asdict(row), **more}) + "\n")

    def add_file(self, path: Path) -> None:
        """Keep all rows of another such file."""
        with path.open(encoding="utf-8", newline="\n") as lines:
            shutil.copyfileobj(lines, self._lines)


@dataclasses.dataclass(frozen=True)
class Collected:
    """N pairs as read, in the order of the sources, and their P distinct prompts, in the order of the pairs.

    counts: by the sources' labels. source: [N] the number of each pair's source. distinct: [N] whether no earlier pair
    is the same. prompt: [N] the row of each pair's prompt. first: [P] the first pair that has each prompt.
    """

    paths: list[Path]
    counts: dict[str, SourceCounts]
    source: np.ndarray
    distinct: np.ndarray
    prompt: np.ndarray
    first: np.ndarray

    def batches(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield pairs in batches, with their numbers; all but the batch stays on disk."""
        start = 0
        for path in self.paths:
            for batch in _batches(path):
                yield batch, np.arange(start, start + batch.num_rows)
                start += batch.num_rows

    def prompts(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the first pair of each prompt in batches, with the prompts' rows."""
        is_first = np.zeros(len(self.prompt), bool)
        is_first[self.first] = True
        for batch, numbers in self.batches():
            yield batch.filter(pa.array(is_first[numbers])), self.prompt[numbers[is_first[numbers]]]


def collect(sources: Sequence[Source], folder: Path, dropped: DroppedRows) -> Collected:
    """Read every source once, one process each as far as there are cores; rows without a pair go to `dropped`.

    Memory grows by some 50 bytes a pair: texts stay on disk.

    Raises:
        ValueError: two sources of one label, or a source without a usable row.
    """
    labels = [source.open(streaming=True).src for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"sources: got {label!r} twice; name one of them, NAME=PLACE")
    counts = _read_all(sources, folder)
    paths = [_pairs_path(folder, number) for number in range(len(sources))]
    for number in range(len(sources)):
        dropped.add_file(_dropped_path(folder, number))
    source = np.repeat(np.arange(len(counts)), [of.pairs_made for of in counts])
    distinct = np.zeros(len(source), bool)
    distinct[np.unique(_ids(paths, "id"), return_index=True)[1]] = True
    _, first, prompt = np.unique(_ids(paths, "prompt_id"), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Collected(paths, dict(zip(labels, counts, strict=True)), source, distinct, rank[prompt], first[order])


def _read_all(sources: Sequence[Source], folder: Path) -> list[SourceCounts]:
    numbers = range(len(sources))
    workers = min(len(sources), os.cpu_count() or 1)
    if workers == 1:
        return list(map(read_source, sources, repeat(folder), numbers))
    with fresh_processes(workers) as pool:
        return list(pool.map(read_source, sources, repeat(folder), numbers))


def fresh_processes(number: int) -> ProcessPoolExecutor:
    """Start processes with an interpreter of their own: copies of this one would inherit its libraries' locks."""
    return ProcessPoolExecutor(number, multiprocessing.get_context("spawn"))


def read_source(source: Source, folder: Path, number: int) -> SourceCounts:
    """Write the pairs of a source and the rows that gave none into the folder; returns how many there are."""
    opened = source.open(streaming=True)
    with DroppedRows(_dropped_path(folder, number)) as dropped:
        stream = PairStream(opened, lambda row: dropped.add(opened.src, row))
        pairs = (pair | {"text": prompt_text(pair["prompt"])} for pair in stream)
        with pa.OSFile(str(_pairs_path(folder, number)), "wb") as raw, pa.ipc.new_file(raw, _SCHEMA) as file:
            for batch in batches(pairs, _SCHEMA):
                file.write_batch(batch)
    used = stream.read - stream.dropped.total()
    return SourceCounts(
        stream.schema,
        stream.read,
        used,
        stream.joined,
        dict(stream.dropped.most_common()),
        len(stream.unread),  # their names are said, and not published
        stream.pairs,
    )


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as mapped:
        file = pa.ipc.open_file(mapped)
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def _ids(paths: Sequence[Path], name: str) -> np.ndarray:
    """Return a column of hexadecimal ids as [N] uint64."""
    ids = (int(text, 16) for path in paths for batch in _batches(path) for text in batch.column(name).to_pylist())
    return np.fromiter(ids, np.uint64)


def _pairs_path(folder: Path, number: int) -> Path:
    return folder / f"pairs-{number}.arrow"


def _dropped_path(folder: Path, number: int) -> Path:
    return folder / f"dropped-{number}.jsonl"
