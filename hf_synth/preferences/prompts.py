"""Prompts: normalise them, give them ids, deduplicate and split them, find near duplicates."""

import functools
import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

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

    Args:
        prompt: a string, or a list of {"role", "content"}.
    """
    if not isinstance(prompt, str) and [message["role"] for message in prompt] == ["user"]:
        prompt = prompt[0]["content"]
    if isinstance(prompt, str):
        return _digest(normalise(prompt))
    turns = (f"[{_quoted(message['role'])}, {_quoted(normalise(message['content']))}]" for message in prompt)
    return _digest(f"[{', '.join(turns)}]")


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
        turns = [prompt] if isinstance(prompt, str) else (turn["content"] for turn in prompt if turn["role"] == "user")
        first = " ".join(normalise(next(iter(turns), "")).split())  # what differs in spaces alone stays on one side
        digest = _digest(json.dumps([seed, first], ensure_ascii=False))
        sides["test" if int(digest, 16) / 16**16 < test_share else "train"].append(row)
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


def _digest(text: str) -> str:
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]


def _require_prompt(dataset: Dataset) -> None:
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"The dataset has the columns {', '.join(dataset.column_names) or '(none)'}: wanted a column 'prompt' of "
            "strings or messages; rename yours with dataset.rename_column."
        )


# --- Near duplicates ---------------------------------------------------------------------------------------------

SIMILARITY = 0.8  # what it drops from real data is in docs/preferences.md
_RUN = 3  # tokens: a shared word says little, a shared run of three says that text was copied
_SHORT = 3  # tokens: what is shorter (`Please.`, `user:`) belongs to the part before it

# Where a part ends, what says nothing inside it, and its tokens: of ASCII, and of all others. Tokens are those of
# Unicode's word segmentation: words with their vowel signs, characters of scripts without spaces, single symbols.
_ASCII = (
    re.compile(r"[.?!:;]+['\")\]]*(?:\s|\Z)"),
    re.compile(r"['\",]+(?=\s|\Z)|(?:(?<=\s)|\A)['\"]+"),
    re.compile(r"\w+(?:(?:(?<=[^\W\d_])['.:](?=[^\W\d_])|(?<=\d)['.,;](?=\d))\w+)*|[^\w\s]"),
)
_BREAKS = regex.compile(r"\b", regex.WORD | regex.V1)
_OTHERS = (
    regex.compile(r"[.?!:;]+['\")\]\p{QMark}]*(?:\s|\Z)|[[\p{STerm}\uff1a\uff1b\u2026]--[\x00-\x7f]]+", regex.V1),
    regex.compile(
        r"[',\p{QMark}]+(?=\s|\Z)|(?:(?<=\s)|\A)['\p{QMark}]+|[[\p{Term}\p{QMark}\u00bf\u00a1]--[\x00-\x7f]]", regex.V1
    ),
    _BREAKS,
)
_EXACT = regex.compile(r"\p{N}|\A[\p{S}\p{P}]")
_FACTORIAL = re.compile(r"(?<=[\d)\]])!")


@dataclass(frozen=True)
class _Parts:
    """A text in parts: sentences, lines and turns, as runs of three tokens.

    runs: of each part. others: for each part, a hash of all other parts, and of what has to be the same. short: parts
    of one or two tokens, which were added to the ones before.
    """

    runs: tuple[frozenset[str], ...]
    others: tuple[int, ...]
    short: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def _parts(text: str) -> _Parts:
    lowered = text.lower()
    if "!" in lowered:
        lowered = _FACTORIAL.sub("\u2757", lowered)
    ends, silent, words = _ASCII if lowered.isascii() else _OTHERS
    if words is _BREAKS:
        lowered = unicodedata.normalize("NFC", lowered).replace("\u2019", "'")
    parts: list[list[str]] = []
    exact: list[str] = []  # numbers, symbols and indentation: a text that differs there asks for something else
    short: list[str] = []
    for number, line in enumerate(lowered.split("\n")):
        if number and line[:1] in ("\t", " ") and line.strip():
            exact.append(line[: len(line) - len(line.lstrip())])
        for piece in ends.split(line):
            said = silent.sub(" ", piece)
            tokens = [token for token in (words.split if words is _BREAKS else words.findall)(said) if token.strip()]
            exact += [token for token in tokens if not token.isalpha() and _EXACT.search(token)]
            if parts and 0 < len(tokens) < _SHORT:
                parts[-1] += tokens
                short.append(" ".join(tokens))
            elif tokens:
                parts.append(tokens)
    runs = [frozenset(" ".join(run) for run in zip(part, part[1:], part[2:], strict=False)) for part in parts]
    runs = [run or frozenset([" ".join(part)]) for run, part in zip(runs, parts, strict=True)] or [
        frozenset([text.strip()])
    ]
    hashes = list(map(hash, runs))
    total, same = sum(hashes), hash(tuple(exact))
    return _Parts(tuple(runs), tuple(hash((total - own, same)) for own in hashes), tuple(short))


class NearDuplicates:
    """An index of texts, added batch by batch, that finds the first kept text that each nearly repeats.

    Texts are compared in parts: sentences, lines, turns. Two are near duplicates where all parts but one are the same,
    and in the part that differs the similarity is high enough: of all runs of three tokens of both, the share that
    both have (Jaccard's). Numbers, symbols and indentation must be the same; case, and marks that only end a
    sentence, do not count. So a long shared context makes no two questions alike.

    The search is exact: of two sets of such a similarity, the first few runs in any fixed order have one in common
    (Chaudhuri et al., 2006, A primitive operator for similarity joins in data cleaning); long runs come first, as they
    are rare. Memory: about three kilobytes for each text that repeats none.

    Attributes:
        similarities: the similarity of each text that repeats another, by its number.
    """

    def __init__(self, similarity: float = SIMILARITY) -> None:
        """`similarity`: from which two texts are near duplicates, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity is {similarity}: wanted a number above 0 and at most 1, such as 0.8.")
        self.similarities: dict[int, float] = {}
        self._similarity = similarity
        self._texts: dict[int, str] = {}  # those that were kept
        self._rows_with: dict[int, list[int]] = {}  # hash of a run and of the other parts -> kept texts
        self._rows = 0

    def add(self, texts: Sequence[str]) -> list[int]:
        """Return for each text its number, counted over all calls, or that of the first kept text that it repeats."""
        return [self._add(text) for text in texts]

    def _add(self, text: str) -> int:
        row, parts, keys, first = self._rows, _parts(text), [], None
        self._rows += 1
        for runs, others in zip(parts.runs, parts.others, strict=True):
            ordered = sorted(sorted(runs), key=len, reverse=True)
            prefix = ordered[: len(ordered) - math.ceil(self._similarity * len(ordered) - 1e-9) + 1]
            found = [hash((run, others)) for run in prefix]
            keys += found
            for other in sorted({kept for key in found for kept in self._rows_with.get(key, ())}):
                if first is not None and other >= first:
                    break
                similarity = _similarity(parts, runs, others, _parts(self._texts[other]))
                if similarity >= self._similarity:
                    first, self.similarities[row] = other, similarity
        if first is not None:
            return first
        self._texts[row] = text
        for key in keys:
            self._rows_with.setdefault(key, []).append(row)
        return row


def _similarity(parts: _Parts, runs: frozenset[str], others: int, twin: _Parts) -> float:
    """Return the similarity of a part with the twin's in the same place; 0 where short parts say other things."""
    fewer, more = sorted((parts.short, twin.short), key=len)
    left = iter(more)
    if not all(short in left for short in fewer):  # `Please.` may be added; `Why?` is not `How?`
        return 0.0
    of_twin = [other for other, place in zip(twin.runs, twin.others, strict=True) if place == others]
    return max((len(runs & other) / len(runs | other) for other in of_twin), default=0.0)


def near_duplicates(texts: Iterable[str], *, similarity: float = SIMILARITY) -> np.ndarray:
    """Return for each of N texts the row of the first kept text that it nearly repeats, or its own row: [N] int64.

    A text is kept when it repeats none that was kept before it; see `NearDuplicates` for what similarity is.

    Raises:
        ValueError: a similarity that is not above 0 and at most 1.
    """
    index = NearDuplicates(similarity)
    return np.array([row for text in texts for row in index.add([text])], dtype=np.int64)
