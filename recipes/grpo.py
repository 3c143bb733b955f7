"""Density-weighted GRPO: rare prompts are drawn more often, groups stay whole.

    accelerate launch recipes/grpo.py                      the quickstart: weights on, then off, and a report
    accelerate launch recipes/grpo.py --config my.yaml     your own prompts, policy and reward

With several numbers in `sampling_strength` each is an arm from the same fresh policy; nothing else differs.
The first arm is the run; the arm of strength 0 is its control.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import sft
from trl import GRPOConfig

from hf_synth.errors import user_errors
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import is_main_process
from hf_synth.reports import write_report
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.grpo import GRPOArguments, arm_name, prepare, run_arm
from hf_synth.training.run_directory import run_directory, write_metrics

CONFIGS = Path(__file__).parent / "configs"
CLASSES = (PublishArguments, GRPOArguments, DataArguments, WeightArguments, PolicyArguments, GRPOConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model, metrics.json and the report."""
    publishing, grpo, data, weights, policy, args = parse_recipe(
        CLASSES, argv, CONFIGS / "grpo" / "quickstart.yaml", __doc__
    )
    with run_directory(args.output_dir, grpo, data, weights, policy, args) as folder:
        open_repository(folder, publishing)
        run(folder, grpo, data, weights, policy, args)
        publish_run(folder, publishing)
    return folder


def run(
    folder: Path,
    grpo: GRPOArguments,
    data: DataArguments,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: GRPOConfig,
) -> None:
    """Train what is not trained yet, and write the numbers and the report."""
    started = time.monotonic()
    if grpo.warm_up:
        policy.model_name_or_path = warm_up(grpo.warm_up, data, args.seed, folder)
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


def warm_up(config: str, data: DataArguments, seed: int, folder: Path) -> str:
    """The path of the policy that recipes/sft.py makes from `config`, on this run's tasks, if it is not there yet."""
    path = Path(config) if Path(config).is_file() else CONFIGS / config
    # The same rows: then what the warm-up has seen is among the training prompts, and none of it is held out.
    rows = ["--num_rows", str(data.num_rows), "--rows_seed", str(data.rows_seed), "--seed", str(seed)]
    flags = ["--config", str(path), "--output_dir", str(folder / "warmup"), *rows]
    if data.task:
        flags += ["--task", data.task, "--task_args", json.dumps(data.task_args)]
        flags += ["--preset", data.preset] if data.preset else []
    elif data.mixture:
        flags += ["--mixture", json.dumps(data.mixture)]
    return str(sft.main(flags))


if __name__ == "__main__":
    with user_errors("grpo.py"):
        main()
