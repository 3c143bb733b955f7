"""A reward model from preference pairs, by the Bradley-Terry loss, with weighted draws.

    accelerate launch recipes/reward.py --config recipes/configs/reward/hh_rlhf.yaml

Pairs are drawn by the density of their prompts; `sampling_strength: 0` draws them uniformly.
No policy is trained here.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import RewardConfig, get_peft_config

from hf_synth.reports import write_report
from hf_synth.sampling import WeightedRewardTrainer
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import pair_length, preference_split
from hf_synth.training.errors import user_errors
from hf_synth.training.policies import load_classifier, load_tokenizer, require_checkpoint
from hf_synth.training.runs import is_main_process, open_run, read_metrics, write_metrics
from hf_synth.training.weighing import measure_density, weight_metrics, with_weights, write_weights_table

CONFIG = Path(__file__).parent / "configs" / "reward" / "hh_rlhf.yaml"


@dataclasses.dataclass
class RewardArguments:
    """What this recipe adds to data, weights, model and TRL's RewardConfig."""

    policy_made_by: str | None = dataclasses.field(
        default=None, metadata={"help": "The command to name in the error where model_name_or_path is missing."}
    )


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the reward model."""
    classes = (RewardArguments, DataArguments, WeightArguments, PolicyArguments, RewardConfig)
    reward, data, weights, policy, args = parse_recipe(classes, argv, CONFIG)
    if len(weights.sampling_strength) != 1:
        raise ValueError(f"sampling_strength: got {weights.sampling_strength}, wanted one number for a reward model")
    policy.lora_task_type = "SEQ_CLS"  # what an adapter is for, should there be one
    if policy.model_name_or_path:
        require_checkpoint(policy.model_name_or_path, reward.policy_made_by)
    folder = open_run(args.output_dir, reward, data, weights, policy, args)
    if read_training_log(folder) and read_metrics(folder):
        print(f"{folder} is finished")
        return folder
    train_pairs, test_pairs = preference_split(data, folder)
    if not len(test_pairs):
        raise ValueError(f"test_share: got {data.test_share}, wanted held-out pairs to measure accuracy on")
    tokenizer = load_tokenizer(policy, data, train_pairs)
    kept = [_within(pairs, tokenizer, args.max_length) for pairs in (train_pairs, test_pairs)]
    metrics = {
        "pairs/train": float(len(kept[0])),
        "pairs/held_out": float(len(kept[1])),
        "pairs/too_long": float(len(train_pairs) + len(test_pairs) - len(kept[0]) - len(kept[1])),
    }
    measured = measure_density(kept[0], weights)
    drawn = measured.weights(weights, weights.sampling_strength[0])
    write_weights_table(folder, kept[0], measured, drawn)
    trainer = WeightedRewardTrainer(
        load_classifier(policy, tokenizer, args.seed),
        args,
        train_dataset=with_weights(kept[0], drawn),
        eval_dataset=kept[1],
        processing_class=tokenizer,
        peft_config=get_peft_config(policy),
    )
    log = train(trainer)
    evaluated = trainer.evaluate()
    metrics |= {"accuracy/held_out": evaluated["eval_accuracy"], "loss/held_out": evaluated["eval_loss"]}
    metrics["accuracy/standard_error"] = float(
        np.sqrt(evaluated["eval_accuracy"] * (1 - evaluated["eval_accuracy"]) / len(kept[1]))
    )
    write_metrics(folder, {**metrics, **weight_metrics(measured, drawn), "seconds/total": log["seconds"]})
    print(f"Held-out accuracy: {evaluated['eval_accuracy']:.3f} on {len(kept[1])} pairs")
    if is_main_process():
        print(f"Report: {write_report(folder)}")
    return folder


def _within(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None) -> Dataset:
    """The pairs that fit: the trainer would leave the others out without a word, and weights must keep their rows."""
    if most is None:
        return pairs
    kept = pairs.filter(lambda row: pair_length(row, tokenizer) <= most)
    if not len(kept):
        raise ValueError(f"max_length={most}: got {len(pairs)} pairs, all of them longer; raise it")
    return kept


if __name__ == "__main__":
    with user_errors("reward.py"):
        main()
