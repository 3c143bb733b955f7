# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
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
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sft
from datasets import Dataset
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase
from trl import GRPOConfig

from hf_synth.errors import check_fields, option, user_errors
from hf_synth.evaluation.collapse import sample_metrics
from hf_synth.evaluation.generation import Decoding
from hf_synth.evaluation.held_out import HeldOutPrompts, write_samples
from hf_synth.experiments.arms import arm_label, run_folder, strength_arms, strength_name
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import is_main_process
from hf_synth.preferences import read_plain_text
from hf_synth.reports import write_report
from hf_synth.rewards import VERIFIER, RewardFunction, end_token_ids, held_out_measures, is_function, load_rewards
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.sampling.language_models import named_revision
from hf_synth.tasks import Task, source_digest
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments, parse_recipe
from hf_synth.training.callbacks import HeldOutCallback, names_for_trackers
from hf_synth.training.checkpoints import read_training_log, train
from hf_synth.training.data import (
    accepted_by_template,
    built_tasks,
    prompt_split,
    rejected_counts,
    without_long_prompts,
)
from hf_synth.training.models import adapter_config, from_pretrained, load_policy, load_tokenizer, require_checkpoint
from hf_synth.training.run_directory import read_metrics, record_data_fingerprint, run_directory, write_metrics
from hf_synth.training.weighting import (
    PromptDensity,
    WeighedRows,
    crowded_or_rare,
    held_out_density,
    measure_density,
)

CONFIGS = Path(__file__).parent / "configs"


@dataclasses.dataclass
class GRPOArguments:
    """What this recipe adds to data, weights, policy and TRL's GRPOConfig."""

    warm_up: str | None = option(None, "A config of recipes/sft.py that trains the first policy if it does not exist.")
    policy_made_by: str | None = option(None, "The command to name in the error where the policy is missing.")
    reward: list[str] = option(
        [],
        "Reward models by path or Hub id (OWNER/NAME@REVISION), functions of your own as path.py:function or "
        "module.function, and `verifier`, the task's own, which is the default. --reward_weights sets their weights.",
    )
    reward_heads: dict[str, Any] | str | None = option(
        None, "The weight of each head of a reward model with several, as JSON: head -> weight.", json=True
    )
    reward_made_by: str | None = option(None, "The command to name in the error where the reward model is missing.")
    reward_max_length: int | None = option(
        None, "The reward model reads at most this many tokens: the last ones of a text.", at_least=1
    )
    eval_prompts: int = option(
        64, "Held-out prompts to evaluate on: per cluster, or in all without clusters.", at_least=0
    )
    sample_every: int = option(20, "Steps between two evaluations on held-out prompts.", at_least=1)
    look_samples: int = option(1, "Completions per prompt at each evaluation.", at_least=1)
    final_samples: int = option(4, "Completions per prompt of the trained policy (samples.parquet).", at_least=1)

    def __post_init__(self) -> None:
        """Read JSON values and a single reward; refuse numbers out of range."""
        rewards: Any = self.reward
        self.reward = [rewards] if isinstance(rewards, str) else [name for name in rewards if name]
        for name in self.reward:
            if ".py" in name and not (is_function(name) or Path(name).is_dir()):
                raise ValueError(f"reward: got {name!r}, wanted path.py:function for a function of your own")
        check_fields(self)
        self.reward_heads = self.reward_heads or None

    def check_beside(self, others: Sequence[Any]) -> None:
        """Refuse pass_rate weights with a reward model: they need a reward of 0 or 1."""
        kinds = [kind for other in others if isinstance(other, WeightArguments) for kind in other.sampling_by]
        if "pass_rate" in kinds and not all(name == VERIFIER or is_function(name) for name in self.reward):
            raise ValueError(
                f"sampling_by: got pass_rate with the reward {', '.join(self.reward)}, wanted the verifier, or a "
                "function that gives 0 to 1: a reward model's scores have no pass rate; leave one of both out"
            )


