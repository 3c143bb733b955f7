"""Raw rows from local files: one bad line is a row with a reason, never an exception."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
SUFFIXES = (*JSON_SUFFIXES, ".parquet")


@dataclass(frozen=True)
class RawRow:
    """One row as found: where it stood, what stood there, and either its fields or why it has none."""

    file: str
    line: int  # from 1; in a table, the number of the row
    raw: str | Mapping[str, Any]
    fields: Mapping[str, Any] | None
    reason: str | None = None


def local_files(path: Path, split: str | None, default: str = "train") -> list[Path]:
    """Data files of a local path: the file itself, or the files of a folder that carry the split's name.

    A file belongs to a split when its own name or a folder below `path` has the split as a word or as words in a row:
    `test.jsonl.gz`, `data/train-00000-of-00002.parquet`, `harmless-base/train.jsonl`, `train_prefs.parquet`. Where no
    split is asked for, a folder's only data file is taken, or else the files of the split `default`.

    Raises:
        ValueError: another kind of file, or a folder without a file of this split.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise ValueError(
                f"{path.name} is not a file of a known kind: wanted a name ending in {_listed(SUFFIXES)}."
            )
        return [path]
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    if split is None and len(found) == 1:
        return found
    split = split or default
    chosen = [file for file in found if _words(split) in _words(file.relative_to(path).as_posix())]
    if not chosen:
        names = _listed([p.relative_to(path).as_posix() for p in found[:10]]) or "no data file at all"
        raise ValueError(
            f"No file of split '{split}' in the folder {path.name}: it has {names}. Wanted names like "
            f"{split}.jsonl.gz or {split}-00000-of-00001.parquet; pass another split, or the path of one file."
        )
    return chosen


def _words(name: str) -> str:
    """`a/train_prefs-0.parquet` -> ` a train prefs 0 parquet `: words in a row are a part of it."""
    return f" {' '.join(re.split(r'[^A-Za-z0-9]+', name))} "


def read_rows(path: Path) -> Iterator[RawRow]:
    """Rows of one local file in order.

    Raises:
        ValueError: a compressed file or a Parquet file that is damaged.
    """
    try:
        yield from _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "gzip"
        raise ValueError(f"{path.name} is not a whole {kind} file ({error}): download or write it again.") from error


def _json_rows(path: Path) -> Iterator[RawRow]:
    # Bytes, so that only \n ends a line: text mode would also be stopped by one byte that is not UTF-8.
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield _json_row(path.name, number, line.strip())


def _json_row(file: str, number: int, line: bytes) -> RawRow:
    raw = line.decode("utf-8", errors="replace")
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return RawRow(file, number, raw, None, "not UTF-8")
    except (ValueError, RecursionError):
        return RawRow(file, number, raw, None, "not JSON")
    if not isinstance(fields, dict):
        return RawRow(file, number, raw, None, "not a JSON object")
    return RawRow(file, number, raw, fields)


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=1024):
            for fields in python_values(batch.to_struct_array()):
                number += 1
                yield RawRow(path.name, number, fields, fields)


def python_values(array: pa.Array) -> list[Any]:
    """The same as `array.to_pylist()`, several times faster for lists of structs: whole columns at a time."""
    rows: list[Any]
    if pa.types.is_struct(array.type):
        columns = [python_values(column) for column in array.flatten()]
        rows = [dict(zip(array.type.names, row, strict=True)) for row in zip(*columns, strict=True)]
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        flat, offsets = python_values(array.values), array.offsets.to_pylist()
        rows = [flat[start:stop] for start, stop in pairwise(offsets)]
    else:
        return array.to_pylist()
    return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
