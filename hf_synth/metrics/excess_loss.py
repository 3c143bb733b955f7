"""Excess loss: a model's loss minus the exact floor, on the same rows."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64, between, log_probabilities
from .intervals import mean_per_token


def excess_loss(
    log_probs: np.ndarray, optimal_log_probs: np.ndarray, mask: np.ndarray, *, confidence: float = 0.95
) -> dict[str, float]:
    """`loss`, `floor` and `excess` = loss - floor, in nats per token; `excess_share` of the floor if that is not 0.

    log_probs, optimal_log_probs: ln P(token | all before) of the model and of the best predictor, [rows, width].
    mask: the tokens that carry loss, bool [rows, width]. As a metric of `evaluate` it takes no mask, but one list per
    row with the tokens that carry loss.

    `excess/rows_standard_error`, `excess/rows_low` and `excess/rows_high` are about the excess of THIS model, given
    the number of test rows: a ratio estimator over paired differences per row, with a t quantile; NaN for one row.
    They say nothing about other training seeds. On few rows the excess may be negative by chance.
    """
    mask = as_float64("excess_loss", mask) > 0
    tokens = mask.sum(axis=1)
    model, best = (_row_losses(values, mask) for values in (log_probs, optimal_log_probs))
    loss, floor = (float(values.sum() / tokens.sum()) for values in (model, best))
    excess = mean_per_token("excess", model - best, tokens, confidence)
    share = {"excess_share": excess["excess"] / floor} if floor > 0 else {}
    return {"loss": loss, "floor": floor, **excess, **share}


def token_kl(log_probs: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """KL(best predictor || model) in nats at each token, float64, of ln P and P [..., ids]; 0 P counts nothing."""
    if log_probs.shape != optimal.shape or optimal.ndim < 2:
        raise ValueError(f"kl_divergence: got {log_probs.shape} and {optimal.shape}, wanted one shape [..., ids]")
    sums = np.exp(log_probabilities("kl_divergence", log_probs)).sum(axis=-1)
    between("kl_divergence", sums, 0, 1 + 1e-3, "ln P of a model, whose P sum to at most 1 at a token")
    sums = np.where(optimal >= 0, optimal, np.nan).sum(axis=-1)
    between("kl_divergence", sums, 1 - 1e-6, 1 + 1e-6, "P of the best predictor, which sum to 1 at a token")
    possible = optimal > 0
    np.log(optimal, out=(logs := np.zeros(optimal.shape)), where=possible)
    return np.asarray((optimal * np.where(possible, logs - log_probs, 0.0)).sum(axis=-1))


def _row_losses(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the summed loss of each row, float64 [rows]."""
    values = as_float64("excess_loss", values)
    if values.shape != mask.shape or not mask.any():
        raise ValueError(
            f"excess_loss: got values {values.shape} and a mask {mask.shape}, wanted one shape, and a token with loss"
        )
    log_probabilities("excess_loss", values[mask])
    return 0.0 - np.where(mask, values, 0.0).sum(axis=1)


def _of_lists(
    predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]], confidence: float = 0.95
) -> dict[str, float]:
    widths = [len(row) for row in predictions]
    if widths != [len(row) for row in references]:
        raise ValueError("excess_loss: got rows of different lengths, wanted two log probabilities of each token")
    mask = np.arange(max(widths, default=0)) < np.array(widths)[:, None]
    padded = np.zeros((2, *mask.shape))
    for values, rows in zip(padded, (predictions, references), strict=True):
        values[mask] = np.concatenate([as_float64("excess_loss", row) for row in rows])
    return excess_loss(padded[0], padded[1], mask, confidence=confidence)


ExcessLoss = as_metric(excess_loss, {"predictions": ["float64"], "references": ["float64"]}, _of_lists)
