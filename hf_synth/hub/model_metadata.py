"""The YAML on top of a model card, and texts of a run without the paths of the machine that made it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hf_synth.hub.metadata import TAG
from hf_synth.preferences.sources import KNOWN_SOURCES, SUFFIXES
from hf_synth.reports.read import Run
from hf_synth.tasks import Task

_MEASURED = {  # name in metrics.json -> (type and name for the Hub)
    "loss/test": ("loss", "Loss on test rows, nats per token"),
    "excess/test": ("excess_loss", "Loss above the exact floor, nats per token"),
    "accuracy/test": ("accuracy", "Token accuracy on test rows"),
    "row_accuracy/test": ("exact_match", "Rows of which all tokens are predicted"),
    "language/validity": ("validity", "Sampled strings that are valid"),
    "language/perplexity/ratio": ("perplexity_ratio", "Perplexity of invalid over valid strings"),
    "accuracy/held_out": ("accuracy", "Held-out pairs with the preferred answer first"),
    "validity/final": ("validity", "Sampled answers to held-out prompts that the verifier accepts"),
    "sampled_reward/final": ("reward", "Mean reward of sampled answers to held-out prompts"),
}
_TRL_TAGS = {
    "sft": ["trl", "sft"],
    "dpo": ["trl", "dpo"],
    "grpo": ["trl", "grpo"],
    "reward": ["trl", "reward-trainer"],
}


def model_metadata(run: Run, name: str, task: Task | None) -> ModelCardData:
    """The YAML on top of a model card: what the Hub searches by, and the results that it can show."""
    config = run.config
    kind = "peft" if (run.folder / "adapter_config.json").exists() else "transformers"
    base = config.get("model_name_or_path")
    source = config.get("preferences")
    source = KNOWN_SOURCES[source].repository if source in KNOWN_SOURCES else source
    texts = [str(value) for value in (config.get("dataset"), config.get("canonical"), source) if is_hub_id(value)]
    natural = bool(source or config.get("prompts"))
    tags = [TAG, *([] if natural else ["synthetic"]), *([task.name] if task else []), *_TRL_TAGS.get(run.recipe, [])]
    tags += ["custom_code"] if has_own_code(run) else []
    return ModelCardData(
        library_name=kind,
        pipeline_tag=_pipeline(run),
        tags=tags,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(run, task) or None,
        base_model=base if is_hub_id(base) else None,
        datasets=texts or None,
    )


def _pipeline(run: Run) -> str:
    return "text-classification" if run.recipe == "reward" else "text-generation"


def is_hub_id(value: Any) -> bool:
    """Whether a name may be one of the Hub's: user/name, and nothing on this machine."""
    return (
        isinstance(value, str)
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", value) is not None
        and not value.endswith(SUFFIXES)
        and not Path(value).exists()
    )


def _eval_results(run: Run, task: Task | None) -> list[EvalResult]:
    preset = run.config.get("preset")
    title = " ".join(
        filter(None, [task.name if task else "tasks" if run.config.get("mixture") else "natural text", preset])
    )
    return [
        EvalResult(
            task_type=_pipeline(run),
            dataset_type=f"{TAG}/{task.name}" if task else "text",
            dataset_name=title,
            dataset_split="test" if run.recipe == "pretrain" else "held out",
            metric_type=kind,
            metric_name=name,
            metric_value=round(run.metrics[key], 6),
        )
        for key, (kind, name) in _MEASURED.items()
        if key in run.metrics
    ]


def has_own_code(run: Run) -> bool:
    """Whether the model's code travels with it, which transformers runs only where it is told to."""
    path = run.folder / "config.json"
    return path.exists() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))


def without_paths(text: str, config: Mapping[str, Any]) -> str:
    """A text with each path of this machine that the config has replaced by its last part."""
    for path in sorted(filter(is_path, _strings(config)), key=len, reverse=True):
        text = text.replace(path, path_name(path))
    return text


def is_path(name: str) -> bool:
    """Whether a name says where on this machine something lies."""
    return name.startswith(("/", "~", "..")) or "\\" in name


def path_name(name: str) -> str:
    """The last part of a path of this machine; all other names as they are."""
    return Path(name.replace("\\", "/")).name or "..." if is_path(name) else name


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for item in value.values() for found in _strings(item))
    elif isinstance(value, list):
        yield from (found for item in value for found in _strings(item))
