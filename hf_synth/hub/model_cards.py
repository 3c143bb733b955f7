"""The card of a pretrained model: what it was trained on, how far from the floor it ended, and how to load it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers

from hf_synth import __version__
from hf_synth.hub.facts import about, words_of
from hf_synth.hub.markdown import prose
from hf_synth.hub.model_metadata import has_own_code, model_metadata, path_name, without_paths
from hf_synth.reports.page import count_parameters, essentials, settings_of_task, settings_yaml
from hf_synth.reports.pretraining import (
    SCORES,
    corpus_table,
    excess,
    read_transfer,
    result_table,
    share_of_rows,
    transfer_text,
    trial,
    verdict,
)
from hf_synth.reports.read import Run, read_run
from hf_synth.reports.tables import code_block, number, spread, table
from hf_synth.tasks import Task, get_task
from hf_synth.tokenization import all_words


def model_card(folder: str | Path, repo_id: str | None = None) -> str:
    """The README.md of a finished run of recipes/pretrain.py, for the repository `repo_id`.

    Raises ValueError where the folder holds no such run. No path of this machine and no token gets into it.
    """
    run = read_run(Path(folder))
    if run.recipe != "pretrain":
        raise ValueError(f"got {str(folder)!r}, a run of recipes/{run.recipe}.py; wanted one of recipes/pretrain.py")
    name = repo_id or run.folder.resolve().name
    task = _task(run.config)
    sections = [
        f"# {name.split('/')[-1]}",
        _summary(run, task),
        *_results(run),
        *_loading(run, name, task),
        *_task_section(run, task),
        *_training(run),
        *_again(run, task),
        *_limits(run, task),
        *_versions(),
    ]
    text = f"---\n{model_metadata(run, name, task).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    return without_paths(text, run.config)


def _task(config: Mapping[str, Any]) -> Task | None:
    """The task of a run; None where there is none, or where its file is not here any more."""
    if not config.get("task"):
        return None
    try:
        return get_task(config["task"], config.get("preset"), **(config.get("task_args") or {}))
    except (ValueError, OSError):
        return None


def _summary(run: Run, task: Task | None) -> str:
    what = f"the task `{task.name}` of hf_synth" if task else "text"
    if "tokens/canonical" in run.metrics and task:
        what = f"natural text with documents of `{task.name}`, a language of hf_synth, among it"
    size = run.metrics.get("parameters") or count_parameters(run.folder)
    steps = number(run.arms[0].log["steps"])
    return (
        f"A model of {number(size)} parameters, trained on {what} for {steps} steps. It is part of a controlled "
        "experiment with synthetic data, and made for nothing else."
    )


def _results(run: Run) -> Iterator[str]:
    yield "## Results"
    yield result_table(run.metrics)
    yield from ("\n".join(f"- {line}" for line in lines) for lines in [verdict(run.metrics)] if lines)
    groups = [name.removeprefix("loss/test/") for name in sorted(run.metrics) if name.startswith("loss/test/")]
    if groups:
        yield table(["rows of", "share foretold [95 % over rows]"], (_group(run, group) for group in groups))
    scores = [
        [words, f"{run.metrics[f'language/{name}']:.3f}"]
        for name, (words, _) in SCORES.items()
        if f"language/{name}" in run.metrics
    ]
    if scores:
        yield table(["on the language", "value"], scores)
    yield f"> {trial(run.config)}"
    if (run.folder / "figures" / "learning_curves.png").exists():
        yield "![loss and accuracy over training steps](figures/learning_curves.png)"
    yield "More is in [report.md](report.md); `metrics.json` and `dynamics.csv` have the numbers."


def _group(run: Run, group: str) -> tuple[str, str]:
    name = f"row_accuracy/test/{group}"
    return f"`{group}`", spread(share_of_rows(run.metrics, name), run.metrics.get(name))


def _loading(run: Run, name: str, task: Task | None) -> Iterator[str]:
    yield "## Load it"
    own = has_own_code(run)
    adapter = (run.folder / "adapter_config.json").exists()
    auto = "AutoModelForCausalLM"
    imports = f"from transformers import {auto}, AutoTokenizer"
    if adapter:
        auto = "AutoPeftModelForCausalLM"
        imports = f"from peft import {auto}\nfrom transformers import AutoTokenizer"
    trust = ", trust_remote_code=True" if own else ""
    lines = [
        imports,
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}"{trust})',
        f'model = {auto}.from_pretrained("{name}"{trust})',
    ]
    yield code_block("\n".join(lines), "python")
    if own:
        yield (
            "The architecture is hf_synth's own. Its code is in this repository, one file; `trust_remote_code` runs "
            "it. Where hf_synth is installed, `import hf_synth.models` makes transformers know it without that."
        )
    else:
        yield "The architecture is one of transformers: no code of this repository runs."
    if task and not run.config.get("canonical"):
        yield (
            f"The tokenizer knows the {len(all_words(task))} words of the task, spaces between them. "
            "A row of the test split, with what the model is to go on from:"
        )
        yield code_block(_example(task, run.config.get("rows_seed", 0)))


def _example(task: Task, seed: int) -> str:
    rows = task.rows(0, 1, split="test", seed=seed)
    words, tokens, cut = all_words(task), rows.tokens[0, : rows.lengths[0]].tolist(), int(rows.loss_start[0])
    parts = {"given": tokens[:cut], "wanted": tokens[cut:]}
    return "\n".join(f"{name + ':':8} {_shortened([words[token] for token in part])}" for name, part in parts.items())


def _shortened(words: list[str], most: int = 40) -> str:
    return " ".join(words[:most]) + (f" ... {len(words) - most} more" if len(words) > most else "")


def _task_section(run: Run, task: Task | None) -> Iterator[str]:
    yield "## What it was trained on"
    facts = [f"Task: {settings_of_task(run.config)}"] if run.config.get("task") else []
    if task is not None:
        facts += [f"Version of the task: {task.version}", f"Source: {prose(task.source)}"] if task.source else []
        yield from filter(None, (prose(about(task)), prose(words_of(type(task)))))
    if "rows/trained" in run.metrics:
        fresh = "" if "rows/epoch" not in run.metrics else f", of {number(run.metrics['rows/epoch'])} different ones"
        facts.append(f"Rows seen: {number(run.metrics['rows/trained'])}{fresh}")
    yield "\n".join(f"- {fact}" for fact in facts)
    if "tokens/canonical" in run.metrics:
        yield corpus_table(run.metrics)


def _training(run: Run) -> Iterator[str]:
    yield "## How it was trained"
    report = read_transfer(run)
    if report is None:
        start = run.config.get("model_name_or_path")
        yield f"From the checkpoint `{path_name(start)}`." if start else "From fresh weights."
    else:
        names = dict.fromkeys(part["source"] for part in report["parts"] if part["source"])
        shuffled = " Their numbers were shuffled first." if any(part["shuffled"] for part in report["parts"]) else ""
        sources = f" Source: {', '.join(f'`{path_name(name)}`' for name in names)}." if names else ""
        yield transfer_text(report) + sources + shuffled
    settings = code_block(settings_yaml(essentials(run.config)), "yaml")
    yield f"<details>\n<summary>The settings, as far as they are not defaults</summary>\n\n{settings}\n\n</details>"


def _again(run: Run, task: Task | None) -> Iterator[str]:
    yield "## Do it again"
    yield (
        "Rows are a pure function of the task, its parameters, the seed and the row's number, so training and test "
        "rows can be made again anywhere. Save the settings above as `my.yaml`; in the repository of hf_synth:"
    )
    yield code_block("accelerate launch recipes/pretrain.py --config my.yaml --output_dir runs/again", "bash")
    if task and not run.config.get("canonical"):
        yield "With hf_synth installed, this measures loss and accuracy of tokens on the same test rows again:"
        yield code_block(_measuring(run), "python")


def _measuring(run: Run) -> str:
    config = run.config
    given = [repr(config["task"]), *([repr(config["preset"])] if config.get("preset") else [])]
    given += [f"{name}={value!r}" for name, value in (config.get("task_args") or {}).items()]
    rows = f'0, {int(run.metrics["rows/test"])}, split="test", seed={config.get("rows_seed", 0)}'
    return "\n".join(
        (
            "from hf_synth import get_task",
            "from hf_synth.evaluation.scoring import score_rows",
            "",
            f"task = get_task({', '.join(given)})",
            f"scores = score_rows(model, task.rows({rows}))",
            "print(scores.loss, scores.token_accuracy)",
        )
    )


def _limits(run: Run, task: Task | None) -> Iterator[str]:
    limits = ["One training run with one seed: it shows what this model does, not what its way of training does."]
    if task and not run.config.get("canonical"):
        limits += [
            "It knows the words of its task and no language.",
            "It was measured on rows of the kind that it was trained on; longer or other rows are open.",
        ]
    if "floor/test" in run.metrics and (found := excess(run.metrics)) is not None and found.low > 0:
        limits.append("It is above the floor: its probabilities are not those of the process that makes the rows.")
    if run.config.get("canonical"):
        limits.append("It may repeat what stands in the natural text, with all that text's faults.")
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in limits)


def _versions() -> Iterable[str]:
    yield f"Made with hf_synth {__version__} and transformers {transformers.__version__}."
