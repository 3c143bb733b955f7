"""The YAML on top of a model card, and texts of a run without the paths of the machine that made it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hf_synth.hub.metadata import TAG
from hf_synth.reports.read import Run
from hf_synth.tasks import Task

_MEASURED = {  # name in metrics.json -> (type and name for the Hub)
    "loss/test": ("loss", "Loss on test rows, nats per token"),
    "excess/test": ("excess_loss", "Loss above the exact floor, nats per token"),
    "accuracy/test": ("accuracy", "Token accuracy on test rows"),
    "row_accuracy/test": ("exact_match", "Rows of which all tokens are foretold"),
    "language/validity": ("validity", "Sampled strings that are valid"),
    "language/perplexity/ratio": ("perplexity_ratio", "Perplexity of invalid over valid strings"),
}


def model_metadata(run: Run, name: str, task: Task | None) -> ModelCardData:
    """The YAML on top of a model card: what the Hub searches by, and the results that it can show."""
    config = run.config
    kind = "peft" if (run.folder / "adapter_config.json").exists() else "transformers"
    base = config.get("model_name_or_path")
    texts = [str(value) for value in (config.get("dataset"), config.get("canonical")) if _is_hub_id(value)]
    tags = [TAG, "synthetic", *([task.name] if task else []), *(["custom_code"] if has_own_code(run) else [])]
    return ModelCardData(
        library_name=kind,
        pipeline_tag="text-generation",
        tags=tags,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(run, task),
        base_model=base if _is_hub_id(base) else None,
        datasets=texts or None,
    )


def _is_hub_id(value: Any) -> bool:
    """Whether a name may be one of the Hub's: user/name, and nothing on this machine."""
    return isinstance(value, str) and value.count("/") == 1 and value[0] not in "/.~" and not Path(value).exists()


def _eval_results(run: Run, task: Task | None) -> list[EvalResult]:
    title = " ".join(filter(None, [task.name if task else "natural text", run.config.get("preset")]))
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"{TAG}/{task.name}" if task else "text",
            dataset_name=title,
            dataset_split="test",
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
