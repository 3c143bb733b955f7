"""Arms: a language's examples with explanations of its rule among them, in any ratio, as streams and datasets."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from hf_synth.builder import TaskDataset, configured, dataset_spec, prepared, task_of
from hf_synth.corpora.interleaving import interleave
from hf_synth.corpora.streams import (
    FEATURES,
    UNITS,
    Numbered,
    Ratio,
    Stream,
    TokenCounter,
    Unit,
    count_words,
    share_of,
)
from hf_synth.errors import check_choices
from hf_synth.rng import RowRandom
from hf_synth.tasks import Task
from hf_synth.views import view_table

Form = Literal["source", "statements", "block"]
FORMS: tuple[Form, ...] = ("source", "statements", "block")
CORPUS_FORMAT = 1  # raise it whenever the documents of an arm change: it is part of every cache key
RATIOS: Mapping[str, float] = {
    "examples": 0.0,
    "explanations-1": 0.01,
    "explanations-5": 0.05,
    "explanations-10": 0.1,
    "explanations-100": 1.0,
}
_BLOCK_ROWS = 10_000


class Arm:
    """Documents of a task, `explanation_ratio` of them explanations, evenly spread: after any number n of documents
    there are n * explanation_ratio explanations, rounded to the nearest whole number.

    Example k is row k of the task, in every arm alike. An explanation is one statement of the rule or one block of
    all, as `explanation_form` says; "source": as the experiment had it that the task is from (`task.explanations()`).
    Statements come all once, in random order, before any comes again.

    >>> from hf_synth import get_task
    >>> Arm(get_task("tivari"), 0.5, seed=1).table(0, 1).to_pylist()[0]["kind"]
    'explanation'
    """

    size = None

    def __init__(
        self,
        task: Task,
        explanation_ratio: Ratio = 0.0,
        *,
        explanation_form: Form = "source",
        seed: int = 0,
        split: str = "train",
    ) -> None:
        """`seed` and `split` as in `task.rows`."""
        check_choices("explanation_form", [explanation_form], FORMS)
        self.task, self.seed, self.split = task, seed, split
        self.explanations = task.explanations() if explanation_form == "source" else task.statements()
        if explanation_form == "block" and self.explanations:
            self.explanations = (" ".join(self.explanations),)
        self.share = share_of("explanation_ratio", explanation_ratio)
        if self.share and not self.explanations:
            raise ValueError(
                f"explanation_ratio: got {explanation_ratio}, but task {task.name} has no explanations; wanted 0"
            )

    def table(self, start: int, count: int) -> pa.Table:
        """Return documents start .. start + count - 1 as columns text and kind: "example" or "explanation"."""
        # How many explanations precede each document, and so which of them are some.
        part, whole = self.share.numerator, self.share.denominator
        rounds, inside = divmod(start, whole)
        counts = (2 * (inside + np.arange(count + 1, dtype=np.int64)) * part + whole) // (2 * whole)
        before, flags = rounds * part + int(counts[0]), np.diff(counts) > 0
        inserted = int(flags.sum())
        where: dict[str, Any] = {"split": self.split, "seed": self.seed}
        examples = view_table(self.task, "text", start - before, count - inserted, **where)["text"].combine_chunks()
        if type(self.task).document is not Task.document:
            examples = pa.array(map(self.task.document, examples.to_pylist()), pa.string())
        statements = pa.array(self.explanations, pa.string())
        rows = np.cumsum(~flags) - 1
        rows[flags] = len(examples) + self._drawn(before, inserted)
        texts = pa.concat_arrays([examples, statements]).take(pa.array(rows))
        kinds = pa.array(["example", "explanation"]).take(pa.array(flags.astype(np.int8)))
        return pa.table({"text": texts, "kind": kinds}, schema=FEATURES.arrow_schema)

    def _drawn(self, start: int, count: int) -> np.ndarray:
        """Return which statements explanations start .. start + count - 1 are."""
        statements = max(1, len(self.explanations))
        passes, positions = np.divmod(np.arange(start, start + count), statements)
        first = start // statements
        index = np.arange(first, first + (int(passes[-1]) - first + 1 if count else 0))
        rng = RowRandom(seed=self.seed, split=self.split, purpose="explanation", index=index)
        return np.argsort(rng.random(statements), axis=1, kind="stable")[passes - first, positions]


def arm_stream(
    task: Task,
    explanation_ratio: Ratio = 0.0,
    *,
    explanation_form: Form = "source",
    explanation_unit: Unit = "documents",
    seed: int = 0,
    split: str = "train",
    count_tokens: TokenCounter = count_words,
) -> Stream:
    """Return the endless documents of an arm; the ratio is a fraction of the documents, or of the tokens.

    Of tokens: a document's position depends on the lengths of all before it, so that there is no jumping to one.
    """
    check_choices("explanation_unit", [explanation_unit], UNITS)
    chosen: dict[str, Any] = {"explanation_form": explanation_form, "seed": seed, "split": split}
    arm = Arm(task, explanation_ratio, **chosen)
    if explanation_unit == "documents" or arm.share in (0, 1):
        return Numbered(arm)
    examples, explanations = (Numbered(Arm(task, ratio, **chosen)) for ratio in (0, 1))
    return interleave(examples, explanations, ratio=explanation_ratio, unit="tokens", count_tokens=count_tokens)


class CorpusDataset(TaskDataset):
    """The first documents of one arm. Built by `load_corpus`."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        spec = json.loads(self.config.spec)
        chosen = {name: spec[name] for name in ("explanation_form", "explanation_unit", "seed", "split")}
        stream, at = arm_stream(task_of(spec), spec["explanation_ratio"], **chosen), 0
        for shard, (first, stop) in enumerate(shards):
            stream.forward(first - at)
            at = stop
            for block, start in enumerate(range(first, stop, _BLOCK_ROWS)):
                yield Key(shard, block), stream.read(min(_BLOCK_ROWS, stop - start))


