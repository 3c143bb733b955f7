"""How figures look, curves over steps, bars, sampling weights, and how often each token of a task comes."""

import bisect
import dataclasses
import io
import itertools
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hf_synth.io import write_bytes
from hf_synth.metrics.intervals import Interval
from hf_synth.reports.tables import fixed, one_line
from hf_synth.tasks import Rows, Task
from hf_synth.tasks.base import FIRST_CONTENT

WIDTH = 6.0  # inches: 900 pixels
DPI = 150
_LETTERS = 88  # of a legend in the width
_TITLE_LETTERS = (80, 38, 18)  # of a title over one of 1, 2 or 3 columns
# Okabe and Ito's colours, which the colour-blind tell apart, without yellow; two darker ones by Tol.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255", "#332288")
CONTROL_COLOUR = "#555555"
_LEVEL: Any = {"color": "#777777", "linewidth": 1, "linestyle": (0, (1, 2))}
_STYLES = ("-", "--", ":", "-.")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-9, 12),  # beyond, `write_exponents`
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
    """A curve over steps; `error` is the half-width of the band around it, or how far it goes below and above."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str = "black"
    style: Any = "-"  # as matplotlib's linestyle
    error: Sequence[float] | np.ndarray | None = None  # [steps] or [2, steps]
    marker: str | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes; `level` draws a thin line at a value that means something, as (value, what it is)."""

    title: str
    y_label: str
    lines: Sequence[Line]
    level: tuple[float, str] | None = None
    x_label: str = "training step"


def label(text: str, most: int = 26) -> str:
    """A name as a figure can show it: short, not taken for mathematics, and not hidden from the legend."""
    short = one_line(text)
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in short]
    if sum(widths) > most:
        short = short[: bisect.bisect_right(list(itertools.accumulate(widths)), most - 1)] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def blank(height: float, rows: int = 1, columns: int = 1, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width and its axes in reading order; no state outside it is touched."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)


@matplotlib.rc_context(STYLE)
def curves(panels: Iterable[Panel], *, share_y: bool = False, log_x: bool = False) -> Figure | None:
    """Panels of curves over steps, with one legend for all where the panels have the same lines.

    Lines without steps and panels without lines are left out; None where nothing is left.
    """
    panels = [dataclasses.replace(panel, lines=[line for line in panel.lines if len(line.steps)]) for panel in panels]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    columns = len(panels) if len(panels) <= 3 else 2 if len(panels) == 4 else 3
    rows = math.ceil(len(panels) / columns)
    labels = [[line.label for line in panel.lines] for panel in panels]
    alike = all(of_panel == labels[0] for of_panel in labels)
    height = (2.6 if len(panels) == 1 else 0.4 + 2.0 * rows) + (legend_height(labels[0]) if alike else 0)
    figure, axes = blank(height, rows, columns, share_y)
    for panel, ax in zip(panels, axes, strict=False):
        draw(panel, ax, columns)
        if not share_y:
            limit_shares(ax)
        if log_x:
            ax.set_xscale("log")
            ax.set_xlabel(f"{panel.x_label}, log scale")
            plain_log(ax.xaxis, crowded=columns == 3)
        if not alike and len(panel.lines) > 1:
            ax.legend()
    for ax in axes[len(panels) :]:
        ax.remove()
    if alike and len(labels[0]) > 1:
        columns = legend_columns(labels[0])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, handlelength=3)
    return figure


