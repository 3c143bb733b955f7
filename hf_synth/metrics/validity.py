"""Validity: the fraction of completions that a verifier accepts, in each group and over groups."""

from collections.abc import Callable, Hashable, Sequence

from .base import as_metric
from .intervals import grouped_mean


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


Validity = as_metric(validity, {"references": "string", "predictions": "string"})
