"""Log-probabilities of labels under a model, given the input before each; and metrics of them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.model import Measured, map_over_processes
from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.metrics.fact_types import fact_types
from hf_synth.metrics.intervals import share_interval, wilson_interval
from hf_synth.tasks.base import Rows, Task
from hf_synth.views import IGNORED

_MOST_TOKENS = 16_384  # of a batch, padding included: its logits have to fit into memory


@dataclasses.dataclass(frozen=True)
class RowScores:
    """The scores of each token of some rows; 0 and False where no loss is.

    log_probs: float64 [rows, width], ln P(token | all before it). hits: bool [rows, width], whether the token was the
    most likely one. mask: bool [rows, width], the tokens that carry loss.
    """

    log_probs: np.ndarray
    hits: np.ndarray
    mask: np.ndarray

    @property
    def loss(self) -> float:
        """Return mean loss in nats per token that carries loss."""
        return float(-self.log_probs.sum() / self.mask.sum())

    @property
    def token_accuracy(self) -> float:
        """Return the share of tokens that were the most likely ones."""
        return float(self.hits.sum() / self.mask.sum())

    @property
    def row_hits(self) -> np.ndarray:
        """Tell whether all tokens of a row were hit, bool [rows]."""
        return (self.hits | ~self.mask).all(axis=1)


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


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


def score_rows(model: PreTrainedModel, rows: Rows, *, batch_size: int = 256) -> RowScores:
    """Score rows of a task on the model's device; the model is left in the mode that it was in."""
    mask = rows.loss_mask
    log_probs, hits = np.zeros(mask.shape), np.zeros(mask.shape, bool)
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            tokens = torch.from_numpy(rows.tokens[part]).long().to(model.device)
            real = torch.arange(tokens.shape[1]) < torch.from_numpy(rows.lengths[part])[:, None]
            logits = model(input_ids=tokens, attention_mask=real.long().to(model.device)).logits
            labels = tokens.masked_fill(~torch.from_numpy(mask[part]).to(model.device), IGNORED)
            log_probs[part], hits[part] = (values.double().cpu().numpy() for values in label_scores(logits, labels))
    return RowScores(log_probs, hits, mask)


def policy_statistics(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    ids: Tensor,
    prompt_mask: Tensor,
    completion_mask: Tensor,
    temperature: float,
) -> tuple[Tensor, ...]:
    """Return log_prob, reference_log_prob, entropy and kl of each completion, float64 [B], nats summed over tokens.

    ids: [B, P + C], prompts padded on the left; prompt_mask [B, P], completion_mask bool [B, C]. Entropy of the policy
    and its kl to the reference are exact sums over the vocabulary at every token, both at the temperature. Without a
    reference the policy is an adapter, whose base is the reference.
    """
    length = completion_mask.shape[1]
    chosen = ids[:, -length:]
    mask = torch.cat([prompt_mask, completion_mask.long()], dim=1)

    def log_probs(model: PreTrainedModel) -> Tensor:  # [B, C, V]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
        return (logits.float() / temperature).log_softmax(-1)

    with torch.no_grad():
        own = log_probs(policy)
        with policy.disable_adapter() if reference is None else contextlib.nullcontext():
            other = log_probs(policy if reference is None else reference)
        picked = [values.gather(-1, chosen[..., None])[..., 0] for values in (own, other)]
        chance = own.exp()
        per_token = (*picked, -(chance * own).sum(-1), (chance * (own - other)).sum(-1))
        return tuple((values.double() * completion_mask).sum(-1) for values in per_token)


def token_log_probs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, batch_size: int = 64
) -> list[np.ndarray]:
    """Return ln P(token | all before it) of all but the first token of each sequence, float64 [len(sequence) - 1]."""
    results: list[np.ndarray] = [np.empty(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]), reverse=True)
    while order:
        width = len(sequences[order[0]])
        count = max(1, min(batch_size, _MOST_TOKENS // width))
        batch, order = order[:count], order[count:]
        rows = _padded([sequences[number] for number in batch], width)
        scored = score_rows(model, rows, batch_size=len(batch)).log_probs
        for number, values, length in zip(batch, scored, rows.lengths, strict=True):
            results[number] = values[1:length]
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


def _padded(sequences: Sequence[Sequence[int]], width: int) -> Rows:
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    tokens = np.zeros((len(sequences), width), np.int32)
    tokens[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(ids, np.int32) for ids in sequences])
    return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())


def share_of(name: str, hits: np.ndarray) -> dict[str, float]:
    """Return the fraction of hits [rows], and Wilson's 95 % interval: `NAME`, `NAME_rows_low`, `NAME_rows_high`."""
    interval = wilson_interval(int(hits.sum()), hits.size)
    return {name: interval.mean, f"{name}_rows_low": interval.low, f"{name}_rows_high": interval.high}


def teacher_forced_metrics(measured: Measured, task: Task, rows: Rows, ids: np.ndarray) -> dict[str, float]:
    """Return `loss`, `floor`, `excess` (nats per token), `accuracy` of tokens, `row_accuracy`; and by type of fact.

    ids: the tokenizer's ids of the task's words. The model is given each row up to the token that it predicts.
    """
    scores = scored(measured, dataclasses.replace(rows, tokens=ids[rows.tokens]))
    against = excess_loss(scores.log_probs, task.optimal_log_probs(rows), scores.mask)
    metrics = {
        name.replace("/", "_"): value for name, value in against.items() if name != "excess/rows_standard_error"
    }
    metrics |= {"accuracy": scores.token_accuracy, **share_of("row_accuracy", scores.row_hits)}
    metrics |= _token_bounds(scores.token_accuracy, len(rows))
    metrics |= {"rows": float(len(rows)), "tokens": float(scores.mask.sum())}
    if (kinds := rows.columns.get("fact_type")) is not None:
        metrics |= fact_types(scores.log_probs.sum(axis=1), scores.row_hits, kinds)
    return metrics


def _token_bounds(share: float, rows: int) -> dict[str, float]:
    """Return Wilson's interval of token accuracy with one trial a row: tokens of a row are not independent."""
    _, low, high = share_interval(share, rows)
    return {"accuracy_rows_low": low, "accuracy_rows_high": high}


def scored(measured: Measured, rows: Rows) -> RowScores:
    """Run `score_rows`, its batches shared by the processes."""
    starts = range(0, len(rows), measured.batch_size)

    def score(number: int) -> RowScores:
        index = np.arange(starts[number], min(starts[number] + measured.batch_size, len(rows)))
        return score_rows(measured.model, rows.select(index), batch_size=measured.batch_size)

    parts = map_over_processes(score, len(starts))
    names = [field.name for field in dataclasses.fields(RowScores)]
    return RowScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
