"""Markdown from numbers and from texts that nobody can trust: cells, tables, whole pages, and the facts of a run."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from markdown_it import MarkdownIt
from safetensors import safe_open

from hf_synth.io import load_json, reading, write_text
from hf_synth.tasks.families.knowledge_graph import KINDS
from hf_synth.training.arguments import yaml_text

# Entities and not backslashes: no Markdown reader takes them for structure, inside a table or outside.
# An underscore inside a word is no markup and stays readable.
_MARKUP = re.compile(r"[&<>|\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")
# Marks that would turn round the direction of all the text after them.
_DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MISSING = "-"


def escaped(text: str, most: int = 200) -> str:
    """Any text as one line of Markdown that shows as it is, cut to `most` characters."""
    return _MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", shortened(text, most))


def one_line(text: str) -> str:
    """The text without line breaks, control characters and marks of direction."""
    return "".join(
        "\ufffd" if character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Cn") else character
        for character in " ".join(text.split())
    )


def shortened(text: str, most: int) -> str:
    """The text in one line of at most `most` characters."""
    line = one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def code(text: str) -> str:
    """A code span of one line, whatever backticks the text has; with a bar, which ends table cells, escaped text."""
    line = shortened(text, 200)
    if "|" in line or not line:
        return escaped(line)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """A fenced block that the text cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1, drop_empty: bool = False
) -> str:
    """A Markdown table of cells that are Markdown already; columns after the first `text_columns` are numbers.

    drop_empty: leave out the columns that are MISSING in every row.
    """
    if drop_empty:
        kept = [column for column in zip(header, *rows, strict=True) if set(column[1:]) != {MISSING}]
        header, *rows = zip(*kept, strict=True)
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def fixed(value: float | None, decimals: int = 4) -> str:
    """A number with so many decimals; a very large one in four digits."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:z.{decimals}f}" if abs(value) < 1e6 else f"{value:.4g}"


def score(value: float | None, error: float = math.nan) -> str:
    """A measure in three decimals, with its standard error where that is known."""
    return fixed(value, 3) + (f" ± {fixed(error, 3)}" if math.isfinite(error) else "")


def spread(interval: tuple[float, float, float] | None, value: float | None = None) -> str:
    """A mean with the bounds of its interval; without finite bounds the mean, or the `value`, alone."""
    if interval is None:
        return score(value)
    mean, low, high = interval
    if not math.isfinite(high - low):
        return score(mean)
    # Two digits of the interval's width, so that bounds which differ are not written alike.
    decimals = min(6, max(3, 1 - math.floor(math.log10(high - low)))) if high > low else 3
    return f"{fixed(mean, decimals)} [{fixed(low, decimals)}, {fixed(high, decimals)}]"


def number(value: float | None) -> str:
    """A number as short as it may be: whole ones in full, others in three significant digits or more."""
    if value is None or not math.isfinite(value):
        return MISSING
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else MISSING


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


_PARTS = ("all", "head", "tail")
# Names in the order of a table; those that end in "/" stand for the three parts of the prompts.
_ORDER = (
    "halves/validity/common", "halves/validity/rare", "halves/sampled_reward/common", "halves/sampled_reward/rare",
    "validity/", "reward/", "pass_at_4/", "variety/", "coverage/", "collapse/em_dash", "collapse/not_just",
    "collapse/tone_spread", "collapse/token_gini", "collapse/distinct_1", "collapse/distinct_2",
    "collapse/compression", "collapse/repetition", "collapse/self_bleu", "collapse/vendi", "collapse/variety",
    "entropy/mean", "kl/mean", "length", "finished", "equal_kl/halves/validity/common",
    "equal_kl/halves/validity/rare", "equal_kl/validity", "equal_kl/sampled_reward", "equal_kl/sampled_reward/crowded",
    "equal_kl/sampled_reward/rare", "equal_kl/entropy", "equal_kl/kl", "language/auroc/same_length",
    "language/validity", "language/valid_and_new", "language/completion", "language/perplexity/ratio",
    "mean/validation", "accuracy/held_out", "accuracy/test", "row_accuracy/test", "loss/held_out", "loss/test",
    "excess/test",
)  # fmt: skip


def headlines(names: Collection[str]) -> list[str]:
    """Of the names of measures those that a reader looks at first, in the order of a table."""
    order = [f"{name}{part}" for name in _ORDER for part in (_PARTS if name.endswith("/") else ("",))]
    return [name for name in order if name in names]


def in_order(groups: Iterable[str]) -> list[str]:
    """Types of facts as they are learned: memorised, composed, analogised; other groups by name, after them."""
    return sorted(groups, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name))


def templates_beside(file: str) -> jinja2.Environment:
    """Return the folder `templates` beside a file."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(file).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


