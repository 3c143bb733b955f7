"""Rows of preference pairs and prompts: files of this machine and of the Hub, resolved by `datasets`, parsed here.

`datasets` says which files a config and a split have. Its own parsers raise for a whole file where one row is broken;
here a broken row is a row with a reason, and reading goes on.
"""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import logging
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from hf_synth.errors import check_choices

logger = logging.getLogger(__name__)


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    "": lambda file: file,
    ".gz": gzip.open,
    ".zst": lambda file: pa.CompressedInputStream(pa.PythonFile(file), "zstd"),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*(text + packed for text in _TEXTS for packed in _OPENERS), ".parquet", ".arrow")
_KINDS = f"{', '.join(_TEXTS)} (alone or with {', '.join(filter(None, _OPENERS))} behind it), .parquet, .arrow"
PAIRS_FOLDER = "pairs"  # of what datasets_scripts/preferences.py writes
_BESIDE = ("published.json", "tokenizer.json", "tokenizer_config.json")  # of the data that hf_synth publishes
_FIELDS = ("prompt", "chosen", "rejected", "system", "score_chosen", "score_rejected")
_CHUNK = 2**20
_WRAPPED = re.compile(r'\s*\{(\s*"\w*"\s*:\s*("[^"\\]*"|[\w.+-]+)\s*,)*\s*"(data|rows|examples)"\s*:\s*\[(?=\s*\{)')
_VERIFIED: dict[str, Any] = {"page_checksum_verification": True}  # of Parquet, where it has checksums
_OTHER_KINDS = {  # the first bytes of what has the name of text or of a table, and is neither
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"\x1f\x8b": "gzip: add .gz to its name",
    b"ARROW1": "Arrow's file format (Feather): save it as Parquet",
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save it as CSV",
}
_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<name>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True)
class RawRow:
    """One row as read: its file and line, its raw content, and either its fields or the reason why it has none."""

    file: str
    line: int  # from 1; in a table or an array, the number of the row
    raw: str | Mapping[str, Any]
    fields: Mapping[str, Any] | None
    reason: str | None = None


# --- One file ----------------------------------------------------------------------------------------------------


