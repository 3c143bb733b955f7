"""From raw rows to pairs in TRL's conversational format, one at a time or all at once, with an account of the rest."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from hf_synth.preferences.prompts import prompt_id
from hf_synth.preferences.readers import (
    CONTEXT,
    SCHEMAS,
    UNREAD,
    Pair,
    RowError,
    Schema,
    check_scores,
    find_schema,
    refuse_other_context,
    score_columns,
)
from hf_synth.preferences.sources import OpenSource, RawRow, Source

logger = logging.getLogger(__name__)

_quoted = json.JSONEncoder(ensure_ascii=False).encode
_BATCH = 2_000
MESSAGES = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
FEATURES = datasets.Features(
    {name: datasets.Value("string") for name in ("id", "prompt_id", "src")}
    | dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)
)

_KEPT = {str: datasets.Value("string"), float: datasets.Value("float64")}


@dataclass(frozen=True)
class RejectedRow:
    """A row that was left out: the file, its line (from 1), the reason and the row itself, cut to 500 characters."""

    file: str
    line: int
    reason: str
    row: str


class PairStream:
    """The pairs of one source, read one at a time, in memory that does not grow with it.

    A pair has the columns of FEATURES, and `file` and `line`: where it comes from.

    Attributes:
        src, schema: the source's label, and the name of the schema that was recognised.
        read: rows so far; joined: rows kept with neighbouring turns of one role put together; pairs: pairs yielded.
        dropped: reason -> rows left out. Each goes to `reject`, too.
        unread: the fields of rows that no pair is made of.
    """

    def __init__(
        self, source: OpenSource, reject: Callable[[RejectedRow], object], keep: Mapping[str, type] | None = None
    ) -> None:
        """Recognise the schema by the first rows; ValueError where it is unknown. keep: as `read_preferences`."""
        self.src = source.src
        self._rows, self._reject, self._keep = source.rows, reject, keep or {}
        self._schema = _recognise(source.src, source.rows())
        self.schema = self._schema.name
        self.read = self.joined = self.pairs = 0
        self.dropped: Counter[str] = Counter()
        self._columns_seen: dict[tuple[str, ...], None] = {}
        self._unread: set[str] = set()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each pair once. Raises ValueError with the counts where the source has no usable row."""
        self.read = self.joined = self.pairs = 0
        self.dropped.clear()
        first: RejectedRow | None = None
        column = self._schema.group  # neighbours of one value there are read together
        for _, group in groupby(
            self._rows(), lambda row: (column and row.fields and row.fields.get(column)) or object()
        ):
            row, *_ = rows = list(group)
            self.read += len(rows)
            UNREAD.set(self._unread)
            try:
                pairs = _pairs(self._schema, rows)
                kept = _kept(row.fields or {}, self._keep)
                kept |= {"file": row.file, "line": row.line}
                columns = [_columns(pair, self.src) | kept for pair in pairs]
            except RowError as error:
                for row in rows:
                    rejected = RejectedRow(row.file, row.line, str(error), shortened(row.raw))
                    first = first or rejected
                    self.dropped[rejected.reason] += 1
                    self._reject(rejected)
                continue
            self._columns_seen.setdefault(tuple(row.fields or ()))
            self.joined += any(pair.joined for pair in pairs)
            self.pairs += len(pairs)
            yield from columns
        if self.unread:
            logger.warning("%s: the fields %s are not read", self.src, ", ".join(self.unread))
        if not self.pairs:
            shown = (
                f" The first, line {first.line} of {first.file}, {first.reason}: {first.row[:200]}" if first else ""
            )
            raise ValueError(
                f"{self.src}: none of {self.read} rows is usable ({dict(self.dropped.most_common())}). Wanted rows of "
                f"the schema {self.schema!r}.{shown}"
            )

    @property
    def unread(self) -> list[str]:
        """Return the fields of the rows so far that are not read, sorted."""
        names = {name for columns in self._columns_seen for name in columns}
        scores = {name for columns in self._columns_seen for pair in score_columns(columns) for name in pair}
        read = self._schema.columns | self._schema.reads | CONTEXT | self._keep.keys() | scores
        return sorted(names - read | self._unread)


@dataclass(frozen=True)
class PreferenceData:
    """The pairs of a source, and every row that gave none.

    Attributes:
        dataset: columns `id`, `prompt_id`, `src` (strings), `prompt`, `chosen`, `rejected` (lists of messages), and
            what was to be kept.
        rejected_rows: the rows left out, in order.
        dropped: the most frequent first. This and all others: as `PairStream` has them.
    """

    dataset: datasets.Dataset
    src: str
    schema: str
    read: int
    joined: int
    rejected_rows: tuple[RejectedRow, ...]
    dropped: dict[str, int]
    unread: tuple[str, ...]