_TEMPLATES = templates_beside(__file__)


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


def write_pages(folder: Path, markdown: str) -> Path:
    """Write report.md and report.html into a folder; returns the path of report.html.

    HTML inside the Markdown is shown, never obeyed. Figures that only the report before this one shows are removed.
    """
    page, figure = folder / "report.md", re.compile(r"\]\((figures/\w+\.png)\)")
    before = page.read_text(encoding="utf-8", errors="replace") if page.exists() else ""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    heading = re.search(r"<h1>(.*?)</h1>", body)
    title = re.sub("<[^>]*>", "", heading[1]) if heading else "Report"
    write_text(page, markdown)
    write_text(folder / "report.html", _TEMPLATES.get_template("page.html.j2").render(title=title, body=body))
    for name in set(figure.findall(before)) - set(figure.findall(markdown)):
        (folder / name).unlink(missing_ok=True)
    return folder / "report.html"


_SIZES = {
    "num_hidden_layers": "layers", "n_layer": "layers", "num_attention_heads": "heads", "n_head": "heads",
    "hidden_size": "hidden size", "n_embd": "hidden size", "vocab_size": "vocabulary",
}  # fmt: skip


_REMOVE = "remove its folder, and the same command makes the run again"


def count_parameters(folder: Path) -> int | None:
    """Parameters in a folder's safetensors files, read from their headers; None where there are none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with reading(path, _REMOVE), safe_open(path, framework="np") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total or None


def model_facts(folder: Path, metrics: Mapping[str, float]) -> str:
    """The model by its class, with its size; by its size alone where its config is not there; empty without either."""
    parameters = count_parameters(folder) or metrics.get("parameters")
    parts = [] if parameters is None else [f"{number(parameters)} parameters"]
    if config := load_json(folder / "config.json", _REMOVE):
        kind = next(iter(config.get("architectures") or []), config.get("model_type") or "model")
        sizes = [f"{word} {config[name]:,}" for name, word in _SIZES.items() if isinstance(config.get(name), int)]
        parts = [code(str(kind)), *parts, *sizes]
    return ", ".join(parts)


def read_samples(path: Path) -> pa.Table:
    """Read samples.parquet; ValueError where it is damaged."""
    with reading(path, _REMOVE):
        return pq.read_table(path)


def answers(samples: Mapping[str, Path], most: int) -> str:
    """A table of the first sampled answer of each arm to a few prompts, spread evenly over all.

    samples: the tables of samples, of the same prompts, by the name of the arm. Empty where one is not there.
    """
    if not samples or not most or not all(path.exists() for path in samples.values()):
        return ""
    first = []
    for path in samples.values():
        columns = read_samples(path).select(["prompt", "completion", "sample"]).to_pydict()
        rows_read = zip(*columns.values(), strict=True)
        first.append({prompt: completion for prompt, completion, sample in rows_read if sample == 0})
    prompts = [prompt for prompt in first[0] if all(prompt in of_arm for of_arm in first)]
    rows = [
        [
            escaped(prompt if len(prompt) <= 160 else "…" + prompt[-159:]),
            *(escaped(of_arm[prompt], 160) for of_arm in first),
        ]
        for prompt in prompts[:: max(1, len(prompts) // most)][:most]
    ]
    return table(["prompt", *map(code, samples)], rows, text_columns=1 + len(samples)) if rows else ""


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


_TEMPLATES.globals |= {
    function.__name__: function
    for function in (
        code, code_block, duration, escaped, fixed, listed, number, percent, score, short_path, settings_of_task,
        settings_yaml, spread, table,
    )
}  # fmt: skip
