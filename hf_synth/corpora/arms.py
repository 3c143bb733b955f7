"""An arm of an experiment: a language's examples with explanations of its rule among them, in any share."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa

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
from hf_synth.rng import RowRandom
from hf_synth.tasks import Task
from hf_synth.views import view_table

Form = Literal["source", "statements", "block"]
FORMS: tuple[Form, ...] = ("source", "statements", "block")


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
        self.task, self.seed, self.split = task, seed, split
        self.explanations = explanations_of(task, explanation_form)
        self.share = share_of("explanation_ratio", explanation_ratio)
        if self.share and not self.explanations:
            raise ValueError(
                f"explanation_ratio: got {explanation_ratio}, but task {task.name} has no explanations; wanted 0"
            )

    def table(self, start: int, count: int) -> pa.Table:
        """Documents start .. start + count - 1 as columns text and kind: "example" or "explanation"."""
        before, flags = self._explanations(start, count)
        inserted = int(flags.sum())
        examples = _examples(self.task, start - before, count - inserted, self.split, self.seed)
        statements = pa.array(self.explanations, pa.string())
        places = np.cumsum(~flags) - 1
        places[flags] = len(examples) + self._drawn(before, inserted)
        texts = pa.concat_arrays([examples, statements]).take(pa.array(places))
        kinds = pa.array(["example", "explanation"]).take(pa.array(flags.astype(np.int8)))
        return pa.table({"text": texts, "kind": kinds}, schema=FEATURES.arrow_schema)

    def _explanations(self, start: int, count: int) -> tuple[int, np.ndarray]:
        """How many explanations stand before document `start`, and which of the `count` from there on are some."""
        part, whole = self.share.numerator, self.share.denominator
        rounds, inside = divmod(start, whole)
        after = (2 * (inside + np.arange(count + 1, dtype=np.int64)) * part + whole) // (2 * whole)
        return rounds * part + int(after[0]), np.diff(after) > 0

    def _drawn(self, start: int, count: int) -> np.ndarray:
        """Which statement explanations start .. start + count - 1 are."""
        statements = len(self.explanations)
        if statements < 2:
            return np.zeros(count, np.int64)
        passes, places = np.divmod(np.arange(start, start + count), statements)
        first = start // statements
        index = np.arange(first, first + (int(passes[-1]) - first + 1 if count else 0))
        rng = RowRandom(seed=self.seed, split=self.split, purpose="explanation", index=index)
        return np.argsort(rng.random(statements), axis=1, kind="stable")[passes - first, places]


def explanations_of(task: Task, form: Form) -> tuple[str, ...]:
    """The documents that explain a task's rule: "statements" one by one, one "block", or the form of its "source"."""
    if form not in FORMS:
        raise ValueError(f"explanation_form: got {form!r}, wanted one of {', '.join(FORMS)}")
    if form == "source":
        return task.explanations()
    statements = task.statements()
    return statements if form == "statements" or not statements else (" ".join(statements),)


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
    """The documents of an arm without end; the ratio is a share of the documents, or of the tokens.

    Of tokens: a document's place depends on the lengths of all before it, so that there is no jumping to one.
    """
    if explanation_unit not in UNITS:
        raise ValueError(f"explanation_unit: got {explanation_unit!r}, wanted one of {', '.join(UNITS)}")
    chosen: dict[str, Any] = {"explanation_form": explanation_form, "seed": seed, "split": split}
    arm = Arm(task, explanation_ratio, **chosen)
    if explanation_unit == "documents" or arm.share in (0, 1):
        return Numbered(arm)
    examples, explanations = (Numbered(Arm(task, ratio, **chosen)) for ratio in (0, 1))
    return interleave(examples, explanations, ratio=explanation_ratio, unit="tokens", count_tokens=count_tokens)


def _examples(task: Task, start: int, count: int, split: str, seed: int) -> pa.Array:
    """Rows of the task as text, between the delimiters that its documents have."""
    texts = view_table(task, "text", start, count, split=split, seed=seed)["text"].combine_chunks()
    if type(task).document is Task.document:
        return texts
    return pa.array(map(task.document, texts.to_pylist()), pa.string())
