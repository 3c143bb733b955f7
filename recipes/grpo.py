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
from pathlib import Path

import numpy as np
import sft
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, get_peft_config

from hf_synth.reports import write_report
from hf_synth.rewards import RewardFunction, reward_model, verifier
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import clusters, prompt_split, without_long_prompts
from hf_synth.training.errors import user_errors
from hf_synth.training.evaluation import SampledScore, SampledScoreCallback
from hf_synth.training.policies import load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.runs import is_main_process, open_run, write_metrics
from hf_synth.training.weighing import (
    PromptDensity,
    crowded_or_rare,
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
    reward: str | None = dataclasses.field(
        default=None, metadata={"help": "A reward model by path or Hub id; the tasks' verifier where none is given."}
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

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, least in (("eval_prompts", 0), ("sample_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least {least}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that the arms share."""

    grpo: GRPOArguments
    policy: PolicyArguments
    args: GRPOConfig
    tokenizer: PreTrainedTokenizerBase
    prompts: Dataset
    measured: PromptDensity
    reward: RewardFunction
    score: SampledScore | None
    left_out: int


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model, metrics.json and the report."""
    started = time.monotonic()
    classes = (GRPOArguments, DataArguments, WeightArguments, PolicyArguments, GRPOConfig)
    grpo, data, weights, policy, args = parse_recipe(classes, argv, CONFIGS / "grpo" / "quickstart.yaml")
    folder = open_run(args.output_dir, grpo, data, weights, policy, args)
    if grpo.warm_up:
        policy.model_name_or_path = warm_up(grpo.warm_up, data, folder)
    experiment = prepare(grpo, data, weights, policy, args, folder)
    metrics = {}
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
    require_checkpoint(policy.model_name_or_path, grpo.policy_made_by)
    if grpo.reward:
        require_checkpoint(grpo.reward, grpo.reward_made_by)
    tokenizer = load_tokenizer(policy, data)
    found = prompt_split(data, folder, grpo.eval_prompts)
    prompts, held_out = (without_long_prompts(part, tokenizer, data.max_prompt_tokens) for part in found)
    measured = measure_density(prompts, weights)
    reward = load_reward(grpo, data, args, tokenizer)
    score = None
    if len(held_out):
        clustered = "cluster" in held_out.column_names
        score = SampledScore(
            name="sampled_reward" if grpo.reward else "validity",
            prompts=held_out,
            groups=held_out["cluster"] if clustered else crowded_or_rare(held_out, prompts, weights),
            reward=reward,
            tokenizer=tokenizer,
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            seed=args.seed,
        )
    left_out = sum(map(len, found)) - len(prompts) - len(held_out)
    return Experiment(grpo, policy, args, tokenizer, prompts, measured, reward, score, left_out)


def load_reward(
    grpo: GRPOArguments, data: DataArguments, args: GRPOConfig, tokenizer: PreTrainedTokenizerBase
) -> RewardFunction:
    """The reward model that the config names, or the verifier of its tasks."""
    if grpo.reward:
        return reward_model(grpo.reward, max_length=grpo.reward_max_length, device=args.device)
    if data.task or data.mixture:
        return verifier({name: cluster.build() for name, cluster in clusters(data).items()}, tokenizer)
    raise ValueError("got no reward: natural prompts have no verifier, so set `reward` to a reward model")


def run_arm(experiment: Experiment, arm: Path, arguments: WeightArguments, strength: float) -> dict[str, float]:
    """Train one arm from a fresh policy, unless it is finished; returns its metrics."""
    arm.mkdir(parents=True, exist_ok=True)
    weights = experiment.measured.weights(arguments, strength)
    write_weights_table(arm, experiment.prompts, experiment.measured, weights)
    log = read_training_log(arm) or train(build_trainer(experiment, arm, weights))
    metrics = {**weight_metrics(experiment.measured, weights), "seconds/training": log["seconds"]}
    metrics["prompts/too_long"] = float(experiment.left_out)
    if experiment.score is not None:
        metrics["prompts/evaluated"] = float(len(experiment.score.prompts))
        metrics |= score_metrics(log["history"], experiment.score, experiment.prompts)
    write_metrics(arm, metrics)
    return metrics


def build_trainer(experiment: Experiment, arm: Path, weights: np.ndarray) -> WeightedGRPOTrainer:
    """The trainer of one arm; weights are all that the arms differ in."""
    args = copy.deepcopy(experiment.args)
    args.output_dir = str(arm)
    trainer = WeightedGRPOTrainer(
        load_policy(experiment.policy, experiment.tokenizer, args.seed),
        experiment.reward,
        args,
        train_dataset=with_weights(experiment.prompts, weights),
        processing_class=experiment.tokenizer,
        peft_config=get_peft_config(experiment.policy),
    )
    if experiment.score is not None:
        trainer.add_callback(SampledScoreCallback(trainer, experiment.score, experiment.grpo.sample_every))
    return trainer


def score_metrics(history: list[dict[str, float]], score: SampledScore, prompts: Dataset) -> dict[str, float]:
    """The measure before and after training, over all groups alike and at the two ends of density.

    Head and tail are the largest and the smallest cluster of prompts, or the crowded and the rare half of them.
    """
    looks = [entry for entry in history if score.name in entry]
    ends = {"head": "crowded", "tail": "rare"}
    if "cluster" in prompts.column_names:
        sizes = Counter(prompts["cluster"])
        ends = {"head": max(sizes, key=sizes.__getitem__), "tail": min(sizes, key=sizes.__getitem__)}
    metrics = {}
    for moment, look in (("warmup", looks[0]), ("final", looks[-1])):
        metrics[f"{score.name}/{moment}"] = look[score.name]
        for end, group in ends.items():
            if (found := look.get(f"{score.name}/{group}")) is not None:  # a single prompt has one half only
                metrics[f"{score.name}/{moment}_{end}"] = found
    return metrics


def arm_name(strength: float) -> str:
    """The folder of an arm that is not the first: `control` where prompts are drawn uniformly."""
    return "control" if strength == 0 else f"strength-{strength:g}"


if __name__ == "__main__":
    with user_errors("grpo.py"):
        main()
