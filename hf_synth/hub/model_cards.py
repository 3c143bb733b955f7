"""The card of a trained model: what it is, what it was measured to do, how to load it, and how it was made.

Numbers and facts come from here, sentences from templates/model_card.md.j2.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers
import trl
from huggingface_hub import EvalResult, ModelCardData

from hf_synth import __version__
from hf_synth.hub.repository import TAG, example, lines_of, prose
from hf_synth.io import load_json
from hf_synth.preferences.sources import KNOWN_SOURCES, SUFFIXES
from hf_synth.reports.pretraining import (
    corpus_table,
    excess,
    groups_table,
    language_scores,
    result_table,
    transfer_text,
    trial,
    verdict,
)
from hf_synth.reports.read import Run
from hf_synth.reports.report import before_and_after, error_of, parts_of
from hf_synth.reports.tables import (
    code,
    code_block,
    count_parameters,
    listed,
    number,
    score,
    settings_of_task,
    settings_yaml,
    table,
    templates_beside,
)
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import about, words_of
from hf_synth.tokenization import all_words
from hf_synth.training.run_directory import TRANSFER

ADAPTER = "adapter_config.json"
_TEMPLATES = templates_beside(__file__)
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
_TRL_TAGS = {"sft": "sft", "dpo": "dpo", "grpo": "grpo", "reward": "reward-trainer"}


def model_card(run: Run, repo_id: str, report: str = "report.md") -> str:
    """The README.md of a finished run, for the repository `repo_id`; no path of this machine gets into it.

    `report`: where it is, with an arm of a run in the repository of the first arm.
    """
    config, metrics = run.config, run.metrics
    task = _task(config)
    transfer = ""
    if copied := load_json(run.folder / TRANSFER):
        names = dict.fromkeys(path_name(part["source"]) for part in copied["parts"] if part["source"])
        transfer = transfer_text(copied) + (f" Source: {', '.join(map(code, names))}." if names else "")
        if any(part["shuffled"] for part in copied["parts"]):
            transfer += " Their numbers were shuffled first."
        if any(part.get("noise") for part in copied["parts"]):
            transfer += " They are noise of the same norms or singular values."
    above = excess(metrics)
    base, base_on_hub = adapted_model(run.folder) if (run.folder / ADAPTER).exists() else ("", False)
    text = _TEMPLATES.get_template("model_card.md.j2").render(
        metadata=model_metadata(run, repo_id, task).to_yaml(),
        repo_id=repo_id,
        run=run,
        task=task,
        # A run counts its whole model, and an adapter is only what its file holds.
        parameters=number((not base and metrics.get("parameters")) or count_parameters(run.folder)),
        steps=number(run.log["steps"]),
        data=_data(config),
        verified=run.measure == "validity",
        report=report,
        results=_results(run),
        verdict=verdict(metrics),
        trial=trial(config),
        curves=(run.folder / "figures" / "learning_curves.png").exists(),
        own_code=has_own_code(run),
        adapter=(run.folder / ADAPTER).exists(),
        chat=(run.folder / "chat_template.jinja").exists(),
        words=len(all_words(task)) if task and not config.get("canonical") else None,
        example=code_block("\n".join(lines_of(example(task, "test", config.get("rows_seed", 0))))) if task else "",
        facts=_facts(run, task),
        corpus=corpus_table(metrics) if "tokens/canonical" in metrics else "",
        base=base,
        base_on_hub=base_on_hub,
        start=path_name(str(config.get("model_name_or_path") or "")),
        transfer=transfer,
        settings="" if run.settings is None else code_block(settings_yaml(run.settings), "yaml"),
        arguments=[
            *(repr(config[name]) for name in ("task", "preset") if config.get(name)),
            *(f"{name}={value!r}" for name, value in (config.get("task_args") or {}).items()),
        ],
        above_floor="floor/test" in metrics and above is not None and above.low > 0,
        versions={"hf_synth": __version__, "transformers": transformers.__version__, "trl": trl.__version__},
    )
    return re.sub(r"\n{3,}", "\n\n", without_paths(text, config))


def adapted_model(folder: Path) -> tuple[str, bool]:
    """The name of the model that the adapter in a folder changes, and whether it is not one of this machine.

    Of a path only the last part is left: `runs/sft` would be the Hub's repository of somebody called runs.
    """
    name = (load_json(folder / ADAPTER) or {}).get("base_model_name_or_path") or ""
    if is_path(name) or Path(name).exists():
        return Path(name.replace("\\", "/")).name or "...", False
    return name, True


def _task(config: Mapping[str, Any]) -> Task | None:
    """The task of a run; None where there is none, or where its file is not here any more."""
    if not config.get("task"):
        return None
    try:
        return get_task(config["task"], config.get("preset"), **(config.get("task_args") or {}))
    except (ValueError, OSError):
        return None


def _data(config: Mapping[str, Any]) -> str:
    """The data by name, as Markdown; empty for text files of the user's own."""
    if config.get("mixture"):
        tasks = dict.fromkeys(code(str(cluster["task"])) for cluster in config["mixture"].values())
        return listed([*tasks])
    if config.get("task"):
        return code(path_name(str(config["task"])))
    source = _preferences(config)
    return f"[{source}](https://huggingface.co/datasets/{source})" if is_hub_id(source) else ""


