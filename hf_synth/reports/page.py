"""What every page of results shares: templates, HTML, and the facts of a run's model, task and settings."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt
from safetensors import safe_open

from hf_synth.reports.tables import (
    MISSING,
    code,
    code_block,
    duration,
    escaped,
    listed,
    number,
    percent,
    picture,
    score,
    spread,
    table,
)

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """Return a template of this package as Markdown, without empty lines in a row outside code blocks.

    Nothing is escaped here: a template hands the texts of users to `escaped` or `code`.
    """
    text = _TEMPLATES.get_template(f"{template}.md.j2").render(values)
    blocks = r"(?ms)(^(`{3,})[^`\n]*\n.*?^\2$)|\n{3,}"
    return re.sub(blocks, lambda match: match[1] or "\n\n", text).strip("\n")


def sentence(name: str, **values: Any) -> str:
    """Return one macro of sentences.md.j2: text that reports and model cards share."""
    return str(getattr(_TEMPLATES.get_template("sentences.md.j2").module, name)(**values)).strip("\n")


def html_page(markdown: str) -> str:
    """A whole HTML page from Markdown with tables; HTML inside the Markdown is shown, never obeyed."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    heading = re.search(r"<h1>(.*?)</h1>", body)
    title = re.sub("<[^>]*>", "", heading[1]) if heading else "Report"
    return _TEMPLATES.get_template("page.html.j2").render(title=title, body=body)


_SIZES = {
    "num_hidden_layers": "layers", "n_layer": "layers", "num_attention_heads": "heads", "n_head": "heads",
    "hidden_size": "hidden size", "n_embd": "hidden size", "vocab_size": "tokens in the vocabulary",
}  # fmt: skip


def count_parameters(folder: Path) -> int | None:
    """Parameters in a folder's safetensors files, read from their headers; None where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for path in files:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - the file is no mapping
                size = 1
                for width in tensors.get_slice(name).get_shape():
                    size *= width
                total += size
    return total if files else None


def model_facts(folder: Path, metrics: Mapping[str, float]) -> str:
    """The model by its class, with its size; by its size alone where its config is not there; empty without either."""
    path = folder / "config.json"
    parameters = count_parameters(folder) or metrics.get("parameters")
    parts = [] if parameters is None else [f"{number(parameters)} parameters"]
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = next(iter(config.get("architectures") or []), config.get("model_type") or "model")
        sizes = [_counted(config[name], word) for name, word in _SIZES.items() if isinstance(config.get(name), int)]
        parts = [code(str(kind)), *parts, *sizes]
    return ", ".join(parts)


def _counted(value: int, word: str) -> str:
    if word == "hidden size":
        return f"{word} {value}"
    return f"{value:,} {word[:-1] if value == 1 and word.endswith('s') else word}"


def short_path(name: str) -> str:
    """A Hub id as it is, and of a path on this machine its last two parts."""
    parts = Path(name).parts
    return name if len(parts) <= 2 else "/".join(parts[-2:])


def settings_of_task(config: Mapping[str, Any]) -> str:
    """The task as a reader names it: its name, its preset, and what was changed."""
    parts = [code(str(config["task"]))] if config.get("task") else []
    if config.get("preset"):
        parts.append(f"preset {code(str(config['preset']))}")
    values = config.get("task_args") or {}
    return ", ".join([*parts, *(code(f"{name}={value}") for name, value in values.items())])


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


_TEMPLATES.globals |= {"MISSING": MISSING}
_TEMPLATES.globals |= {
    function.__name__: function
    for function in (
        code, code_block, duration, escaped, listed, number, percent, picture, score, short_path, settings_of_task,
        settings_yaml, spread, table,
    )
}  # fmt: skip
