"""The figure of several arms: what each reached, with its interval over seeds, and how it came there."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import Interval
from hf_synth.reports.comparison import Comparison, SeededArm
from hf_synth.reports.dynamics_figures import floor_level, log_spaced
from hf_synth.reports.figures import (
    CLUSTER_COLOURS,
    STYLE,
    WIDTH,
    Line,
    Panel,
    draw,
    label,
    legend_columns,
    limit_shares,
    log_steps,
)

_OVER_STEPS = {
    "eval_validation_loss": ("Validation loss", "nats per token"),
    "eval_validation_accuracy": ("Validation accuracy", "share of tokens"),
}
_STYLES = ("-", "--", ":", "-.")


def colour_of(comparison: Comparison, arm: SeededArm) -> tuple[str, Any]:
    """The colour of an arm and its line style, which changes where colours come again."""
    index = comparison.arms.index(arm)
    return CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)], _STYLES[index // len(CLUSTER_COLOURS) % len(_STYLES)]


@matplotlib.rc_context(STYLE)
def arms_figure(comparison: Comparison, measures: Sequence[tuple[str, str, str]]) -> Figure:
    """Above, each measure by arm: mean and interval over seeds, seeds as dots; below, validation over steps.

    measures: (name in metrics.json, title, unit), at most three of them.
    """
    above = 0.9 + 0.24 * len(comparison.arms)
    figure = Figure(figsize=(WIDTH, above + 3.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[above, 3.0])
    top, bottom = parts
    columns = top.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    for ax, (name, title, unit) in zip(columns, measures, strict=True):
        _by_arm(ax, comparison, name)
        if unit.startswith("share") and ax.dataLim.width == 0:
            ax.set_xlim(-0.05, 1.05)
        ax.set_title(title, loc="left")
        ax.set_xlabel(unit)
    names = [label(arm.label, 22) for arm in comparison.arms]
    columns[0].set_yticks(range(len(names)), names)
    columns[0].set_ylabel("arm")
    columns[0].set_ylim(len(names) - 0.4, -0.6)
    for ax, (name, (title, unit)) in zip(bottom.subplots(1, 2), _OVER_STEPS.items(), strict=True):
        _over_steps(ax, comparison, name, title, unit)
    if len(comparison.arms) > 1:
        handles = [
            matplotlib.lines.Line2D([], [], color=colour, linestyle=style)
            for colour, style in (colour_of(comparison, arm) for arm in comparison.arms)
        ]
        bottom.legend(handles, names, loc="outside lower center", ncols=legend_columns(names), handlelength=3)
    return figure


def _by_arm(ax: Axes, comparison: Comparison, name: str) -> None:
    for place, arm in enumerate(comparison.arms):
        interval = arm.interval(name)
        if interval is None:
            continue
        colour, _ = colour_of(comparison, arm)
        ax.plot(arm.of(name), [place + 0.22] * len(arm.of(name)), "o", color=colour, markersize=2.5, alpha=0.6)
        if _known(interval):
            ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.2)
        ax.plot(interval.mean, place, "D", color=colour, markersize=5)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


def _over_steps(ax: Axes, comparison: Comparison, name: str, title: str, unit: str) -> None:
    lines = []
    for arm in comparison.arms:
        steps, found = arm.curve(name)
        colour, style = colour_of(comparison, arm)
        lines.append(Line(arm.name, steps, [interval.mean for interval in found], colour, style))
        if found and all(map(_known, found)):
            low, high = ([getattr(interval, end) for interval in found] for end in ("low", "high"))
            ax.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
    first = next(iter(comparison.arms[0].runs.values()))
    same_floor = len({round(value[0], 6) if (value := floor_level(run)) else None
                      for arm in comparison.arms for run in arm.runs.values()}) == 1  # fmt: skip
    level = floor_level(first) if same_floor and name.endswith("loss") else None
    draw(Panel(title, unit, lines, level), ax)
    limit_shares(ax)
    if log_spaced(first):
        log_steps(ax)


def _known(interval: Interval) -> bool:
    return math.isfinite(interval.high - interval.low)
