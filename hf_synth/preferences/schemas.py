"""Published layouts of preference data: one registry, one reader each, from one raw row to its pairs.

A new layout is one function:

    @reader("my-layout", columns=("question", "good", "bad"))
    def read_my_layout(row):
        if not row["good"]:
            raise RowError("empty reply")
        return [Pair([{"role": "user", "content": row["question"]}], row["good"], row["bad"])]
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypedDict


class Message(TypedDict):
    """One turn: role is "user", "assistant" or "system"."""

    role: str
    content: str


@dataclass(frozen=True)
class Pair:
    """A prompt that ends in a user turn, with the better and the worse reply; `joined`: turns were put together."""

    prompt: list[Message]
    chosen: str
    rejected: str
    joined: bool = False


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
    matching = [schema for schema in _SCHEMAS.values() if schema.matches(columns)]
    return max(matching, key=lambda schema: len(schema.columns), default=None)


# --- Anthropic/hh-rlhf -------------------------------------------------------------------------------------------

# A marker opens a turn only after an empty line (or at the very start) and before whitespace. People and models also
# write "Human:" inside a turn; in the published files every true marker has this form.
_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?=\s|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@reader("hh-rlhf", columns=("chosen", "rejected"), without=("prompt",))
def read_hh_rlhf(row: Mapping[str, Any]) -> list[Pair]:
    """One pair of two whole dialogues that differ in the last reply (https://huggingface.co/datasets/Anthropic/hh-rlhf).

    The reply is everything after the last human turn, also where a model wrote several assistant turns.
    """
    (prompt, chosen, joined), (other, rejected, other_joined) = (
        _prompt_and_reply(row[field]) for field in ("chosen", "rejected")
    )
    if prompt != other:
        raise RowError("prompts differ")
    if chosen == rejected:
        raise RowError("chosen equals rejected")
    return [Pair(prompt, chosen, rejected, joined or other_joined)]


def parse_dialogue(text: str) -> list[Message]:
    r"""Turns of a text of the form `\n\nHuman: ...\n\nAssistant: ...`, contents stripped; [] where it has no turn.

    Windows line ends count as line ends. Consecutive turns of one role stay apart here.

    Raises:
        RowError: text before the first turn.
    """
    before, *parts = _MARKER.split(text.replace("\r\n", "\n"))
    if parts and before.strip():
        raise RowError("text before the first turn")
    return [
        {"role": _ROLES[name], "content": content.strip()}
        for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _prompt_and_reply(text: Any) -> tuple[list[Message], str, bool]:
    if not isinstance(text, str):
        raise RowError("wrong type")
    turns = parse_dialogue(text)
    if not any(turn["role"] == "assistant" for turn in turns):
        raise RowError("no assistant turn")
    *prompt, reply = _join_turns(turns)
    if reply["role"] != "assistant":
        raise RowError("last turn is not the assistant's")
    if not any(turn["role"] == "user" and turn["content"] for turn in prompt):
        raise RowError("empty prompt")
    if not all(turn["content"] for turn in prompt):
        raise RowError("empty turn in the prompt")
    if not reply["content"]:
        raise RowError("empty reply")
    return prompt, reply["content"], len(prompt) + 1 < len(turns)


def _join_turns(turns: list[Message]) -> list[Message]:
    """Strict alternation, which many chat templates demand: neighbours of one role become one turn of paragraphs."""
    return [
        {"role": role, "content": "\n\n".join(turn["content"] for turn in group).strip()}
        for role, group in groupby(turns, key=lambda turn: turn["role"])
    ]
