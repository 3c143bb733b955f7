"""How well a model foretells rows, its input given up to each token: log probabilities and hits, token by token."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.tasks.base import Rows


@dataclasses.dataclass(frozen=True)
class RowScores:
    """What a model gave each token of some rows; 0 and False where no loss is.

    log_probs: float64 [rows, width], ln P(token | all before it). hits: bool [rows, width], whether the token was the
    most likely one. mask: bool [rows, width], the tokens that carry loss.
    """

    log_probs: np.ndarray
    hits: np.ndarray
    mask: np.ndarray

    @property
    def loss(self) -> float:
        """Mean loss in nats per token that carries loss."""
        return float(-self.log_probs.sum() / self.mask.sum())

    @property
    def token_accuracy(self) -> float:
        """The share of tokens that were the most likely ones."""
        return float(self.hits.sum() / self.mask.sum())

    @property
    def row_hits(self) -> np.ndarray:
        """Whether all tokens of a row were hit, bool [rows]."""
        return (self.hits | ~self.mask).all(axis=1)


@torch.no_grad()
def score_rows(model: PreTrainedModel, rows: Rows, *, batch_size: int = 256) -> RowScores:
    """Score rows of a task on the model's device; the model is left in the mode that it was in.

    Only positions that carry loss go through the softmax; it is taken in float32.
    """
    was_training = model.training
    model.eval()
    mask = rows.loss_mask
    log_probs, hits = np.zeros(mask.shape), np.zeros(mask.shape, bool)
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        tokens = torch.from_numpy(rows.tokens[part]).long().to(model.device)
        real = torch.arange(tokens.shape[1]) < torch.from_numpy(rows.lengths[part])[:, None]
        logits = model(input_ids=tokens, attention_mask=real.long().to(model.device)).logits
        carries = torch.from_numpy(mask[part])
        before = carries[:, 1:].to(model.device)
        chosen, targets = logits[:, :-1][before].float(), tokens[:, 1:][before]
        found = chosen.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        log_probs[part][mask[part]] = found.double().cpu().numpy()
        hits[part][mask[part]] = (chosen.argmax(-1) == targets).cpu().numpy()
    model.train(was_training)
    return RowScores(log_probs, hits, mask)


_MOST_TOKENS = 16_384  # of a batch, padding included: its logits have to fit into memory


def token_log_probs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, batch_size: int = 64
) -> list[np.ndarray]:
    """Ln P(token | all before it) for every token but the first of each sequence, float64 [len(sequence) - 1] each."""
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]), reverse=True)
    while order:
        width = len(sequences[order[0]])
        count = max(1, min(batch_size, _MOST_TOKENS // width))
        batch, order = order[:count], order[count:]
        rows = _padded([sequences[number] for number in batch], width)
        scored = score_rows(model, rows, batch_size=len(batch)).log_probs
        for number, values, length in zip(batch, scored, rows.lengths, strict=True):
            found[number] = values[1:length]
    return found


def with_ends(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, start_token_id: int, *, ended: bool = True
) -> list[list[int]]:
    """The ids of each text as they stand in a corpus: after a start token, and before an end token where `ended`."""
    end = [tokenizer.eos_token_id] if ended else []
    return [[start_token_id, *ids, *end] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    differing = (place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(differing, min(len(one), len(other)))


def _padded(sequences: Sequence[Sequence[int]], width: int) -> Rows:
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    tokens = np.zeros((len(sequences), width), np.int32)
    tokens[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(ids, np.int32) for ids in sequences])
    return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())
