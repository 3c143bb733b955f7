"""How figures look, curves over steps, and how often each token of a task comes."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hf_synth.metrics.intervals import Interval
from hf_synth.reports.tables import one_line
from hf_synth.tasks import Rows, Task
from hf_synth.tasks.base import FIRST_CONTENT

WIDTH = 6.0  # inches: 900 pixels
DPI = 150
_LETTERS = 96  # of a legend in the width
# Okabe and Ito's colours, which the colour-blind tell apart, without yellow; two darker ones by Tol.
CLUSTER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255", "#332288")
ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
CONTROL_COLOUR = "#555555"
WARM_UP_COLOUR = "#BBBBBB"
ARM_STYLES = ("-", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
CONTROL_STYLE = "--"
_STYLES = ("-", "--", ":", "-.")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve over steps; `error` is the half-width of the band around it."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str = "black"
    style: Any = "-"  # as matplotlib's linestyle
    error: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes; `level` draws a thin line at a value that means something, as (value, what it is)."""

    title: str
    y_label: str
    lines: Sequence[Line]
    level: tuple[float, str] | None = None


def label(text: str, most: int = 26) -> str:
    """A name as a figure can show it: short, not taken for mathematics, and not hidden from the legend."""
    short = one_line(text)
    short = short if len(short) <= most else short[: most - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def blank(height: float, rows: int = 1, columns: int = 1, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width and its axes in reading order; no state outside it is touched."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    return figure, list(axes.flat)


@matplotlib.rc_context(STYLE)
def curves(panels: Sequence[Panel], *, share_y: bool = False, log_x: bool = False) -> Figure:
    """Panels of curves over steps, with one legend for all where the panels have the same lines."""
    columns = len(panels) if len(panels) <= 3 else 2 if len(panels) == 4 else 3
    rows = math.ceil(len(panels) / columns)
    labels = [[line.label for line in panel.lines] for panel in panels]
    alike = all(found == labels[0] for found in labels)
    height = 2.6 if len(panels) == 1 else 0.4 + 2.0 * rows
    height += 0.2 * (math.ceil(len(labels[0]) / legend_columns(labels[0])) - 1) if alike else 0
    figure, axes = blank(height, rows, columns, share_y)
    for panel, ax in zip(panels, axes, strict=False):
        draw(panel, ax)
        if not share_y:
            limit_shares(ax)
        if log_x:
            log_steps(ax)
        if not alike and len(panel.lines) > 1:
            ax.legend()
    for ax in axes[len(panels) :]:
        ax.remove()
    if alike and len(labels[0]) > 1:
        # Lines of several colours stand in the legend in black: there only their style says what they are.
        one_colour = len({line.colour for panel in panels for line in panel.lines if line.label == labels[0][0]}) == 1
        handles = [
            matplotlib.lines.Line2D([], [], linestyle=line.style, color=line.colour if one_colour else "black")
            for line in panels[0].lines
        ]
        columns = legend_columns(labels[0])
        figure.legend(handles, labels[0], loc="outside lower center", ncols=columns, handlelength=3)
    return figure


def legend_columns(labels: Sequence[str]) -> int:
    """How many entries of a legend stand side by side: at most four, and no more than the width holds."""
    widest = max(map(len, labels)) + 8  # the line and the space before a name, in letters
    return max(1, min(4, len(labels), _LETTERS // widest))


def draw(panel: Panel, ax: Axes) -> None:
    """A panel on axes that are there."""
    for line in panel.lines:
        marker = "o" if len(line.steps) < 2 else None
        ax.plot(line.steps, line.values, color=line.colour, linestyle=line.style, linewidth=1.6, label=line.label,
                marker=marker)  # fmt: skip
        if line.error is not None:
            values, error = np.asarray(line.values), np.asarray(line.error)
            ax.fill_between(line.steps, values - error, values + error, color=line.colour, alpha=0.13, linewidth=0)
    if panel.level is not None:
        value, meaning = panel.level
        ax.axhline(value, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
        ax.annotate(meaning, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
                    textcoords="offset points", fontsize=8, color="#555555")  # fmt: skip
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel("training step")
    ax.set_ylabel(panel.y_label)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))


def draw_interval(ax: Axes, interval: Interval, place: float, colour: str, values: Sequence[float] = ()) -> None:
    """A mean as a diamond on its row, its interval as a line, and single values as dots below."""
    ax.plot(values, [place + 0.23] * len(values), "o", color=colour, markersize=2.5, alpha=0.6)
    if math.isfinite(interval.high - interval.low):
        ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.2)
    ax.plot(interval.mean, place, "D", color=colour, markersize=5)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """One row for each name, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(4))


def arm_style(index: int) -> tuple[str, Any]:
    """The colour and the line style of an arm by its number; the style changes where colours come again."""
    return CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)], _STYLES[index // len(CLUSTER_COLOURS) % len(_STYLES)]


def arm_legend(figure: FigureBase, styles: Sequence[tuple[str, Any]], names: Sequence[str]) -> None:
    """A legend of arms below all panels."""
    handles = [matplotlib.lines.Line2D([], [], color=colour, linestyle=style) for colour, style in styles]
    figure.legend(handles, list(names), loc="outside lower center", ncols=legend_columns(names), handlelength=3)


def limit_shares(ax: Axes) -> None:
    """Keep an axis of fractions between 0 and 1 and a margin; all of that where nothing differs."""
    if not ax.get_ylabel().startswith("fraction"):
        return
    low, high = ax.dataLim.intervaly
    low, high = (max(low, 0.0), min(high, 1.0)) if high > low else (0.0, 1.0)
    margin = 0.04 * (high - low)
    ax.set_ylim(low - margin, high + margin)


def log_steps(ax: Axes) -> None:
    """A logarithmic axis of steps, in plain numbers."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write figures/NAME.png; the same figure gives the same bytes."""
    (folder / "figures").mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / "figures" / f"{name}.png", dpi=DPI, metadata={"Software": None})


_NAMED_TOKENS = 24  # more names than these cannot be read under an axis


def token_counts(task: Task, rows: Rows) -> np.ndarray:
    """How often each content token stands in the rows, int64 [vocabulary]."""
    present = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    counts = np.bincount(rows.tokens[present], minlength=FIRST_CONTENT + len(task.vocabulary()))
    return counts[FIRST_CONTENT:]


def entropy(counts: np.ndarray) -> float:
    """Of the tokens taken one by one, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() + 0.0)


@matplotlib.rc_context(STYLE)
def token_distribution(task: Task, rows: Rows, called: str) -> Figure:
    """Fractions of the tokens beside equal ones; of a large vocabulary by rank as well.

    called: the task, its preset and whatever else the title should tell.
    """
    counts = token_counts(task, rows)
    named = len(counts) <= _NAMED_TOKENS
    figure, axes = blank(2.9, 1, 1 if named else 2)
    _by_id(axes[0], counts / counts.sum(), [label(word) for word in task.vocabulary()] if named else [])
    if not named:
        _by_rank(axes[1], counts / counts.sum())
    spread = f"entropy {entropy(counts):.2f} of {np.log(len(counts)):.2f} nats"
    title = f"{len(rows):,} rows of {label(called, 60)}: {spread}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
    return figure


def _by_id(ax: Axes, shares: np.ndarray, names: list[str]) -> None:
    ids = np.arange(len(shares))
    ax.bar(ids, shares, width=0.7 if names else 1.0, color=ARM_COLOURS[0])
    ax.axhline(1 / len(shares), color=CONTROL_COLOUR, linestyle="--", linewidth=1)
    ax.set_ylim(top=1.18 * shares.max())
    ax.annotate("dashed: all equally frequent", (1, 1), xycoords="axes fraction", ha="right", va="top", fontsize=8,
                color=CONTROL_COLOUR)  # fmt: skip
    ax.set(xlabel="" if names else "token, in the vocabulary's order", ylabel="fraction of tokens")
    if names:
        ax.set_xticks(ids, names, rotation=90)


def _by_rank(ax: Axes, shares: np.ndarray) -> None:
    ranks = 1 + np.arange(len(shares))
    ax.plot(ranks, np.sort(shares)[::-1], color=ARM_COLOURS[0], linewidth=1.6, label="tokens by rank")
    ax.axhline(1 / len(shares), color=CONTROL_COLOUR, linestyle="--", linewidth=1, label="all equally frequent")
    ax.set(xlabel="rank", ylabel="fraction of tokens", xscale="log", yscale="log")
    ax.set_ylim(shares[shares > 0].min() / 3, shares.max() * 3)
    ax.legend(loc="lower left")
