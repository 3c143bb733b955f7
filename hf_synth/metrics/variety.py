"""Variety: how many different right completions a prompt gets."""

from collections.abc import Hashable, Sequence

from .base import SampleMetric
from .intervals import mean_interval
from .units import entries, within


def variety(texts: Sequence[str], right: Sequence[float], prompts: Sequence[Hashable]) -> dict[str, float]:
    """`variety`: different right completions as a share of those sampled; `variety/any`: different ones, right or not.

    texts: completions. right: 1 or 0 for each; all 1 where nothing says what is right. prompts: which prompt each
    belongs to. Of the first m completions of each prompt, m the fewest that one has, at least 2: shares of different m
    do not compare. From 0 to 1, 1 where all are right and no two are the same; with intervals over prompts.
    """
    groups = within(list(zip(texts, right, strict=True)), prompts, "variety")
    if not groups:
        raise ValueError("variety: got a prompt with one completion, wanted two or more of each")
    shares = [len({text for text, is_right in group if is_right}) / len(group) for group in groups]
    any_shares = [len({text for text, _ in group}) / len(group) for group in groups]
    return {**entries("variety", mean_interval(shares)), **entries("variety/any", mean_interval(any_shares))}


class Variety(SampleMetric):
    """`variety` as a metric of `evaluate`: `compute(predictions=texts, right=..., references=prompts)`."""

    measure = staticmethod(variety)
    columns = {"predictions": "string", "right": "float64", "references": "string"}
