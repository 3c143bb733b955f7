"""What recipes/grpo.py adds to data, weights, policy and TRL's GRPOConfig."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, get_peft_config

from hf_synth.errors import check_fields, option
from hf_synth.evaluation.collapse import sample_metrics
from hf_synth.evaluation.generation import Decoding
from hf_synth.evaluation.held_out import HeldOutPrompts, write_samples
from hf_synth.rewards import RewardFunction, reward_model, verifier, weighted_sum
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.tasks import Task
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments
from hf_synth.training.callbacks import HeldOutCallback
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import clusters, prompt_split, without_long_prompts
from hf_synth.training.models import load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.run_directory import record_data_fingerprint, write_metrics
from hf_synth.training.weighting import (
    PromptDensity,
    crowded_or_rare,
    held_out_density,
    measure_density,
    prompt_weights,
    weight_callbacks,
    weight_metrics,
    with_weights,
    write_weights_table,
)

VERIFIER = "verifier"


@dataclasses.dataclass
class GRPOArguments:
    """What this recipe adds to data, weights, policy and TRL's GRPOConfig."""

    warm_up: str | None = option(None, "A config of recipes/sft.py that makes the first policy, run if need be.")
    policy_made_by: str | None = option(None, "The command to name in the error where the policy is missing.")
    reward: list[str] = option(
        [],
        "Reward models by path or Hub id, and `verifier` for the tasks'; that alone where none is given. "
        "--reward_weights says what each counts.",
    )
    reward_heads: dict[str, Any] | str | None = option(
        None, "What each head of a reward model with several counts for, as JSON: head -> weight.", json=True
    )
    reward_made_by: str | None = option(None, "The command to name in the error where the reward model is missing.")
    reward_max_length: int | None = option(None, "The reward model reads at most so many tokens, the last ones.")
    eval_prompts: int = option(
        64, "Held-out prompts that completions are sampled for: a cluster, or in all.", at_least=0
    )
    sample_every: int = option(20, "Steps between two looks at them.", at_least=1)
    look_samples: int = option(1, "Completions a prompt at each look.", at_least=1)
    final_samples: int = option(4, "Completions a prompt of the trained policy, kept in samples.parquet.", at_least=1)

    def __post_init__(self) -> None:
        """Read JSON values and a single reward; refuse numbers out of range."""
        given: Any = self.reward
        self.reward = [given] if isinstance(given, str) else [name for name in given if name]
        check_fields(self)
        self.reward_heads = self.reward_heads or None

    def check_beside(self, others: Sequence[Any]) -> None:
        """Refuse pass rates of rewards that are none."""
        kinds = [kind for other in others if isinstance(other, WeightArguments) for kind in other.sampling_by]
        if "pass_rate" in kinds and set(self.reward) - {VERIFIER}:
            raise ValueError(
                f"sampling_by: got pass_rate with the reward {', '.join(self.reward)}, wanted the verifier alone: a "
                "reward model's scores have no pass rate; leave pass_rate out, or the reward model"
            )


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


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that the arms share."""

    grpo: GRPOArguments
    policy: PolicyArguments
    args: GRPOConfig
    tokenizer: PreTrainedTokenizerBase
    prompts: Dataset
    measured: PromptDensity
    rewards: list[RewardFunction]
    held_out: HeldOutPrompts | None
    tasks: dict[str, Task]
    left_out: int

    def decoding(self, samples: int) -> Decoding:
        """How held-out prompts are answered: as in training, `samples` times each."""
        return Decoding(self.args.max_completion_length, samples, self.args.temperature, self.args.seed)


def prepare(
    grpo: GRPOArguments,
    data: DataArguments,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: GRPOConfig,
    folder: Path,
) -> Experiment:
    """Load what the arms share: prompts and their density, tokenizer, reward, and the measure on held-out prompts."""
    if policy.model_name_or_path is None:
        raise ValueError("got no policy: set model_name_or_path, or warm_up to a config of recipes/sft.py")
    if args.use_vllm and find_spec("vllm") is None:
        raise ValueError(
            "use_vllm: got true, and vllm is not installed; install it, or leave generation to transformers"
        )
    require_checkpoint(policy.model_name_or_path, grpo.policy_made_by)
    for name in grpo.reward:
        if name != VERIFIER:
            require_checkpoint(name, grpo.reward_made_by)
    tokenizer = load_tokenizer(policy, data)
    tasks = {name: cluster.build() for name, cluster in clusters(data).items()} if data.task or data.mixture else {}
    found = prompt_split(data, folder, grpo.eval_prompts)
    record_data_fingerprint(folder, found[0])
    prompts, held_out = (without_long_prompts(part, tokenizer, data.max_prompt_tokens) for part in found)
    left_out = sum(map(len, found)) - len(prompts) - len(held_out)
    if not tasks:  # natural prompts are held out by their share, and too long ones left out before some are taken
        held_out = held_out.select(range(min(grpo.eval_prompts, len(held_out))))
    measured = measure_density(prompts, weights)
    options: dict[str, Any] = {"max_length": grpo.reward_max_length, "device": args.device}
    rewards = load_rewards(grpo.reward, data, tokenizer, heads=grpo.reward_heads, **options)  # type: ignore[arg-type]
    measures = measures_of(rewards, args.reward_weights, data, tokenizer)
    asked = hold_out(held_out, prompts, measures, tokenizer, weights) if len(held_out) else None
    return Experiment(grpo, policy, args, tokenizer, prompts, measured, rewards, asked, tasks, left_out)


def hold_out(
    held_out: Dataset,
    prompts: Dataset,
    rewards: dict[str, RewardFunction],
    tokenizer: PreTrainedTokenizerBase,
    weights: WeightArguments,
) -> HeldOutPrompts:
    """Held-out prompts with their density among all, grouped by cluster, or as the crowded and the rare half."""
    density = held_out_density(held_out, prompts, weights)
    clustered = "cluster" in held_out.column_names
    groups = held_out["cluster"] if clustered else crowded_or_rare(density)
    sizes = Counter(prompts["cluster"]) if clustered else {}
    return HeldOutPrompts(held_out, list(groups), sizes, density.tolist(), rewards, tokenizer)


def run_arm(experiment: Experiment, arm: Path, arguments: WeightArguments, strength: float) -> dict[str, float]:
    """Train one arm from a fresh policy, unless it is finished; returns its metrics."""
    arm.mkdir(parents=True, exist_ok=True)
    density, seed = experiment.measured.density, experiment.args.seed
    weights = prompt_weights(experiment.prompts, density, arguments, strength, seed)
    write_weights_table(arm, experiment.prompts, experiment.measured, weights)
    log = read_training_log(arm) or train_arm(experiment, arm, arguments, strength, weights)
    metrics = {**weight_metrics(experiment.measured, weights), "seconds/training": log["seconds"]}
    metrics["prompts/too_long"] = float(experiment.left_out)
    if experiment.held_out is not None:
        metrics["prompts/evaluated"] = float(len(experiment.held_out.prompts))
        metrics |= score_metrics(log["history"], experiment.held_out, experiment.prompts) | log["samples"]
    write_metrics(arm, metrics)
    return metrics


def train_arm(
    experiment: Experiment, arm: Path, arguments: WeightArguments, strength: float, weights: np.ndarray
) -> dict[str, Any]:
    """Train one arm, looking at the held-out prompts now and then, and keep the last answers; returns the log.

    Weights are all that the arms differ in.
    """
    args = copy.deepcopy(experiment.args)
    args.output_dir = str(arm)
    policy = load_policy(experiment.policy, experiment.tokenizer, args.seed)
    reference = None if experiment.policy.use_peft else copy.deepcopy(policy).eval().requires_grad_(False)
    trainer = WeightedGRPOTrainer(
        policy,
        list(experiment.rewards),
        args,
        train_dataset=with_weights(experiment.prompts, weights),
        round_size=arguments.round_size,
        processing_class=experiment.tokenizer,
        peft_config=get_peft_config(experiment.policy),
    )
    prompts, density = experiment.prompts, experiment.measured.density
    for callback in weight_callbacks(trainer, prompts, density, arguments, strength, args.seed):
        trainer.add_callback(callback)
    held_out, grpo = experiment.held_out, experiment.grpo
    if held_out is None:
        return train(trainer)
    if reference is not None:
        reference = reference.to(args.device)
    looks = experiment.decoding(grpo.look_samples)
    trainer.add_callback(HeldOutCallback(trainer, held_out, reference, looks, grpo.sample_every))

    def finish() -> dict[str, Any]:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        last = held_out.sample(trained, reference, experiment.decoding(grpo.final_samples))
        table = held_out.table(last)
        write_samples(arm, table)
        measured = sample_metrics(table, experiment.tasks, cluster_sizes=held_out.sizes or None)
        halves = {name: value for name, value in held_out.means(last).items() if name.startswith("halves/")}
        return {"samples": {**measured, **halves}}

    return train(trainer, finish=finish)


def score_metrics(history: list[dict[str, float]], held_out: HeldOutPrompts, prompts: Dataset) -> dict[str, float]:
    """The first and the last look at the held-out prompts, over all groups alike and at the two ends of density.

    Head and tail are the largest and the smallest cluster of prompts, or the crowded and the rare half of them.
    """
    measure = next(iter(held_out.rewards))
    looks = [entry for entry in history if measure in entry]
    ends = {"head": "crowded", "tail": "rare"}
    if "cluster" in prompts.column_names:
        sizes = Counter(prompts["cluster"])
        ends = {"head": max(sizes, key=sizes.__getitem__), "tail": min(sizes, key=sizes.__getitem__)}
    metrics: dict[str, float] = {}
    for moment, look in (("warmup", looks[0]), ("final", looks[-1])):
        for name in held_out.rewards:
            metrics[f"{name}/{moment}"] = look[name]
            for end, group in ends.items():
                if (found := look.get(f"{name}/{group}")) is not None:  # a single prompt has one half only
                    metrics[f"{name}/{moment}_{end}"] = found
    return metrics


def arm_name(strength: float) -> str:
    """The folder of an arm that is not the first: `control` where prompts are drawn uniformly."""
    return "control" if strength == 0 else f"strength-{strength:g}"
