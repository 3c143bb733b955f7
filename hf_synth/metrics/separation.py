"""Separation: how well a score tells valid strings from invalid ones, beyond what their lengths give away."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score

from .base import inputs_of
from .checks import between


def separation(
    scores: Sequence[float] | np.ndarray, valid: Sequence[bool] | np.ndarray, lengths: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """The chance that a valid string scores higher than an invalid one (AUROC: 0.5 is guessing, ties count half).

    scores: higher for what the model takes to be valid, such as mean ln P per token, [strings]. valid, lengths:
    [strings].

    `auroc`: over all pairs of a valid and an invalid string. `auroc/same_length`: over the pairs of one length, and
    `pairs/same_length` how many they are; left out where there is none. `auroc/length`: of length alone, whichever
    way round is better. `auroc/length_table`: of the best rule on length alone, the share of these strings of each
    length that are valid; it is too high where few strings have a length.
    """
    values = between("separation", scores, -np.inf, np.inf, "a score of each string")
    right, sizes = np.asarray(valid, bool), np.asarray(lengths)
    if not values.shape == right.shape == sizes.shape:
        raise ValueError(f"separation: got {values.size} scores, {right.size} labels, {sizes.size} lengths; one each")
    if right.all() or not right.any():
        raise ValueError("separation: got strings of one sort, wanted valid and invalid ones")
    _, values = np.unique(values, return_inverse=True)  # only the order counts, in which -inf has its place
    _, number = np.unique(sizes, return_inverse=True)
    strings, good = np.bincount(number), np.bincount(number, weights=right)
    by_length = float(roc_auc_score(right, sizes))
    return {
        "auroc": float(roc_auc_score(right, values)),
        **_same_length(values, right, number, good * (strings - good)),
        "auroc/length": max(by_length, 1 - by_length),
        "auroc/length_table": float(roc_auc_score(right, (good / strings)[number])),
    }


def _same_length(values: np.ndarray, right: np.ndarray, number: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """The mean AUROC of lengths, weighted by `pairs`, float64 [lengths]; `number`: which length each string has."""
    if not pairs.any():
        return {}
    members = {length: number == length for length in np.flatnonzero(pairs)}
    won = sum(pairs[length] * roc_auc_score(right[member], values[member]) for length, member in members.items())
    return {"auroc/same_length": float(won / pairs.sum()), "pairs/same_length": float(pairs.sum())}


class Separation(evaluate.Metric):
    """`separation` as a metric of `evaluate`: `compute(predictions=scores, references=valid, lengths=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("float64"),
            "references": datasets.Value("bool"),
            "lengths": datasets.Value("int64"),
        }
        return evaluate.MetricInfo(
            description="How well a score tells valid strings from invalid ones, at the same length and by length.",
            citation="",
            inputs_description=inputs_of(separation, predictions="scores", references="valid", lengths="lengths"),
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[bool], lengths: Sequence[int]
    ) -> dict[str, float]:
        return separation(predictions, references, lengths)
