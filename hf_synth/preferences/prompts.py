"""Prompts: normalise them, give them ids, deduplicate and split them, find near duplicates by MinHash."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

Prompt = str | Sequence[Mapping[str, Any]]

_WORD = re.compile(r"\w+")
_RUN = 3  # words: a shared word says little, a shared run of three says that text was copied
_HASHES = 128
_BANDS = 16  # of eight hashes each: 95 in 100 pairs of texts of similarity 0.8 meet in one, and 999 in 1,000 of 0.9
_SEED = 0
_BATCH = 1024


def normalise(text: str) -> str:
    """Return text in Unicode NFC, each run of whitespace one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prompt_id(prompt: Prompt) -> str:
    """Return the first 16 hex digits of the MD5 of the normalised prompt: the same on all machines.

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
    """Return one row per distinct prompt, in order of first appearance.

    Args:
        dataset: has a column `prompt` (string or messages); a column `prompt_id` is used where it is there.

    Returns:
        columns `prompt` (as first seen), `prompt_id`, `count` (rows that have this prompt), and `src` where the
        dataset has one (as first seen).

    Raises:
        ValueError: no column `prompt`.
    """
    _require_prompt(dataset)
    known = "prompt_id" in dataset.column_names
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for row, identity in enumerate(dataset["prompt_id"] if known else map(prompt_id, dataset["prompt"])):
        first.setdefault(identity, row)
        counts[identity] += 1
    kept = [name for name in ("prompt", "src") if name in dataset.column_names]
    rows = dataset.select_columns(kept).select(list(first.values())).flatten_indices(keep_in_memory=True)
    features = Features({"prompt_id": Value("string"), "count": Value("int64")})
    columns = {"prompt_id": list(first), "count": [counts[key] for key in first]}
    return concatenate_datasets([rows, Dataset.from_dict(columns, features=features)], axis=1)


def split_by_prompt(dataset: Dataset, *, test_share: float = 0.1, seed: int = 0) -> DatasetDict:
    """Split into train and test parts that share no prompt, and no first user turn.

    Conversations that begin with the same user turn are often one conversation, cut at several points: their rows
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
    """Yield every text of the columns prompt, chosen, rejected and completion, row by row, to train a tokenizer on."""
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


def _require_prompt(dataset: Dataset) -> None:
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"The dataset has the columns {', '.join(dataset.column_names) or '(none)'}: wanted a column 'prompt' of "
            "strings or messages; rename yours with dataset.rename_column."
        )


class NearDuplicates:
    """An index of texts, added batch by batch, that finds the first kept text that each nearly repeats.

    Similarity is Jaccard's: of all runs of three words of two texts, the share that both have. Words are compared
    without case and punctuation; a text of fewer than three words is one run. It is estimated from 128 hashes, with a
    standard error of at most 0.044 (0.035 at 0.8), so texts near the threshold may fall on either side of it, on all
    machines on the same one. Memory: about three kilobytes for each text that repeats none.

    Source: Broder (1997), On the resemblance and containment of documents.
    """

    def __init__(self, similarity: float = 0.8) -> None:
        """`similarity`: from which two texts are near duplicates, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity is {similarity}: wanted a number above 0 and at most 1, such as 0.8.")
        from rensa import RMinHash, RMinHashDeduplicator

        self._sketches = RMinHash.from_token_sets
        self._kept = RMinHashDeduplicator(similarity, _HASHES, use_lsh=True, num_bands=_BANDS, seed=_SEED)
        self._rows = 0

    def add(self, texts: Sequence[str]) -> list[int]:
        """Return for each text its number, counted over all calls, or that of the first kept text that it repeats."""
        firsts = []
        for sketch in self._sketches([word_runs(text) for text in texts], num_perm=_HASHES, seed=_SEED):
            if self._kept.add(str(self._rows), sketch):
                firsts.append(self._rows)
            else:
                firsts.append(min(map(int, self._kept.get_duplicates(sketch))))
            self._rows += 1
        return firsts


def near_duplicates(texts: Iterable[str], *, similarity: float = 0.8) -> np.ndarray:
    """Return for each of N texts the row of the first kept text that it nearly repeats, or its own row: [N] int64.

    A text is kept when it repeats none that was kept before it; see `NearDuplicates` for what similarity is.

    Raises:
        ValueError: a similarity that is not above 0 and at most 1.
    """
    index = NearDuplicates(similarity)
    firsts: list[int] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            firsts += index.add(batch)
            batch.clear()
    return np.array(firsts + index.add(batch), dtype=np.int64)


def word_runs(text: str) -> list[str]:
    """Return the runs of three words of a text, in lower case and without punctuation; of a shorter text all of it."""
    tokens = _WORD.findall(text.lower())
    if len(tokens) < _RUN:
        return [" ".join(tokens) or text.strip()]
    return [" ".join(run) for run in zip(tokens, tokens[1:], tokens[2:], strict=False)]