def _results(run: Run) -> list[str]:
    """Tables of what was measured, the first of them for everyone."""
    if run.recipe == "pretrain":
        scores = language_scores(run.metrics)
        language = table(["on the language", "value"], scores) if scores else ""
        return list(filter(None, [result_table(run.metrics), groups_table(run.metrics), language]))
    if run.measure is None:
        rows = [
            [code(name), f"{value:.4f}"]
            for name, value in sorted(run.metrics.items())
            if name.partition("/")[0] in ("loss", "accuracy", "margin")
        ]
        if reward := run.series("reward")[1]:
            rows += [["training reward, first logged", score(reward[0])], ["last logged", score(reward[-1])]]
        return [table(["measure", "value"], rows)] if rows else []
    rows = []
    for part, name in parts_of(run).items():
        before, after = before_and_after(run, run, part)
        rows.append([name, score(before), score(after, error_of(run, run, part))])
    return [table(["prompts", "before training", "after training"], rows)]


def _facts(run: Run, task: Task | None) -> list[str]:
    facts = [f"Task: {settings_of_task(run.config)}"] if run.config.get("task") else []
    if task is not None:
        facts += [f"Version of the task: {task.version}"]
        facts += [f"Source: {prose(task.source)}"] if task.source else []
        facts += [f"Rule: {prose(text)}" for text in (about(task), words_of(type(task))) if text]
    metrics = run.metrics
    if "rows/trained" in metrics:
        fresh = f", of a set of {number(metrics['rows/epoch'])}" if "rows/epoch" in metrics else ""
        facts.append(f"Rows seen: {number(metrics['rows/trained'])}{fresh}")
    names = {
        "rows": "Prompts with an answer", "pairs/train": "Pairs to train on", "pairs/held_out": "Pairs held out",
        "weights/prompts": "Prompts to train on", "prompts/evaluated": "Prompts held out",
    }  # fmt: skip
    facts += [f"{what}: {number(metrics[name])}" for name, what in names.items() if name in metrics]
    return facts


def model_metadata(run: Run, name: str, task: Task | None) -> ModelCardData:
    """The YAML on top of a model card: what the Hub searches by, and the results that it can show."""
    config = run.config
    base, source = config.get("model_name_or_path"), _preferences(config)
    texts = [str(value) for value in (config.get("dataset"), config.get("canonical"), source) if is_hub_id(value)]
    natural = bool(source or config.get("prompts"))
    tags = [TAG, *([] if natural else ["synthetic"]), *([task.name] if task else [])]
    tags += ["trl", _TRL_TAGS[run.recipe]] if run.recipe in _TRL_TAGS else []
    tags += ["custom_code"] if has_own_code(run) else []
    pipeline = "text-classification" if run.recipe == "reward" else "text-generation"
    measured_on = task.name if task else "tasks" if config.get("mixture") else "natural text"
    of_text = {"loss/test", "accuracy/test"} if "tokens/canonical" in run.metrics else set()
    results = [
        EvalResult(  # not EvalResultEntry: its files name a benchmark on the Hub, and these rows are none
            task_type=pipeline,
            dataset_type=f"{TAG}/{task.name}" if task and key not in of_text else "text",
            dataset_name="natural text" if key in of_text else f"{measured_on} {config.get('preset') or ''}".strip(),
            dataset_split="test" if run.recipe == "pretrain" else "held out",
            metric_type=kind,
            metric_name=words,
            metric_value=round(run.metrics[key], 6),
        )
        for key, (kind, words) in _MEASURED.items()
        if key in run.metrics
    ]
    return ModelCardData(
        library_name="peft" if (run.folder / "adapter_config.json").exists() else "transformers",
        pipeline_tag=pipeline,
        tags=tags,
        model_name=name.split("/")[-1],
        eval_results=results or None,
        base_model=base if is_hub_id(base) else None,
        datasets=texts or None,
    )


def _preferences(config: Mapping[str, Any]) -> str:
    """The preference pairs of a run by their name on the Hub, where they have one."""
    source = str(config.get("preferences") or "")
    return KNOWN_SOURCES[source][0] if source in KNOWN_SOURCES else source


def is_hub_id(value: Any) -> bool:
    """Whether a name may be one of the Hub's: user/name, and nothing on this machine."""
    return (
        isinstance(value, str)
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", value) is not None
        and not value.endswith(SUFFIXES)
        and not Path(value).exists()
    )


def has_own_code(run: Run) -> bool:
    """Whether the model's code travels with it, which transformers runs only where it is told to."""
    return "auto_map" in (load_json(run.folder / "config.json") or {})


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
        yield from (text for item in value.values() for text in _strings(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _strings(item))
