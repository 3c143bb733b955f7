"""Exact-match accuracy: the fraction of rows in which every labelled token was predicted."""

import numpy as np

from .base import as_metric
from .token_accuracy import Ids, labelled_hits


def sequence_accuracy(predictions: Ids, labels: Ids) -> dict[str, float]:
    """`sequence_accuracy`: the fraction of rows in which every labelled token was predicted, on [0, 1].

    predictions, labels: ids [rows, width], or lists of any lengths; predictions[i][t] is compared with labels[i][t],
    so shift those of a causal model first. A label of -100 does not count, nor does a row without other labels.
    """
    hits, rows = labelled_hits(predictions, labels)
    missed, counted = np.unique(rows[~hits]), np.unique(rows)
    return {"sequence_accuracy": 1.0 - missed.size / counted.size}


SequenceAccuracy = as_metric(sequence_accuracy, {"predictions": ["int64"], "references": ["int64"]})
