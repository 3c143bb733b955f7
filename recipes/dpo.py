# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""DPO: a policy straight from preference pairs, with weighted draws.

    accelerate launch recipes/dpo.py --config recipes/configs/density/hh_rlhf_dpo.yaml

Pairs are drawn by the density of their prompts; `sampling_strength: 0` draws them uniformly. `beta` is the KL
coefficient to the policy that training starts from. No reward model, and no answer of its own, is involved.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from trl import DPOConfig

from hf_synth.errors import option, user_errors
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import is_main_process
from hf_synth.reports import write_report
from hf_synth.sampling import WeightedDPOTrainer
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.checkpoints import train
from hf_synth.training.data import accuracy_metrics, evaluate_pairs, fitting_pairs, preference_split
from hf_synth.training.models import adapter_config, load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.run_directory import is_finished, record_data_fingerprint, run_directory, write_metrics
from hf_synth.training.weighting import weigh_rows

CONFIG = Path(__file__).parent / "configs" / "density" / "hh_rlhf_dpo.yaml"


@dataclasses.dataclass
class DPOArguments:
    """What this recipe adds to data, weights, model and TRL's DPOConfig."""

    policy_made_by: str | None = option(None, "The command to name in the error where model_name_or_path is missing.")


CLASSES = (PublishArguments, DPOArguments, DataArguments, WeightArguments, PolicyArguments, DPOConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the policy."""
    parsed = parse_recipe(CLASSES, argv, CONFIG, __doc__)
    publishing, dpo, data, weights, policy, args = parsed
    weights.one_strength()
    if policy.model_name_or_path is None:
        raise ValueError("got no policy: set model_name_or_path to what recipes/sft.py left")
    require_checkpoint(policy.model_name_or_path, dpo.policy_made_by)
    with run_directory(args.output_dir, *parsed[1:], recipe="dpo", settings=parsed.settings) as folder:
        open_repository(folder, publishing)
        run(folder, data, weights, policy, args)
        publish_run(folder, publishing)
    return folder


def run(folder: Path, data: DataArguments, weights: WeightArguments, policy: PolicyArguments, args: DPOConfig) -> None:
    """Train, unless that is done, and write the numbers and the report."""
    if is_finished(folder):
        print(f"{folder} is finished")
        if is_main_process() and not (folder / "report.html").exists():
            write_report(folder)
        return
    train_pairs, test_pairs = preference_split(data, folder)
    record_data_fingerprint(folder, train_pairs, [(policy.model_name_or_path, policy.model_revision)])
    if not len(test_pairs):
        raise ValueError(f"test_share: got {data.test_share}, wanted held-out pairs to measure accuracy on")
    tokenizer = load_tokenizer(policy, data, train_pairs)
    fitting, held_out, metrics = fitting_pairs(train_pairs, test_pairs, tokenizer, args.max_length, folder)
    weighed = weigh_rows(fitting, weights, args.seed)
    metrics |= weighed.record(folder)
    trainer = WeightedDPOTrainer(
        load_policy(policy, tokenizer, args.seed),
        args=args,  # the reference is a copy of that model; of an adapter, the model without it
        train_dataset=weighed.dataset,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter_config(policy),
        round_size=weights.round_size,
    )
    weighed.add_callbacks(trainer)
    log = train(trainer)
    measured = evaluate_pairs(trainer)
    metrics |= accuracy_metrics(measured["eval_rewards/accuracies"], measured["eval_loss"], len(held_out))
    metrics["margin/held_out"] = measured["eval_rewards/margins"]
    write_metrics(folder, {**metrics, "seconds/total": log["seconds"]})
    if is_main_process():
        print(f"Held-out accuracy: {metrics['accuracy/held_out']:.3f} on {len(held_out)} pairs")
        print(f"Report: {write_report(folder)}")


if __name__ == "__main__":
    with user_errors("dpo.py"):
        main()
