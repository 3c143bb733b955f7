"""Where raw rows come from: a file, a folder, or the Hub; three published datasets go by short names."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from hf_synth.preferences.files import SUFFIXES, RawRow, local_files, read_rows

PAIRS_FOLDER = "pairs"  # of what datasets_scripts/preferences.py writes
_FIELDS = ("prompt", "chosen", "rejected")


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
    """A place of preference pairs.

    Attributes:
        place: the path of a file (.jsonl, .jsonl.gz, .json, .json.gz, .parquet) or of a folder, a Hub id, or a short
            name ("hh", "uf", "se").
        split: the Hub's split, or the words that a folder's files carry; not used for a single file. Where none is
            asked for, a folder with one data file is read whole.
        name: a config of a Hub dataset.
        data_dir: a subfolder, on the Hub ("harmless-base") or of a local folder.
        revision: a branch, tag or commit on the Hub.
        src: the label in the column `src`; default: the Hub id with data_dir, or the last part of the path.
        columns: your columns for ours: {"prompt": "question", "chosen": "good", "rejected": "bad"}.
        max_rows: read no more than the first so many.
        default_split: the split where none is asked for.
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
        """The source's label and its rows; `streaming` reads a Hub dataset without downloading it first.

        Raises:
            ValueError: nothing at `place`; once all rows are read, a column of `columns` that none of them has.
        """
        path = Path(self.place)
        found = self._local(path) if path.exists() else self._on_the_hub(streaming)
        label = self.src or found.src
        columns = self.columns
        if not columns:
            return OpenSource(label, lambda: islice(found.rows(), self.max_rows))
        return OpenSource(label, lambda: _renamed(label, islice(found.rows(), self.max_rows), columns))

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
    """Whether this is a folder that datasets_scripts/preferences.py wrote."""
    return (path / PAIRS_FOLDER).is_dir()


def _renamed(label: str, rows: Iterator[RawRow], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """Rows with our names for their columns; ValueError at the end where none had one that is named."""
    seen: dict[str, None] = {}
    for row in rows:
        if row.fields is not None:
            seen |= dict.fromkeys(row.fields)
            row = replace(row, fields=_picked(row.fields, columns))
        yield row
    if missing := [f"{ours}={theirs}" for ours, theirs in columns.items() if seen and theirs not in seen]:
        raise ValueError(
            f"{label}: columns: got {', '.join(missing)}, which no row has; the columns are {', '.join(seen)}"
        )


def _picked(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The fields that are named, under our names; what a row lacks is missing here too."""
    return {ours: fields[theirs] for ours, theirs in columns.items() if theirs in fields}


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