def legend_columns(labels: Sequence[str]) -> int:
    """How many entries of a legend stand side by side: at most four, and no more than the width holds."""
    widest = max(map(len, labels)) + 8  # the line and the space before a name, in letters
    return max(1, min(4, len(labels), _LETTERS // widest))


def legend_height(labels: Sequence[str]) -> float:
    """The inches that a legend takes below its first row."""
    return 0.2 * (math.ceil(len(labels) / legend_columns(labels)) - 1)


def draw(panel: Panel, ax: Axes, columns: int = 2) -> None:
    """A panel on axes that are there, one of so many side by side."""
    for index, line in enumerate(panel.lines):
        alone = np.isfinite(line.values).sum() < 2  # then, of equal dots, each is seen
        marker, size = ("o", max(4, 9 - 2 * index)) if alone else (line.marker, 3.5)
        ax.plot(line.steps, line.values, color=line.colour, linestyle=line.style, linewidth=1.6, label=line.label,
                marker=marker, markersize=size, clip_on=not alone)  # fmt: skip
        if line.error is not None:
            band = np.asarray(line.values) + [[-1], [1]] * np.asarray(line.error)
            band = band.clip(0, 1) if panel.y_label.startswith("fraction") else band
            ax.fill_between(line.steps, *band, color=line.colour, alpha=0.13, linewidth=0)
    if panel.level is not None:
        value, meaning = panel.level
        ax.axhline(value, **_LEVEL)
        ax.annotate(meaning, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
                    textcoords="offset points", fontsize=8, color="#555555",
                    bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})  # fmt: skip
    set_title(ax, panel.title, columns)
    steps = np.unique([step for line in panel.lines for step in line.steps])
    once = max((len(line.steps) for line in panel.lines), default=0) == 1
    ax.set_xlabel(panel.x_label + ("\n(logged once)" if once else ""))
    ax.set_ylabel(panel.y_label)
    whole = panel.y_label[:8] != "fraction" and not any(value % 1 for line in panel.lines for value in line.values)
    ax.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=whole))
    most = 3 if columns == 3 else 4
    ax.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
    if len(steps) and (steps % 1 == 0).all():
        even = MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]).tick_values(steps[0], steps[-1])
        ticks = steps[:-1] if len(steps) <= 8 else even[(even >= steps[0]) & (even < steps[-1])]
        room = 0.15 / most * max(4, len(f"{steps[-1]:.0f}")) * np.ptp(ax.get_xlim())
        kept = [steps[-1]]  # and of the others, from the right, those that have room
        for tick in reversed(ticks):
            if kept[-1] - tick >= room:
                kept.append(tick)
        ax.set_xticks(kept)
    write_exponents(ax.xaxis, ax.yaxis)


def set_title(ax: Axes, title: str, columns: int) -> None:
    """A title in as many lines as it takes over one of so many axes side by side."""
    ax.set_title(textwrap.fill(title, _TITLE_LETTERS[columns - 1], break_long_words=False), loc="left")


def write_exponents(*axes: Axis) -> None:
    """Write very large and very small numbers with their exponents at each tick, and none over the axis."""
    for axis in axes:
        if not 1e-4 <= np.abs(axis.get_data_interval()).max() < 1e9:
            axis.set_major_formatter("{x:.3g}")


