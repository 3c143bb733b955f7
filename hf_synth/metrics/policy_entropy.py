"""Entropy of the policy, from the log probabilities that it gives to its own samples."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import SampleMetric
from .intervals import clustered_mean, ratio_interval
from .units import entries, sums_by_prompt


def policy_entropy(
    log_probs: Sequence[float] | np.ndarray, tokens: Sequence[int] | np.ndarray, prompts: Sequence[Hashable]
) -> dict[str, float]:
    """`entropy/mean`: nats a completion, the mean of -ln P over prompts alike; `entropy/token`: nats a token.

    log_probs: ln P of each completion under the policy that sampled it at temperature 1, summed over its tokens and
    its end. tokens: how many these are. prompts: which prompt each belongs to. With intervals over prompts. Unbiased,
    for all completions together; lower is closer to one answer a prompt.
    """
    nats = -np.asarray(log_probs, np.float64)
    per_token = ratio_interval(*sums_by_prompt(nats, tokens, prompts, "entropy"))
    return {**entries("entropy/mean", clustered_mean(nats, prompts)), **entries("entropy/token", per_token)}


class PolicyEntropy(SampleMetric):
    """`policy_entropy` as a metric of `evaluate`: `compute(predictions=log_probs, tokens=..., references=prompts)`."""

    measure = staticmethod(policy_entropy)
    columns = {"predictions": "float64", "tokens": "int64", "references": "string"}
