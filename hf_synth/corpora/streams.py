"""Streams of documents, and ratios as exact fractions."""

import copy
import fractions
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.distributed import split_dataset_by_node

from hf_synth.errors import nearest

UNITS = ("documents", "tokens")
Unit = Literal["documents", "tokens"]
Ratio = float | str | fractions.Fraction


def share_of(name: str, ratio: Ratio) -> fractions.Fraction:
    """Return a ratio from 0 to 1 (a number, or text such as "1/3") as an exact fraction: 0.1 is a tenth.

    The denominator is at most 10**9.
    """
    try:
        share = fractions.Fraction(str(ratio))
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"{name}: got {ratio!r}, wanted a number from 0 to 1")
    return share.limit_denominator(10**9)


FEATURES = datasets.Features({"text": datasets.Value("string"), "kind": datasets.Value("string")})
SCHEMA = FEATURES.arrow_schema
BLOCK = 1_000  # documents that are made, dealt to shards and resumed together
STATE_FORMAT = 2  # raise it whenever states of streams change: a corpus that was interrupted goes on by them

TokenCounter = Callable[[pa.Array], np.ndarray]


class Documents(Protocol):
    """Documents that are a pure function of their number; `size` is None where they never end."""

    @property
    def size(self) -> int | None: ...

    def table(self, start: int, count: int) -> pa.Table:
        """Return documents start .. start + count - 1 as columns text and kind."""


def count_words(texts: pa.Array) -> np.ndarray:
    """Count the words, separated by white space, of each text; int64 [texts]."""
    return pc.count_substring_regex(texts, r"\S+").to_numpy(zero_copy_only=False).astype(np.int64)


def token_counter(tokenizer: Any) -> TokenCounter:
    """Return a function that counts a tokenizer's ids of each text, without special tokens."""

    def count(texts: pa.Array) -> np.ndarray:
        encoded = tokenizer(texts.to_pylist(), add_special_tokens=False)["input_ids"] if len(texts) else []
        return np.array([len(ids) for ids in encoded], np.int64)

    return count


def of_kind(texts: pa.Array | pa.ChunkedArray, kind: str) -> pa.Table:
    """Return texts of one kind as a table; a missing text is empty."""
    return pa.table({"text": texts.fill_null(""), "kind": pa.repeat(kind, len(texts))}, schema=SCHEMA)