def draw_interval(ax: Axes, interval: Interval, row: float, colour: str, values: Sequence[float] = ()) -> None:
    """A mean as a diamond on its row, its interval as a line, and single values as dots below."""
    ax.plot(values, [row + 0.23] * len(values), "o", color=colour, markersize=2.5, alpha=0.6)
    if math.isfinite(interval.high - interval.low):
        ax.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.2)
    ax.plot(interval.mean, row, "D", color=colour, markersize=5)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """One row for each name, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    write_exponents(ax.xaxis)


def arm_style(index: int) -> tuple[str, Any]:
    """The colour and the line style of an arm by its number; the style changes where colours come again."""
    return COLOURS[index % len(COLOURS)], _STYLES[index // len(COLOURS) % len(_STYLES)]


def limit_shares(ax: Axes) -> None:
    """Keep an axis of fractions between 0 and 1 and a margin; all of that where nothing differs."""
    if not ax.get_ylabel().startswith("fraction"):
        return
    low, high = ax.dataLim.intervaly
    low, high = (max(low, 0.0), min(high, 1.0)) if high > low else (0.0, 1.0)
    margin = 0.04 * (high - low)
    ax.set_ylim(low - margin, high + margin)


def save(figure: Figure | None, folder: Path, name: str) -> bool:
    """Write figures/NAME.png, the same bytes for the same figure; returns whether there is one."""
    if figure is None:
        return False
    painted = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # shown as boxes; the tables have the text
        figure.savefig(painted, dpi=DPI, metadata={"Software": None})
    write_bytes(folder / "figures" / f"{name}.png", painted.getvalue())
    return True


@matplotlib.rc_context(STYLE)
def grouped_bars(groups: Sequence[str], bars: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> Figure:
    """Bars side by side for each group of prompts. bars: (label, colour, height of each group, standard error)."""
    names = [name for name, *_ in bars]
    figure, (ax,) = blank(3.0 + legend_height(names))
    width = 0.8 / len(bars)
    shown = np.array([heights for _, _, heights, _ in bars], dtype=np.float64)
    spread = float(np.ptp(shown[np.isfinite(shown)])) if np.isfinite(shown).any() else 0.0
    decimals = int(np.clip(1 - math.floor(math.log10(spread)), 2, 5)) if spread else 2  # so that bars differ
    texts = [[fixed(height, decimals) if math.isfinite(height) else "" for height in heights] for heights in shown]
    for number, (name, colour, heights, errors) in enumerate(bars):
        x = np.arange(len(groups)) + (number - (len(bars) - 1) / 2) * width
        boxes = ax.bar(x, heights, width * 0.92, yerr=errors, color=colour, label=name, capsize=2,
                       error_kw={"linewidth": 1, "ecolor": "#222222"})  # fmt: skip
        if shown.size * max(map(len, itertools.chain(*texts))) <= 80:  # letters in the width
            ax.bar_label(boxes, texts[number], padding=2, fontsize=8)
    ax.set_xticks(range(len(groups)), groups)
    ax.grid(False, axis="x")
    ax.margins(y=0.12)
    write_exponents(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=legend_columns(names))
    return figure


_MOST_CLUSTERS = 6
_MOST_POINTS = 40_000
_MARKERS = "osD^"
# Plasma without its pale yellow: the rare prompts are few and must show on white.
_MAP_COLOURS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0, 0.86, 256)))
_BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


@matplotlib.rc_context(STYLE)
def weight_against_frequency(sizes: Mapping[str, int], arms: Sequence[tuple[str, str, Sequence[float]]]) -> Figure:
    """Mean weight of each cluster against its fraction of the prompts, with perfect balance; both axes logarithmic.

    sizes: cluster -> number of prompts, the largest first. arms: (label, colour, mean weight of each cluster).
    """
    figure, (ax,) = blank(3.5 + 0.1 * len(arms))
    shares = np.array(list(sizes.values())) / sum(sizes.values())
    ends = np.array([shares.min() / 1.4, min(1.0, shares.max() * 1.4)])
    ax.plot(ends, 1 / (len(sizes) * ends), color="#222222", linewidth=1.2, label="perfect balance: equal draws")
    ax.axhline(1, color="#777777", linewidth=1.2, linestyle="--", label="no weights: all prompts equal")
    for index, (name, colour, means) in enumerate(arms):
        ax.plot(shares, means, _MARKERS[index % 4], color=colour, markersize=6, label=name)
    means = arms[0][2]
    for index, name in enumerate(sizes):
        if len(sizes) <= _MOST_CLUSTERS or index in (0, len(sizes) - 1):  # of many the largest and the smallest
            above = shares[index] * means[index] * len(sizes) > 1  # the name goes away from the line
            ax.annotate(label(name, 18), (shares[index], means[index]), xytext=(7, 4) if above else (-7, -10),
                        ha="left" if above else "right", textcoords="offset points", fontsize=8,
                        bbox=_BEHIND_TEXT)  # fmt: skip
    ax.set(xscale="log", yscale="log")
    ax.margins(x=0.1, y=0.15)
    ax.set_xlim(right=1.05)
    plain_log(ax.xaxis, factor=100)
    plain_log(ax.yaxis)
    ax.set_xlabel("prompts in the cluster (% of all prompts)")
    ax.set_ylabel("mean weight (1 = average)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plain_log(axis: Axis, factor: float = 1, *, crowded: bool = False) -> None:
    """Numbers instead of powers of ten on a logarithmic axis, whatever its range; crowded: fewer of them."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) * (2.5 if crowded else 1)
    axis.set_major_locator(MaxNLocator(5) if decades < 0.7 else LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:,.10g}"))
    axis.set_minor_locator(NullLocator())


