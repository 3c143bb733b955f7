"""Token accuracy: the fraction of labelled tokens that were predicted."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric

NO_LOSS = -100

Ids = Sequence[Sequence[int]] | np.ndarray


def token_accuracy(predictions: Ids, labels: Ids) -> dict[str, float]:
    """`token_accuracy`: the fraction of labelled tokens that were predicted, on [0, 1].

    predictions, labels: ids [rows, width], or lists of any lengths; predictions[i][t] is compared with labels[i][t],
    so shift those of a causal model first. A label of -100 does not count.
    """
    hits, _ = labelled_hits(predictions, labels)
    return {"token_accuracy": float(hits.mean())}


def labelled_hits(predictions: Ids, labels: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each labelled token was predicted, bool [labelled], and its row, int64 [labelled]."""
    widths = [len(row) for row in labels]
    if widths != [len(row) for row in predictions]:
        raise ValueError("got predictions and labels of different shapes, wanted one prediction for each label")
    target, predicted = (
        np.concatenate([np.asarray(row.cpu() if hasattr(row, "cpu") else row) for row in (*ids, [])])
        for ids in (labels, predictions)
    )
    labelled = target != NO_LOSS
    if not labelled.any():
        raise ValueError("got no label but -100, wanted at least one token that counts")
    rows = np.repeat(np.arange(len(widths)), widths)
    return (predicted == target)[labelled], rows[labelled]


TokenAccuracy = as_metric(token_accuracy, {"predictions": ["int64"], "references": ["int64"]})
