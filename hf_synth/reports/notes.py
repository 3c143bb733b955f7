"""The last section: what was left out, the settings, how to run it again, and where the model is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from hf_synth.reports.run import Run
from hf_synth.reports.words import code, code_block, escaped, number, table
from hf_synth.training.run_directory import REJECTED_ROWS

# The settings that make an experiment, with the defaults of the recipes: what differs from them is shown.
_ESSENTIALS: dict[str, Any] = {
    "warm_up": None, "model_name_or_path": None, "model_revision": "main", "policy_made_by": None,
    "model_type": "rope_gpt", "gpt2_size": None, "new_model": {}, "tokenizer_vocab_size": 4096, "init_from": None,
    "init_embeddings": "by_token", "train_parts": ["everything"], "task": None, "preset": None, "task_args": {},
    "mixture": {}, "preferences": None, "prompts": None, "num_rows": 2000, "rows_seed": 0, "train_rows": None,
    "dataset": None, "dataset_name": None, "dataset_split": "train", "eval_rows": 1024, "test_rows": 4096,
    "steps_per_epoch": None, "canonical": None, "canonical_config": None, "canonical_split": "train",
    "canonical_revision": None, "canonical_document": "paragraph", "canonical_text_column": "text",
    "canonical_eval": "0.05", "canonical_eval_tokens": 65_536, "mix_ratio": 0.1, "mix_unit": "documents",
    "explanation_ratio": 0.0, "explanation_form": "source", "explanation_unit": "documents", "block_size": 1024,
    "corpus_tokens": None, "curriculum_field": None, "curriculum_start": 2, "curriculum_step": 2,
    "curriculum_threshold": 0.99, "curriculum_every": 100, "curriculum_rows": 256, "curriculum_delay": 8,
    "max_prompt_tokens": None, "test_share": 0.1, "max_length": None, "sampling_strength": None,
    "sampling_by": ["density"], "strength_schedule": "constant", "density_refresh": None, "round_size": None,
    "density_k": 10, "density_estimator": "volume", "max_ratio": 100.0, "embedder": "hashing", "heads": None,
    "aspect_column": None, "reward": None, "reward_made_by": None, "reward_max_length": None, "reward_heads": None,
    "reward_weights": None, "eval_prompts": 64, "sample_every": 20, "max_steps": -1, "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 8, "num_iterations": 1,
    "max_completion_length": 256, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "beta": 0.0, "epsilon": 0.2,
    "loss_type": None, "scale_rewards": None, "optimizer": "optim", "optim": "adamw_torch_fused", "optim_args": None,
    "learning_rate": None, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "lr_scheduler_type": None,
    "warmup_steps": 0, "decay_steps": None, "decay_to": None, "weight_decay": 0.0, "weight_decay_on": "matrices",
    "max_grad_norm": 1.0, "use_peft": False, "lora_r": 16, "lora_alpha": 32, "dtype": None, "bf16": None,
    "use_cpu": False, "snapshots_per_doubling": None, "snapshots_linear_after": None, "final_model": "last",
    "patience": None, "loss_threshold": None, "logging_steps": None, "save_steps": None, "save_total_limit": None,
    "eval_strategy": "no", "eval_steps": None, "seed": 42,
}  # fmt: skip
_OF_LORA = ("lora_r", "lora_alpha")


def note_sections(run: Run) -> list[str]:
    """Counts, settings, command, and the place of the model."""
    settings = settings_block(essentials(run.config)) if run.config else ["The config of this run was not kept."]
    return ["## Notes", *_left_out(run), *settings, *again(run.recipe), *_model(run)]


def _left_out(run: Run) -> list[str]:
    """Rows that could not be used with their reasons, and prompts that were too long."""
    found = []
    for name, what in (("prompts/too_long", "Prompts"), ("pairs/too_long", "Pairs")):
        if name in run.metrics:
            found.append(f"{what} left out because they were too long: {number(run.metrics[name])}.")
    path = run.folder / REJECTED_ROWS
    if path.exists():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found.append(f"Rows of the source that could not be used: {len(lines):,}; each is in {code(REJECTED_ROWS)}.")
        reasons = Counter(str(line.get("reason")) for line in lines).most_common(10)
        if reasons:
            found.append(table(["reason", "rows"], [[escaped(reason), number(count)] for reason, count in reasons]))
    return found


def essentials(config: dict[str, Any]) -> dict[str, Any]:
    """The values that make the experiment and are not the defaults, in the order of a recipe's YAML."""
    found = {
        name: config[name]
        for name, default in _ESSENTIALS.items()
        if config.get(name) not in (None, default) and config.get(name) not in ({}, [])
    }
    if not config.get("use_peft"):
        found = {name: value for name, value in found.items() if name not in _OF_LORA}
    if config.get("decay_steps") or config.get("decay_to") is not None:
        found.pop("lr_scheduler_type", None)  # the cosine of those two takes its place
    if config.get("max_steps", -1) > 0:
        found.pop("num_train_epochs", None)
    return found


def settings_yaml(settings: dict[str, Any]) -> str:
    """Settings as the lines of a recipe's YAML."""
    nested = any(isinstance(value, dict | list) for value in settings.values())
    flow = None if nested else False  # None puts what holds nothing nested in one line, and so would all settings
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=100)


def settings_block(settings: dict[str, Any]) -> list[str]:
    """Settings with the words that say which they are."""
    return [
        "The settings that make this experiment, as far as they are not defaults; "
        "`resolved_config.yaml` beside this report has all of them:",
        code_block(settings_yaml(settings), "yaml"),
    ]


def again(recipe: str) -> list[str]:
    """The command that runs a recipe with those settings."""
    command = f"accelerate launch recipes/{recipe}.py --config my.yaml --output_dir runs/again"
    return [
        "To run it again, save those lines as `my.yaml`, and from the repository:",
        code_block(command, "bash"),
        "The command that made this run finds it finished, and trains nothing a second time.",
    ]


def _model(run: Run) -> list[str]:
    if len(run.arms) == 1:
        return [f"The model is in the folder of this report; `from_pretrained` reads that folder{_first(run.folder)}."]
    places = [f"{arm.label}: " + ("beside this report" if arm.folder == run.folder else code(f"{arm.folder.name}/"))
              for arm in run.arms]  # fmt: skip
    return [
        f"Each arm's model is in its own folder, for `from_pretrained`{_first(run.folder)}:",
        "\n".join(f"- {place}" for place in places),
    ]


def _first(folder: Path) -> str:
    """What a model of this package needs before it can be read."""
    path = folder / "config.json"
    own = path.exists() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))
    return " after `import hf_synth.models`" if own else ""
