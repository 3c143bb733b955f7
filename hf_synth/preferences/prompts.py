"""Prompts: normalise them, give them ids, deduplicate and split them."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex
from datasets import Dataset, DatasetDict

Prompt = str | Sequence[Mapping[str, Any]]

_LAYOUT = re.compile(r"\n  |\t|\n .*\n ", re.DOTALL)  # of code and tables; one line with one space is none
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]")


def is_blank(text: str) -> bool:
    """Tell whether a text shows nothing: spaces, control characters, characters of no width."""
    return not "!" <= text[:1] <= "~" and _VISIBLE.search(text) is None


def normalise(text: str) -> str:
    """Return text in Unicode NFC, each run of whitespace one space, none at the ends.

    Where whitespace is layout (indented lines, tabs), as in code, it stays but at the ends of lines.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    if ("\n " in text or "\t" in text) and _LAYOUT.search(text):
        lines = "\n".join(line.rstrip() for line in text.split("\n"))
        if _LAYOUT.search(lines):
            return lines
    return " ".join(text.split())


def prompt_id(prompt: Prompt) -> str:
    """Return the first 16 hex digits of the MD5 of the normalised prompt: the same on all machines.

    A prompt of one user message has the id of its text as a plain string. Other conversations are hashed as the
    JSON of [[role, normalised content], ...], so that text cannot pass for a turn.
    """
    if not isinstance(prompt, str) and [message["role"] for message in prompt] == ["user"]:
        prompt = prompt[0]["content"]
    if isinstance(prompt, str):
        return _digest(normalise(prompt))
    turns = (f"[{_quoted(message['role'])}, {_quoted(normalise(message['content']))}]" for message in prompt)
    return _digest(f"[{', '.join(turns)}]")


def distinct_prompts(dataset: Dataset) -> tuple[Dataset, Counter[str]]:
    """Return the first row of each distinct `prompt`, in order, and by prompt_id the number of rows that have it.

    A column `prompt_id` is used where it is there.
    """
    _require_prompt(dataset)
    known = "prompt_id" in dataset.column_names
    identities = list(dataset["prompt_id"] if known else map(prompt_id, dataset["prompt"]))
    first = {identity: row for row, identity in reversed(list(enumerate(identities)))}
    return dataset.select(sorted(first.values())), Counter(identities)


def split_by_prompt(dataset: Dataset, *, test_share: float = 0.1, seed: int = 0) -> DatasetDict:
    """Split into train and test parts that share no prompt, and no first user turn.

    Conversations that begin with the same user turn are often one conversation, cut at several points. The side
    follows from a hash of (seed, first user turn) alone: rows that are added or reordered move no other row.

    Args:
        dataset: has a column `prompt` (string or messages).
        test_share: the expected fraction of distinct first turns in `test`, above 0 and below 1; met on average.

    Raises:
        ValueError: a fraction out of range, no column `prompt`, or a side that got no row.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}: wanted a number above 0 and below 1, such as 0.1.")
    _require_prompt(dataset)
    sides: dict[str, list[int]] = {"train": [], "test": []}
    for row, prompt in enumerate(dataset["prompt"]):
        turns = [prompt] if isinstance(prompt, str) else (turn["content"] for turn in prompt if turn["role"] == "user")
        first = " ".join(normalise(next(iter(turns), "")).split())  # what differs in spaces alone stays on one side
        digest = _digest(json.dumps([seed, first], ensure_ascii=False))
        sides["test" if int(digest, 16) / 16**16 < test_share else "train"].append(row)
    for side, rows in sides.items():
        if not rows:
            raise ValueError(
                f"With test_share={test_share} and seed={seed} none of the {len(dataset)} rows is in '{side}': "
                "wanted rows on both sides; use more data, another test_share or another seed."
            )
    return DatasetDict({side: dataset.select(rows) for side, rows in sides.items()})


def message_texts(dataset: Dataset) -> Iterator[str]:
    """Yield every text of the columns prompt, chosen, rejected and completion, row by row, to train a tokenizer on."""
    columns = [name for name in ("prompt", "chosen", "rejected", "completion") if name in dataset.column_names]
    for row in dataset.select_columns(columns):
        for column in columns:
            value = row[column]
            yield from [value] if isinstance(value, str) else (message["content"] for message in value)


def _digest(text: str) -> str:
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]


def _require_prompt(dataset: Dataset) -> None:
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"The dataset has the columns {', '.join(dataset.column_names) or '(none)'}: wanted a column 'prompt' of "
            "strings or messages; rename yours with dataset.rename_column."
        )