def log_range(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value, widened where they are equal."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low * 1.001 else (low / 2, high * 2)


@matplotlib.rc_context(STYLE)
def density_histogram(density: np.ndarray, clusters: Mapping[str, np.ndarray], unit: str) -> Figure:
    """How many prompts have which density; with a few clusters each in its own colour, as fractions of the cluster.

    clusters: the densities of each.
    """
    figure, (ax,) = blank(2.9)
    bins = np.geomspace(*log_range(density), 41)
    few = 1 < len(clusters) <= _MOST_CLUSTERS
    for (name, members), colour in zip(clusters.items() if few else (), COLOURS, strict=False):
        shares, edges = np.histogram(members, bins, weights=np.full(len(members), 100 / len(members)))
        ax.stairs(shares, edges, fill=True, alpha=0.18, color=colour)
        ax.stairs(shares, edges, linewidth=1.6, color=colour, label=f"{label(name)} ({len(members):,})")
    if few:
        ax.legend(title="cluster (prompts)")
    else:
        ax.stairs(*np.histogram(density, bins), fill=True, color=COLOURS[0])
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xscale("log")
    plain_log(ax.xaxis)
    ax.set_xlabel(f"density ({unit}; right: more similar prompts nearby)")
    ax.set_ylabel("prompts (% of the cluster)" if few else "prompts")
    return figure


@matplotlib.rc_context(STYLE)
def prompt_map(position: np.ndarray, values: np.ndarray, name: str, cluster: np.ndarray | None) -> Figure:
    """Prompts by the first two principal components, coloured by values; the names of a few clusters stand by.

    position: [N, 2]. values: [N], positive. cluster: the cluster of each, [N].
    """
    figure, (ax,) = blank(4.2)
    rows = np.arange(0, len(values), -(-len(values) // _MOST_POINTS))  # of very many every second, third, ...
    rows = rows[np.argsort(values[rows], kind="stable")]  # large values last, on top
    size = float(np.clip(16000 / max(1, len(rows)), 3, 28))
    x, y = position[rows].T
    norm = LogNorm(*log_range(values))
    points = ax.scatter(x, y, c=values[rows], norm=norm, cmap=_MAP_COLOURS, s=size, linewidths=0)
    plain_log(figure.colorbar(points, ax=ax, label=name).ax.yaxis)
    names = [] if cluster is None else list(dict.fromkeys(cluster))
    ax.margins(0.1)
    figure.draw_without_rendering()  # now the axes have their size
    points_drawn = ax.transData.transform(position[rows])
    for one in names if 1 < len(names) <= _MOST_CLUSTERS else []:
        (left, low), (x, y), (right, top) = np.quantile(position[cluster == one], (0.02, 0.5, 0.98), axis=0)
        places = ((x, top, "center", "bottom"), (x, low, "center", "top"), (right, y, "left", "center"),
                  (left, y, "right", "center"))  # fmt: skip
        style: Any = {"fontsize": 8, "bbox": _BEHIND_TEXT}
        texts = [ax.text(at_x, at_y, f" {label(one, 18)} ", ha=ha, va=va, **style) for at_x, at_y, ha, va in places]
        best = min(texts, key=lambda text: text.get_window_extent().count_contains(points_drawn))
        for text in texts:
            text.set_visible(text is best)
    if len(rows) < len(values):
        ax.set_title(f"{len(rows):,} of {len(values):,} prompts", loc="left")
    ax.set_xlabel("first principal component (no unit)")
    ax.set_ylabel("second principal component (no unit)")
    return figure


_NAMED_TOKENS = 24  # more names than these cannot be read under an axis


@matplotlib.rc_context(STYLE)
def token_distribution(task: Task, rows: Rows, called: str) -> Figure:
    """Fractions of the tokens beside equal ones; of a large vocabulary by rank as well.

    called: the task, its preset and whatever else the title should tell.
    """
    present = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    counts = np.bincount(rows.tokens[present], minlength=FIRST_CONTENT + len(task.vocabulary()))[FIRST_CONTENT:]
    shares, ids = counts / counts.sum(), np.arange(len(counts))
    named = len(counts) <= _NAMED_TOKENS
    figure, (ax, *others) = blank(2.9, 1, 1 if named else 2)
    equal: Any = {"color": CONTROL_COLOUR, "linestyle": "--", "linewidth": 1, "label": "all equally frequent"}
    ax.bar(ids, shares, width=0.7 if named else 1.0, color=COLOURS[0])
    ax.axhline(1 / len(shares), **equal)
    ax.set(xlabel="" if named else "token, in the vocabulary's order", ylabel="fraction of tokens")
    ax.set_ylim(top=1.25 * shares.max())
    if named:
        ax.set_xticks(ids, [label(word) for word in task.vocabulary()], rotation=90)
    ax.legend(loc="upper right")
    for by_rank in others:
        by_rank.plot(1 + ids, np.sort(shares)[::-1], color=COLOURS[0], linewidth=1.6)
        by_rank.axhline(1 / len(shares), **equal)
        by_rank.set(xlabel="rank", ylabel="fraction of tokens", xscale="log", yscale="log")
        by_rank.set_ylim(shares[shares > 0].min() / 3, shares.max() * 3)
    entropy = scipy.stats.entropy(counts)
    title = f"{len(rows):,} rows of {label(called, 60)}: entropy {entropy:.2f} of {np.log(len(counts)):.2f} nats"
    figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
    return figure
