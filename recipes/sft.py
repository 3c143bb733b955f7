"""Supervised fine-tuning: imitate rows of tasks, or the chosen answers of preference pairs.

    accelerate launch recipes/sft.py --config recipes/configs/sft/hh_rlhf.yaml

It knows no reward and no weights; what it leaves is the policy that recipes/reward.py and recipes/grpo.py start from.
"""

from collections.abc import Sequence
from pathlib import Path

from trl import SFTConfig, SFTTrainer, get_peft_config

from hf_synth.reports import write_report
from hf_synth.training.arguments import DataArguments, PolicyArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import imitation_rows, without_long_prompts
from hf_synth.training.errors import user_errors
from hf_synth.training.policies import load_policy, load_tokenizer
from hf_synth.training.runs import is_main_process, open_run, write_metrics

QUICKSTART = Path(__file__).parent / "configs" / "sft" / "quickstart.yaml"


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model."""
    data, policy, args = parse_recipe((DataArguments, PolicyArguments, SFTConfig), argv, QUICKSTART)
    folder = open_run(args.output_dir, data, policy, args)
    if read_training_log(folder):
        print(f"{folder} is finished")
        return folder
    rows = imitation_rows(data, folder)
    tokenizer = load_tokenizer(policy, data, rows)
    rows = without_long_prompts(rows, tokenizer, data.max_prompt_tokens)
    trainer = SFTTrainer(
        load_policy(policy, tokenizer, args.seed),
        args,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=get_peft_config(policy),
    )
    log = train(trainer)
    losses = [entry["loss"] for entry in log["history"] if "loss" in entry]
    losses = losses or [entry["train_loss"] for entry in log["history"] if "train_loss" in entry]  # too short to log
    metrics = {"rows": float(len(rows)), "seconds/total": log["seconds"]}
    write_metrics(folder, {**metrics, "loss/final": losses[-1]} if losses else metrics)
    if is_main_process():
        print(f"Report: {write_report(folder)}")
    return folder


if __name__ == "__main__":
    with user_errors("sft.py"):
        main()
