"""Log-probabilities of labels under a model, given the input before each; and metrics of them."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.model import Measured, map_over_processes
from hf_synth.metrics.excess_loss import excess_loss, token_kl
from hf_synth.metrics.fact_types import fact_types
from hf_synth.metrics.intervals import mean_per_token, share_interval, wilson_interval
from hf_synth.sampling.language_models import evaluating, progress, right_padded
from hf_synth.tasks.base import NoDistributionError, Rows, Task
from hf_synth.views import IGNORED

_MOST_TOKENS = 16_384  # of a batch, padding included
_MOST_PROBABILITIES = 2**22  # of the best predictor at once: 32 megabytes
_MOST_LOGITS = 2**27  # of a batch, tokens times vocabulary: half a gigabyte in float32


@dataclasses.dataclass(frozen=True)
class RowScores:
    """The scores of each token of some rows; 0 and False where no loss is.

    log_probs: float64 [rows, width], ln P(token | all before it). hits: bool [rows, width], whether the token was the
    most likely one. mask: bool [rows, width], the tokens that carry loss.
    optimal, kl: where a task is known, ln P(token | all before it) of its best predictor and KL(best predictor ||
    model), float64 [rows, width] in nats.
    """

    log_probs: np.ndarray
    hits: np.ndarray
    mask: np.ndarray
    optimal: np.ndarray | None = None
    kl: np.ndarray | None = None

    @property
    def loss(self) -> float:
        """Return mean loss in nats per token that carries loss."""
        return float(-self.log_probs.sum() / self.mask.sum())

    @property
    def token_accuracy(self) -> float:
        """Return the fraction of tokens that were the most likely ones."""
        return float(self.hits.sum() / self.mask.sum())

    @property
    def row_hits(self) -> np.ndarray:
        """Tell whether all tokens of a row were hit, bool [rows]."""
        return (self.hits | ~self.mask).all(axis=1)


def label_scores(logits: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each label its ln P and whether it was the most likely token: two float32 [rows, width].

    Both are 0 where the label is IGNORED, and at position 0, before which nothing is read. Only positions with a label
    go through the softmax; it is taken in float32.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    targets = labels[:, 1:]
    carries = targets != IGNORED
    chosen, wanted = logits[:, :-1][carries].float(), targets[carries]
    log_probs, hits = (torch.zeros(labels.shape, device=labels.device) for _ in range(2))
    log_probs[:, 1:][carries] = chosen.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    hits[:, 1:][carries] = (chosen.argmax(-1) == wanted).float()
    return log_probs, hits


def target_mask(labels: np.ndarray) -> np.ndarray:
    """Return where `label_scores` scores a token, bool like `labels`."""
    mask = labels != IGNORED
    mask[:, 0] = False
    return mask


def rows_at_once(model: PreTrainedModel, width: int, most: int) -> int:
    """Return how many rows of a width, at most `most`, a forward takes whose logits fit into memory."""
    return max(1, min(most, _MOST_LOGITS // (width * model.config.get_text_config().vocab_size)))


def score_rows(
    model: PreTrainedModel,
    rows: Rows,
    *,
    batch_size: int = 256,
    task: Task | None = None,
    ids: np.ndarray | None = None,
) -> RowScores:
    """Score rows of a task on the model's device; the model is left in the mode that it was in.

    task: the rows' own, to compare the model with its best predictor; `kl` stays None where it has no distribution.
    ids: the model's ids of the task's, int [ids]; None where they are the same.
    """
    mask = rows.loss_mask
    log_probs, hits = np.zeros(mask.shape), np.zeros(mask.shape, bool)
    best = None if task is None else np.zeros((2, *mask.shape))
    batch_size = rows_at_once(model, mask.shape[1], batch_size)
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            own_ids = rows.tokens[part] if ids is None else ids[rows.tokens[part]]
            tokens = torch.from_numpy(own_ids).long().to(model.device)
            real = torch.arange(tokens.shape[1]) < torch.from_numpy(rows.lengths[part])[:, None]
            logits = model(input_ids=tokens, attention_mask=real.long().to(model.device)).logits
            labels = tokens.masked_fill(~torch.from_numpy(mask[part]).to(model.device), IGNORED)
            log_probs[part], hits[part] = (values.double().cpu().numpy() for values in label_scores(logits, labels))
            if task is not None and best is not None:
                best[:, part] = _against_best(logits, rows.select(np.arange(len(rows))[part]), task, ids)
    if best is None:
        return RowScores(log_probs, hits, mask)
    return RowScores(log_probs, hits, mask, best[0], None if np.isnan(best[1]).any() else best[1])


def _against_best(logits: Tensor, rows: Rows, task: Task, ids: np.ndarray | None) -> np.ndarray:
    """Return the best predictor's ln P of each token that carries loss, and KL(best || model) there, [2, rows, width].

    KL is NaN where the task has no distribution of the next token.
    """
    out = np.zeros((2, *rows.tokens.shape))
    for index, positions in rows.by_span():
        some = max(1, _MOST_PROBABILITIES // (positions.size * logits.shape[-1]))
        for group in np.split(index, range(some, index.size, some)):
            at = (group[:, None], positions)
            try:
                best = task.optimal_distribution(rows.select(group), positions)
            except NoDistributionError:
                return np.stack([task.optimal_log_probs(rows), np.full(rows.tokens.shape, np.nan)])
            chosen = logits[torch.from_numpy(group)[:, None], torch.from_numpy(positions - 1)]
            model = chosen.float().log_softmax(-1).double().cpu().numpy()
            out[1][at] = token_kl(model[..., : best.shape[2]] if ids is None else model[..., ids], best)
            out[0][at] = np.log(np.take_along_axis(best, rows.tokens[at][..., None], axis=2)[..., 0])
    return out


def policy_statistics(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    temperature: float,
) -> np.ndarray:
    """Return log_prob, reference_log_prob, entropy and kl of each completion, float64 [B, 4], nats summed over tokens.

    Entropy of the policy and its kl to the reference are exact sums over the vocabulary at every token, both at the
    temperature. Without a reference the policy is an adapter, whose base is the reference.
    """
    rows = [[*prompt, *own] for prompt, own in zip(prompts, completions, strict=True)]
    size = rows_at_once(policy, max(map(len, rows)), len(rows))
    if size < len(rows):
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        return np.concatenate(
            [policy_statistics(policy, reference, prompts[at], completions[at], temperature) for at in parts]
        )
    batch = right_padded(rows, policy.device)
    starts, lengths = (torch.tensor([len(ids) for ids in side])[:, None] for side in (prompts, completions))
    steps = torch.arange(int(lengths.max()))
    real = (steps < lengths).to(policy.device)  # [B, C]
    before = (starts + steps - 1).clamp(max=max(map(len, rows)) - 2).to(policy.device)  # whose logits are of a token
    chosen = batch["input_ids"].gather(1, before + 1)

    def log_probs(model: PreTrainedModel) -> Tensor:  # [B, C, V]
        logits = model(**batch).logits[torch.arange(len(rows), device=before.device)[:, None], before]
        return (logits.float() / temperature).log_softmax(-1)

    with torch.no_grad():
        own = log_probs(policy)
        with policy.disable_adapter() if reference is None else contextlib.nullcontext():
            other = log_probs(policy if reference is None else reference)
        picked = [values.gather(-1, chosen[..., None])[..., 0] for values in (own, other)]
        chance = own.exp()
        per_token = (*picked, -(chance * own).sum(-1), (chance * (own - other)).sum(-1))
        return torch.stack([(values.double() * real).sum(-1) for values in per_token], dim=1).cpu().numpy()


def token_log_probs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, batch_size: int = 64
) -> list[np.ndarray]:
    """Return ln P(token | all before it) of all but the first token of each sequence, float64 [len(sequence) - 1]."""
    results: list[np.ndarray] = [np.empty(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]), reverse=True)
    with evaluating(model), progress("scored texts", total=len(order)) as bar:
        while order:
            width = len(sequences[order[0]])
            count = rows_at_once(model, width, max(1, min(batch_size, _MOST_TOKENS // width)))
            numbers, order = order[:count], order[count:]
            batch = right_padded([sequences[number] for number in numbers], model.device)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
            log_probs = label_scores(model(**batch).logits, labels)[0].double().cpu().numpy()
            for number, values in zip(numbers, log_probs, strict=True):
                results[number] = values[1 : len(sequences[number])]
            bar.update(count)
    return results


def with_ends(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, start_token_id: int, *, ended: bool = True
) -> list[list[int]]:
    """Return the ids of each text as in a corpus: after a start token, and before an end token where `ended`."""
    end = [tokenizer.eos_token_id] if ended else []
    return [[start_token_id, *ids, *end] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two sequences begin with alike."""
    differing = (position for position, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(differing, min(len(one), len(other)))


def share_of(name: str, hits: np.ndarray) -> dict[str, float]:
    """Return the fraction of hits [rows], and Wilson's 95 % interval: `NAME`, `NAME_rows_low`, `NAME_rows_high`."""
    interval = wilson_interval(int(hits.sum()), hits.size)
    return {name: interval.mean, f"{name}_rows_low": interval.low, f"{name}_rows_high": interval.high}


def teacher_forced_metrics(scores: RowScores, rows: Rows) -> dict[str, float]:
    """Return `loss`, `floor`, `excess` and `kl` (nats per token), `accuracy` of tokens, `row_accuracy`; by fact type.

    scores: those of the rows, the model given each row up to the token that it predicts.
    """
    metrics = {name.replace("/", "_"): value for name, value in against_best(scores).items()}
    metrics |= {"accuracy": scores.token_accuracy, **share_of("row_accuracy", scores.row_hits)}
    # Wilson's interval with one trial a row: tokens of a row are not independent.
    _, metrics["accuracy_rows_low"], metrics["accuracy_rows_high"] = share_interval(scores.token_accuracy, len(rows))
    metrics |= {"rows": float(len(rows)), "tokens": float(scores.mask.sum())}
    if (kinds := rows.columns.get("fact_type")) is not None:
        metrics |= fact_types(scores.log_probs.sum(axis=1), scores.row_hits, kinds)
    return metrics


def against_best(scores: RowScores) -> dict[str, float]:
    """Return what `excess_loss` says of scores that know a task, and, where it has a distribution, `kl` beside it."""
    metrics = excess_loss(scores.log_probs, np.asarray(scores.optimal), scores.mask)
    if scores.kl is not None:
        metrics |= mean_per_token("kl", scores.kl.sum(axis=1), scores.mask.sum(axis=1), 0.95)
    return metrics


def by_position(scores: RowScores) -> pd.DataFrame:
    """Return a row for each position with loss: how many rows have loss there, and means over these, in nats.

    Columns: position, 0 for the first token of a row; rows; loss; floor of the best predictor; where the task has a
    distribution, kl of the model from it and kl_standard_error, NaN for a single row.
    """
    at = scores.mask.any(axis=0)
    values = {"loss": -scores.log_probs, "floor": -np.asarray(scores.optimal), "kl": scores.kl}
    tables = {
        name: pd.DataFrame(each).where(scores.mask).loc[:, at] for name, each in values.items() if each is not None
    }
    columns = {"rows": scores.mask.sum(axis=0)[at], **{name: table.mean() for name, table in tables.items()}}
    if "kl" in tables:
        columns["kl_standard_error"] = tables["kl"].sem()
    return pd.DataFrame(columns).rename_axis("position").reset_index()


def scored(measured: Measured, rows: Rows, task: Task | None = None, ids: np.ndarray | None = None) -> RowScores:
    """Run `score_rows`, its batches shared by the processes."""
    starts = range(0, len(rows), measured.batch_size)

    def score(number: int) -> RowScores:
        index = np.arange(starts[number], min(starts[number] + measured.batch_size, len(rows)))
        return score_rows(measured.model, rows.select(index), batch_size=measured.batch_size, task=task, ids=ids)

    parts = map_over_processes(score, len(starts), "batches scored")
    names = [field.name for field in dataclasses.fields(RowScores) if getattr(parts[0], field.name) is not None]
    return RowScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