class Stream(ABC):
    """Documents one after another. `state_dict`, in values that JSON holds, says after any of them where to go on.

    Made block by block: a subclass makes the next block, and `position` names its attributes that say where it stands
    between two blocks: numbers, and other streams.
    """

    position: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._block = SCHEMA.empty_table()
        self._used = 0
        self._before: Any = None
        self._counts, self._counted = np.empty(0, np.int64), self._block

    @abstractmethod
    def _next(self) -> pa.Table:
        """Make the next block; an empty one at the end."""

    @abstractmethod
    def shard(self, num_shards: int, index: int) -> "Stream":
        """Return part `index` of `num_shards`, from the beginning: together the parts hold every document once."""

    def _position(self) -> dict[str, Any]:
        """Return where the next block begins."""
        values = {name: getattr(self, name) for name in self.position}
        return {name: each.state_dict() if isinstance(each, Stream) else each for name, each in values.items()}

    def _seek(self, position: dict[str, Any]) -> None:
        """Let the next block begin at a position."""
        for name, value in position.items():
            if isinstance(own := getattr(self, name), Stream):
                own.load_state_dict(value)
            else:
                setattr(self, name, value)

    def rest(self) -> pa.Table:
        """Return what is made and not yet read: a block's remainder, or the next block; empty at the end."""
        if self._used == self._block.num_rows:
            self._before, self._used = self._position(), 0
            self._block = self._next()
        return self._block.slice(self._used)

    def lengths(self, count_tokens: TokenCounter) -> np.ndarray:
        """Return the number of tokens of each document of `rest`, int64; counted once a block."""
        self.rest()
        if self._counted is not self._block:
            self._counts, self._counted = count_tokens(self._block["text"].combine_chunks()), self._block
        return self._counts[self._used :]

    def skip(self, count: int) -> None:
        """Go on by `count` documents of `rest`."""
        self._used += count

    def read(self, count: int) -> pa.Table:
        """Read the next `count` documents as columns text and kind; fewer only at the end."""
        parts = [SCHEMA.empty_table()]
        while count and (rest := self.rest()).num_rows:
            parts.append(rest.slice(0, count))
            self.skip(parts[-1].num_rows)
            count -= parts[-1].num_rows
        return pa.concat_tables(parts)

    def forward(self, count: int) -> None:
        """Leave out the next `count` documents."""
        for start in range(0, count, BLOCK):
            self.read(min(BLOCK, count - start))

    def state_dict(self) -> dict[str, Any]:
        """Return where the next document stands."""
        before = self._position() if self._used == self._block.num_rows else self._before
        used = 0 if self._used == self._block.num_rows else self._used
        return {"before": copy.deepcopy(before), "used": used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream of the same documents stood."""
        self._seek(copy.deepcopy(state["before"]))
        self._block, self._used = SCHEMA.empty_table(), 0
        if state["used"]:
            self.rest()
            self._used = state["used"]


class Numbered(Stream):
    """Documents in the order of their numbers. Shards take blocks of 1,000 in turn."""

    position = ("block",)

    def __init__(self, documents: Documents, *, num_shards: int = 1, index: int = 0) -> None:
        """`num_shards` and `index` as in `shard`."""
        super().__init__()
        self.documents, self.num_shards, self.index = documents, num_shards, index
        self.block = 0  # the next one

    def _next(self) -> pa.Table:
        start = (self.block * self.num_shards + self.index) * BLOCK
        size = self.documents.size
        count = BLOCK if size is None else min(BLOCK, size - start)
        if count <= 0:
            return SCHEMA.empty_table()
        self.block += 1
        return self.documents.table(start, count)

    def forward(self, count: int) -> None:
        """Leave out the next `count` documents, without making them."""
        state = self.state_dict()
        block, used = divmod(state["before"]["block"] * BLOCK + state["used"] + count, BLOCK)
        self.load_state_dict({"before": {"block": block}, "used": used})

    def shard(self, num_shards: int, index: int) -> "Numbered":
        """Return every `num_shards`-th block, from block `index` on."""
        check_shard(num_shards, index)
        inner = {"num_shards": self.num_shards * num_shards, "index": self.index + self.num_shards * index}
        return Numbered(self.documents, **inner)


class Streamed(Stream):
    """A `datasets.IterableDataset` as canonical text, in its own order; `repeat`: again and again.

    Each pass has the next epoch number, which shuffles a dataset's files, and a buffer where it has one. With a
    buffer a resumed stream is not exactly the uninterrupted one: that is what `datasets` promises of buffers.
    """

    def __init__(self, dataset: datasets.IterableDataset, *, text_column: str = "text", repeat: bool = False) -> None:
        """`text_column` names the column that holds the text."""
        super().__init__()
        if dataset.features is not None:
            check_text_column(dataset.features, text_column)
        self.dataset = dataset.select_columns([text_column])
        self.text_column, self.repeat = text_column, repeat
        self._start(0, {})

    def _start(self, number: int, state: dict[str, Any]) -> None:
        self._pass, self._state, self._read = number, state, bool(state)
        self.dataset.set_epoch(number)
        self.dataset.load_state_dict(state)
        self._batches = self.dataset.iter(BLOCK)

    def _next(self) -> pa.Table:
        batch = next(self._batches, None)
        if batch is None and self.repeat and self._read:
            self._start(self._pass + 1, {})
            batch = next(self._batches, None)
        if batch is None:
            return SCHEMA.empty_table()
        self._state, self._read = self.dataset.state_dict(), True
        return of_kind(pa.array(batch[self.text_column], pa.string()), "canonical")

    def _position(self) -> dict[str, Any]:
        return {"pass": self._pass, "dataset": self._state}

    def _seek(self, position: dict[str, Any]) -> None:
        self._start(position["pass"], position["dataset"])

    def shard(self, num_shards: int, index: int) -> "Streamed":
        """Split like `split_dataset_by_node` of `datasets`: whole files if they divide evenly, else every n-th row."""
        check_shard(num_shards, index)
        part = split_dataset_by_node(self.dataset, index, num_shards)
        return Streamed(part, text_column=self.text_column, repeat=self.repeat)


def check_shard(num_shards: int, index: int) -> None:
    """Raise ValueError unless there is such a part."""
    if not 0 <= index < num_shards:
        raise ValueError(f"shard: got index={index} of num_shards={num_shards}, wanted 0 <= index < num_shards")


def check_text_column(features: datasets.Features, name: str) -> None:
    """Raise ValueError unless a dataset's column of that name holds text."""
    if name not in features:
        raise ValueError(f"text_column: got {name!r}, which the text does not have; {nearest(name, features)}")
    if getattr(features[name], "dtype", None) not in ("string", "large_string"):
        raise ValueError(f"text_column: got {name!r}, which holds {features[name]}, wanted a column of text")
