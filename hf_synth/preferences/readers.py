"""The known layouts of preference data: one function each, from a raw row to its pairs, in one registry.

A new layout is one function:

    @reader("my-layout", columns=("question", "good", "bad"))
    def read_my_layout(row):
        if not row["good"]:
            raise RowError("empty reply")
        return [Pair([{"role": "user", "content": row["question"]}], row["good"], row["bad"])]
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
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
    """A row that cannot be used; its text is the reason that is counted."""


RowReader = Callable[[Mapping[str, Any]], list[Pair]]


@dataclass(frozen=True)
class Schema:
    """A published layout: recognised by columns that are there and columns that are not."""

    name: str
    columns: frozenset[str]
    without: frozenset[str]
    read: RowReader

    def matches(self, columns: Iterable[str]) -> bool:
        """Tell whether a row with these columns is of this schema."""
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
    """Return the known schemas and the columns that each is recognised by."""
    return {name: tuple(sorted(schema.columns)) for name, schema in _SCHEMAS.items()}


def find_schema(columns: Iterable[str]) -> Schema | None:
    """Return the schema of a row with these columns, of several the one with the most columns, or None."""
    columns = set(columns)
    matching = [schema for schema in _SCHEMAS.values() if schema.matches(columns)]
    return max(matching, key=lambda schema: len(schema.columns), default=None)


# --- Anthropic/hh-rlhf -------------------------------------------------------------------------------------------

# A marker opens a turn only after an empty line (or at the very start) and before whitespace. People and models also
# write "Human:" inside a turn; in the published files every true marker has this form.
_MARKER = re.compile(r"\n\n(Human|Assistant):(?=\s|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@reader("hh-rlhf", columns=("chosen", "rejected"), without=("prompt",))
def read_hh_rlhf(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair of two dialogues that differ in the last reply (https://huggingface.co/datasets/Anthropic/hh-rlhf).

    The reply is everything after the last human turn, also where a model wrote several assistant turns. Dialogues
    that are lists of messages (TRL's implicit prompt) are taken too.
    """
    if isinstance(row["chosen"], list) and isinstance(row["rejected"], list):
        return read_messages({"prompt": [], **row})
    (prompt, chosen, joined), (other, rejected, other_joined) = (
        _prompt_and_reply(row[field]) for field in ("chosen", "rejected")
    )
    if prompt != other:
        raise RowError("prompts differ")
    return [_pair(prompt, chosen, rejected, joined or other_joined)]


def parse_dialogue(text: str) -> list[Message]:
    r"""Parse the turns of a text `\n\nHuman: ...\n\nAssistant: ...`, contents stripped; [] where it has no turn.

    Windows line ends count as line ends. Consecutive turns of one role stay apart here.

    Raises:
        RowError: text before the first turn.
    """
    before, *parts = _MARKER.split("\n\n" + text.replace("\r\n", "\n").lstrip())
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
    *prompt, reply = [  # strict alternation, which many chat templates demand
        Message(role=role, content="\n\n".join(turn["content"] for turn in group).strip())
        for role, group in groupby(turns, key=lambda turn: turn["role"])
    ]
    if reply["role"] != "assistant":
        raise RowError("last turn is not the assistant's")
    return prompt, reply["content"], len(prompt) + 1 < len(turns)


# --- Messages: TRL's own formats, and what is like them ----------------------------------------------------------


