"""Density-weighted GRPO: rare prompts are drawn more often, groups stay whole.

    accelerate launch recipes/grpo.py                      the quickstart: weights on, then off, and a report
    accelerate launch recipes/grpo.py --config my.yaml     your own prompts, policy and reward

With several numbers in `sampling_strength` each is an arm from the same fresh policy; nothing else differs.
The first arm is the run; the arm of strength 0 is its control.
"""

import copy
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import sft
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, get_peft_config

from hf_synth.reports import write_report
from hf_synth.rewards import RewardFunction
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.tasks import Task
from hf_synth.tasks.base import json_dict
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.collapse import sample_metrics
from hf_synth.training.completions import Decoding
from hf_synth.training.data import clusters, prompt_split, without_long_prompts
from hf_synth.training.errors import user_errors
from hf_synth.training.evaluation import HeldOutCallback, HeldOutPrompts, write_samples
from hf_synth.training.grpo_rewards import VERIFIER, load_rewards, measures_of
from hf_synth.training.policies import load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.prompt_weights import prompt_weights, weight_callbacks
from hf_synth.training.runs import is_main_process, open_run, write_metrics
from hf_synth.training.weighing import (
    PromptDensity,
    crowded_or_rare,
    held_out_density,
    measure_density,
    weight_metrics,
    with_weights,
    write_weights_table,
)

CONFIGS = Path(__file__).parent / "configs"


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


CLASSES = (GRPOArguments, DataArguments, WeightArguments, PolicyArguments, GRPOConfig)


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


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model, metrics.json and the report."""
    started = time.monotonic()
    grpo, data, weights, policy, args = parse_recipe(CLASSES, argv, CONFIGS / "grpo" / "quickstart.yaml")
    folder = open_run(args.output_dir, grpo, data, weights, policy, args)
    if grpo.warm_up:
        policy.model_name_or_path = warm_up(grpo.warm_up, data, folder)
    experiment = prepare(grpo, data, weights, policy, args, folder)
    metrics: dict[str, float] = {}
    for number, strength in enumerate(weights.sampling_strength):
        arm = folder if number == 0 else folder / arm_name(strength)
        if is_main_process():
            print(f"Arm {number + 1} of {len(weights.sampling_strength)}: sampling strength {strength:g}, in {arm}")
        found = run_arm(experiment, arm, weights, strength)
        metrics |= {name if number == 0 else f"{arm.name}/{name}": value for name, value in found.items()}
    metrics["seconds/total"] = time.monotonic() - started
    write_metrics(folder, metrics)
    if is_main_process():
        print(f"Report: {write_report(folder)}")
    return folder


def warm_up(config: str, data: DataArguments, folder: Path) -> str:
    """The path of the policy that recipes/sft.py makes from `config`, on this run's tasks, if it is not there yet."""
    path = Path(config) if Path(config).is_file() else CONFIGS / config
    # The same rows: then what the warm-up has seen is among the training prompts, and none of it is held out.
    rows = ["--num_rows", str(data.num_rows), "--rows_seed", str(data.rows_seed)]
    flags = ["--config", str(path), "--output_dir", str(folder / "warmup"), *rows]
    if data.task:
        flags += ["--task", data.task, "--task_args", json.dumps(data.task_args)]
        flags += ["--preset", data.preset] if data.preset else []
    elif data.mixture:
        flags += ["--mixture", json.dumps(data.mixture)]
    return str(sft.main(flags))


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
    found = prompt_split(data, folder, grpo.eval_prompts)
    prompts, held_out = (without_long_prompts(part, tokenizer, data.max_prompt_tokens) for part in found)
    measured = measure_density(prompts, weights)
    options: dict[str, Any] = {"max_length": grpo.reward_max_length, "device": args.device}
    rewards = load_rewards(grpo.reward, data, tokenizer, heads=grpo.reward_heads, **options)  # type: ignore[arg-type]
    measures = measures_of(rewards, args.reward_weights, data, tokenizer)
    asked = hold_out(held_out, prompts, measures, tokenizer, weights) if len(held_out) else None
    left_out = sum(map(len, found)) - len(prompts) - len(held_out)
    tasks = {name: cluster.build() for name, cluster in clusters(data).items()} if data.task or data.mixture else {}
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


if __name__ == "__main__":
    with user_errors("grpo.py"):
        main()
