# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""A reward model from preference pairs, by the Bradley-Terry loss, with weighted draws.

    accelerate launch recipes/reward.py --config recipes/configs/density/hh_rlhf_reward.yaml

Pairs are drawn by the density of their prompts; `sampling_strength: 0` draws them uniformly. With `heads` the model
gets one score for each aspect of quality. No policy is trained here.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import RewardConfig

from hf_synth.errors import option, user_errors
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import is_main_process
from hf_synth.reports import write_report
from hf_synth.sampling import WeightedRewardTrainer
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import train
from hf_synth.training.data import accuracy_metrics, evaluate_pairs, fitting_pairs, preference_split
from hf_synth.training.models import (
    HeadedRewardTrainer,
    adapter_config,
    load_classifier,
    load_tokenizer,
    require_checkpoint,
    with_head_signs,
)
from hf_synth.training.run_directory import is_finished, record_data_fingerprint, run_directory, write_metrics
from hf_synth.training.weighting import weigh_rows

CONFIG = Path(__file__).parent / "configs" / "density" / "hh_rlhf_reward.yaml"


@dataclasses.dataclass
class RewardArguments:
    """What this recipe adds to data, weights, model and TRL's RewardConfig."""

    policy_made_by: str | None = option(None, "The command to name in the error where model_name_or_path is missing.")
    heads: list[str] | None = option(
        None, "Aspects with one score each, such as quality diversity; see docs/post_training.md for the columns."
    )
    aspect_column: str | None = option(
        None, "The column that names the head of each pair; without it, columns HEAD_chosen and HEAD_rejected."
    )

    def __post_init__(self) -> None:
        """Refuse heads of one name, and a column without heads."""
        if self.heads and (len(set(self.heads)) < len(self.heads) or "" in self.heads):
            raise ValueError(f"heads: got {self.heads}, wanted different names")
        if self.aspect_column and not self.heads:
            raise ValueError(f"aspect_column: got {self.aspect_column!r} without heads; name them with --heads")

    @property
    def columns(self) -> dict[str, type]:
        """The columns of a file of pairs that tell the heads apart, and what stands in them."""
        if self.aspect_column:
            return {self.aspect_column: str}
        return {f"{head}_{side}": float for head in self.heads or () for side in ("chosen", "rejected")}


CLASSES = (PublishArguments, RewardArguments, DataArguments, WeightArguments, PolicyArguments, RewardConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the reward model."""
    parsed = parse_recipe(CLASSES, argv, CONFIG, __doc__)
    publishing, reward, data, weights, policy, args = parsed
    weights.one_strength()
    policy.lora_task_type = "SEQ_CLS"  # what an adapter is for, should there be one
    if policy.model_name_or_path:
        require_checkpoint(policy.model_name_or_path, reward.policy_made_by)
    with run_directory(args.output_dir, *parsed[1:], recipe="reward", settings=parsed.settings) as folder:
        open_repository(folder, publishing)
        run(folder, reward, data, weights, policy, args)
        publish_run(folder, publishing)
    return folder


def run(
    folder: Path,
    reward: RewardArguments,
    data: DataArguments,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: RewardConfig,
) -> None:
    """Train, unless that is done, and write the numbers and the report."""
    if is_finished(folder):
        print(f"{folder} is finished")
        if is_main_process() and not (folder / "report.html").exists():
            write_report(folder)
        return
    train_pairs, test_pairs = preference_split(data, folder, keep=reward.columns)
    record_data_fingerprint(folder, train_pairs, [(policy.model_name_or_path, policy.model_revision)])
    if not len(test_pairs):
        raise ValueError(f"test_share: got {data.test_share}, wanted held-out pairs to measure accuracy on")
    tokenizer = load_tokenizer(policy, data, train_pairs, args.chat_template_path)
    fitting, held_out, metrics = fitting_pairs(train_pairs, test_pairs, tokenizer, args.max_length, folder)
    trainer_class: Any = WeightedRewardTrainer
    if reward.heads:
        trainer_class = HeadedRewardTrainer
        fitting, held_out = (
            with_head_signs(pairs, reward.heads, reward.aspect_column) for pairs in (fitting, held_out)
        )
    weighed = weigh_rows(fitting, weights, args.seed)
    metrics |= weighed.record(folder)
    trainer = trainer_class(
        load_classifier(policy, tokenizer, args.seed, reward.heads),
        args,
        train_dataset=weighed.dataset,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter_config(policy),
        round_size=weights.round_size,
    )
    weighed.add_callbacks(trainer)
    log = train(trainer)
    measured = trainer.evaluate() if reward.heads else evaluate_pairs(trainer)
    metrics |= accuracy_metrics(measured["eval_accuracy"], measured["eval_loss"], len(held_out))
    for head in reward.heads or ():
        metrics[f"accuracy/held_out/{head}"] = measured[f"eval_accuracy/{head}"]
    write_metrics(folder, {**metrics, "seconds/total": log["seconds"]})
    if is_main_process():
        print(f"Held-out accuracy: {metrics['accuracy/held_out']:.3f} on {len(held_out)} pairs")
        print(f"Report: {write_report(folder)}")


if __name__ == "__main__":
    with user_errors("reward.py"):
        main()
