"""Completion tests: whether a model prefers valid next tokens to invalid ones at given points of a language."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric
from .intervals import same_length

Probabilities = Sequence[Sequence[float]]


def completion(points: Sequence[str], p_valid: Probabilities, p_invalid: Probabilities) -> dict[str, float]:
    """`completion`: the fraction of points passed, and `completion/strict`, on [0, 1].

    points: distinct names. p_valid, p_invalid: for each point, the probabilities of the valid next tokens, and of the
    invalid ones.

    A point is passed if the valid tokens together are more likely than the invalid ones together. It is passed
    strictly if the least likely valid token is more likely than every invalid one. For each point:
    `completion/POINT/p_valid` and `/p_invalid` (sums), `/passed` and `/strict` (0 or 1).
    """
    same_length("completion", points=points, p_valid=p_valid, p_invalid=p_invalid)
    if len(set(points)) < len(points):
        raise ValueError(f"completion: got points {list(points)}, wanted each name once")
    results = {name: _point(name, *lists) for name, *lists in zip(points, p_valid, p_invalid, strict=True)}
    return {
        "completion": float(np.mean([point["passed"] for point in results.values()])),
        "completion/strict": float(np.mean([point["strict"] for point in results.values()])),
        **{f"completion/{name}/{key}": value for name, point in results.items() for key, value in point.items()},
    }


def _point(name: str, valid: Sequence[float], invalid: Sequence[float]) -> dict[str, float]:
    if not len(valid) or not len(invalid):
        raise ValueError(
            f"completion: {name}: got {len(valid)} valid and {len(invalid)} invalid tokens, wanted some of each"
        )
    p_valid, p_invalid = float(np.sum(valid)), float(np.sum(invalid))
    if not (min(*valid, *invalid) >= 0 and p_valid + p_invalid <= 1 + 1e-3):
        raise ValueError(
            f"completion: {name}: got {list(valid)} and {list(invalid)}, wanted probabilities of next tokens"
        )
    return {
        "p_valid": p_valid,
        "p_invalid": p_invalid,
        "passed": float(p_valid > p_invalid),
        "strict": float(min(valid) > max(invalid)),
    }


Completion = as_metric(completion, {"points": "string", "predictions": ["float64"], "references": ["float64"]})
