"""Variety: distinct right completions of a prompt, as a fraction of those sampled."""

from collections.abc import Hashable, Sequence

from .base import as_metric
from .intervals import entries, mean_interval, within


def variety(texts: Sequence[str], right: Sequence[float], prompts: Sequence[Hashable]) -> dict[str, float]:
    """`variety`: distinct right completions / all completions; `variety/any`: distinct ones, right or not, / all.

    texts: completions. right: 1 or 0 for each; all 1 if there is no verifier. prompts: which prompt each
    belongs to. Only the first m completions of each prompt count, m being the smallest number that a prompt has, 2
    or more; values of different m are not comparable. From 0 to 1, all right and no two the same. With intervals over
    prompts.
    """
    groups = within(list(zip(texts, right, strict=True)), prompts, "variety")
    if not groups:
        raise ValueError("variety: got a prompt with one completion, wanted two or more of each")
    right_only = [len({text for text, is_right in group if is_right}) / len(group) for group in groups]
    any_text = [len({text for text, _ in group}) / len(group) for group in groups]
    return {**entries("variety", mean_interval(right_only)), **entries("variety/any", mean_interval(any_text))}


Variety = as_metric(variety, {"predictions": "string", "right": "float64", "references": "string"})
