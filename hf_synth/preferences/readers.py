"""The known layouts of preference data: tables of columns, and from a raw row to its pairs, in one registry."""

import ast
import functools
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypedDict

from hf_synth.errors import install_hint
from hf_synth.preferences.prompts import is_blank, normalise


class Message(TypedDict):
    """One turn: role is "user", "assistant" or "system", or another that the chat template knows."""

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
Names = Sequence[str]  # of columns


@dataclass(frozen=True)
class Schema:
    """A published layout: recognised by columns that are there and columns that are not.

    reads: further columns that are read where a row has them. group: neighbouring rows of one value of this column
    are one row, {group: value, "rows": [...]}.
    """

    name: str
    columns: frozenset[str]
    without: frozenset[str]
    read: RowReader
    reads: frozenset[str] = frozenset()
    group: str | None = None


SCHEMAS: dict[str, Schema] = {}


def reader(
    name: str, *, columns: Names, without: Names = (), reads: Names = (), group: str | None = None
) -> Callable[[RowReader], RowReader]:
    """Register a function from one row to its pairs (or RowError) as the reader of a schema, as `Schema` has it."""

    def register(read: RowReader) -> RowReader:
        if name in SCHEMAS:
            raise ValueError(f"The schema '{name}' has a reader already: choose another name.")
        SCHEMAS[name] = Schema(name, frozenset(columns), frozenset(without), read, frozenset(reads), group)
        return read

    return register


def find_schema(columns: Iterable[str]) -> Schema | None:
    """Return the schema of a row with these columns, of several the one with the most columns, or None."""
    names = set(columns)
    matching = [schema for schema in SCHEMAS.values() if schema.columns <= names and not schema.without & names]
    return max(matching, key=lambda schema: len(schema.columns), default=None)


# --- Turns: texts, transcripts and messages in every spelling ----------------------------------------------------

# A marker opens a turn only after an empty line (or at the very start) and before whitespace. People and models also
# write "Human:" inside a turn; in the published files every true marker has this form.
_MARKER = re.compile(r"\n\n(Human|Assistant):(?=\s|\Z)")
_TRANSCRIPT = re.compile(r"\s*Human:\s.*\n\nAssistant:(\s|\Z)", re.DOTALL)
_ROLES = {
    **{role: role for role in ("user", "assistant", "system", "tool")},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model"), "assistant"),
    "observation": "tool",
}
_SPELT = re.compile(r"\s*\"?[\[{].*['\"](role|from)\\?['\"]\s*:.*[\]}]\"?\s*", re.DOTALL)  # messages as JSON or Python
_OPENED = re.compile(r"\s*\[\s*\{\s*(['\"])(role|from)\1\s*:\s*['\"]")
_KEYS = frozenset(("role", "from", "content", "value", "type", "text", "messages"))  # of messages, that are read
UNREAD: ContextVar[set[str]] = ContextVar("UNREAD")  # what collects the others, and a prompt's other columns
_BETWEEN = re.compile(r"\}\s*\n\s*\{")  # two messages of a NumPy array, as pandas writes it into CSV
_SYSTEM = ("system", "system_prompt", "system_message")
_INPUTS = ("input", "context")  # of an instruction: Alpaca's, Dolly's
_REFUSED = ("tools", "functions", "image", "images", "video", "videos", "audio", "audios")  # context of another kind
CONTEXT = frozenset((*_SYSTEM, *_REFUSED, "status"))  # columns that every layout reads, where a row has them