@reader("prompt-chosen-rejected", columns=("prompt", "chosen", "rejected"))
def read_messages(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair of TRL's preference formats: prompt and replies are texts or lists of {"role", "content"}.

    `chosen` and `rejected` may repeat the conversation before the reply; that, not `prompt`, is then the prompt.
    """
    prompt = _turns(row["prompt"], "user")
    (before, chosen), (other, rejected) = (_reply(row[side], prompt) for side in ("chosen", "rejected"))
    if before != other:
        raise RowError("prompts differ")
    return [_pair(before, chosen, rejected)]


@reader("ultrafeedback", columns=("prompt", "chosen", "rejected", "score_chosen", "score_rejected"))
def read_ultrafeedback(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair of two conversations (https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized).

    Rows of equal scores hold no preference: the publishers drew which side is `chosen`.
    """
    if row["score_chosen"] is not None and row["score_chosen"] == row["score_rejected"]:
        raise RowError("scores are equal")
    return read_messages(row)


@reader("hf_synth", columns=("id", "prompt_id", "src", "prompt", "chosen", "rejected"))
def read_published(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair as datasets_scripts/preferences.py writes it: the source that a row names stays its source."""
    return [replace(pair, src=row["src"]) for pair in read_messages(row)]


def _turns(value: Any, role: str) -> list[Message]:
    """Return a text as one turn of a role; messages without further keys."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not all(map(_is_message, value)):
        raise RowError("wrong type")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _reply(value: Any, prompt: list[Message]) -> tuple[list[Message], str]:
    """Split turns into those before the last reply, and the reply."""
    turns = _turns(value, "assistant")
    if not turns:
        raise RowError("empty reply")
    *before, reply = turns
    if reply["role"] != "assistant":
        raise RowError("last turn is not the assistant's")
    return before or prompt, reply["content"]


# --- HuggingFaceH4/stack-exchange-preferences --------------------------------------------------------------------

STACK_EXCHANGE_PAIRS = 3  # of a question, so that no question with forty answers outweighs the others


@reader("stack-exchange", columns=("qid", "question", "answers"))
def read_stack_exchange(row: Mapping[str, Any]) -> list[Pair]:
    """Read up to three pairs of a question (https://huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences).

    The best answer (the highest `pm_score`; of equals the accepted one, then the one listed first) is chosen over the
    first answer of each of the next three lower scores. Answers of one score are never compared. HTML becomes
    Markdown.
    """
    question, answers = row["question"], row["answers"]
    if not isinstance(question, str) or not isinstance(answers, list) or not all(map(_is_answer, answers)):
        raise RowError("wrong type")
    ranked = sorted(answers, key=lambda answer: (-answer["pm_score"], not answer.get("selected")))
    levels = [next(group) for _, group in groupby(ranked, key=lambda answer: answer["pm_score"])]
    if len(levels) < 2:
        raise RowError("no two answers of different scores")
    prompt: list[Message] = [{"role": "user", "content": html_to_text(question)}]
    best, *others = (html_to_text(answer["text"]) for answer in levels[: STACK_EXCHANGE_PAIRS + 1])
    usable = [other for other in others if other and other != best]
    return [_pair(prompt, best, other) for other in usable or others[:1]]


def _is_answer(value: Any) -> bool:
    score = value.get("pm_score") if isinstance(value, Mapping) else None
    return isinstance(score, int | float) and isinstance(value.get("text"), str)


# --- What every pair must be -------------------------------------------------------------------------------------


def _pair(prompt: list[Message], chosen: str, rejected: str, joined: bool = False) -> Pair:
    """Return the pair; RowError says what is wrong with it."""
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in prompt):
        raise RowError("empty prompt")
    if not all(turn["content"].strip() for turn in prompt):
        raise RowError("empty turn in the prompt")
    if prompt[-1]["role"] != "user":
        raise RowError("prompt does not end with the user")
    if not chosen.strip() or not rejected.strip():
        raise RowError("empty reply")
    if chosen.strip() == rejected.strip():
        raise RowError("chosen equals rejected")
    return Pair(prompt, chosen, rejected, joined)


def html_to_text(html: str) -> str:
    """Convert HTML to Markdown: code blocks fenced and their text untouched, entities decoded, ends stripped.

    Text that holds no markup comes back as it is, but for its line ends. Scripts, forms and navigation are dropped.
    """
    try:
        from html_to_markdown import convert
    except ImportError:
        raise ValueError(
            'html_to_text: html-to-markdown is not installed; run pip install "hf_synth[preferences]"'
        ) from None
    return (convert(html).content or "").strip()
