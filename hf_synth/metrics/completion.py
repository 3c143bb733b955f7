"""Completion tests: whether a model puts valid next tokens above invalid ones at the named points of a language."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of

Probabilities = Sequence[Sequence[float]]


def completion(points: Sequence[str], p_valid: Probabilities, p_invalid: Probabilities) -> dict[str, float]:
    """`completion`: the share of points passed, and `completion/strict`, on [0, 1].

    points: a name each, every one once. p_valid, p_invalid: the probabilities of the next tokens that are valid, and
    of those that are not, a list for each point.

    A point is passed if the valid tokens together are more likely than the invalid ones together, and strictly so if
    even the least likely valid token is more likely than every invalid one. For each point:
    `completion/POINT/p_valid` and `/p_invalid` (sums), `/passed` and `/strict` (0 or 1).
    """
    if not len(points) == len(p_valid) == len(p_invalid):
        raise ValueError(
            f"completion: got {len(points)} names, {len(p_valid)} and {len(p_invalid)} lists, wanted as many"
        )
    if not len(points) or len(set(points)) < len(points):
        raise ValueError(f"completion: got points {list(points)}, wanted one or more, each name once")
    found = {name: _point(name, *given) for name, *given in zip(points, p_valid, p_invalid, strict=True)}
    return {
        "completion": float(np.mean([point["passed"] for point in found.values()])),
        "completion/strict": float(np.mean([point["strict"] for point in found.values()])),
        **{f"completion/{name}/{key}": value for name, point in found.items() for key, value in point.items()},
    }


def _point(name: str, right: Sequence[float], wrong: Sequence[float]) -> dict[str, float]:
    if not len(right) or not len(wrong):
        raise ValueError(
            f"completion: {name}: got {len(right)} valid and {len(wrong)} invalid tokens, wanted some of each"
        )
    p_valid, p_invalid = float(np.sum(right)), float(np.sum(wrong))
    if not (min(*right, *wrong) >= 0 and p_valid + p_invalid <= 1 + 1e-3):
        raise ValueError(
            f"completion: {name}: got {list(right)} and {list(wrong)}, wanted probabilities of next tokens"
        )
    return {
        "p_valid": p_valid,
        "p_invalid": p_invalid,
        "passed": float(p_valid > p_invalid),
        "strict": float(min(right) > max(wrong)),
    }


class Completion(evaluate.Metric):
    """`completion` as a metric of `evaluate`: `compute(predictions=p_valid, references=p_invalid, points=names)`."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Sequence(datasets.Value("float64"))
        features = {"predictions": numbers, "references": numbers, "points": datasets.Value("string")}
        return evaluate.MetricInfo(
            description="The share of decision points at which valid next tokens are the more likely ones.",
            citation="",
            inputs_description=inputs_of(completion, predictions="p_valid", references="p_invalid", points="points"),
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: Probabilities, references: Probabilities, points: Sequence[str]
    ) -> dict[str, float]:
        return completion(points, predictions, references)
