"""Views: the same rows as token ids, as text, or in the formats that TRL's trainers take."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import EOS, Rows, Task
from hf_synth.tokenization import all_words, render

IGNORED = -100
_BLOCK_TOKENS = 1 << 26

_ids = List(Value("int32"))
_text = Value("string")
VIEW_FEATURES = {
    "tokens": Features({"input_ids": _ids, "labels": _ids}),
    "text": Features({"text": _text}),
    "labelled": Features({"text": _text, "valid": Value("bool"), "violation": _text}),
    "prompt_completion": Features({"prompt": _text, "completion": _text}),
    "prompt": Features({"prompt": _text, "task": _text}),
    "preference": Features({"prompt": _text, "chosen": _text, "rejected": _text}),
    "distribution": Features({"input_ids": _ids, "labels": _ids, "distribution": List(List(Value("float32")))}),
}


FLOOR = {"floor": Features({"floor": Value("float32")})}  # no view of its own: stands behind another, as "+floor"


def view_table(task: Task, view: str, start: int, count: int, *, split: str, seed: int) -> pa.Table:
    """Make rows start .. start + count - 1 of a split in a view of VIEW_FEATURES, or several at once, "tokens+text".

    `holdout="content"` keeps whole strings apart, and so every pair of prompt and completion. Prompts that are
    beginnings of strings do recur in other splits, as do the invalid strings of `labelled`.
    """
    rows = task.rows(start, count, split=split, seed=seed)
    index = np.arange(start, start + count)

    def random(purpose: str) -> RowRandom:
        return RowRandom(seed=seed, split=split, purpose=purpose, index=index)

    columns: _Columns = {}
    for part in view.split("+"):
        columns |= _VIEWS[part](task, rows, random)
    columns |= {name: pa.array(rows.columns[name]) for name in task.columns}
    return pa.table(columns, schema=view_features(task, view).arrow_schema)


def block_rows(task: Task, split: str, most: int, view: str = "tokens") -> int:
    """Return how many rows to make at once: `most`, or fewer of long rows, so that they stay below 256 MB."""
    width = task.rows(0, 4, split=split).tokens.shape[1]
    numbers = 4 * len(all_words(task)) if view == "distribution" else 1  # for each token
    return max(1, min(most, _BLOCK_TOKENS // (width * numbers)))


def view_features(task: Task, view: str) -> Features:
    """Return the columns of a view of a task: those that the view has for all tasks, then the task's own."""
    features = {name: feature for part in view.split("+") for name, feature in (VIEW_FEATURES | FLOOR)[part].items()}
    return Features({**features, **{name: Value(dtype) for name, dtype in task.columns.items()}})


def with_prompts(rows: Rows, rng: RowRandom) -> Rows:
    """Return rows whose loss starts after a prompt: where only `<bos>` stood before it, after a random prefix.

    The prefix is proper and not empty, its length uniform. A row of fewer than two words cannot be cut.
    """
    whole = rows.loss_start == 1
    if not whole.any():
        return rows
    counts = rows.lengths - 1 - ended(rows)
    if counts[whole].min() < 2:
        raise ValueError('a row of fewer than two words has no proper prefix to be its prompt; view="text" needs none')
    prefix = 1 + np.floor(rng.random(1)[:, 0] * (counts - 1)).astype(np.int32)
    cut = rows.copy()
    cut.loss_start = np.where(whole, 1 + prefix, rows.loss_start).astype(np.int32)
    return cut


_Random = Callable[[str], RowRandom]
_Columns = dict[str, pa.Array]


def _tokens(task: Task, rows: Rows, random: _Random) -> _Columns:
    present = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int32)
    labels = np.where(rows.loss_mask, rows.tokens, np.int32(IGNORED))
    return {
        "input_ids": pa.ListArray.from_arrays(offsets, rows.tokens[present]),
        "labels": pa.ListArray.from_arrays(offsets, labels[present]),
    }


