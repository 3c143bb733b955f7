"""Prompts as things with an identity: normalise, name, deduplicate and split them."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

Prompt = str | Sequence[Mapping[str, Any]]


def normalise(text: str) -> str:
    """Text in Unicode NFC, each run of whitespace one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prompt_id(prompt: Prompt) -> str:
    """First 16 hex digits of the MD5 of the normalised prompt: the same on all machines.

    A prompt of one user message has the id of its text as a plain string. Other conversations are hashed as the
    JSON of [[role, normalised content], ...], so that text cannot pass for a turn.

    Args:
        prompt: a string, or a list of {"role", "content"}.
    """
    if not isinstance(prompt, str) and [message["role"] for message in prompt] == ["user"]:
        prompt = prompt[0]["content"]
    if isinstance(prompt, str):
        return _digest(normalise(prompt))
    turns = [[message["role"], normalise(message["content"])] for message in prompt]
    return _digest(json.dumps(turns, ensure_ascii=False))


def distinct_prompts(dataset: Dataset) -> Dataset:
    """One row per distinct prompt, in order of first appearance.

    Args:
        dataset: has a column `prompt` (string or messages); a column `prompt_id` is used where it is there.

    Returns:
        columns `prompt` (as first seen), `prompt_id`, `count` (rows that have this prompt), and `src` where the
        dataset has one (as first seen).

    Raises:
        ValueError: no column `prompt`.
    """
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for row, identity in enumerate(_prompt_ids(dataset)):
        first.setdefault(identity, row)
        counts[identity] += 1
    kept = [name for name in ("prompt", "src") if name in dataset.column_names]
    rows = dataset.select_columns(kept).select(list(first.values())).flatten_indices(keep_in_memory=True)
    features = Features({"prompt_id": Value("string"), "count": Value("int64")})
    columns = {"prompt_id": list(first), "count": [counts[key] for key in first]}
    return concatenate_datasets([rows, Dataset.from_dict(columns, features=features)], axis=1)


def split_by_prompt(dataset: Dataset, *, test_share: float = 0.1, seed: int = 0) -> DatasetDict:
    """Train and test parts that share no prompt, and no first user turn.

    Conversations that begin with the same user turn are often one conversation, cut at several places: their rows
    stay together. The side follows from a hash of (seed, first user turn) alone: rows that are added or reordered
    move no other row, and the share is met on average, not exactly.

    Args:
        dataset: has a column `prompt` (string or messages).
        test_share: the expected share of distinct first turns in `test`, above 0 and below 1.
        seed: another seed, another split.

    Raises:
        ValueError: a share out of range, no column `prompt`, or a side that got no row.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}: wanted a number above 0 and below 1, such as 0.1.")
    _require_prompt(dataset)
    sides: dict[str, list[int]] = {"train": [], "test": []}
    for row, prompt in enumerate(dataset["prompt"]):
        sides["test" if _uniform(_first_user_turn(prompt), seed) < test_share else "train"].append(row)
    for side, rows in sides.items():
        if not rows:
            raise ValueError(
                f"With test_share={test_share} and seed={seed} none of the {len(dataset)} rows is in '{side}': "
                "wanted rows on both sides; use more data, another share or another seed."
            )
    return DatasetDict({side: dataset.select(rows) for side, rows in sides.items()})


def message_texts(dataset: Dataset) -> Iterator[str]:
    """Every text of the columns prompt, chosen, rejected and completion, row by row: food for a tokenizer."""
    columns = [name for name in ("prompt", "chosen", "rejected", "completion") if name in dataset.column_names]
    for row in dataset.select_columns(columns):
        for column in columns:
            value = row[column]
            yield from [value] if isinstance(value, str) else (message["content"] for message in value)


def _first_user_turn(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return normalise(prompt)
    return next((normalise(message["content"]) for message in prompt if message["role"] == "user"), "")


def _uniform(text: str, seed: int) -> float:
    return int(_digest(json.dumps([seed, text], ensure_ascii=False)), 16) / 16**16


def _digest(text: str) -> str:
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]


def _prompt_ids(dataset: Dataset) -> list[str]:
    _require_prompt(dataset)
    if "prompt_id" in dataset.column_names:
        return list(dataset["prompt_id"])
    return [prompt_id(prompt) for prompt in dataset["prompt"]]


def _require_prompt(dataset: Dataset) -> None:
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"The dataset has the columns {', '.join(dataset.column_names) or '(none)'}: wanted a column 'prompt' of "
            "strings or messages; rename yours with dataset.rename_column."
        )
