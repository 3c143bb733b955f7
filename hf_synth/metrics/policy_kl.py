"""KL divergence of the policy from its reference, from the log probabilities that both give to its samples."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import SampleMetric
from .intervals import clustered_mean, ratio_interval
from .units import entries, sums_by_prompt


def policy_kl(
    log_probs: Sequence[float] | np.ndarray,
    reference_log_probs: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    prompts: Sequence[Hashable],
) -> dict[str, float]:
    """`kl/mean`: KL(policy || reference) in nats a completion, prompts weighing alike; `kl/token`: nats a token.

    log_probs, reference_log_probs: ln P of each completion under the policy that sampled it at temperature 1, and
    under the reference, summed over its tokens and its end. tokens: how many these are. prompts: which prompt each
    belongs to. With intervals over prompts. The mean of ln P - ln Q: unbiased, and a sample of it may be below 0.
    """
    own, other = np.asarray(log_probs, np.float64), np.asarray(reference_log_probs, np.float64)
    if own.shape != other.shape:
        raise ValueError(
            f"policy_kl: got {own.size} and {other.size} log probabilities, wanted both of each completion"
        )
    nats = own - other
    per_token = ratio_interval(*sums_by_prompt(nats, tokens, prompts, "kl"))
    return {**entries("kl/mean", clustered_mean(nats, prompts)), **entries("kl/token", per_token)}


class PolicyKl(SampleMetric):
    """`policy_kl` as a metric of `evaluate`: `compute(predictions=log_probs, references=prompts, ...)`."""

    measure = staticmethod(policy_kl)
    columns = {
        "predictions": "float64",
        "reference_log_probs": "float64",
        "tokens": "int64",
        "references": "string",
    }
