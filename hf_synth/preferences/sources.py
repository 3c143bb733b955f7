"""Preference pairs from the Hub, a folder or a file, in one format: TRL's conversational preference."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets

from hf_synth.preferences.files import SUFFIXES, RawRow, local_files, read_rows
from hf_synth.preferences.prompts import prompt_id
from hf_synth.preferences.schemas import Message, Pair, RowError, Schema, find_schema, list_schemas

logger = logging.getLogger(__name__)

RAW_CHARACTERS = 500  # a rejected row is kept up to here: enough to recognise it
_MESSAGES = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
FEATURES = datasets.Features(
    {name: datasets.Value("string") for name in ("id", "prompt_id", "src")}
    | dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGES)
)


@dataclass(frozen=True)
class RejectedRow:
    """A row that was left out: the file, its line (from 1), the reason and the row itself, cut to 500 characters."""

    file: str
    line: int
    reason: str
    row: str


@dataclass(frozen=True)
class PreferenceData:
    """What a source gave: the pairs, and an account of every row that gave none.

    Attributes:
        dataset: columns `id`, `prompt_id`, `src` (strings), `prompt`, `chosen`, `rejected` (lists of messages).
        src: the source's label.
        schema: the name of the schema that was recognised.
        read: number of rows read; `joined`: rows kept with neighbouring turns of one role put together.
        rejected_rows: the rows left out, in order.
    """

    dataset: datasets.Dataset
    src: str
    schema: str
    read: int
    joined: int
    rejected_rows: tuple[RejectedRow, ...]

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> number of rows left out, the most frequent first."""
        return _tally(self.rejected_rows)

    def write_rejected(self, path: str | Path) -> Path:
        """Write the rows left out as JSON lines {file, line, reason, row}; an empty file where there are none."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(asdict(row)) + "\n" for row in self.rejected_rows), encoding="utf-8")
        return target


def read_preferences(
    source: str | Path,
    *,
    split: str = "train",
    name: str | None = None,
    data_dir: str | None = None,
    revision: str | None = None,
    src: str | None = None,
) -> PreferenceData:
    """Read preference pairs in TRL's conversational format from the Hub, a local folder or a local file.

    A bad row is left out, counted and kept for inspection; it never stops the run. Duplicate pairs stay, with one id.

    Args:
        source: a Hub id ("Anthropic/hh-rlhf"), or the path of a folder or of a .jsonl, .jsonl.gz or .parquet file.
        split: the Hub's split, or the word that a folder's files carry; not used for a single file.
        name: a config of a Hub dataset.
        data_dir: a subfolder, on the Hub ("harmless-base") or of a local folder.
        revision: a branch, tag or commit on the Hub.
        src: the label in the column `src`; default: the Hub id with data_dir, or the last part of the path.

    Raises:
        ValueError: nothing at `source`, an unknown schema, or no usable row; the counts are in the message.
    """
    path = Path(source)
    if path.exists():
        files = local_files(path / data_dir if data_dir else path, split)
        label = src or path.name + (f"/{data_dir}" if data_dir else "")
        return _collect(label, lambda: (row for file in files for row in read_rows(file)))
    table = _load_from_hub(str(source), name=name, data_dir=data_dir, revision=revision, split=split)
    label = src or "/".join(filter(None, (str(source), name, data_dir)))
    return _collect(label, lambda: (RawRow(label, line, row, row) for line, row in enumerate(table, start=1)))


def counts_table(sources: Iterable[PreferenceData]) -> list[dict[str, str | int]]:
    """One row per source: src, schema, read, kept, joined, pairs, and a column of counts per reason of dropping."""
    sources = list(sources)
    reasons = sorted({reason for data in sources for reason in data.dropped})
    return [_counts(data) | {reason: data.dropped.get(reason, 0) for reason in reasons} for data in sources]


def _counts(data: PreferenceData) -> dict[str, str | int]:
    return {
        "src": data.src,
        "schema": data.schema,
        "read": data.read,
        "kept": data.read - len(data.rejected_rows),
        "joined": data.joined,
        "pairs": len(data.dataset),
    }


def _collect(src: str, rows: Callable[[], Iterator[RawRow]]) -> PreferenceData:
    schema = _recognise(src, rows())
    columns: dict[str, list[Any]] = {column: [] for column in FEATURES}
    rejected: list[RejectedRow] = []
    read = joined = 0
    for read, row in enumerate(rows(), start=1):  # noqa: B007 (the count is used after the loop)
        try:
            pairs = _pairs(schema, row)
        except RowError as error:
            rejected.append(RejectedRow(row.file, row.line, str(error), _shortened(row.raw)))
            continue
        joined += any(pair.joined for pair in pairs)
        for pair in pairs:
            for column, value in _columns(pair, src).items():
                columns[column].append(value)
    if not columns["id"]:
        raise ValueError(_nothing_usable(src, rejected))
    if rejected:
        logger.warning("%s: %d of %d rows left out (%s)", src, len(rejected), read, _tally(rejected))
    dataset = datasets.Dataset.from_dict(columns, features=FEATURES)
    return PreferenceData(dataset, src, schema.name, read, joined, tuple(rejected))


def _recognise(src: str, rows: Iterator[RawRow]) -> Schema:
    first: Mapping[str, Any] | None = None
    problems: Counter[str | None] = Counter()
    for row in rows:
        problems[row.reason] += 1
        schema = find_schema(row.fields) if row.fields is not None else None
        if schema:
            return schema
        first = first or row.fields
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in list_schemas().items())
    if first is None:
        raise ValueError(
            f"{src}: none of {problems.total()} rows has any columns ({dict(problems)}). Wanted JSON lines "
            f"(one object a line) or Parquet with the columns of a known schema ({known})."
        )
    raise ValueError(
        f"{src}: the columns {', '.join(first)} are of no known schema. Known are: {known}. "
        "Rename the columns, or register a reader with hf_synth.preferences.reader."
    )


def _pairs(schema: Schema, row: RawRow) -> list[Pair]:
    if row.fields is None:
        raise RowError(row.reason)
    if schema.columns - set(row.fields):
        raise RowError("missing field")
    pairs = schema.read(row.fields)
    try:  # JSON can spell half of a surrogate pair, which neither Arrow nor a tokenizer can hold
        "".join(text for pair in pairs for text in _texts(pair)).encode("utf-8")
    except UnicodeEncodeError:
        raise RowError("not valid Unicode") from None
    return pairs


def _texts(pair: Pair) -> Iterator[str]:
    yield from (message["content"] for message in pair.prompt)
    yield from (pair.chosen, pair.rejected)


def _columns(pair: Pair, src: str) -> dict[str, Any]:
    replies = {side: _reply(getattr(pair, side)) for side in ("chosen", "rejected")}
    content = json.dumps([pair.prompt, pair.chosen, pair.rejected], ensure_ascii=False, sort_keys=True)
    identity = hashlib.md5(content.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]
    return {"id": identity, "prompt_id": prompt_id(pair.prompt), "src": src, "prompt": pair.prompt, **replies}


def _reply(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]


def _load_from_hub(source: str, *, split: str, **options: str | None) -> datasets.Dataset:
    # A misspelt path must not become a question to the Hub.
    if source.endswith(SUFFIXES) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise ValueError(f"There is no file or folder {source}: wanted a path that exists, or a Hub id owner/name.")
    try:
        return datasets.load_dataset(source, split=split, **options)
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(
            f"There is neither a local path nor a dataset on the Hub called {source}: check the spelling, and log in "
            "with `hf auth login` if it is private."
        ) from error


def _nothing_usable(src: str, rejected: list[RejectedRow]) -> str:
    first = rejected[0]
    return (
        f"{src}: none of {len(rejected)} rows is usable ({_tally(rejected)}). Wanted rows of a known schema "
        f"({list_schemas()}). The first, line {first.line} of {first.file}, {first.reason}: {first.row[:200]}"
    )


def _shortened(raw: str | Mapping[str, Any]) -> str:
    text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    more = len(text) - RAW_CHARACTERS
    return text if more <= 0 else f"{text[:RAW_CHARACTERS]}... ({more} more characters)"


def _tally(rejected: Iterable[RejectedRow]) -> dict[str, int]:
    return dict(Counter(row.reason for row in rejected).most_common())
