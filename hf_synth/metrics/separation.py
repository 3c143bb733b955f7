"""Separation: how well a score ranks valid strings above invalid ones, beyond what length alone tells."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from .base import as_metric
from .checks import between, valid_and_invalid
from .intervals import same_length


def separation(
    scores: Sequence[float] | np.ndarray, valid: Sequence[bool] | np.ndarray, lengths: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """The probability that a valid string scores higher than an invalid one (AUROC: 0.5 is chance, ties count half).

    scores: higher for strings that the model takes to be valid, such as mean ln P per token, [strings]. valid,
    lengths: [strings].

    `auroc`: over all pairs of a valid and an invalid string. `auroc/same_length`: over pairs of equal length, and
    `pairs/same_length`, their number; both left out if there is none. `auroc/length`: of length as the score,
    ascending or descending, whichever is better. `auroc/length_table`: of the best score that knows length alone, the
    fraction of valid strings at each length; it is too high if few strings share a length.
    """
    same_length("separation", scores=scores, valid=valid, lengths=lengths)
    values = between("separation", scores, -np.inf, np.inf, "a score of each string")
    right = valid_and_invalid("separation", valid)
    _, values = np.unique(values, return_inverse=True)  # ranks, because AUROC takes no -inf
    _, number = np.unique(np.asarray(lengths), return_inverse=True)
    strings, good = np.bincount(number), np.bincount(number, weights=right)
    by_length = float(roc_auc_score(right, np.asarray(lengths)))
    results = {"auroc": float(roc_auc_score(right, values))}
    pairs = good * (strings - good)
    if pairs.any():
        members = {length: number == length for length in np.flatnonzero(pairs)}
        won = sum(pairs[length] * roc_auc_score(right[member], values[member]) for length, member in members.items())
        results |= {"auroc/same_length": float(won / pairs.sum()), "pairs/same_length": float(pairs.sum())}
    return {
        **results,
        "auroc/length": max(by_length, 1 - by_length),
        "auroc/length_table": float(roc_auc_score(right, (good / strings)[number])),
    }


Separation = as_metric(separation, {"predictions": "float64", "references": "bool", "lengths": "int64"})
