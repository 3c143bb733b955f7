"""The arms of a GRPO run: what they share, and each from a fresh policy to measured answers."""

import copy
import dataclasses
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, get_peft_config

from hf_synth.rewards import RewardFunction
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.tasks import Task
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.collapse import sample_metrics
from hf_synth.training.completions import Decoding
from hf_synth.training.data import clusters, prompt_split, without_long_prompts
from hf_synth.training.evaluation import HeldOutCallback, HeldOutPrompts, write_samples
from hf_synth.training.grpo.arguments import VERIFIER, GRPOArguments
from hf_synth.training.grpo.rewards import load_rewards, measures_of
from hf_synth.training.policies import load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.prompt_weights import prompt_weights, weight_callbacks
from hf_synth.training.runs import claim_rows, write_metrics
from hf_synth.training.weighing import (
    PromptDensity,
    crowded_or_rare,
    held_out_density,
    measure_density,
    weight_metrics,
    with_weights,
    write_weights_table,
)


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
    claim_rows(folder, found[0])
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
