"""Figures of a comparison: the primary measure by arm, from head to tail, and over training."""

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import Interval, mean_interval
from hf_synth.reports.comparing.reading import Compared
from hf_synth.reports.figures import CLUSTER_COLOURS, STYLE, WIDTH, blank, label, legend_columns, save

_STYLES = ("-", "--", ":", "-.")
_MOST_CURVES = 8


def draw_figures(compared: Compared) -> list[str]:
    """Save the figures that the runs allow into the folder; returns their names."""
    found = {"primary": primary_figure(compared)}
    if (groups := head_to_tail(compared)) is not None:
        found["groups"] = groups_figure(compared, *groups)
    if (measure := curve_of(compared)) is not None:
        found["steps"] = steps_figure(compared, measure)
    for name, figure in found.items():
        save(figure, compared.folder, name)
    return list(found)


def look_of(compared: Compared, arm: str) -> tuple[str, Any]:
    """The colour and the line style of an arm."""
    index = list(compared.arguments.arms).index(arm)
    return CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)], _STYLES[index // len(CLUSTER_COLOURS) % len(_STYLES)]


@matplotlib.rc_context(STYLE)
def primary_figure(compared: Compared) -> Figure:
    """The primary measure by arm, and each pair's difference beside it."""
    heights = [1.1 + 0.26 * len(compared.arms), 1.1 + 0.26 * len(compared.primary)]
    parts = heights if compared.primary else heights[:1]
    figure = Figure(figsize=(WIDTH, sum(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, height_ratios=parts, squeeze=False)[:, 0]
    top, bottom = axes if compared.primary else (axes[0], None)
    for place, arm in enumerate(compared.arms):
        colour, _ = look_of(compared, arm)
        values = compared.values(arm, compared.arguments.primary)
        top.plot(values, [place + 0.24] * len(values), "o", color=colour, markersize=2.5, alpha=0.6)
        if values:
            _interval(top, mean_interval(values), place, colour)
    _rows(top, [label(arm, 24) for arm in compared.arms])
    top.set_title(label(compared.arguments.primary, 34), loc="left")
    top.set_xlabel(f"{compared.arguments.better} is better")
    if bottom is not None:
        for place, difference in enumerate(compared.primary):
            _interval(bottom, difference.interval, place, look_of(compared, difference.arm)[0])
        bottom.axvline(0, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
        _rows(bottom, [label(f"{found.arm} \u2212 {found.other}", 48) for found in compared.primary])
        bottom.set_title("paired differences", loc="left")
        bottom.set_xlabel("in the same unit")
    return figure


def _interval(ax: Axes, interval: Interval, place: float, colour: str) -> None:
    if math.isfinite(interval.high - interval.low):
        ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.2)
    ax.plot(interval.mean, place, "D", color=colour, markersize=5)


def _rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


def head_to_tail(compared: Compared) -> tuple[str, list[tuple[str, str]]] | None:
    """What a measure is known for from the most crowded to the rarest: its title, and (name, label) of each place.

    Clusters in the order of their size, or tenths of the prompts by density; None where there are neither.
    """
    run = next(iter(compared.runs[compared.arms[0]].values()))
    mixture = compared.base.get("mixture")
    if isinstance(mixture, dict) and len(mixture) > 1:
        order = sorted(mixture, key=lambda name: -float(mixture[name].get("share", 1)))
        names = [(f"validity/{name}", name) for name in order]
        if all(name in run.metrics for name, _ in names):
            return "validity by cluster, the largest first", names
    tenths = sorted(
        (name for name in run.metrics if re.fullmatch(r"reward/decile_\d+", name)), key=lambda name: int(name[14:])
    )
    return ("reward by tenth of density, the most crowded first", [(n, n[14:]) for n in tenths]) if tenths else None


@matplotlib.rc_context(STYLE)
def groups_figure(compared: Compared, title: str, places: Sequence[tuple[str, str]]) -> Figure:
    """A measure at each place from head to tail, a line an arm."""
    figure, (ax,) = blank(3.4)
    x = np.arange(len(places))
    arms = compared.arms[:_MOST_CURVES]
    for number, arm in enumerate(arms):
        colour, style = look_of(compared, arm)
        found = [compared.interval(arm, name) for name, _ in places]
        shift = (number - (len(arms) - 1) / 2) * 0.06
        known = [(x[i] + shift, value) for i, value in enumerate(found) if value is not None]
        ax.plot([at for at, _ in known], [value.mean for _, value in known], color=colour, linestyle=style,
                marker="o", markersize=3, linewidth=1.2)  # fmt: skip
        for at, value in known:
            if math.isfinite(value.high - value.low):
                ax.plot([at, at], [value.low, value.high], color=colour, linewidth=1)
    if places[0][0].startswith("validity"):  # a share: an interval may reach beyond, no value can
        ax.set_ylim(max(-0.03, ax.get_ylim()[0]), min(1.03, ax.get_ylim()[1]))
    ax.set_xticks(x, [label(name, 14) for _, name in places], rotation=30, ha="right")
    ax.set_title(title, loc="left")
    _legend(figure, compared, arms)
    return figure


def curve_of(compared: Compared) -> str | None:
    """The logged measure that curves are drawn of: the rare half's, or the measure itself."""
    run = next(iter(compared.runs[compared.arms[0]].values()))
    logged = {name for entry in run.history for name in entry}
    candidates = ("halves/validity/rare", "validity", "sampled_reward/rare", "sampled_reward", "eval_loss")
    return next((name for name in candidates if name in logged), None)


@matplotlib.rc_context(STYLE)
def steps_figure(compared: Compared, measure: str) -> Figure:
    """A measure over steps, and over the KL divergence that the arm has come to."""
    figure, axes = blank(3.2, 1, 2, share_y=True)
    arms = compared.arms[:_MOST_CURVES]
    for arm in arms:
        colour, style = look_of(compared, arm)
        runs = [_looks(run.history, measure) for run in compared.runs[arm].values()]
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        means = [mean_interval([run[step][measure] for run in runs]) for step in steps]
        axes[0].plot(steps, [found.mean for found in means], color=colour, linestyle=style, linewidth=1.5)
        if len(runs) > 1:
            axes[0].fill_between(steps, [found.low for found in means], [found.high for found in means],
                                 color=colour, alpha=0.1, linewidth=0)  # fmt: skip
        distances = [float(np.mean([run[step].get("held_out/kl", np.nan) for run in runs])) for step in steps]
        axes[1].plot(distances, [found.mean for found in means], color=colour, linestyle=style, linewidth=1.5,
                     marker="o", markersize=2.5)  # fmt: skip
    axes[0].set_title(label(measure, 34), loc="left")
    axes[0].set_xlabel("training step")
    axes[1].set_title("the same at equal KL", loc="left")
    axes[1].set_xlabel("KL to the reference, nats a completion")
    _legend(figure, compared, arms)
    return figure


def _looks(history: Sequence[dict[str, float]], measure: str) -> dict[int, dict[str, float]]:
    return {int(entry["step"]): entry for entry in history if measure in entry}


def _legend(figure: Figure, compared: Compared, arms: Sequence[str]) -> None:
    names = [label(arm, 24) for arm in arms]
    handles = [
        matplotlib.lines.Line2D([], [], color=colour, linestyle=style)
        for colour, style in (look_of(compared, arm) for arm in arms)
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=legend_columns(names), handlelength=3)
