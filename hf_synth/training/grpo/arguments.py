"""What recipes/grpo.py adds to data, weights, policy and TRL's GRPOConfig."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hf_synth.tasks.base import json_dict
from hf_synth.training.arguments import WeightArguments

VERIFIER = "verifier"


@dataclasses.dataclass
class GRPOArguments:
    """What this recipe adds to data, weights, policy and TRL's GRPOConfig."""

    warm_up: str | None = dataclasses.field(
        default=None, metadata={"help": "A config of recipes/sft.py that makes the first policy, run if need be."}
    )
    policy_made_by: str | None = dataclasses.field(
        default=None, metadata={"help": "The command to name in the error where the policy is missing."}
    )
    reward: list[str] = dataclasses.field(
        default_factory=list,
        metadata={
            "help": "Reward models by path or Hub id, and `verifier` for the tasks'; that alone where none is given. "
            "--reward_weights says what each counts."
        },
    )
    reward_heads: dict[str, Any] | str | None = dataclasses.field(
        default=None,
        metadata={"help": "What each head of a reward model with several counts for, as JSON: head -> weight."},
    )
    reward_made_by: str | None = dataclasses.field(
        default=None, metadata={"help": "The command to name in the error where the reward model is missing."}
    )
    reward_max_length: int | None = dataclasses.field(
        default=None, metadata={"help": "The reward model reads at most so many tokens, the last ones."}
    )
    eval_prompts: int = dataclasses.field(
        default=64, metadata={"help": "Held-out prompts that completions are sampled for: a cluster, or in all."}
    )
    sample_every: int = dataclasses.field(default=20, metadata={"help": "Steps between two looks at them."})
    look_samples: int = dataclasses.field(default=1, metadata={"help": "Completions a prompt at each look."})
    final_samples: int = dataclasses.field(
        default=4, metadata={"help": "Completions a prompt of the trained policy, kept in samples.parquet."}
    )

    def __post_init__(self) -> None:
        """Read JSON values and a single reward; refuse numbers out of range."""
        given: Any = self.reward
        self.reward = [given] if isinstance(given, str) else [name for name in given if name]
        self.reward_heads = json_dict(self.reward_heads, "reward_heads") or None
        for name, least in (("eval_prompts", 0), ("sample_every", 1), ("look_samples", 1), ("final_samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least {least}")

    def check_beside(self, others: Sequence[Any]) -> None:
        """Refuse pass rates of rewards that are none."""
        kinds = [kind for other in others if isinstance(other, WeightArguments) for kind in other.sampling_by]
        if "pass_rate" in kinds and set(self.reward) - {VERIFIER}:
            raise ValueError(
                f"sampling_by: got pass_rate with the reward {', '.join(self.reward)}, wanted the verifier alone: a "
                "reward model's scores have no pass rate; leave pass_rate out, or the reward model"
            )
