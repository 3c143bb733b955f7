# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""Supervised fine-tuning: imitate rows of tasks, or the chosen answers of preference pairs.

    accelerate launch recipes/sft.py --config recipes/configs/density/hh_rlhf_sft.yaml

It knows no reward; what it leaves is the policy that recipes/reward.py, dpo.py and grpo.py start from. Rows are drawn
uniformly unless `sampling_strength` is above 0: then by the density of their prompts.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from hf_synth.errors import option, user_errors
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import is_main_process
from hf_synth.reports import write_report
from hf_synth.sampling import WeightedSFTTrainer
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import accepted_by_template, imitation_rows, rejected_counts, without_long_prompts
from hf_synth.training.models import adapter_config, load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.run_directory import is_finished, record_data_fingerprint, run_directory, write_metrics
from hf_synth.training.weighting import weigh_rows

QUICKSTART = Path(__file__).parent / "configs" / "density" / "quickstart_sft.yaml"


@dataclasses.dataclass
class SFTWeightArguments(WeightArguments):
    """Weights are off here unless they are asked for."""

    sampling_strength: list[float] = option(
        [0.0], "Weights are density**-strength; 0 is uniform, and density is not measured then."
    )


CLASSES = (PublishArguments, DataArguments, SFTWeightArguments, PolicyArguments, SFTConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model."""
    parsed = parse_recipe(CLASSES, argv, QUICKSTART, __doc__)
    publishing, data, weights, policy, args = parsed
    weights.one_strength()
    if policy.model_name_or_path:
        require_checkpoint(policy.model_name_or_path)
    if args.packing and weights.active:
        raise ValueError("packing: got true with weights, wanted one of them: a packed row is made of several")
    with run_directory(args.output_dir, *parsed[1:], recipe="sft", settings=parsed.settings) as folder:
        open_repository(folder, publishing)
        run(folder, data, weights, policy, args)
        publish_run(folder, publishing)
    return folder


def run(folder: Path, data: DataArguments, weights: WeightArguments, policy: PolicyArguments, args: SFTConfig) -> None:
    """Train, unless that is done, and write the numbers and the report."""
    if is_finished(folder):
        print(f"{folder} is finished")
        if is_main_process() and not (folder / "report.html").exists():
            write_report(folder)
        return
    rows = imitation_rows(data, folder)
    record_data_fingerprint(folder, rows, [(policy.model_name_or_path, policy.model_revision)])
    tokenizer = load_tokenizer(policy, data, rows, args.chat_template_path)
    rows = accepted_by_template(rows, tokenizer, folder)
    before = len(rows)
    rows = without_long_prompts(rows, tokenizer, longest_prompt(data, args))
    numbers = {"rows": float(len(rows)), "prompts/too_long": float(before - len(rows)), **rejected_counts(folder)}
    trainer, of_weights = build_trainer(rows, tokenizer, weights, policy, args, folder)
    log = read_training_log(folder) or train(trainer)
    losses = [entry["loss"] for entry in log["history"] if "loss" in entry]
    losses = losses or [entry["train_loss"] for entry in log["history"] if "train_loss" in entry]  # too short to log
    metrics = {**numbers, "seconds/total": log["seconds"], **of_weights}
    write_metrics(folder, {**metrics, "loss/final": losses[-1]} if losses else metrics)
    if is_main_process():
        print(f"Report: {write_report(folder)}")


def longest_prompt(data: DataArguments, args: SFTConfig) -> int | None:
    """Return how long a prompt may be; TRL drops rows of longer ones, without a word, when nothing else is left."""
    cut = args.max_length if args.truncation_mode == "keep_start" and not args.packing else None
    limits = [data.max_prompt_tokens, None if cut is None else cut - 1]
    return min((limit for limit in limits if limit is not None), default=None)


def build_trainer(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: SFTConfig,
    folder: Path,
) -> tuple[SFTTrainer, dict[str, float]]:
    """The trainer, and what is said of its weights; packed rows have none, so they are drawn by TRL's own sampler."""
    model = load_policy(policy, tokenizer, args.seed)
    options: dict[str, Any] = {"processing_class": tokenizer, "peft_config": adapter_config(policy)}
    if args.packing and not weights.active:
        return SFTTrainer(model, args, train_dataset=rows, **options), {}
    weighed = weigh_rows(rows, weights, args.seed, unweighed=not weights.active)
    trainer = WeightedSFTTrainer(model, args, train_dataset=weighed.dataset, round_size=weights.round_size, **options)
    weighed.add_callbacks(trainer)
    return trainer, weighed.record(folder)


if __name__ == "__main__":
    with user_errors("sft.py"):
        main()