def parse_dialogue(text: str) -> list[Message]:
    r"""Parse the turns of a text `\n\nHuman: ...\n\nAssistant: ...`, contents stripped; [] where it has no turn.

    Windows line ends count as line ends. Consecutive turns of one role stay apart here.
    """
    before, *parts = _MARKER.split("\n\n" + text.replace("\r\n", "\n").lstrip())
    if parts and before.strip():
        raise RowError("text before the first turn")
    return [
        {"role": "user" if name == "Human" else "assistant", "content": content.strip()}
        for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _joined(turns: list[Message]) -> list[Message]:
    """Put neighbouring turns of one role together: strict alternation, which many chat templates demand."""
    return [
        Message(role=role, content="\n\n".join(turn["content"] for turn in group).strip())
        for role, group in groupby(turns, key=lambda turn: turn["role"])
    ]


def turns_of(value: Any, role: str) -> list[Message]:
    """Return text as one turn of `role`; a transcript, and messages in any spelling, as their turns.

    Messages are lists of {"role", "content"} or {"from", "value"}, or one of these, also written as JSON or Python;
    contents may be parts {"type": "text", "text"}.
    """
    if isinstance(value, str):
        if _TRANSCRIPT.match(value):
            turns = _joined(parse_dialogue(value))
            return turns if turns[-1]["content"] else turns[:-1]
        spelt = _parsed(value) if _SPELT.fullmatch(value) else None
        if spelt is None:
            if _OPENED.match(value):
                raise RowError("messages as text that is neither JSON nor Python")
            return [{"role": role, "content": value}]
        value = spelt
    if isinstance(value, Mapping) and "messages" in value:  # OpenAI's `input`
        refuse_other_context(value)
        _collect_unread(value)
        value = value["messages"]
    elif isinstance(value, Mapping):
        columns = [value[name] for name in value if isinstance(value[name], list)]
        transposed = len(columns) == len(value) and len(set(map(len, columns))) == 1  # as `datasets` stored Sequence
        value = [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)] if transposed else [value]
    if not isinstance(value, list):
        raise RowError("wrong type")
    turns = [_message(_parsed(turn) if isinstance(turn, str) else turn) for turn in value]
    return turns[1:] if turns and turns[0]["role"] == "system" and is_blank(turns[0]["content"]) else turns


def _parsed(text: str) -> Any:
    """Return what a text of JSON or of Python literals holds; None where it is neither, or holds no messages."""
    for parse, spelt in ((json.loads, text), (ast.literal_eval, text), (ast.literal_eval, _BETWEEN.sub("}, {", text))):
        try:
            value = parse(spelt)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, str):  # JSON in JSON
            return _parsed(value)
        some = [value] if isinstance(value, dict) else value
        if isinstance(some, list) and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in some):
            return value
    return None


def _message(turn: Any) -> Message:
    if type(turn) is dict and len(turn) == 2 and "role" in turn and "content" in turn:  # most messages
        role, content = turn["role"], turn["content"]
        if isinstance(role, str) and isinstance(content, str):
            return {"role": _ROLES.get(role) or _ROLES.get(role.lower(), role), "content": content}
    if not isinstance(turn, Mapping):
        raise RowError("wrong type")
    if turn.get("tool_calls") or turn.get("function_call") or turn.get("from") == "function_call":
        raise RowError("tool calls, which are not read")
    _collect_unread(turn)
    role = turn.get("role") or turn.get("from")
    content = turn["content"] if "content" in turn else turn.get("value")
    if isinstance(content, list):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise RowError("content other than text, which is not read")
        for part in content:
            _collect_unread(part)
        content = "\n".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise RowError("wrong type")
    return {"role": _ROLES.get(role.lower(), role), "content": content}


def _collect_unread(message: Mapping[str, Any]) -> None:
    for name, value in message.items():
        if name not in _KEYS and value is not None and value not in ("", [], {}):
            UNREAD.get(set()).add(f"{name} (of messages)")


def read_prompt(row: Mapping[str, Any]) -> str | list[Message]:
    """Return a row's prompt, or raise RowError: text if it is nothing but text, or messages that end with the user."""
    refuse_other_context(row)
    column = next(
        (name for name, kind in _PROMPTS.items() if row.get(name) is not None and isinstance(row[name], kind)), None
    )
    schema = None if column else find_schema(row)
    read = schema.columns if schema else {column, "history", *(_INPUTS if column == "instruction" else ())}
    UNREAD.get(set()).update(name for name in row.keys() - CONTEXT - read if row[name] is not None)
    if column is None:
        if schema is None or schema.group:
            raise RowError("there is no `prompt`")
        return schema.read(row)[0].prompt
    value = _texts(row[column])
    if value is not row[column] and value and all(isinstance(text, str) for text in value):
        value = value[0]  # the user's turns alone: what follows the first is a reply to replies
    if column == "question" and {"qid", "answers"} <= row.keys() and isinstance(value, str):
        value = html_to_text(value)
    turns = turns_of(value, "user")
    is_text = turns == [{"role": "user", "content": value}]
    turns = [*_before(row), *turns]
    if is_text and column == "instruction":
        turns[-1] = _with_input(value, row)
    turns = _with_system(turns, row)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns or any(is_blank(turn["content"]) for turn in turns):
        raise RowError("the prompt is empty" if len(turns) < 2 else "a message is empty")
    if turns[-1]["role"] not in ("user", "tool"):
        raise RowError("prompt does not end with the user")
    return turns[-1]["content"] if is_text and len(turns) == 1 else turns


