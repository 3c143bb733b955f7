"""KL divergence of a model's next-token distribution from that of the best possible predictor."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64
from .excess_loss import token_kl
from .intervals import mean_per_token


def kl_divergence(
    log_probs: Sequence[np.ndarray], optimal: Sequence[np.ndarray], *, confidence: float = 0.95
) -> dict[str, float]:
    """`kl`: mean KL(best predictor || model) in nats per token; its mean over all rows is that of the excess loss.

    log_probs: the model's ln P of every id at each token that carries loss, one array [tokens, ids] for each row.
    optimal: P of the best predictor in the same places, as `Task.optimal_distribution` gives it.

    `kl/rows_standard_error`, `kl/rows_low` and `kl/rows_high` are over rows, as those of `excess_loss`. Where one
    token of a row carries loss they are smaller: KL counts every token that could come, the excess the one that came.
    """
    if len(log_probs) != len(optimal) or not any(map(len, optimal)):
        raise ValueError(
            f"kl_divergence: got {len(log_probs)} and {len(optimal)} rows, wanted as many of both, and a token"
        )
    pairs = [[as_float64("kl_divergence", row) for row in pair] for pair in zip(log_probs, optimal, strict=True)]
    per_row = [token_kl(*pair) for pair in pairs]
    sums, tokens = (np.array([of(row) for row in per_row], np.float64) for of in (np.sum, len))
    return mean_per_token("kl", sums, tokens, confidence)


KlDivergence = as_metric(kl_divergence, {"predictions": [["float64"]], "references": [["float64"]]})