def read_preferences(source: str | Path, *, keep: Mapping[str, type] | None = None, **options: Any) -> PreferenceData:
    """Read preference pairs in TRL's conversational format into memory.

    A bad row is left out, counted and kept for inspection; it never stops the run. Duplicate pairs stay, with one id.

    Args:
        source: the `path` of a `Source`; options: its other attributes.
        keep: further columns that the pairs shall have, str or float each; null where a row has none. One that no row
            has is left out.

    Raises:
        ValueError: nothing at `source`, an unknown schema, or no usable row; the counts are in the message.
    """
    rejected: list[RejectedRow] = []
    keep = {name: kind for name, kind in (keep or {}).items() if name not in FEATURES}
    stream = PairStream(Source(source, **options).open(), rejected.append, keep)
    features = datasets.Features({**FEATURES, **{name: _KEPT[kind] for name, kind in keep.items()}})
    table = pa.Table.from_batches(batches(stream, features.arrow_schema))
    if rejected:
        logger.warning("%s: %d of %d rows left out (%s)", stream.src, len(rejected), stream.read, dict(stream.dropped))
    absent = [name for name in keep if table[name].null_count == len(table)]
    dataset = datasets.Dataset(table).remove_columns(absent)
    dropped = dict(stream.dropped.most_common())
    counts = stream.src, stream.schema, stream.read, stream.joined
    return PreferenceData(dataset, *counts, tuple(rejected), dropped, tuple(stream.unread))


def batches(pairs: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield pairs in batches with the schema's columns: no more than one batch of Python values is in memory."""
    rows = iter(pairs)
    while batch := list(islice(rows, _BATCH)):
        yield pa.record_batch({name: [row[name] for row in batch] for name in schema.names}, schema=schema)


def shortened(raw: str | Mapping[str, Any]) -> str:
    """Return a raw row as text, cut to 500 characters."""
    text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    more = len(text) - 500  # enough to recognise it
    return text if more <= 0 else f"{text[:500]}... ({more} more characters)"


def _pairs(schema: Schema, rows: list[RawRow]) -> list[Pair]:
    fields = rows[0].fields
    if fields is None:
        raise RowError(rows[0].reason)
    if schema.columns - fields.keys():
        raise RowError("missing field")
    if schema.group:
        fields = {schema.group: fields[schema.group], "rows": [row.fields for row in rows]}
    refuse_other_context(fields)
    check_scores(fields)
    return schema.read(fields)


def _columns(pair: Pair, src: str) -> dict[str, Any]:
    turns = (f'{{"content": {_quoted(turn["content"])}, "role": {_quoted(turn["role"])}}}' for turn in pair.prompt)
    content = f"[[{', '.join(turns)}], {_quoted(pair.chosen)}, {_quoted(pair.rejected)}]"
    try:  # JSON can spell half of a surrogate pair, which neither Arrow nor a tokenizer can hold
        identity = hashlib.md5(content.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]
    except UnicodeEncodeError:
        raise RowError("not valid Unicode") from None
    return {
        "id": identity,
        "prompt_id": prompt_id(pair.prompt),
        "src": pair.src or src,
        "prompt": pair.prompt,
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def _kept(fields: Mapping[str, Any], keep: Mapping[str, type]) -> dict[str, Any]:
    kept = {name: fields.get(name) for name in keep}
    for name, value in kept.items():
        wanted = str if keep[name] is str else int | float
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise RowError(f"wrong type of {name}")
    return kept


def _recognise(src: str, rows: Iterator[RawRow]) -> Schema:
    first: Mapping[str, Any] | None = None
    problems: Counter[str | None] = Counter()
    for row in rows:
        problems[row.reason] += 1
        schema = find_schema(row.fields) if row.fields is not None else None
        if schema:
            return schema
        first = first or row.fields
    known = "; ".join(f"{name}: {', '.join(sorted(schema.columns))}" for name, schema in SCHEMAS.items())
    what = f"the columns {', '.join(first or ())} are of no known schema"
    if first is None:
        what = f"none of {problems.total()} rows has any columns ({dict(problems)}). Wanted JSON lines (one object a "
        what += "line), an array, Parquet or CSV"
    raise ValueError(
        f"{src}: {what}. Known are: {known}. Rename yours, or name them (columns={{'prompt': 'question', ...}}; "
        "--columns of datasets_scripts/preferences.py), or register a reader with hf_synth.preferences.reader."
    )
