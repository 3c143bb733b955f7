"""Figures of a GRPO run: the measure and the training reward over steps, and head against tail."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_synth.reports.figures import (
    ARM_COLOURS,
    ARM_STYLES,
    CLUSTER_COLOURS,
    CONTROL_COLOUR,
    CONTROL_STYLE,
    STYLE,
    WARM_UP_COLOUR,
    Line,
    Panel,
    blank,
    curves,
    label,
)
from hf_synth.reports.run import Arm, Run
from hf_synth.reports.scores import before_and_after, error_of, group_error, mean_error, parts_of

_UNITS = {"validity": "validity", "sampled_reward": "sampled reward"}
_TRAINING = {  # what TRL logs: (title, label with unit)
    "reward": ("Training reward", "mean reward"),
    "completions/mean_length": ("Length of answers", "tokens"),
    "entropy": ("Entropy of the policy", "nats per token"),
    "kl": ("Distance from the first policy", "KL, nats per token"),
}


def shown_groups(run: Run, most: int = 8) -> list[str]:
    """All groups; of many the largest and the smallest, which the report is about."""
    groups = run.groups if len(run.groups) > 1 else []
    return groups if len(groups) <= most else [*groups[: most // 2], *groups[-(most // 2) :]]


def arm_styles(run: Run) -> dict[str, tuple]:
    """Label of an arm -> (line style, colour); the control is always dashed and grey."""
    return {
        **{arm.label: (ARM_STYLES[index % len(ARM_STYLES)], ARM_COLOURS[index % len(ARM_COLOURS)])
           for index, arm in enumerate(arm for arm in run.arms if arm.strength != 0)},
        "control": (CONTROL_STYLE, CONTROL_COLOUR),
    }  # fmt: skip


def score_over_steps(run: Run) -> Figure:
    """The measure over steps: overall in black, then a panel a group in the group's colour; arms by line style."""
    unit = _UNITS[run.measure or ""]
    groups = shown_groups(run)
    title = "Overall" if not groups else "Overall (groups alike)"
    panels = [Panel(title, unit, [_line(run, arm, None, "black") for arm in run.arms])]
    for index, group in enumerate(groups):
        count = f" ({run.sizes[group]:,})" if group in run.sizes else ""
        name = label(group, 16) + count if run.sizes else f"{group.capitalize()} half"
        lines = [_line(run, arm, group, CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)]) for arm in run.arms]
        panels.append(Panel(name, unit, lines))
    return curves(panels, share_y=True)


def _line(run: Run, arm: Arm, group: str | None, colour: str) -> Line:
    steps, values = arm.series(f"{run.measure}/{group}" if group else str(run.measure))
    if group:
        errors = [group_error(run, arm, value) for value in values]
    elif run.groups:
        looks = zip(*(arm.series(f"{run.measure}/{name}")[1] for name in run.groups), strict=False)
        errors = [mean_error(run, arm, list(look)) for look in looks]
    else:
        errors = [group_error(run, arm, value, groups=1) for value in values]
    known = [error for error in errors if error is not None]
    band = known if len(known) == len(values) else None
    return Line(arm.label, steps, values, colour, arm_styles(run)[arm.label][0], band)


def training_over_steps(run: Run) -> Figure | None:
    """Training reward, length, entropy and KL over steps, those that were logged; None where none was."""
    panels = []
    for name, (title, unit) in _TRAINING.items():
        lines = []
        for arm in run.arms:
            style, colour = arm_styles(run)[arm.label]
            steps, values = arm.series(name)
            if steps:
                lines.append(Line(arm.label, steps, values, colour, style))
        # A KL of exactly 0 throughout is one that was not asked for.
        if lines and (name != "kl" or any(any(line.values) for line in lines)):
            panels.append(Panel(title, unit, lines))
    return curves(panels) if panels else None


@matplotlib.rc_context(STYLE)
def head_against_tail(run: Run) -> Figure:
    """Grouped bars: before training and after it in each arm, overall, on the head and on the tail."""
    figure, (ax,) = blank(3.0)
    parts = parts_of(run)
    bars = [("before", run.arms[0], 0, WARM_UP_COLOUR)]
    bars += [(f"after, {arm.label}", arm, 1, arm_styles(run)[arm.label][1]) for arm in run.arms]
    width = 0.8 / len(bars)
    for place, (name, arm, moment, colour) in enumerate(bars):
        x = np.arange(len(parts)) + (place - (len(bars) - 1) / 2) * width
        heights = [
            value if (value := before_and_after(run, arm, part)[moment]) is not None else np.nan for part in parts
        ]
        errors = [error_of(run, arm, ("warmup", "final")[moment], part) for part in parts]
        spread = None if any(error is None for error in errors) else [error or 0.0 for error in errors]
        ax.bar(x, heights, width * 0.92, yerr=spread, color=colour, label=name, capsize=2,
               error_kw={"linewidth": 1, "ecolor": "#222222"})  # fmt: skip
        for position, height, error in zip(x, heights, spread or [0.0] * len(x), strict=True):
            _write_value(ax, position, height, error, len(bars))
    ax.set_xticks(range(len(parts)), [_part_label(run, part, name) for part, name in parts.items()])
    ax.set_xlabel("held-out prompts")
    ax.set_ylabel(_UNITS[run.measure or ""])
    ax.grid(False, axis="x")
    ax.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=min(len(bars), 4))
    return figure


def _write_value(ax: matplotlib.axes.Axes, x: float, height: float, error: float, bars: int) -> None:
    if not np.isfinite(height) or bars > 6:
        return
    up = height >= 0
    ax.annotate(f"{height:.2f}", (x, height + (error if up else -error)), xytext=(0, 2 if up else -2),
                textcoords="offset points", ha="center", va="bottom" if up else "top", fontsize=8)  # fmt: skip


def _part_label(run: Run, part: str, name: str) -> str:
    return name if part == "all" else f"{name}: {label(run.ends[part], 20)}"
