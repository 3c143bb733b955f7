"""Validity: the fraction of completions that a verifier accepts, in each group and over groups."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .base import FunctionMetric
from .units import by_group


def validity(
    prompts: Sequence[str],
    completions: Sequence[str | None],
    verify: Callable[[str, str], float],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """`validity`: the fraction of right completions; with groups their mean, and one entry for each group.

    prompts, completions: one each; None stands for an unfinished completion and counts as wrong. verify: takes a
    prompt and its completion, returns 1 or 0. groups: a name for each; groups are weighted equally.
    """
    scores = [
        0.0 if text is None else float(verify(prompt, text)) for prompt, text in zip(prompts, completions, strict=True)
    ]
    return grouped_mean(scores, groups, name="validity")


def grouped_mean(scores: Sequence[float], groups: Sequence[Hashable] | None, *, name: str) -> dict[str, float]:
    """Return `name`, the mean over groups of their means, and `name/GROUP` for each group."""
    if groups is None:
        if not len(scores):
            raise ValueError(f"{name}: got no completion, wanted at least one")
        return {name: float(np.mean(scores))}
    means = {f"{name}/{group}": float(np.mean(own)) for group, own in by_group(scores, groups, name).items()}
    return {name: float(np.mean(list(means.values()))), **means}


class Validity(FunctionMetric):
    """`validity` as a metric of `evaluate`: `compute(predictions=completions, references=prompts, verify=...)`."""

    function = staticmethod(validity)
    columns = {"references": "string", "predictions": "string"}