def _distribution(task: Task, rows: Rows, random: _Random) -> _Columns:
    """One list of probabilities, of all ids, for each token that carries loss: soft targets beside the labels."""
    ends = np.concatenate([[0], np.cumsum(rows.loss_stop - rows.loss_start)]).astype(np.int32)
    values = np.empty((ends[-1], len(all_words(task))), np.float32)
    for index, positions in rows.by_span():
        lines = ends[index, None] + np.arange(positions.size)
        values[lines] = task.optimal_distribution(rows.select(index), positions)
    each = pa.ListArray.from_arrays(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32), values.ravel())
    return {**_tokens(task, rows, random), "distribution": pa.ListArray.from_arrays(ends, each)}


def _text_view(task: Task, rows: Rows, random: _Random) -> _Columns:
    return {"text": render(rows.tokens, np.ones_like(rows.lengths), rows.lengths - ended(rows), all_words(task))}


def _labelled(task: Task, rows: Rows, random: _Random) -> _Columns:
    """Make every second row invalid, its kind drawn uniformly."""
    _refuse_unverifiable(task, "labelled")
    rng = random("violation")
    kinds = list(task.violations().items())
    kind = np.where(rng.index % 2 == 1, random("violation kind").integers(0, len(kinds), 1)[:, 0], -1)
    for number, (_, violation) in enumerate(kinds):
        chosen = np.flatnonzero(kind == number)
        wrong = violation.make(rows.select(chosen), rng.subset(chosen))
        rows.assign(chosen, task.sound(wrong, chosen.size, f"violation {kinds[number][0]}"))
    names = np.array([*(name for name, _ in kinds), ""], object)
    return {**_text_view(task, rows, random), "valid": pa.array(kind < 0), "violation": pa.array(names[kind])}


def _prompt_completion(task: Task, rows: Rows, random: _Random) -> _Columns:
    cut = with_prompts(rows, random("prompt"))
    return {"prompt": prompts(task, cut), "completion": completions(task, cut, " ")}


def _prompt(task: Task, rows: Rows, random: _Random) -> _Columns:
    cut = with_prompts(rows, random("prompt"))
    return {"prompt": prompts(task, cut), "task": pa.array([task.to_json()] * len(rows))}


def _preference(task: Task, rows: Rows, random: _Random) -> _Columns:
    _refuse_unverifiable(task, "preference")
    cut = with_prompts(rows, random("prompt"))
    wrong = task.sound(task.corrupt(cut, random("corrupt")), len(rows), "corrupt")
    return {
        "prompt": prompts(task, cut),
        "chosen": completions(task, cut, " "),
        "rejected": completions(task, wrong, " "),
    }


def floors(task: Task, rows: Rows) -> np.ndarray:
    """Return what the best predictor loses on each row's tokens that carry loss, float64 [rows], in nats."""
    return np.where(rows.loss_mask, -task.optimal_log_probs(rows), 0.0).sum(axis=1) + 0.0


def _refuse_unverifiable(task: Task, view: str) -> None:
    if not task.verifiable:
        raise ValueError(f'task {task.name}: got view "{view}", but no text of this task is wrong')


def prompts(task: Task, rows: Rows) -> pa.Array:
    """Return what stands before the loss of each row, without `<bos>`, as strings."""
    return render(rows.tokens, np.ones_like(rows.loss_start), rows.loss_start, all_words(task))


def completions(task: Task, rows: Rows, lead: str = "") -> pa.Array:
    """Return the rest of each row, without `<eos>`; views lead by a space, since trainers glue it to the prompt."""
    return render(rows.tokens, rows.loss_start, rows.lengths - ended(rows), all_words(task), lead)


def ended(rows: Rows) -> np.ndarray:
    """Tell whether each row ends with `<eos>`, bool [rows]."""
    return rows.tokens[np.arange(len(rows)), rows.lengths - 1] == EOS


_VIEWS: dict[str, Callable[[Task, Rows, _Random], _Columns]] = {
    "tokens": _tokens,
    "text": _text_view,
    "labelled": _labelled,
    "prompt_completion": _prompt_completion,
    "prompt": _prompt,
    "preference": _preference,
    "distribution": _distribution,
    "floor": lambda task, rows, random: {"floor": pa.array(floors(task, rows).astype(np.float32))},
}
