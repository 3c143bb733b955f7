"""KL divergence of the policy from its reference, from both models' log probabilities of the policy's samples."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import as_metric
from .intervals import clustered_mean, entries, ratio_interval, same_length


def policy_kl(
    log_probs: Sequence[float] | np.ndarray,
    reference_log_probs: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    prompts: Sequence[Hashable],
) -> dict[str, float]:
    """`kl/mean`: KL(policy || reference) in nats per completion, prompts weighted equally; `kl/token`: per token.

    log_probs, reference_log_probs: ln P of each completion under the policy that sampled it at temperature 1, and
    under the reference, summed over its tokens and the end token. tokens: how many these are. prompts: which
    prompt each belongs to. With intervals over prompts. The mean of ln P - ln Q: unbiased; an estimate may be below 0.
    """
    same_length("policy_kl", log_probs=log_probs, reference_log_probs=reference_log_probs)
    nats = np.subtract(log_probs, reference_log_probs, dtype=np.float64)
    per_token = ratio_interval(nats, tokens, prompts, "policy_kl")
    return {**entries("kl/mean", clustered_mean(nats, prompts)), **entries("kl/token", per_token)}


_COLUMNS = {"predictions": "float64", "reference_log_probs": "float64", "tokens": "int64", "references": "string"}
PolicyKl = as_metric(policy_kl, _COLUMNS)
