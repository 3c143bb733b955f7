"""What a reader of preference data is: one registry of published layouts, each read by one function of a raw row.

A new layout is one function:

    @reader("my-layout", columns=("question", "good", "bad"))
    def read_my_layout(row):
        if not row["good"]:
            raise RowError("empty reply")
        return [Pair([{"role": "user", "content": row["question"]}], row["good"], row["bad"])]
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict


class Message(TypedDict):
    """One turn: role is "user", "assistant" or "system"."""

    role: str
    content: str


@dataclass(frozen=True)
class Pair:
    """A prompt that ends in a user turn, with the better and the worse reply.

    joined: neighbouring turns of one role were put together. src: where the row itself says that it comes from.
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    joined: bool = False
    src: str | None = None


class RowError(ValueError):
    """A reader's word for one row that cannot be used; its text is the reason that is counted."""


RowReader = Callable[[Mapping[str, Any]], list[Pair]]


@dataclass(frozen=True)
class Schema:
    """A published layout: recognised by columns that are there and columns that are not."""

    name: str
    columns: frozenset[str]
    without: frozenset[str]
    read: RowReader

    def matches(self, columns: Iterable[str]) -> bool:
        """Whether a row with these columns is of this schema."""
        return self.columns <= set(columns) and not self.without & set(columns)


_SCHEMAS: dict[str, Schema] = {}


def reader(name: str, *, columns: Sequence[str], without: Sequence[str] = ()) -> Callable[[RowReader], RowReader]:
    """Register a function from one row to its pairs (or RowError) as the reader of a schema.

    Raises:
        ValueError: the name is taken.
    """

    def register(read: RowReader) -> RowReader:
        if name in _SCHEMAS:
            raise ValueError(f"The schema '{name}' has a reader already: choose another name.")
        _SCHEMAS[name] = Schema(name, frozenset(columns), frozenset(without), read)
        return read

    return register


def list_schemas() -> dict[str, tuple[str, ...]]:
    """Known schemas and the columns that each is recognised by."""
    return {name: tuple(sorted(schema.columns)) for name, schema in _SCHEMAS.items()}


def find_schema(columns: Iterable[str]) -> Schema | None:
    """The schema of a row with these columns, the one that asks for most where several match; None if none does."""
    columns = set(columns)
    matching = [schema for schema in _SCHEMAS.values() if schema.matches(columns)]
    return max(matching, key=lambda schema: len(schema.columns), default=None)
