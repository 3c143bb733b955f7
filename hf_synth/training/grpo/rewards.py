"""What a GRPO run pays for: the verifier of its tasks, reward models, or several of them with weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_synth.rewards import RewardFunction, reward_model, verifier, weighted_sum
from hf_synth.training.arguments import DataArguments
from hf_synth.training.data import clusters
from hf_synth.training.grpo.arguments import VERIFIER


def load_rewards(
    sources: Sequence[str],
    data: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
    *,
    heads: Mapping[str, float] | None = None,
    max_length: int | None = None,
    device: Any = None,
) -> list[RewardFunction]:
    """One reward function a source: `verifier`, or a reward model by path or Hub id; without any, the verifier.

    heads: what each head of a reward model with several counts for. Raises ValueError where natural prompts have no
    reward model, or a source is named twice.
    """
    sources = list(sources) or [VERIFIER]
    if len(set(sources)) < len(sources):
        raise ValueError(f"reward: got {', '.join(sources)}, wanted each once; reward_weights says what each counts")
    found = []
    for number, source in enumerate(sources, start=1):
        if source == VERIFIER:
            found.append(task_verifier(data, tokenizer))
            continue
        reward = reward_model(source, max_length=max_length, device=device, heads=heads)
        if len(sources) > 1:
            reward.__name__ = f"reward_model_{number}"  # the name in the logs, where each must have its own
        found.append(reward)
    return found


def task_verifier(data: DataArguments, tokenizer: PreTrainedTokenizerBase) -> RewardFunction:
    """The verifier of the run's tasks."""
    if not (data.task or data.mixture):
        raise ValueError("got no reward: natural prompts have no verifier, so set `reward` to a reward model")
    return verifier({name: cluster.build() for name, cluster in clusters(data).items()}, tokenizer)


def measures_of(
    rewards: Sequence[RewardFunction],
    weights: Sequence[float] | None,
    data: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, RewardFunction]:
    """What held-out answers are measured by, first of all what is trained on.

    `sampled_reward` is the sum of the rewards by their weights, where that is not the verifier alone; `validity` is
    the verifier, where there is one.
    """
    verified = bool(data.task or data.mixture)
    measures = {"validity": task_verifier(data, tokenizer)} if verified else {}
    if verified and [reward.__name__ for reward in rewards] == [VERIFIER]:
        return measures
    return {"sampled_reward": weighted_sum(rewards, weights), **measures}
