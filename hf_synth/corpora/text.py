"""Canonical text: files on this machine, a dataset of the Hub, or a generated stand-in."""

import gzip
import hashlib
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa

from hf_synth.corpora.streams import Numbered, Stream, Streamed, check_text_column, of_kind
from hf_synth.errors import check_choices
from hf_synth.io import reading, write_text
from hf_synth.preferences.sources import read_rows
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import shuffled
from hf_synth.tokenization import render

logger = logging.getLogger(__name__)

STAND_IN = "stand_in"
CUTS = ("paragraph", "article", "line", "file")
Cut = Literal["paragraph", "article", "line", "file"]

_READERS = {".txt": "text", ".txt.gz": "text", ".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet"}
_KEPT_CHARACTERS = 500  # of a broken line: enough to recognise it
_HUB_ID = re.compile(r"[\w.-]*\w(/[\w.-]*\w)?")
_HEADING = re.compile(r"= [^=](.*[^=])? =")  # of the first level, as in WikiText: ` = Title = `


def canonical_text(
    source: str | Path | datasets.Dataset | datasets.IterableDataset,
    *,
    document: Cut = "paragraph",
    text_column: str = "text",
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    seed: int = 0,
    repeat: bool = False,
) -> Stream:
    """Read documents of canonical text in turn.

    source: a file, or a folder of files of one kind: .txt (UTF-8; `document` says what a document is), .jsonl, both
    also with .gz, or .parquet (`text_column` holds the text); or "stand_in", made-up words without end; or a dataset
    that is loaded already; else an id on the Hub, streamed, to which `config`, `split` and `revision` belong. Broken
    lines of .jsonl are left out, and a warning says where they are kept.

    document: a "paragraph" ends at a blank line, an "article" before a heading such as ` = Title = `, a "line" with
    itself, a "file" with the file. Blank ones of text files are left out.

    Files are read in an order that `seed` and the pass choose, a stream in its own order. At the end the stream ends,
    or with `repeat` begins again. Text files are held in memory. Raises ValueError where text cannot be had.
    """
    check_choices("document", [document], CUTS)
    if isinstance(source, (str, Path)):
        if source == STAND_IN:  # in place of a dataset of the Hub in a trial, whatever is said of that
            return Numbered(StandIn(seed))
        local = Path(source).exists()
        if local and (config, split, revision) != (None, "train", None):
            raise ValueError(f"canonical: {source} is not on the Hub; config, split and revision are for ids there")
        source = (
            _local(Path(source), document, text_column) if local else _from_hub(str(source), config, split, revision)
        )
    if isinstance(source, datasets.Dataset):
        return Numbered(Texts(source, text_column=text_column, seed=seed, repeat=repeat))
    return Streamed(source, text_column=text_column, repeat=repeat)


class Texts:
    """The texts of a dataset, each once in a pass, in an order that the seed and the pass choose."""

    def __init__(
        self, dataset: datasets.Dataset, *, text_column: str = "text", seed: int = 0, repeat: bool = False
    ) -> None:
        """`repeat`: without end, pass after pass."""
        check_text_column(dataset.features, text_column)
        self.dataset = dataset.select_columns([text_column]).with_format("arrow")
        self.seed = seed
        self.size = None if repeat and len(dataset) else len(dataset)

    def table(self, start: int, count: int) -> pa.Table:
        """Return documents start .. start + count - 1 as columns text and kind."""
        rows = shuffled(np.arange(start, start + count), len(self.dataset), f"{self.seed}\0canonical")
        return of_kind(self.dataset[rows][0].cast(pa.string()), "canonical")


