"""The first section: what was run, for a reader who has not seen the recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hf_synth.reports.run import Arm, Run
from hf_synth.reports.words import code, duration, listed, number

_TITLES = {
    "grpo": "GRPO: learning from scored answers",
    "dpo": "DPO: learning from compared answers",
    "reward": "A reward model from compared answers",
    "sft": "Supervised fine-tuning",
    "pretrain": "Pretraining",
}
_PURPOSES = {
    "dpo": "The model reads pairs of answers to a prompt and learns to make the chosen one more likely.",
    "reward": (
        "The model reads pairs of answers to a prompt and learns to score the chosen one above the rejected one. "
        "It is right on a pair when it does; a coin would be right on half of them."
    ),
    "sft": "The model reads prompts with an answer each and learns to write that answer. It sees no reward.",
    "pretrain": (
        "The model learns to foretell each next token. The rows of a task come from a known process, so the least "
        "loss that any predictor can have is known too: the floor. What the model loses above it is what it has not "
        "learned."
    ),
}
_SIZES = {
    "num_hidden_layers": "layers", "n_layer": "layers", "num_attention_heads": "heads", "n_head": "heads",
    "hidden_size": "hidden size", "n_embd": "hidden size", "vocab_size": "tokens in the vocabulary",
}  # fmt: skip
_JUDGES = {
    "validity": "a verifier marks each answer as right (1) or wrong (0)",
    "sampled_reward": "a reward model gives each answer a score, higher for better",
    None: "each answer gets a reward",
}


def opening_sections(run: Run) -> list[str]:
    """The title, what the recipe does in words, and the facts of this run."""
    facts = [
        f"Recipe: `recipes/{run.recipe}.py`",
        *model_facts(run),
        *_data(run),
        *_length(run),
        *_arms(run),
    ]
    return [
        f"# {_TITLES[run.recipe]}",
        "## What was run",
        _PURPOSES.get(run.recipe) or _grpo_purpose(run),
        "\n".join(f"- {fact}" for fact in facts),
        *_unfinished(run),
    ]


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


def _grpo_purpose(run: Run) -> str:
    text = (
        f"The model answers each prompt several times, {_JUDGES[run.measure]}, and answers that score above the "
        "others to the same prompt become more likely."
    )
    if run.weighted and run.kinds != ["density"]:
        text += f" Prompts are not drawn alike: they are weighed by {listed(run.kinds)}."
    elif run.weighted:
        text += (
            " Prompts are not drawn alike: one with few others near it (a rare prompt) is drawn more often than one "
            "among many (a crowded prompt). The sampling strength says how much; at strength 0 all are drawn alike."
        )
    return text


def model_facts(run: Run | Arm) -> list[str]:
    """The model by its class, with its size; by its size alone where its config is not there."""
    path = run.folder / "config.json"
    parameters = count_parameters(run.folder) or run.metrics.get("parameters")
    size = "" if parameters is None else f"{number(parameters)} parameters"
    if not path.exists():
        return [f"Model: {size}"] if size else []
    config = json.loads(path.read_text(encoding="utf-8"))
    kind = next(iter(config.get("architectures") or []), config.get("model_type") or "model")
    parts = [_counted(config[name], word) for name, word in _SIZES.items() if isinstance(config.get(name), int)]
    return [f"Model: {', '.join([code(str(kind)), *([size] if size else []), *parts])}"]


def _data(run: Run) -> list[str]:
    metrics = run.arms[0].metrics
    facts = _pretraining_data(run) if run.recipe == "pretrain" else []
    if "rows" in metrics:
        facts.append(f"Rows to imitate: {number(metrics['rows'])}")
    if "pairs/train" in metrics:
        facts.append(
            f"Pairs: {number(metrics['pairs/train'])} to train on, {number(metrics.get('pairs/held_out'))} held out"
        )
    elif (prompts := run.arms[0].prompts) is not None:
        clusters = f" in {len(run.sizes)} clusters" if len(run.sizes) > 1 else ""
        evaluated = metrics.get("prompts/evaluated")
        held_out = f"; {number(evaluated)} held out to be answered while training" if evaluated else ""
        facts.append(f"Prompts: {len(prompts.text):,} to train on{clusters}{held_out}")
    return facts


def _counted(value: int, word: str) -> str:
    if word == "hidden size":
        return f"{word} {value}"
    return f"{value:,} {word[:-1] if value == 1 and word.endswith('s') else word}"


def _pretraining_data(run: Run) -> list[str]:
    config, metrics = run.config, run.metrics
    facts = [f"Task: {settings_of_task(config)}"] if config.get("task") else []
    if config.get("canonical"):
        blocks = f"in blocks of {config.get('block_size')} tokens"
        facts.append(f"Natural text: {code(short_path(str(config['canonical'])))}, {blocks}")
    if config.get("dataset"):
        facts.append(f"Dataset: {code(short_path(str(config['dataset'])))}")
    if config.get("model_name_or_path"):
        facts.append(f"Starts from the checkpoint {code(short_path(str(config['model_name_or_path'])))}")
    return [*facts, f"Rows seen: {_rows_seen(metrics)}"] if "rows/trained" in metrics else facts


def _rows_seen(metrics: Mapping[str, float]) -> str:
    trained, epoch = metrics["rows/trained"], metrics.get("rows/epoch")
    fresh = "each once" if epoch is None else f"of {number(epoch)}"
    times = f", each about {trained / epoch:.3g} times" if epoch and trained > epoch else ""
    tested = f"; {number(metrics['rows/test'])} tested on" if "rows/test" in metrics else ""
    return f"{number(trained)}, {fresh}{times}{tested}"


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


def _length(run: Run) -> list[str]:
    steps = run.arms[0].log.get("steps")
    seconds = run.metrics.get("seconds/total", run.arms[0].log.get("seconds"))
    facts = (
        [] if steps is None else [f"Training steps: {number(steps)}" + (" in each arm" if len(run.arms) > 1 else "")]
    )
    if seconds is not None:
        facts.append(f"Wall time since the last start: {duration(seconds)}")
    return facts


def _arms(run: Run) -> list[str]:
    if run.arms[0].strength is None:
        return []
    named = [
        "control (strength 0: all prompts are drawn alike)" if arm.strength == 0 else arm.label for arm in run.arms
    ]
    if len(named) == 1:
        return [f"Sampling: {named[0]}"]
    return [f"Arms: {listed(named)}; all start from the same model and differ in nothing else"]


def _unfinished(run: Run) -> list[str]:
    if not run.missing:
        return []
    names = listed([code(name) for name in run.missing])
    return [
        f"> Not finished, so not in this report: {names}. The command that started the run goes on with what is left."
    ]
