"""Generation validity: the share of completions that a verifier accepts, in each group and over all groups alike."""

from collections.abc import Callable, Hashable, Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of


def validity(
    prompts: Sequence[str],
    completions: Sequence[str | None],
    verify: Callable[[str, str], float],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """The share of right completions: `validity`, the mean over groups each weighing alike, and one entry a group.

    prompts, completions: one each; a completion of None is an unfinished one and counts as wrong. verify: takes a
    prompt and its completion, gives 1 or 0. groups: a name each, else all are one. Shares are on [0, 1].
    """
    scores = [
        0.0 if text is None else float(verify(prompt, text)) for prompt, text in zip(prompts, completions, strict=True)
    ]
    return grouped_mean(scores, groups, name="validity")


def grouped_mean(scores: Sequence[float], groups: Sequence[Hashable] | None, *, name: str) -> dict[str, float]:
    """`name`: the mean over groups of their means, and `name/GROUP` for each group."""
    if not len(scores):
        raise ValueError(f"{name}: got no completion, wanted at least one")
    if groups is None:
        return {name: float(np.mean(scores))}
    if len(groups) != len(scores):
        raise ValueError(f"{name}: got {len(groups)} groups for {len(scores)} completions, wanted one each")
    members: dict[Hashable, list[float]] = {}
    for score, group in zip(scores, groups, strict=True):
        members.setdefault(group, []).append(score)
    means = {f"{name}/{group}": float(np.mean(values)) for group, values in members.items()}
    return {name: float(np.mean(list(means.values()))), **means}


class Validity(evaluate.Metric):
    """`validity` as a metric of `evaluate`: `compute(predictions=completions, references=prompts, verify=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="The share of completions that a verifier accepts, over all groups alike.",
            citation="",
            inputs_description=inputs_of(validity, predictions="completions", references="prompts"),
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        verify: Callable[[str, str], float],
        groups: Sequence[Hashable] | None = None,
    ) -> dict[str, float]:
        return validity(references, predictions, verify, groups)
