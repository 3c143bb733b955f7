"""Token accuracy: the share of a target's tokens that were predicted."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of

NO_LOSS = -100

Ids = Sequence[Sequence[int]] | np.ndarray


def token_accuracy(predictions: Ids, labels: Ids) -> dict[str, float]:
    """`token_accuracy`: the share of labelled tokens that were predicted, on [0, 1].

    predictions, labels: ids [rows, width], or lists of any lengths; predictions[i][t] foretells labels[i][t], so that
    a causal model's are shifted before. A label of -100 does not count.
    """
    hits, _ = labelled_hits(predictions, labels)
    return {"token_accuracy": float(hits.mean())}


def labelled_hits(predictions: Ids, labels: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Whether each labelled token was predicted, bool [labelled], and the row that it stands in, int64 [labelled]."""
    widths = [len(row) for row in labels]
    if widths != [len(row) for row in predictions]:
        raise ValueError("got predictions and labels of different shapes, wanted one prediction for each label")
    wanted, found = (np.concatenate([np.asarray(row) for row in (*ids, [])]) for ids in (labels, predictions))
    labelled = wanted != NO_LOSS
    if not labelled.any():
        raise ValueError("got no label but -100, wanted at least one token that counts")
    rows = np.repeat(np.arange(len(widths)), widths)
    return (found == wanted)[labelled], rows[labelled]


class TokenAccuracy(evaluate.Metric):
    """`token_accuracy` as a metric of `evaluate`: `compute(predictions=ids, references=labels)`."""

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="The share of labelled tokens that were predicted.",
            citation="",
            inputs_description=inputs_of(token_accuracy, predictions="predictions", references="labels"),
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(self, predictions: Ids, references: Ids) -> dict[str, float]:
        return token_accuracy(predictions, references)
