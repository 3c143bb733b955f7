"""Pass@k: the probability that at least one of k completions of a prompt is right."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64
from .intervals import by_group, entries, mean_interval


def pass_at_k(
    right: Sequence[float] | np.ndarray, prompts: Sequence[Hashable], *, ks: Sequence[int] = (1, 4)
) -> dict[str, float]:
    """`pass_at_K` for each of `ks`, on [0, 1]: the mean over prompts, with its interval over prompts.

    right: 1 or 0 for each completion. prompts: which prompt each belongs to; each needs at least as many
    completions as the largest k. Unbiased: 1 - C(n - c, k) / C(n, k) if c of n are right.

    Source: Chen et al. (2021), Evaluating large language models trained on code, equation 1.
    """
    groups = by_group(as_float64("pass_at_k", right).tolist(), prompts, "pass_at_k")
    tried = np.array([len(group) for group in groups.values()])
    wrong = tried - np.array([sum(group) for group in groups.values()])
    if not np.isin(right, (0, 1)).all():
        raise ValueError("pass_at_k: got values other than 0 and 1, wanted 1 for each right completion, else 0")
    if min(ks) < 1 or max(ks) > tried.min():
        raise ValueError(
            f"pass_at_k: got ks={list(ks)}, wanted 1 to {tried.min()}, the fewest completions of a prompt"
        )
    results: dict[str, float] = {}
    for k in ks:
        missed = np.prod([np.maximum(wrong - drawn, 0) / (tried - drawn) for drawn in range(k)], axis=0)
        results |= entries(f"pass_at_{k}", mean_interval(1 - missed))
    return results


PassAtK = as_metric(pass_at_k, {"predictions": "float64", "references": "string"})
