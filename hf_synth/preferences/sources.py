"""Raw rows of preference data: from a file, a folder, or the Hub, where three published datasets have short names.

One bad line is a row with a reason, never an exception.
"""

import difflib
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
PAIRS_FOLDER = "pairs"  # of what datasets_scripts/preferences.py writes
_FIELDS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class RawRow:
    """One row as read: its file and line, its raw content, and either its fields or the reason why it has none."""

    file: str
    line: int  # from 1; in a table, the number of the row
    raw: str | Mapping[str, Any]
    fields: Mapping[str, Any] | None
    reason: str | None = None


def local_files(path: Path, split: str | None, default: str = "train") -> list[Path]:
    """List the data files of a local path: the file itself, or the files of a folder that carry the split's name.

    A file belongs to a split when its own name or a folder below `path` has the split as a word or as words in a row:
    `test.jsonl.gz`, `data/train-00000-of-00002.parquet`, `harmless-base/train.jsonl`, `train_prefs.parquet`. Without
    a split, a folder's only data file is taken, or else the files of the split `default`.

    Raises:
        ValueError: another kind of file, or a folder without a file of this split.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise ValueError(
                f"{path.name} is not a file of a known kind: wanted a name ending in {', '.join(SUFFIXES)}."
            )
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    if split is None and len(files) == 1:
        return files
    split = split or default
    chosen = [file for file in files if _words(split) in _words(file.relative_to(path).as_posix())]
    if not chosen:
        names = ", ".join(p.relative_to(path).as_posix() for p in files[:10]) or "no data file at all"
        raise ValueError(
            f"No file of split '{split}' in the folder {path.name}: it has {names}. Wanted names like "
            f"{split}.jsonl.gz or {split}-00000-of-00001.parquet; pass another split, or the path of one file."
        )
    return chosen


def _words(name: str) -> str:
    """`a/train_prefs-0.parquet` -> ` a train prefs 0 parquet `: words in a row are a part of it."""
    return f" {' '.join(re.split(r'[^A-Za-z0-9]+', name))} "


def read_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of one local file in order.

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
    """Return the same as `array.to_pylist()`, several times faster for lists of structs: whole columns at a time."""
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


@dataclass(frozen=True)
class Known:
    """A dataset that goes by a short name: where it is on the Hub, and which split has its pairs."""

    repository: str
    split: str


KNOWN_SOURCES = {
    "hh": Known("Anthropic/hh-rlhf", "train"),
    "uf": Known("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"),
    "se": Known("HuggingFaceH4/stack-exchange-preferences", "train"),
}


@dataclass(frozen=True)
class Source:
    """Where preference pairs are read from.

    Attributes:
        place: the path of a file (.jsonl, .jsonl.gz, .json, .json.gz, .parquet) or of a folder, a Hub id, or a short
            name ("hh", "uf", "se").
        split: the Hub's split, or the words that a folder's files carry; not used for a single file. Without
            one, a folder with one data file is read whole.
        name: a config of a Hub dataset.
        data_dir: a subfolder, on the Hub ("harmless-base") or of a local folder.
        revision: a branch, tag or commit on the Hub.
        src: the label in the column `src`; default: the Hub id with data_dir, or the last part of the path.
        columns: your columns for ours: {"prompt": "question", "chosen": "good", "rejected": "bad"}.
        max_rows: read no more than the first so many.
        default_split: the split where none is named.
    """

    place: str | Path
    split: str | None = None
    name: str | None = None
    data_dir: str | None = None
    revision: str | None = None
    src: str | None = None
    columns: Mapping[str, str] | None = None
    max_rows: int | None = None
    default_split: str = "train"

    def __post_init__(self) -> None:
        """Refuse names of columns that are none of ours."""
        for name in self.columns or {}:
            if name not in _FIELDS:
                close = difflib.get_close_matches(name, _FIELDS)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_FIELDS)}"
                raise ValueError(f"columns: got unknown name {name!r}; {hint}")

    def open(self, *, streaming: bool = False) -> "OpenSource":
        """Return the source's label and its rows; `streaming` reads a Hub dataset without downloading it first.

        Raises:
            ValueError: nothing at `place`; once all rows are read, a column of `columns` that none of them has.
        """
        path = Path(self.place)
        opened = self._local(path) if path.exists() else self._on_the_hub(streaming)
        label = self.src or opened.src
        columns = self.columns
        if not columns:
            return OpenSource(label, lambda: islice(opened.rows(), self.max_rows))
        return OpenSource(label, lambda: _renamed(label, islice(opened.rows(), self.max_rows), columns))

    def _local(self, path: Path) -> "OpenSource":
        inside = self.data_dir
        if not inside and is_published(path):
            inside = PAIRS_FOLDER
        files = local_files(path / inside if inside else path, self.split, self.default_split)
        label = path.name + (f"/{inside}" if inside else "")
        return OpenSource(label, lambda: (row for file in files for row in read_rows(file)))

    def _on_the_hub(self, streaming: bool) -> "OpenSource":
        known = KNOWN_SOURCES.get(str(self.place))
        source = replace(self, place=known.repository, default_split=known.split) if known else self
        table = _load_from_hub(source, streaming)
        label = "/".join(filter(None, (str(source.place), self.name, self.data_dir)))
        return OpenSource(label, lambda: (RawRow(label, line, row, row) for line, row in enumerate(table, start=1)))


@dataclass(frozen=True)
class OpenSource:
    """A label, and rows that can be read more than once."""

    src: str
    rows: Callable[[], Iterator[RawRow]]


def is_published(path: Path) -> bool:
    """Tell whether this is a folder that datasets_scripts/preferences.py wrote."""
    return (path / PAIRS_FOLDER).is_dir()


def _renamed(label: str, rows: Iterator[RawRow], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """Yield rows with our names for their columns; ValueError at the end where none had one that is named."""
    seen: dict[str, None] = {}
    for row in rows:
        if row.fields is not None:
            seen |= dict.fromkeys(row.fields)
            named = {ours: row.fields[theirs] for ours, theirs in columns.items() if theirs in row.fields}
            row = replace(row, fields=named)
        yield row
    if missing := [f"{ours}={theirs}" for ours, theirs in columns.items() if seen and theirs not in seen]:
        raise ValueError(
            f"{label}: columns: got {', '.join(missing)}, which no row has; the columns are {', '.join(seen)}"
        )


def _load_from_hub(source: Source, streaming: bool) -> Any:
    place = str(source.place)
    # A misspelt path must not become a question to the Hub.
    if place.endswith(SUFFIXES) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", place):
        raise ValueError(f"There is no file or folder {place}: wanted a path that exists, or a Hub id owner/name.")
    options = {name: getattr(source, name) for name in ("name", "data_dir", "revision")}
    try:
        return datasets.load_dataset(place, split=source.split or source.default_split, streaming=streaming, **options)
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(
            f"There is neither a local path nor a dataset on the Hub called {place}: check the spelling, and log in "
            f"with `hf auth login` if it is private. Short names are {', '.join(KNOWN_SOURCES)}."
        ) from error
