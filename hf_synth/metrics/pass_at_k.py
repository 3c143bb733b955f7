"""Pass@k: the chance that one of k completions of a prompt is right."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import comb

from .base import SampleMetric
from .intervals import mean_interval
from .units import by_prompt, entries


def pass_at_k(
    right: Sequence[float] | np.ndarray, prompts: Sequence[Hashable], *, ks: Sequence[int] = (1, 4)
) -> dict[str, float]:
    """`pass_at_K` for each of `ks`, from 0 to 1, the mean over prompts alike with its interval over prompts.

    right: 1 or 0 for each completion. prompts: which prompt each belongs to; each has as many completions as the
    largest k or more. Unbiased: 1 - C(n - c, k) / C(n, k) where c of n are right.

    Source: Chen et al. (2021), Evaluating large language models trained on code, equation 1.
    """
    members = by_prompt(np.asarray(right, np.float64).tolist(), prompts, "pass_at_k")
    tried = np.array([len(member) for member in members.values()])
    wrong = tried - np.array([sum(member) for member in members.values()])
    if not np.isin(right, (0, 1)).all():
        raise ValueError("pass_at_k: got values other than 0 and 1, wanted whether each completion is right")
    if min(ks) < 1 or max(ks) > tried.min():
        raise ValueError(
            f"pass_at_k: got ks={list(ks)}, wanted 1 to {tried.min()}, the fewest completions of a prompt"
        )
    chances = {k: 1 - comb(wrong, k) / comb(tried, k) for k in ks}
    return {
        key: value
        for k, chance in chances.items()
        for key, value in entries(f"pass_at_{k}", mean_interval(chance)).items()
    }


class PassAtK(SampleMetric):
    """`pass_at_k` as a metric of `evaluate`: `compute(predictions=right, references=prompts, ks=[1, 4])`."""

    measure = staticmethod(pass_at_k)
    columns = {"predictions": "float64", "references": "string"}