def load_corpus(
    name: str,
    preset: str | None = None,
    *,
    size: int,
    explanation_ratio: Ratio = 0.0,
    explanation_form: Form = "source",
    explanation_unit: Unit = "documents",
    split: str = "train",
    seed: int = 0,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """Return the first `size` documents of an arm, columns text and kind: "example" or "explanation"; see `Arm`.

    name, preset: as for `get_task`; config: fields of the task's config, over the preset.
    explanation_ratio: the fraction of explanations, a number from 0 to 1 or text such as "1/3".
    explanation_form: single "statements", one "block" of all, or as the "source" of the task had it.
    explanation_unit: what the ratio is a fraction of, "documents" or "tokens" (words separated by white space).
    split: "train", "validation" or "test"; examples are the rows of that split. seed: of rows and explanations.
    streaming, num_proc, cache_dir: as for `hf_synth.load_dataset`; `size` documents, the same map-style and streamed.

    Raises ValueError for an illegal argument.

    >>> load_corpus("tivari", size=4, explanation_ratio=0.5, streaming=True).take(1).to_list()[0]["kind"]
    'explanation'
    """
    task = configured("load_corpus", load_corpus, name, preset, config)
    form = {"explanation_form": explanation_form, "explanation_unit": explanation_unit}
    spec = corpus_spec(name, task, explanation_ratio, size=size, split=split, seed=seed, **form)
    return prepared(
        CorpusDataset.of(spec, task.name, "corpus", cache_dir), split, streaming=streaming, num_proc=num_proc
    )


def corpus_spec(
    name: str, task: Task, explanation_ratio: Ratio, *, size: int, split: str, seed: int, **form: Any
) -> dict[str, Any]:
    """Return all that the documents of an arm depend on; form: `explanation_form` and `explanation_unit`.

    Raises ValueError for an illegal argument.
    """
    form = {"explanation_form": "source", "explanation_unit": "documents", **form}
    arm_stream(task, explanation_ratio, seed=seed, split=split, **form)
    rows = dataset_spec(name, task, split=split, size=size, seed=seed, view="text")
    arm = Arm(task, explanation_ratio, explanation_form=form["explanation_form"])
    if arm.share:  # which may be worded anew in another version
        rows["explanations"] = hashlib.sha256(json.dumps(arm.explanations).encode()).hexdigest()
    return {**rows, "view": "corpus", "format": CORPUS_FORMAT, "explanation_ratio": str(arm.share), **form}
