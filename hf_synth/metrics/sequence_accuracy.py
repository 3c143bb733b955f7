"""Sequence accuracy: the share of targets that were predicted to the last token."""

import datasets
import evaluate
import numpy as np

from .base import inputs_of
from .token_accuracy import Ids, labelled_hits


def sequence_accuracy(predictions: Ids, labels: Ids) -> dict[str, float]:
    """`sequence_accuracy`: the share of rows whose labelled tokens were all predicted, on [0, 1].

    predictions, labels: ids [rows, width], or lists of any lengths; predictions[i][t] foretells labels[i][t], so that
    a causal model's are shifted before. A label of -100 does not count, nor does a row of no other.
    """
    hits, rows = labelled_hits(predictions, labels)
    missed, counted = np.unique(rows[~hits]), np.unique(rows)
    return {"sequence_accuracy": 1.0 - missed.size / counted.size}


class SequenceAccuracy(evaluate.Metric):
    """`sequence_accuracy` as a metric of `evaluate`: `compute(predictions=ids, references=labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="The share of rows whose labelled tokens were all predicted.",
            citation="",
            inputs_description=inputs_of(sequence_accuracy, predictions="predictions", references="labels"),
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(self, predictions: Ids, references: Ids) -> dict[str, float]:
        return sequence_accuracy(predictions, references)