def read_rows(path: Path | str) -> Iterator[RawRow]:
    """Yield the rows of one file in order: a path, or an address `hf://...`, which is read without downloading it."""
    name = str(path).rpartition("/")[2]
    if not name.lower().endswith(SUFFIXES):
        raise ValueError(f"{name} is not a file of a known kind: wanted a name ending in {_KINDS}.")
    packed = next((suffix for suffix in _OPENERS if suffix and name.lower().endswith(suffix)), "")
    kind = Path(name.lower().removesuffix(packed)).suffix
    opened = huggingface_hub.HfFileSystem().open if str(path).startswith("hf://") else open
    with opened(str(path), "rb") as file:
        head = b"" if packed else file.read(24)
        if other := next((other for start, other in _OTHER_KINDS.items() if head.startswith(start)), None):
            raise ValueError(f"{name} is {other}.")
        file.seek(0)
        try:
            if kind in (".parquet", ".arrow"):
                parquet = kind == ".parquet"
                batches = pq.ParquetFile(file, **_VERIFIED).iter_batches(1024) if parquet else pa.ipc.open_stream(file)
                values = (each for batch in batches for each in python_values(batch.to_struct_array()))
                yield from (RawRow(name, number, each, each) for number, each in enumerate(values, start=1))
            else:
                text = io.BufferedReader(_OPENERS[packed](file), _CHUNK)
                yield from _json_rows(name, text) if "json" in kind else _csv_rows(name, text, kind)
        except (EOFError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's or the network's
                raise
            what = {".gz": "gzip", ".parquet": "Parquet", ".arrow": "Arrow"}.get(packed or kind, packed or kind)
            reason = " ".join(str(error).split())
            raise ValueError(f"{name} is not a whole {what} file ({reason}): download or write it again.") from error


def _json_rows(name: str, file: io.BufferedReader) -> Iterator[RawRow]:
    """Yield the rows of JSON lines, of an array, or of objects that are printed over several lines."""
    head = file.peek(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip().decode(errors="replace")
    wrapped = ".json" in name and ".jsonl" not in name and _WRAPPED.match(head)
    if wrapped or re.match(r"\[\s*(\{|\]|\r?\n|$)|\{\s*(\"\w*\"\s*:\s*\[\s*)?\r?\n", head):
        yield from _array_rows(name, file)
        return
    # Bytes, so that only \n ends a line: text mode would also be stopped by one byte that is not UTF-8.
    for number, line in enumerate(file, start=1):
        line = line.removeprefix(codecs.BOM_UTF8).strip()  # files with a mark may have been joined
        if not line:
            continue
        raw = line.decode("utf-8", errors="surrogateescape")
        try:
            fields, end = _DECODER.raw_decode(raw)
            fields = fields if end == len(raw) else None
        except KeyError:
            fields = _REPEATED
        except (ValueError, RecursionError):
            fields = None
        yield _json_row(name, number, raw, fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise KeyError
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
_REPEATED = "a key stands twice"


def _json_row(name: str, number: int, raw: str, fields: Any) -> RawRow:
    """Return the row, or the reason why it is none; `fields`: the parsed object, None or _REPEATED."""
    if not raw.isascii():
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError:  # bytes that are no UTF-8 were decoded as half of a surrogate pair each
            return RawRow(name, number, raw.encode("utf-8", "replace").decode(), None, "not UTF-8")
    if not isinstance(fields, dict):
        reason = "not JSON" if fields is None else "not a JSON object"
        return RawRow(name, number, raw, None, _REPEATED if fields is _REPEATED else reason)
    return RawRow(name, number, raw, fields)


def _array_rows(name: str, file: io.BufferedReader) -> Iterator[RawRow]:
    """Yield the objects of an array, or one after another, holding one part of the file at a time.

    A row that cannot be parsed ends where the next one begins: at a brace and the first field of the first row.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
    text, position, number, finished = decode(file.read(_CHUNK)), 0, 0, False
    opening = _WRAPPED.match(text) or re.match(r'\s*(?:\{\s*"\w*"\s*:\s*)?\[', text)
    position = opening.end() if opening else 0
    first = re.compile(r'\s*\{\s*("(?:[^"\\]|\\.)*"\s*:)').match(text, position)
    begins = re.compile(r"\{\s*" + re.escape(first[1]) if first else r"\n\s*\{")
    while True:
        while text[position : position + 1] in (",", " ", "\n", "\r", "\t") and position < len(text):
            position += 1
        fields, end, failed_at = None, position, len(text)
        if opening and text.startswith("]", position):
            break
        if position < len(text):
            try:
                fields, end = _DECODER.raw_decode(text, position)
            except KeyError:
                fields, end = _REPEATED, json.JSONDecoder().raw_decode(text, position)[1]
            except json.JSONDecodeError as error:
                failed_at = error.pos
            except (ValueError, RecursionError):  # digits or brackets without end
                failed_at = position
        if fields is None and not text.startswith("null", position):
            following = begins.search(text, position + 1)
            if not finished and not (following and failed_at <= following.start()):
                chunk = file.read(_CHUNK)  # a row that is not complete fails at the end of what has been read
                finished = not chunk
                text, position = text[position:] + decode(chunk, finished), 0
                continue
            if position == len(text):
                break
            end = following.start() if following else len(text)
        number += 1
        yield _json_row(name, number, text[position:end].rstrip(", \t\r\n"), fields)
        position = max(end, position + 1)
    rest = (text[position:] + decode(file.read(), True)).strip("]} \t\r\n,")
    if rest:
        yield RawRow(name, number + 1, rest, None, "text after the end of the array")


def _csv_rows(name: str, file: io.BufferedReader, kind: str) -> Iterator[RawRow]:
    """Yield the rows of a CSV file whose first line names the columns; empty cells are None."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    read: list[str] = []  # the lines of the row at hand

    def marked() -> Iterator[str]:  # files with a mark may have been joined
        for line in text:
            read.append(line.removeprefix("\ufeff"))
            yield read[-1]

    lines = marked()
    head, delimiter = next(lines, ""), "\t" if kind == ".tsv" else ","
    if delimiter not in head:  # as spreadsheets write it where a comma is in numbers
        delimiter = max(delimiter + ";\t|,", key=head.count)
    table = csv.reader(chain([head], lines), delimiter=delimiter, strict=True)
    columns = [column.strip() for column in next(table, [])]
    if repeated := [column for column in dict.fromkeys(columns) if column and columns.count(column) > 1]:
        raise ValueError(f"{name} has the columns {', '.join(repeated)} more than once: wanted each once; rename one.")
    while True:
        line = table.line_num + 1
        read.clear()
        try:
            cells = next(table, None)
        except csv.Error:  # a quote that stays open takes every line to the end
            for number, raw in enumerate(read, line):
                yield RawRow(name, number, raw.rstrip().encode(errors="replace").decode(), None, "not CSV")
            continue
        if cells is None:
            return
        if cells:
            fields = {column: cell or None for column, cell in zip(columns, cells, strict=False) if column}
            row = _json_row(name, line, ",".join(cells), fields)
            wrong = row.fields is not None and len(cells) != len(columns)
            yield RawRow(name, line, row.raw, None, "another number of cells than columns") if wrong else row


def python_values(array: pa.Array) -> list[Any]:
    """Return the same as `array.to_pylist()`, several times faster for lists of structs: whole columns at a time.

    JSON that `datasets` stores as text (its feature `Json`) is parsed.
    """
    rows: list[Any]
    if pa.types.is_struct(array.type):
        columns, names = [python_values(column) for column in array.flatten()], array.type.names
        if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise pa.ArrowInvalid(f"the columns {', '.join(repeated)} stand in it more than once")
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{} for _ in array]
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        flat, offsets = python_values(array.values), array.offsets.to_pylist()
        rows = [flat[start:stop] for start, stop in pairwise(offsets)]
    elif getattr(array.type, "extension_name", None) == "arrow.json":
        return [None if text is None else json.loads(text) for text in array.to_pylist()]
    else:
        return array.to_pylist()
    if not array.null_count:
        return rows
    return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]


# --- Which files -------------------------------------------------------------------------------------------------


KNOWN_SOURCES = {  # short name -> Hub id, and the split that has its pairs
    "hh": ("Anthropic/hh-rlhf", "train"),
    "uf": ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"),
    "se": ("HuggingFaceH4/stack-exchange-preferences", "train"),
}


@dataclass(frozen=True)
class Source:
    """Where preference pairs or prompts are read from.

    Attributes:
        path: that of a file or a folder (of data files, a clone of a Hub dataset, what `save_to_disk` or
            datasets_scripts/preferences.py wrote), a Hub id, with a config and a revision if need be
            (OWNER/NAME:CONFIG@REVISION), or a short name ("hh", "uf", "se").
        split: a split as `datasets` finds it; not used for a single file. Without one, a source with one split is read
            whole, and of one with more `default_split`.
        name: a config of a Hub dataset or of its clone.
        data_dir: a subfolder, on the Hub ("harmless-base") or of a local folder.
        revision: a branch, tag or commit on the Hub.
        src: the label in the column `src`; default: the Hub id with config and data_dir, or the last part of the path.
        columns: your columns for ours: {"prompt": "question", "chosen": "good", "rejected": "bad"}; also `system`,
            `score_chosen` and `score_rejected`. No other column is read then, and no scores but those.
        max_rows: read no more than the first so many.
    """

    path: str | Path
    split: str | None = None
    name: str | None = None
    data_dir: str | None = None
    revision: str | None = None
    src: str | None = None
    columns: Mapping[str, str] | None = None
    max_rows: int | None = None
    default_split: str = "train"

    def __post_init__(self) -> None:
        check_choices("columns", list(self.columns or {}), _FIELDS, "unknown name ")

    def open(self, *, streaming: bool = False) -> "OpenSource":
        """Return the source's label and its rows; `streaming` reads a Hub dataset without downloading it first.

        Raises:
            ValueError: nothing at `path`; once all rows are read, a column of `columns` that none of them has.
        """
        source = self._located()
        path = Path(source.path)
        where = path.name if path.exists() else str(path)
        if path.is_file() and self.split:
            raise ValueError(f"split: got {self.split!r} of the file {where}, wanted none: a file is read whole")
        files = [str(path)] if path.is_file() else source._files(where)
        for number, file in enumerate(files):
            if file.startswith("hf://") and not streaming:
                at: Any = huggingface_hub.HfFileSystem().resolve_path(file)
                options = {"repo_type": at.repo_type, "revision": at.revision}
                files[number] = huggingface_hub.hf_hub_download(at.repo_id, at.path_in_repo, **options)
        label = self.src or "/".join(filter(None, (where, source.name, source.data_dir)))
        columns = self.columns

        def rows() -> Iterator[RawRow]:
            read = islice((row for file in files for row in read_rows(file)), self.max_rows)
            return _renamed(label, read, columns) if columns else read

        return OpenSource(label, rows)

    def _located(self) -> "Source":
        """Return the source with its path, or its Hub id with config and revision taken apart."""
        path = Path(self.path)
        if path.exists():
            return replace(self, data_dir=PAIRS_FOLDER) if is_published(path) and not self.data_dir else self
        if known := KNOWN_SOURCES.get(str(self.path)):
            return replace(self, path=known[0], default_split=known[1])
        folder, colon, config = str(self.path).rpartition(":")
        if colon and Path(folder).is_dir():
            return replace(self, path=folder, name=self.name or config)
        parts = _HUB_ID.fullmatch(str(self.path))
        # A misspelt path must not become a question to the Hub.
        if not parts or parts["id"].endswith(SUFFIXES):
            raise ValueError(
                f"There is no file or folder {self.path}: wanted a path that exists, or a Hub id owner/name."
            )
        name, revision = self.name or parts["name"], self.revision or parts["revision"]
        return replace(self, path=parts["id"], name=name, revision=revision)

    def _files(self, where: str) -> list[str]:
        """Return the files of the split in a folder or on the Hub; ValueError says what there is instead."""
        folder = Path(self.path, self.data_dir or "")
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            splits = _saved_splits(folder)
        else:
            splits = self._splits_found(where)
        split = self.split or (next(iter(splits)) if len(splits) == 1 else self.default_split)
        if not splits.get(split):
            there = "; ".join(f"{name} ({Path(files[0]).name})" for name, files in splits.items() if files)
            raise ValueError(
                f"No split '{split}' in {where}: got {there or 'no file of a known kind'}; name one of these splits, "
                f"or the path of one file that ends in {_KINDS}."
            )
        if others := [name for name in splits if name != split]:
            logger.warning("%s: split %s is read, not %s", where, split, ", ".join(others))
        known = {str(Path(file).resolve()) for files in splits.values() for file in files}
        files = (file for file in folder.rglob("*") if file.name.endswith(SUFFIXES) and file.name not in _BESIDE)
        if rest := {str(file.resolve()) for file in files} - known:
            logger.warning("%s: files in no split, which are not read: %s", where, ", ".join(sorted(rest)[:10]))
        return splits[split]

    def _splits_found(self, where: str) -> dict[str, list[str]]:
        local = Path(self.path).exists()
        options = {} if local else {"data_dir": self.data_dir, "revision": self.revision}
        try:
            path = str(Path(self.path, self.data_dir or "")) if local else str(self.path)
            config = datasets.load_dataset_builder(path, self.name, **options).config
        except (FileNotFoundError, datasets.exceptions.DatasetsError) as error:
            if local:
                raise ValueError(
                    f"No data file in the folder {where}{f'/{self.data_dir}' if self.data_dir else ''}: wanted files "
                    f"that end in {_KINDS}, and no *, ? or [ in the folder's name."
                ) from error
            raise ValueError(
                f"There is neither a local path nor a dataset on the Hub called {where}"
                f"{f', revision {self.revision}' if self.revision else ''}: check the spelling, and log in with `hf "
                f"auth login` if it is private. Short names are {', '.join(KNOWN_SOURCES)}."
            ) from error
        except ConnectionError:
            with contextlib.suppress(huggingface_hub.errors.LocalEntryNotFoundError):
                downloaded = huggingface_hub.snapshot_download(  # by an earlier run
                    where, repo_type="dataset", revision=self.revision, local_files_only=True
                )
                return replace(self, path=downloaded)._splits_found(where)
            raise
        except (ValueError, RuntimeError, yaml.YAMLError) as error:  # a config to be named; a script; a damaged card
            what = " ".join(line.strip() for line in str(error).split("\n")[:2])
            advice = f"Write {where}:CONFIG" if "onfig" in what else "Give the path of a data file"
            raise ValueError(f"{where}: {what} {advice}.") from error
        splits = (config.data_files or {}).items()
        return {str(split): [file for file in files if file.endswith(SUFFIXES)] for split, files in splits}


@dataclass(frozen=True)
class OpenSource:
    """A label, and rows that can be read more than once."""

    src: str
    rows: Callable[[], Iterator[RawRow]]


def is_published(path: Path) -> bool:
    """Tell whether this is a folder that datasets_scripts/preferences.py wrote."""
    return (path / PAIRS_FOLDER).is_dir()


def _saved_splits(folder: Path) -> dict[str, list[str]]:
    """Return the files of a folder that `save_to_disk` wrote."""
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        return {name: files for name in names for files in _saved_splits(folder / name).values()}
    state = json.loads((folder / "state.json").read_text("utf-8"))
    files = [str(folder / file["filename"]) for file in state["_data_files"]]
    return {state.get("_split") or "train": files}


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