CLASSES = (PublishArguments, GRPOArguments, DataArguments, WeightArguments, PolicyArguments, GRPOConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model, metrics.json and the report."""
    parsed = parse_recipe(CLASSES, argv, CONFIGS / "density" / "quickstart.yaml", __doc__)
    publishing, grpo, data, weights, policy, args = parsed
    with run_directory(args.output_dir, *parsed[1:], recipe="grpo", settings=parsed.settings) as folder:
        started = time.monotonic()
        open_repository(folder, publishing)
        if "seconds/total" in (read_metrics(folder) or {}):  # written last
            print(f"{folder} is finished")
            if is_main_process() and not (folder / "report.html").exists():
                write_report(folder)
            publish_run(folder, publishing)
            return folder
        if grpo.warm_up:
            policy.model_name_or_path = warm_up(grpo.warm_up, data, args, folder)
        shared = load_shared(folder, grpo, data, weights, policy, args)
        metrics: dict[str, float] = {}
        strengths = weights.sampling_strength
        for number, (name, strength) in enumerate(zip(strength_arms(strengths), strengths, strict=True), start=1):
            arm = run_folder(folder, name)
            if is_main_process():
                print(f"Arm {number} of {len(strengths)}: {arm_label(strength, weights.sampling_by)}, in {arm}")
            measured = train_arm(arm, shared, strength, grpo, weights, policy, args)
            metrics |= {f"{name}/{key}".lstrip("/"): value for key, value in measured.items()}
        write_metrics(folder, {**metrics, **rejected_counts(folder), "seconds/total": time.monotonic() - started})
        if is_main_process():
            print(results_table(metrics, strengths, weights.sampling_by))
            print(f"Report: {write_report(folder)}")
        publish_run(folder, publishing)
    return folder


def warm_up(config: str, data: DataArguments, args: GRPOConfig, folder: Path) -> str:
    """Return the path of the policy that recipes/sft.py makes from `config` on this run's tasks, made if missing."""
    path = Path(config) if Path(config).is_file() else CONFIGS / config
    # The same rows: then what the warm-up has seen is among the training prompts, and none of it is held out.
    rows = ["--rows_seed", str(data.rows_seed), "--seed", str(args.seed)]
    rows += ["--num_rows", str(data.num_rows)] if data.task or data.mixture else []
    flags = ["--config", str(path), "--output_dir", str(folder / "warmup"), *rows]
    for name in ("push_to_hub", "push_samples", "push_arms", "overwrite_card"):
        flags += [f"--{name}", "false"]  # it is a part of this run
    names = names_for_trackers(folder, "warmup", args.seed, project=args.project, run_name=args.run_name)
    flags += ["--project", names["project"], "--run_name", names["run_name"]]
    if data.task:
        flags += ["--task", data.task, "--task_args", json.dumps(data.task_args)]
        flags += ["--preset", data.preset] if data.preset else []
    elif data.mixture:
        flags += ["--mixture", json.dumps(data.mixture)]
    return str(sft.main(flags))


def results_table(metrics: Mapping[str, float], strengths: Sequence[float], kinds: Sequence[str]) -> str:
    """Return the held-out measures before and after each arm, a line each: over all prompts, at the head and the tail.

    Empty where no prompts were held out.
    """
    columns = ["before", *(arm_label(strength, kinds) for strength in strengths)]
    lines, width = [], max(14, *(len(column) + 2 for column in columns))
    for measure in ("validity", "sampled_reward"):
        for part in ("", "_head", "_tail"):
            names = [f"{measure}/warmup{part}"]
            names += [f"{arm}/{measure}/final{part}".lstrip("/") for arm in strength_arms(strengths)]
            if all(name in metrics for name in names):
                values = "".join(f"{metrics[name]:>{width}.3f}" for name in names)
                lines.append(f"{measure + ' ' + (part[1:] or 'all'):22}{values}")
    return "\n".join([" " * 22 + "".join(f"{column:>{width}}" for column in columns), *lines]) if lines else ""


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all arms share: training prompts and their density, rewards, and the prompts that are held out."""

    tokenizer: PreTrainedTokenizerBase
    tasks: dict[str, Task]
    prompts: Dataset
    density: PromptDensity
    rewards: list[RewardFunction]
    held_out: HeldOutPrompts | None
    too_long: int
    lines: Counter[str]


def load_shared(
    folder: Path,
    grpo: GRPOArguments,
    data: DataArguments,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: GRPOConfig,
) -> Shared:
    """Load what the arms share, once: no arm reads prompts, measures density or loads a reward model again."""
    if policy.model_name_or_path is None:
        raise ValueError("got no policy: set model_name_or_path, or warm_up to a config of recipes/sft.py")
    if args.use_vllm and (find_spec("vllm") is None or policy.model_revision != "main"):
        why = "vllm is not installed" if find_spec("vllm") is None else "vllm would load the revision main"
        raise ValueError(f"use_vllm: got true, and {why}; leave generation to transformers")
    require_checkpoint(policy.model_name_or_path, grpo.policy_made_by)
    reward_models = [name for name in grpo.reward if name != VERIFIER and not is_function(name)]
    for name in reward_models:
        require_checkpoint(name, grpo.reward_made_by)
    tokenizer, tasks = load_tokenizer(policy, data), built_tasks(data)

    name, revision = policy.model_name_or_path, policy.model_revision
    config = from_pretrained(AutoConfig, name, revision=revision)
    try:
        ends = end_token_ids(tokenizer, GenerationConfig.from_pretrained(name, revision=revision))
    except OSError:  # a checkpoint without one: transformers makes it from the model's config
        ends = end_token_ids(tokenizer, config)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    room = None if positions is None else positions - args.max_completion_length
    longest = min((most for most in (data.max_prompt_tokens, room) if most is not None), default=None)

    *parts, lines = prompt_split(data, folder, grpo.eval_prompts)
    if data.prompts and len(parts[0]) and isinstance(parts[0][0]["prompt"], str):
        read_plain_text(tokenizer)
    limits: dict[str, Any] = {"max_length": grpo.reward_max_length, "device": args.device, "ends": ends}
    rewards = load_rewards(grpo.reward, tasks, tokenizer, heads=grpo.reward_heads, **limits)  # type: ignore[arg-type]
    models = [(name, revision), *map(named_revision, reward_models)]
    record_data_fingerprint(folder, parts[0], models, [code for code in map(source_digest, rewards) if code])
    parts = [accepted_by_template(part, tokenizer, folder) for part in parts]
    prompts, held_out = (without_long_prompts(part, tokenizer, longest, args.chat_template_kwargs) for part in parts)
    too_long = sum(map(len, parts)) - len(prompts) - len(held_out)
    if not tasks:  # natural prompts are held out by test_share, and too long ones left out before some are taken
        held_out = held_out.select(range(min(grpo.eval_prompts, len(held_out))))
    wanted = grpo.eval_prompts * max(1, len(tasks))
    if is_main_process() and len(held_out) < wanted and (tasks or data.test_share):
        others = "too long" if tasks else f"too long, or not in the fraction held out (test_share={data.test_share:g})"
        print(f"eval_prompts: got {len(held_out)} held-out prompts, wanted {wanted}; the others are {others}")

    density = measure_density(prompts, weights)
    asked = None
    if len(held_out):
        measures = held_out_measures(rewards, args.reward_weights, tasks, tokenizer, ends)
        densities = held_out_density(held_out, prompts, weights)
        clustered = bool(tasks)
        groups = held_out["cluster"] if clustered else crowded_or_rare(densities)
        sizes = Counter(prompts["cluster"]) if clustered else {}
        asked = HeldOutPrompts(held_out, list(groups), sizes, densities.tolist(), measures, tokenizer)
    return Shared(tokenizer, tasks, prompts, density, rewards, asked, too_long, lines)


def train_arm(
    arm: Path,
    shared: Shared,
    strength: float,
    grpo: GRPOArguments,
    weights: WeightArguments,
    policy: PolicyArguments,
    args: GRPOConfig,
) -> dict[str, float]:
    """Train one arm from a fresh policy, unless it is finished; returns its metrics. Arms differ in weights alone."""
    arm.mkdir(parents=True, exist_ok=True)
    held_out = shared.held_out
    weighed = WeighedRows(shared.prompts, shared.density, weights, strength, args.seed)
    metrics = weighed.record(arm, shared.lines)
    log = read_training_log(arm)
    if log is None:
        args = copy.deepcopy(args)
        if len(weights.sampling_strength) > 1:
            names = {"project": args.project, "run_name": args.run_name}
            names = names_for_trackers(Path(args.output_dir), strength_name(strength), args.seed, **names)
            args.project, args.run_name = names["project"], names["run_name"]
        args.output_dir = str(arm)
        model = load_policy(policy, shared.tokenizer, args.seed)
        if args.cast_lm_head_to_fp32 and not (hasattr(model, "lm_head") and hasattr(model, "model")):
            raise ValueError(f"cast_lm_head_to_fp32: got true, and TRL knows no such head of a {type(model).__name__}")
        alone = policy.use_peft or held_out is None  # without its adapter, the policy is its own reference
        reference = None if alone else copy.deepcopy(model).eval().requires_grad_(False)
        trainer = WeightedGRPOTrainer(
            model,
            list(shared.rewards),
            args,
            train_dataset=weighed.dataset,
            round_size=weights.round_size,
            processing_class=shared.tokenizer,
            peft_config=adapter_config(policy),
        )
        weighed.add_callbacks(trainer)
        if held_out is not None:
            reference = reference and reference.to(args.device)
            while_training = Decoding.of_trainer(trainer, grpo.look_samples)
            trainer.add_callback(HeldOutCallback(trainer, held_out, reference, while_training, grpo.sample_every))

        def finish() -> dict[str, Any]:
            if held_out is None:
                return {}
            trained = trainer.accelerator.unwrap_model(trainer.model)
            answers = held_out.sample(trained, reference, Decoding.of_trainer(trainer, grpo.final_samples))
            table = held_out.table(answers)
            write_samples(arm, table)
            halves = {name: value for name, value in held_out.means(answers).items() if name.startswith("halves/")}
            return {"samples": {**sample_metrics(table, shared.tasks, cluster_sizes=held_out.sizes or None), **halves}}

        log = train(trainer, finish=finish)

    metrics |= {"prompts/too_long": float(shared.too_long), "seconds/training": log["seconds"]}
    if held_out is not None:
        metrics["prompts/evaluated"] = float(len(held_out.prompts))
        metrics |= held_out.before_and_after(log["history"]) | log["samples"]
    write_metrics(arm, metrics)
    return metrics


if __name__ == "__main__":
    with user_errors("grpo.py"):
        main()
