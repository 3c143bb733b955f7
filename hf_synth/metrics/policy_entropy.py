"""Entropy of the policy, from its log probabilities of its own samples."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64
from .intervals import clustered_mean, entries, ratio_interval


def policy_entropy(
    log_probs: Sequence[float] | np.ndarray, tokens: Sequence[int] | np.ndarray, prompts: Sequence[Hashable]
) -> dict[str, float]:
    """`entropy/mean`: nats per completion, the mean of -ln P, prompts weighted equally; `entropy/token`: per token.

    log_probs: ln P of each completion under the policy that sampled it at temperature 1, summed over its tokens and
    the end token. tokens: how many these are. prompts: which prompt each belongs to. With intervals over prompts. The
    estimate is unbiased; lower means closer to one answer per prompt.
    """
    nats, sizes = -as_float64("policy_entropy", log_probs), as_float64("policy_entropy", tokens)
    per_token = ratio_interval(nats, sizes, prompts, "policy_entropy")
    return {**entries("entropy/mean", clustered_mean(nats, prompts)), **entries("entropy/token", per_token)}


PolicyEntropy = as_metric(policy_entropy, {"predictions": "float64", "tokens": "int64", "references": "string"})