_PROMPTS: dict[str, Any] = {
    **dict.fromkeys(("prompt", "messages", "conversations", "conversation", "conversation_a"), object),
    **dict.fromkeys(("instruction", "question", "query", "input"), object),
    **{"context": list, "history": str},  # of the layouts below; elsewhere other things have these names
}


# --- From turns to pairs -----------------------------------------------------------------------------------------


def refuse_other_context(row: Mapping[str, Any]) -> None:
    """Raise RowError for tools and images: without them, the turns mean something else."""
    for name in CONTEXT & row.keys():
        if name in _REFUSED and row[name] not in (None, "", "[]", []):
            raise RowError(f"{name}, which are not read")


def _with_system(turns: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """Return the turns after the system prompt that a column of the row holds."""
    for name in _SYSTEM:
        text = row.get(name)
        if isinstance(text, str) and not is_blank(text):
            if turns and turns[0]["role"] == "system":
                if normalise(turns[0]["content"]) != normalise(text):
                    raise RowError("two different system prompts")
                return turns
            return [{"role": "system", "content": text}, *turns]
    return turns


def _with_input(instruction: str, row: Mapping[str, Any]) -> Message:
    """Return the user's turn of an instruction and what a column adds to it."""
    more = (row.get(name) for name in _INPUTS)
    texts = [instruction, *(text for text in more if isinstance(text, str) and not is_blank(text))]
    return {"role": "user", "content": "\n\n".join(texts)}


def _before(row: Mapping[str, Any]) -> list[Message]:
    """Return the turns of a column `history`: pairs of a user's turn and the answer."""
    pairs = row.get("history")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return []
    return [turn for pair in pairs for text, role in zip(pair, ("user", "assistant"), strict=True)
            for turn in turns_of(text, role)]  # fmt: skip


def _sides(prompt: list[Message], row: Mapping[str, Any], chosen: Any, rejected: Any, joined: bool = False) -> Pair:
    """Return the pair of a prompt and two replies, each of which may repeat the conversation or continue it."""
    (before, better), (other, worse) = (_context_and_reply(value, prompt) for value in (chosen, rejected))
    if before != other:
        raise RowError("prompts differ")
    return _pair(_with_system(before, row), better, worse, joined)


def _context_and_reply(value: Any, prompt: list[Message]) -> tuple[list[Message], str]:
    """Return the whole conversation before the last reply, and the reply.

    Turns that come before the reply repeat the prompt (its system turn may be missing there), or follow it.
    """
    turns = turns_of(value, "assistant")
    if not turns:
        raise RowError("empty reply")
    *before, reply = turns
    if reply["role"] != "assistant":
        raise RowError("last turn is not the assistant's")
    if not before or not prompt:
        return before or prompt, reply["content"]
    if before[: len(prompt)] == prompt:
        return before, reply["content"]
    system = [turn for turn in prompt[:1] if turn["role"] == "system"]
    said, asked = (
        [(turn["role"], normalise(turn["content"])) for turn in turns if turn["role"] != "system"]
        for turns in (before, prompt)
    )
    if before[0]["role"] == "assistant" and said[: len(asked)] != asked:
        return [*prompt, *before], reply["content"]
    # A prompt is the beginning, or, as text, any of the user's turns
    answered = asked[: len(said)] == said and [role for role, _ in asked[len(said) :]] == ["assistant"]
    if said[: len(asked)] != asked and not answered and not (len(asked) == 1 and asked[0] in said):
        if prompt[-1]["role"] == "assistant" and before[0]["role"] == "user":
            return [*prompt, *before], reply["content"]
        raise RowError("prompts differ")
    own = [normalise(turn["content"]) for turn in (*system, *before[:1]) if turn["role"] == "system"]
    if len(set(own)) > 1:
        raise RowError("two different system prompts")
    return [*(system if before[0]["role"] != "system" else []), *before], reply["content"]


def _pair(prompt: list[Message], chosen: str, rejected: str, joined: bool = False) -> Pair:
    """Return the pair; RowError says what is wrong with it."""
    if not any(turn["role"] == "user" and not is_blank(turn["content"]) for turn in prompt):
        raise RowError("empty prompt")
    if any(is_blank(turn["content"]) for turn in prompt):
        raise RowError("empty turn in the prompt")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise RowError("prompt does not end with the user")
    if is_blank(chosen) or is_blank(rejected):
        raise RowError("empty reply")
    if chosen.strip() == rejected.strip():
        raise RowError("chosen equals rejected")
    return Pair(prompt, chosen, rejected, joined)


# --- Labels ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def score_columns(columns: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs of columns that score the two replies: score_chosen, chosen_rating, chosen-rating, ..."""
    scored = (name for name in columns if re.search("score|rating|reward|grade", name.lower()))
    pairs = [(name, name.replace("chosen", "rejected").replace("Chosen", "Rejected")) for name in scored]
    return [(better, worse) for better, worse in pairs if worse in columns and worse != better]


def check_scores(row: Mapping[str, Any]) -> None:
    """Raise RowError where the scores of a row contradict its label, or leave it open; rows without scores pass."""
    if row.get("status") == "tie":
        raise RowError("the label is a tie")
    for names in score_columns(tuple(row)):
        better, worse = (_number(row[name]) for name in names)
        if better is None and worse is None:
            continue
        if better is None or worse is None or math.isnan(better) or math.isnan(worse):
            raise RowError("a score is missing or NaN")
        if better == worse:
            raise RowError("scores are equal")
        if better < worse:
            raise RowError("the rejected reply has the higher score")


_GRADE = re.compile(r"\s*(-?\d+(?:[.,]\d+)?)\s*/\s*\d+\s*")  # 7/10; on one scale the first number says all


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        graded = _GRADE.fullmatch(value)
        value = re.sub(r",(?!\d{3}\b)", ".", graded[1] if graded else value)  # 5,5; 1,000 may be either
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan if re.fullmatch(r"\s*-?\d+[.,][\d.,]*\s*", str(value)) else None


# --- The layouts: one table for each kind ------------------------------------------------------------------------


@reader("hh-rlhf", columns=("chosen", "rejected"), without=("prompt",))
def read_hh_rlhf(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair of two dialogues that differ in the last reply (https://huggingface.co/datasets/Anthropic/hh-rlhf).

    The reply is everything after the last human turn, also where a model wrote several assistant turns. Dialogues
    that are lists of messages (TRL's implicit prompt) are taken too.
    """
    texts = [row[side] for side in ("chosen", "rejected")]
    if any(not isinstance(text, str) or _SPELT.fullmatch(text) for text in texts):
        return [_sides([], row, *texts)]
    (prompt, chosen, joined), (other, rejected, other_joined) = map(_dialogue, texts)
    if prompt != other:
        raise RowError("prompts differ")
    return [_pair(_with_system(prompt, row), chosen, rejected, joined or other_joined)]


@functools.lru_cache(maxsize=1)  # both sides of a pair have the same turns before the last one
def _turns_before(text: str) -> list[Message]:
    turns = parse_dialogue(text)
    if not turns and text.strip():
        raise RowError("text before the first turn")
    return turns


def _dialogue(text: str) -> tuple[list[Message], str, bool]:
    text = text.replace("\r\n", "\n")
    last = max(text.rfind(f"\n\nAssistant:{space}") for space in " \n")
    turns = [*_turns_before(text[:last]), *parse_dialogue(text[last:])] if last > 0 else parse_dialogue(text)
    if not any(turn["role"] == "assistant" for turn in turns):
        raise RowError("no assistant turn")
    *prompt, reply = _joined(turns)
    if reply["role"] != "assistant":
        raise RowError("last turn is not the assistant's")
    return prompt, reply["content"], len(prompt) + 1 < len(turns)


def _read_pairs(columns: Names, row: Mapping[str, Any]) -> list[Pair]:
    prompt, chosen, rejected = columns[:3]
    turns = [*_before(row), *turns_of(row[prompt], "user")]
    if prompt == "instruction" and turns and turns[-1]["content"] == row[prompt]:
        turns[-1] = _with_input(row[prompt], row)
    sides = [row[chosen], row[rejected]]
    if isinstance(row[prompt], str) and _TRANSCRIPT.match(row[prompt]):  # whose markers are followed by a space
        sides = [side.strip() if isinstance(side, str) else side for side in sides]
    return [_sides(turns, row, *sides)]


# name: the columns of the prompt and of the two replies, texts or messages
_PAIRS = {
    "prompt-chosen-rejected": ("prompt", "chosen", "rejected"),  # TRL; truthy-dpo, dpo-mix, Dahoas/full-hh-rlhf, ...
    "ultrafeedback": ("prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
    "instruction": ("instruction", "chosen", "rejected"),  # LLaMA-Factory
    "question": ("question", "chosen", "rejected"),  # Intel/orca_dpo_pairs
    "input": ("input", "chosen", "rejected"),  # argilla/distilabel-intel-orca-dpo-pairs
    "conversations": ("conversations", "chosen", "rejected"),  # ShareGPT pairs
    "responses": ("instruction", "chosen_response", "rejected_response"),  # argilla's
    "prompt-responses": ("prompt", "chosen_response", "rejected_response"),
    "messages": ("messages", "chosen", "rejected"),  # axolotl
    "conversation": ("conversation", "chosen", "rejected"),
    "openai": ("input", "preferred_output", "non_preferred_output"),
}
for _name, _columns in _PAIRS.items():
    reader(_name, columns=_columns, reads=(*_INPUTS, "history"))(functools.partial(_read_pairs, _columns))
read_messages = SCHEMAS["prompt-chosen-rejected"].read


@reader("hf_synth", columns=("id", "prompt_id", "src", "prompt", "chosen", "rejected"))
def read_published(row: Mapping[str, Any]) -> list[Pair]:
    """Read one pair as datasets_scripts/preferences.py writes it: the source that a row names stays its source."""
    return [replace(pair, src=row["src"]) for pair in read_messages(row)]


def _read_voted(
    prompt: str | None, replies: tuple[str, str], votes: tuple[str, ...], first: Any, row: Any
) -> list[Pair]:
    """Read a pair of which a vote says which reply is better.

    first: the value of the vote for the first reply and for the second; "sign": a negative one is for the first; "one
    each": a column of 0 and 1 for each reply.
    """
    values = [row[name] for name in votes]
    values = [vote if isinstance(vote, bool) or (number := _number(vote)) is None else number for vote in values]
    vote, better = values[0], None
    if first == "sign":
        if isinstance(vote, float) and abs(vote) > 0:  # neither 0 nor NaN
            better = int(vote > 0)
    elif first == "one each":
        better = values.index(1) if values.count(1) == 1 else None
    elif vote in first:
        better = first.index(vote)
    if better is None:
        raise RowError("no reply is preferred")
    a, b = (_texts(row[name]) for name in replies)
    asked = _texts(row[prompt]) if prompt else []
    if isinstance(asked, list) and asked and all(isinstance(text, str) for text in asked):  # a list for each side
        a, b = (_interleaved(asked, side) for side in (a, b))
        asked = []
    sides = (a, b) if better == 0 else (b, a)
    return [_sides(turns_of(asked, "user"), row, *sides)]


def _texts(value: Any) -> Any:
    """Return a list of texts that is written as JSON (lmsys) as the list."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _interleaved(asked: list[Any], answered: Any) -> list[dict[str, Any]]:
    if not isinstance(answered, list) or len(answered) != len(asked):
        raise RowError("wrong type")
    turns: list[dict[str, Any]] = []
    for question, answer in zip(asked, answered, strict=True):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer or ""}]
    return turns


# name: the columns of the prompt (None: in the replies), of the two replies and of the vote, and what a vote means
_VOTED: dict[str, tuple[str | None, tuple[str, str], tuple[str, ...], Any]] = {
    "pku-saferlhf": ("prompt", ("response_0", "response_1"), ("better_response_id",), (0, 1)),
    "helpsteer2-preference": ("prompt", ("response_1", "response_2"), ("preference_strength",), "sign"),
    "helpsteer3": ("context", ("response1", "response2"), ("overall_preference",), "sign"),
    "shp": ("history", ("human_ref_A", "human_ref_B"), ("labels",), (1, 0)),
    "chatbot-arena": (None, ("conversation_a", "conversation_b"), ("winner",), ("model_a", "model_b")),
    "arena-votes": ("prompt", ("response_a", "response_b"), ("winner_model_a", "winner_model_b"), "one each"),
    "arena-winner": ("prompt", ("response_a", "response_b"), ("winner",), ("model_a", "model_b")),
}
for _name, (_prompt, _replies, _votes, _first) in _VOTED.items():
    _names = ((_prompt,) if _prompt else ()) + _replies + _votes
    reader(_name, columns=_names)(functools.partial(_read_voted, _prompt, _replies, _votes, _first))

RANKED_PAIRS = 3  # of a prompt, so that no question with forty answers outweighs the others


def _read_ranked(layout: tuple[str, str, str, str, int, bool], row: Mapping[str, Any]) -> list[Pair]:
    """Read up to three pairs of a prompt with several scored replies.

    The best reply (of equals the accepted one, then the one listed first) is chosen over the first reply of each of
    the next three lower scores. Replies of one score are never compared.
    """
    prompt, replies, text, score, sign, is_html = layout
    listed = row[replies]
    if not isinstance(listed, list) or not all(
        isinstance(reply, Mapping) and isinstance(reply.get(text), str) and _number(reply.get(score)) is not None
        for reply in listed
    ):
        raise RowError("wrong type")
    graded = [(sign * (_number(reply[score]) or 0.0), reply) for reply in listed]
    if any(math.isnan(grade) for grade, _ in graded):
        raise RowError("a score is missing or NaN")
    plain = html_to_text if is_html else str
    graded.sort(key=lambda each: (-each[0], not each[1].get("selected")))
    levels = [next(group)[1] for _, group in groupby(graded, key=lambda each: each[0])]
    if len(levels) < 2:
        raise RowError("no two answers of different scores")
    if is_html and not isinstance(row[prompt], str):
        raise RowError("wrong type")
    turns = turns_of(plain(row[prompt]) if is_html else row[prompt], "user")
    best, *others = (plain(reply[text]) for reply in levels[: RANKED_PAIRS + 1])
    usable = [other for other in others if not is_blank(other) and other != best]
    return [_pair(_with_system(turns, row), best, other) for other in usable or others[:1]]


# name: the columns of the prompt and of the replies, a reply's text and its score, whether more (1) or less (-1) is
# better, and whether texts are HTML
_RANKED = {
    "stack-exchange": ("question", "answers", "text", "pm_score", 1, True),
    "nectar": ("prompt", "answers", "answer", "rank", -1, False),
    "ultrafeedback-completions": ("instruction", "completions", "response", "overall_score", 1, False),
    "helpsteer2": ("prompt", "rows", "response", "helpfulness", 1, False),
}
_ALSO = {"stack-exchange": ("qid",), "nectar": ("num_responses",)}  # other data have answers to questions, too
for _name, _ranked in _RANKED.items():
    _grouped = _ranked[1] == "rows"
    _names = (_ranked[0], *_ranked[2:4]) if _grouped else (*_ranked[:2], *_ALSO.get(_name, ()))
    reader(_name, columns=_names, group=_ranked[0] if _grouped else None)(functools.partial(_read_ranked, _ranked))
read_stack_exchange = SCHEMAS["stack-exchange"].read


# --- HTML --------------------------------------------------------------------------------------------------------

_TAG = re.compile(
    r"</?(a|b|blockquote|br|center|code|dd|del|div|dl|dt|em|font|form|h[1-6]|hr|i|img|kbd|li|nav|ol|p|pre|s|script|"
    r"span|strike|strong|style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul)(\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_RAISED = re.compile(r"<(sup|sub)\b[^<>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"(<pre\b.*?</pre>|<code\b.*?</code>)", re.IGNORECASE | re.DOTALL)
_BACKSLASH = "\ue05c"  # stands for what the converter would double


def html_to_text(source: str) -> str:
    """Convert HTML to Markdown, without scripts, forms and navigation; of text without a tag, decode the entities.

    Exponents and indices become x^2 and x_1, with braces around more than one character. LaTeX stays as it is.
    """
    if not _TAG.search(source):
        return html.unescape(source).strip()
    try:
        from html_to_markdown import convert
    except ImportError:
        raise ValueError(f"html_to_text: {install_hint('html-to-markdown', 'preferences')}") from None
    pieces = _CODE.split(source)
    pieces[::2] = [_RAISED.sub(_raised, piece) for piece in pieces[::2]]
    text = convert("".join(pieces).replace("\\", _BACKSLASH)).content or ""
    return text.replace(_BACKSLASH, "\\").strip()


def _raised(match: re.Match[str]) -> str:
    sign, inside = "^" if match[1].lower() == "sup" else "_", match[2]
    return f"{sign}{inside}" if len(html.unescape(inside)) == 1 or inside.isdigit() else f"{sign}{{{inside}}}"