class StandIn:
    """Sentences of made-up words, a few words far more frequent than the rest (Zipf): for tests and trials only."""

    size = None
    _sentences, _most_words = 8, 16

    def __init__(self, seed: int = 0) -> None:
        """`seed` chooses the documents; the words are always the same."""
        self.seed = seed
        syllables = [onset + vowel for onset in "bdfgklmnprstvz" for vowel in "aeiou"]
        lower = [*syllables, *map("".join, itertools.product(syllables, repeat=2))][:2_000]
        self._words = (*lower, *(word.capitalize() for word in lower), ".")
        self._share = np.cumsum(10**9 // np.arange(1, len(lower) + 1))

    def table(self, start: int, count: int) -> pa.Table:
        """Return documents start .. start + count - 1: 1 to 8 sentences of 4 to 16 words, all equally likely."""
        rng = RowRandom(seed=self.seed, split="train", purpose="stand-in", index=np.arange(start, start + count))
        shape = (count, self._sentences, self._most_words + 1)
        drawn = rng.integers(0, int(self._share[-1]), shape[1] * shape[2]).reshape(shape)
        numbers = np.searchsorted(self._share, drawn, side="right")
        numbers[:, :, 0] += self._share.size
        lengths = rng.integers(4, self._most_words + 1, self._sentences)[:, :, None]
        there = rng.integers(1, self._sentences + 1, 1)[:, :, None] > np.arange(self._sentences)[:, None]
        at = np.arange(self._most_words + 1)
        numbers[at == lengths] = 2 * self._share.size
        present = (at <= lengths) & there  # [documents, sentences, words]
        stop = present.reshape(count, -1).sum(axis=1)
        tokens = np.zeros((count, int(stop.max(initial=0))), np.int32)
        tokens[np.arange(tokens.shape[1]) < stop[:, None]] = numbers[present]
        return of_kind(render(tokens, np.zeros(count, np.int32), stop, self._words), "canonical")


def cut_text(lines: Iterable[str], document: Cut) -> Iterator[str]:
    """Yield the documents of a text file, from its lines; white space around each is removed."""
    held: list[str] = []
    blank = True
    for line in lines:
        stripped = line.strip()
        starts = {
            "paragraph": blank,
            "article": blank and _HEADING.fullmatch(stripped) is not None,
            "line": True,
            "file": False,
        }[document]
        if starts and held:
            yield "".join(held).strip()
            held = []
        blank = not stripped
        if held or not blank:
            held.append(line)
    if held:
        yield "".join(held).strip()


def local_files(source: Path) -> tuple[str, list[Path]]:
    """Return the files at a path, sorted, and how they are read: "text", "json" or "parquet"."""
    candidates = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    files = {path: reader for path in candidates for end, reader in _READERS.items() if path.name.endswith(end)}
    readers = sorted(set(files.values()))
    if len(readers) != 1:
        problem = f"files of several kinds ({', '.join(readers)})" if readers else "no such file"
        raise ValueError(f"canonical text: got {problem} in {source}, wanted files of one kind: {', '.join(_READERS)}")
    return readers[0], list(files)


def file_digests(source: Path) -> dict[str, str]:
    """Return a digest of each file at a path: an edit may leave a file's size and its time."""
    digests = {}
    for path in local_files(source)[1]:
        with reading(path), path.open("rb") as file:
            digests[str(path.resolve())] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return digests


def _local(source: Path, document: Cut, text_column: str) -> datasets.Dataset:
    reader, files = local_files(source)
    if reader == "text":
        texts: list[str] = []
        for path in files:
            opened = gzip.open if path.suffix == ".gz" else open
            with reading(path), opened(path, "rt", encoding="utf-8") as lines:
                texts += cut_text(lines, document)
        return datasets.Dataset(pa.table({"text": pa.array(texts, pa.large_string())}))
    try:
        with reading(source):
            return datasets.load_dataset(reader, data_files=[str(path) for path in files], split="train")
    except (datasets.exceptions.DatasetGenerationError, ValueError, StopIteration) as error:  # the last: empty files
        reason = (str(error.__cause__ or error) or "it is empty").splitlines()[0]
    if reader == "json":
        try:
            return usable_lines(files, text_column)
        except ValueError as error:
            reason = str(error)
    raise ValueError(f"canonical text: {source} cannot be read: {reason}")


def _from_hub(name: str, config: str | None, split: str, revision: str | None) -> datasets.IterableDataset:
    if not _HUB_ID.fullmatch(name):
        raise ValueError(
            f"canonical text: got {name!r}, which is no file or folder here; wanted one, {STAND_IN!r}, or an id on "
            "the Hub (user/name)"
        )
    chosen: dict[str, Any] = {"split": split, "revision": revision, "streaming": True}
    try:
        return datasets.load_dataset(name, config, **chosen)
    except (OSError, ValueError) as error:  # those of datasets and huggingface_hub are both
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"canonical text: got {name!r}, which is no file or folder here, and the Hub says: {reason}"
        ) from None


def usable_lines(files: Sequence[Path], text_column: str) -> datasets.Dataset:
    """Return the texts of all lines that have one, in order, as a dataset of the column `text_column`.

    What is wrong with the others, {file, line, reason, raw}, is kept in a file that a warning names, in the cache of
    `datasets`. Raises ValueError where no line can be used, or a file cannot be read.
    """
    texts: list[str] = []
    rejected: list[dict[str, str | int]] = []
    for path in files:
        with reading(path):
            for row in read_rows(path):
                text = (row.fields or {}).get(text_column)
                if isinstance(text, str):
                    texts.append(text)
                else:
                    reason, raw = row.reason or f"no text in {text_column!r}", str(row.raw)[:_KEPT_CHARACTERS]
                    rejected.append({"file": str(path), "line": row.line, "reason": reason, "raw": raw})
    tally = ", ".join(f"{reason}: {count}" for reason, count in Counter(row["reason"] for row in rejected).items())
    if not texts:
        raise ValueError(f"no line can be used ({tally})")
    if rejected:
        kept_lines = "".join(json.dumps(row) + "\n" for row in rejected)
        name = f"{hashlib.sha256(kept_lines.encode()).hexdigest()[:16]}.jsonl"
        kept = Path(datasets.config.HF_DATASETS_CACHE, "hf_synth_rejected_lines", name)
        write_text(kept, kept_lines)
        logger.warning(
            "%d of %d lines left out (%s), kept in %s", len(rejected), len(rejected) + len(texts), tally, kept
        )
    return datasets.Dataset(pa.table({text_column: pa.array(texts, pa.large_string())}))
