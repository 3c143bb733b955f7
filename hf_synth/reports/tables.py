"""Markdown from numbers and from texts that nobody can trust: prompts, names and values of other people."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from hf_synth.tasks.families.knowledge_graph import KINDS

# Entities and not backslashes: no Markdown reader takes them for structure, inside a table or outside.
# An underscore inside a word is no markup and stays readable.
_MARKUP = re.compile(r"[&<>|\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")
# Marks that would turn round the direction of all the text after them.
_DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REPLACEMENT = "\ufffd"
MISSING = "-"


def escaped(text: str, most: int = 200) -> str:
    """Any text as one line of Markdown that shows as it is, cut to `most` characters."""
    line = one_line(text)
    shown = line if len(line) <= most else line[: most - 1] + "…"
    return _MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", shown)


def one_line(text: str) -> str:
    """The text without line breaks, control characters and marks of direction."""
    return "".join(map(_shown, " ".join(text.split())))


def _shown(character: str) -> str:
    hidden = character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Cn")
    return _REPLACEMENT if hidden else character


def code(text: str) -> str:
    """A code span of one line, whatever backticks the text has."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """A fenced block that the text cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """A Markdown table of cells that are Markdown already; columns after the first `text_columns` are numbers."""
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def score(value: float | None, error: float | None = None) -> str:
    """A measure in three decimals, with its standard error where there is one."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def spread(interval: tuple[float, float, float] | None, value: float | None = None) -> str:
    """A mean with the bounds of its interval; without finite bounds the mean, or the `value`, alone."""
    if interval is None:
        return score(value)
    mean, low, high = interval
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" if math.isfinite(high - low) else score(mean)


def number(value: float | None) -> str:
    """A number as short as it may be: whole ones in full, others in three significant digits or more."""
    if value is None or not math.isfinite(value):
        return MISSING
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def picture(name: str, alt: str) -> str:
    """A figure of the report by its file's name."""
    return f"![{alt}](figures/{name}.png)"


_PARTS = ("all", "head", "tail")
# Names in the order of a table; those that end in "/" stand for the three parts of the prompts.
_ORDER = (
    "halves/validity/common", "halves/validity/rare", "halves/sampled_reward/common", "halves/sampled_reward/rare",
    "validity/", "reward/", "pass_at_4/", "variety/", "coverage/",
    "collapse/em_dash", "collapse/not_just", "collapse/tone_spread", "collapse/token_gini", "collapse/distinct_1",
    "collapse/distinct_2", "collapse/compression", "collapse/repetition", "collapse/self_bleu", "collapse/vendi",
    "collapse/variety", "entropy/mean", "kl/mean", "length", "finished",
    "equal_kl/halves/validity/common", "equal_kl/halves/validity/rare", "equal_kl/validity", "equal_kl/sampled_reward",
    "equal_kl/sampled_reward/crowded", "equal_kl/sampled_reward/rare", "equal_kl/entropy", "equal_kl/kl",
    "accuracy/held_out", "accuracy/test", "row_accuracy/test", "loss/held_out", "loss/test", "excess/test",
)  # fmt: skip


def headlines(names: Collection[str]) -> list[str]:
    """Of the names of measures those that a reader looks at first, in the order of a table."""
    order = [f"{name}{part}" for name in _ORDER for part in (_PARTS if name.endswith("/") else ("",))]
    return [name for name in order if name in names]


def in_order(groups: Iterable[str]) -> list[str]:
    """Types of facts as they are learned: memorised, composed, analogised; other groups by name, after them."""
    return sorted(groups, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name))
