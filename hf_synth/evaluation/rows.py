"""Rows of a task as a model foretells and completes them."""

import dataclasses

import numpy as np

from hf_synth.evaluation.generation import completions, shared, texts
from hf_synth.evaluation.model import Measured
from hf_synth.evaluation.scoring import RowScores, score_rows
from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.metrics.fact_types import fact_types
from hf_synth.metrics.intervals import share_interval, wilson_interval
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import EOS, Rows, Task
from hf_synth.tokenization import all_words, render
from hf_synth.views import with_prompts


def share_of(name: str, hits: np.ndarray) -> dict[str, float]:
    """The share of hits [rows], and Wilson's 95 % interval over rows: `NAME`, `NAME_rows_low`, `NAME_rows_high`."""
    found = wilson_interval(int(hits.sum()), hits.size)
    return {name: found.mean, f"{name}_rows_low": found.low, f"{name}_rows_high": found.high}


def foretold(measured: Measured, task: Task, rows: Rows, ids: np.ndarray) -> dict[str, float]:
    """`loss`, `floor`, `excess` (nats per token), `accuracy` of tokens, `row_accuracy`; the table of types of facts.

    ids: the tokenizer's ids of the task's words. The model is given each row up to the token that it foretells.
    """
    scores = scored(measured, dataclasses.replace(rows, tokens=ids[rows.tokens]))
    against = excess_loss(scores.log_probs, task.optimal_log_probs(rows), scores.mask)
    found = {name.replace("/", "_"): value for name, value in against.items() if name != "excess/rows_standard_error"}
    found |= {"accuracy": scores.token_accuracy, **share_of("row_accuracy", scores.row_hits)}
    found |= _token_bounds(scores.token_accuracy, len(rows))
    found |= {"rows": float(len(rows)), "tokens": float(scores.mask.sum())}
    if (kinds := rows.columns.get("fact_type")) is not None:
        found |= fact_types(scores.log_probs.sum(axis=1), scores.row_hits, kinds)
    return found


def _token_bounds(share: float, rows: int) -> dict[str, float]:
    """Wilson's interval of a share of tokens with one trial a row: tokens of a row are no independent trials."""
    _, low, high = share_interval(share, rows)
    return {"accuracy_rows_low": low, "accuracy_rows_high": high}


def scored(measured: Measured, rows: Rows) -> RowScores:
    """`score_rows`, its batches shared by the processes."""
    starts = range(0, len(rows), measured.batch_size)

    def score(number: int) -> RowScores:
        index = np.arange(starts[number], min(starts[number] + measured.batch_size, len(rows)))
        return score_rows(measured.model, rows.select(index), batch_size=measured.batch_size)

    parts = shared(score, len(starts))
    names = [field.name for field in dataclasses.fields(RowScores)]
    return RowScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def prompted(rows: Rows, split: str, seed: int) -> Rows:
    """The rows with a prompt each: where loss begins with the row, a random beginning of it, as views have it."""
    return with_prompts(rows, RowRandom(seed=seed, split=split, purpose="prompt", index=np.arange(len(rows))))


def completed(measured: Measured, task: Task, rows: Rows, ids: np.ndarray) -> dict[str, float]:
    """Greedy completions of rows with prompts: `verified`, the share that the task's verifier finds right.

    `finished`: the share that came to an end, where rows have one; others are wrong, and cut off once they are longer
    than any right answer. `exact_match`: the share that is the row's own completion, where prompts leave no other.
    """
    every = np.arange(len(rows))
    ended = bool((rows.tokens[every, rows.lengths - 1] == EOS).all())
    end = int(ids[EOS]) if ended else None
    sizes = rows.loss_stop - rows.loss_start
    determined = not (task.optimal_log_probs(rows) * rows.loss_mask).any()
    budgets = sizes if determined or not ended else 2 * int(rows.lengths.max()) - rows.loss_start
    prompts = [ids[row[:start]].tolist() for row, start in zip(rows.tokens, rows.loss_start, strict=True)]
    written = texts(measured, completions(measured, prompts, budgets.tolist(), end=end), end)
    words = all_words(task)
    given = render(rows.tokens, np.ones_like(rows.loss_start), rows.loss_start, words).to_pylist()
    wanted = render(rows.tokens, rows.loss_start, rows.loss_stop - ended, words).to_pylist()
    pairs = zip(given, written, strict=True)
    right = np.array([text is not None and task.verify(prompt, text) == 1.0 for prompt, text in pairs])
    found = {**share_of("verified", right), "completions": float(len(rows))}
    if ended:
        found |= {"finished": float(np.mean([text is not None for text in written]))}
    if determined:
        found |= {"exact_match": float(np.mean([text == own for text, own in zip(written, wanted, strict=True)]))}
    return found
