"""What every report shares: the HTML page, the opening, the settings, and the result of supervised training."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from safetensors import safe_open

from hf_synth.reports.figures import CLUSTER_COLOURS, Line, Panel, curves, save
from hf_synth.reports.read import Arm, Run
from hf_synth.reports.tables import MISSING, code, code_block, duration, escaped, listed, number, picture, score, table
from hf_synth.training.run_directory import REJECTED_ROWS

_CSS = """
:root { color-scheme: light dark; --text: #1f2328; --back: #ffffff; --line: #d1d9e0; --soft: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --back: #0d1117; --line: #3d444d; --soft: #161b22; }
}
body { margin: 2rem auto 4rem; padding: 0 1rem; max-width: 900px; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.25; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin-top: 2rem; }
img { display: block; max-width: 100%; height: auto; margin: 1.2rem auto; background: #fff; border-radius: 6px; }
table { display: block; max-width: max-content; overflow-x: auto; border-collapse: collapse; margin: 1rem 0;
  font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .35rem .7rem; border: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { background: var(--soft); overflow-wrap: normal; }
td:first-child { min-width: 7rem; }
td[style*="right"] { white-space: nowrap; }
code { font: .88em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--soft); padding: .1em .3em; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .8rem 1rem; overflow-x: auto; }
pre code { padding: 0; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #0072b2; background: var(--soft); }
@media print { h2 { break-after: avoid; } img, table { break-inside: avoid; } }
""".strip()


def html_page(markdown: str) -> str:
    """A whole HTML page from Markdown with tables; HTML inside the Markdown is shown, never obeyed."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    heading = re.search(r"<h1>(.*?)</h1>", body)
    title = re.sub("<[^>]*>", "", heading[1]) if heading else "Report"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_CSS}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


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


_PANELS = (  # title, label with unit, (logged name, what it is measured on)
    ("Loss", "loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("Accuracy", "share of pairs", (("accuracy", "training"), ("eval_accuracy", "held out"))),
    ("Accuracy", "share of pairs", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held out"))),
    ("Margin", "score difference", (("margin", "training"), ("eval_margin", "held out"))),
    (
        "Margin",
        "difference of implied rewards",
        (("rewards/margins", "training"), ("eval_rewards/margins", "held out")),
    ),
    (
        "Token accuracy",
        "share of tokens",
        (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "held out")),
    ),
)
_MEANINGS = {
    "loss/final": "training loss, last logged",
    "loss/held_out": "loss on held-out data",
    "accuracy/held_out": "held-out pairs ordered rightly",
    "accuracy/standard_error": "standard error of that share",
    "margin/held_out": "implied reward of chosen less rejected, held out",
}
_APART = ("seconds/", "weights/", "pairs/", "prompts/", "rows")  # said elsewhere in the report


def learning_sections(run: Run) -> list[str]:
    """The result in a table and in words, and curves over the steps."""
    found = ["## Result", *_table(run), *_accuracy(run)]
    if (figure := learning_curves(run)) is not None:
        save(figure, run.folder, "learning_curves")
        found += ["## Over the steps", picture("learning_curves", "loss and other quantities over training steps")]
    return found


def learning_curves(run: Run) -> Figure | None:
    """Loss and accuracy over steps, on training data and on held-out data where logged; None where nothing was."""
    panels = []
    for title, unit, names in _PANELS:
        lines = [
            Line(kind, *run.arms[0].series(name), CLUSTER_COLOURS[index], ("-", "--")[index])
            for index, (name, kind) in enumerate(names)
            if name in run.arms[0].names()
        ]
        if lines:
            panels.append(
                Panel(title, f"{unit}, {_loss_unit(run)}" if title == "Loss" else unit, lines, _level(run, title))
            )
    return curves(panels) if panels else None


def _loss_unit(run: Run) -> str:
    return "nats per token" if run.recipe == "sft" else "nats per pair"


def _level(run: Run, title: str) -> tuple[float, str] | None:
    if run.recipe == "sft":
        return None
    return {"Loss": (math.log(2), "a coin"), "Accuracy": (0.5, "a coin")}.get(title)


def _table(run: Run) -> list[str]:
    rows = [
        [_MEANINGS.get(name, ""), code(name), f"{value:.4f}"]
        for name, value in sorted(run.arms[0].metrics.items())
        if not name.startswith(_APART)
    ]
    steps, losses = run.arms[0].series("loss")
    if losses:
        rows.insert(0, [f"training loss, first logged (step {number(steps[0])})", MISSING, f"{losses[0]:.4f}"])
    if not rows:
        return ["The run left no numbers."]
    return [table(["what", "name in metrics.json", f"value ({_loss_unit(run)} where a loss)"], rows, text_columns=2)]


def _accuracy(run: Run) -> list[str]:
    metrics = run.arms[0].metrics
    accuracy = metrics.get("accuracy/held_out")
    if accuracy is None:
        values = run.arms[0].series("eval_accuracy")[1]
        accuracy = values[-1] if values else None
    if accuracy is None or not math.isfinite(accuracy):
        return []
    error, count = metrics.get("accuracy/standard_error"), metrics.get("pairs/held_out")
    if error is None and count:
        error = math.sqrt(accuracy * (1 - accuracy) / count)
    on = f" of {number(count)} held-out pairs" if count else " of held-out pairs"
    text = f"The model orders {score(accuracy, error)}{on} rightly."
    if error:
        above = (accuracy - 0.5) / error
        chance = f"{abs(above):.1f} standard errors {'above' if above > 0 else 'below'} a coin's 0.5"
        text += f" That is {chance}." + ("" if above >= 2 else " It has not been shown to be better than a coin.")
    return [text, "> One seed is one seed: to compare two such models, train each with several seeds."]
