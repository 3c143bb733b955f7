"""What every page of results shares: templates, HTML, and the facts of a run's model, task and settings."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
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
from hf_synth.training.arguments import yaml_text

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


def settings_yaml(settings: dict[str, Any]) -> str:
    """Settings as the lines of a recipe's YAML."""
    nested = any(isinstance(value, dict | list) for value in settings.values())
    flow = None if nested else False  # None puts what holds nothing nested in one line, and so would all settings
    return yaml_text(settings, allow_unicode=True, default_flow_style=flow, width=100)


_TEMPLATES.globals |= {"MISSING": MISSING}
_TEMPLATES.globals |= {
    function.__name__: function
    for function in (
        code, code_block, duration, escaped, listed, number, percent, picture, score, short_path, settings_of_task,
        settings_yaml, spread, table,
    )
}  # fmt: skip
