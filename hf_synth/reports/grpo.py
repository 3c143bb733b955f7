"""The report of a GRPO run: sampled answers before and after training, by arm, overall and at the ends of density."""

import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_synth.experiments.arms import COMPARISON
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
    save,
)
from hf_synth.reports.page import render
from hf_synth.reports.read import Run
from hf_synth.reports.tables import MISSING, code, headlines, number, score, spread, table

_MOMENTS = ("warmup", "final")


def parts_of(run: Run) -> dict[str, str]:
    """`all`, and `head` and `tail` where there are such, with their names in tables."""
    return {"all": "overall", **{end: end for end in run.ends}}


def before_and_after(run: Run, arm: Run, part: str) -> tuple[float | None, float | None]:
    """The first and the last value of the measure: from metrics.json, or from the log where that has none."""
    end = "" if part == "all" else f"_{part}"
    logged: list[float | None] = [*arm.series(f"{run.measure}/{run.ends[part]}" if end else str(run.measure))[1]] or [
        None
    ]
    before, after = (
        arm.metrics.get(f"{run.measure}/{moment}{end}", logged[place])
        for moment, place in zip(_MOMENTS, (0, -1), strict=True)
    )
    return before, after


def error_of(run: Run, arm: Run, moment: str, part: str) -> float | None:
    """The binomial standard error of a validity, or None where the number of prompts is not known.

    Each group has the same number of held-out prompts, one answer each, as the recipe samples them.
    """
    index = 0 if moment == "warmup" else -1
    if part != "all":
        return group_error(run, arm, before_and_after(run, arm, part)[index])
    curves_of_groups = [arm.series(f"{run.measure}/{group}")[1] for group in run.groups]
    if not curves_of_groups or not all(curves_of_groups):
        return group_error(run, arm, before_and_after(run, arm, part)[index], groups=1)
    return mean_error(run, arm, [values[index] for values in curves_of_groups])


def group_error(run: Run, arm: Run, value: float | None, groups: int | None = None) -> float | None:
    """The standard error of one group's validity."""
    count = arm.metrics.get("prompts/evaluated")
    if run.measure != "validity" or not count or value is None or not 0 <= value <= 1:
        return None
    answers = count / (groups or len(run.groups) or 1)
    if value in (0, 1):  # no answer differed, which is no proof that none can: as with one more of each kind
        value = (value * answers + 1) / (answers + 2)
    return math.sqrt(value * (1 - value) / answers)


def mean_error(run: Run, arm: Run, values: list[float]) -> float | None:
    """The standard error of the mean over groups, from each group's own."""
    errors = [group_error(run, arm, value) for value in values]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if known and len(known) == len(errors) else None


MEASURES = {"validity": "validity", "sampled_reward": "sampled reward"}


def grpo_section(run: Run) -> str:
    """Result, curves and bars; without a measure on held-out prompts only the training reward."""
    measure, training = run.measure, training_over_steps(run)
    if training is not None:
        save(training, run.folder, "training_over_steps")
    if measure is not None:
        save(score_over_steps(run), run.folder, f"{measure}_over_steps")
        if run.ends:
            save(head_against_tail(run), run.folder, "head_against_tail")
    control = run.control
    return render(
        "grpo",
        run=run,
        measure=measure,
        name=MEASURES.get(measure or ""),
        result=_training_rewards(run) if measure is None else _result(run),
        errors=error_of(run, run.arms[0], "final", "all") is not None,
        evaluated=number(run.arms[0].metrics.get("prompts/evaluated")),
        several=run.config.get("look_samples", 1) > 1,
        changes=[f"{arm.label} {change:+.3f}" for arm in run.arms if (change := _change(run, arm)) is not None],
        differences=[
            [name, f"{arm.label} minus control", *_difference(run, arm, control, part)]
            for arm in run.weighted
            for part, name in parts_of(run).items()
        ]
        if control
        else [],
        compared=(run.folder / "../.." / COMPARISON).exists(),
        training=training is not None,
        samples=_samples(run) if measure is not None else "",
    )


def _result(run: Run) -> str:
    parts = parts_of(run)
    header = ["arm", *(f"{name}, {moment}" for name in parts.values() for moment in ("before", "after"))]
    rows = []
    for arm in run.arms:
        cells = [arm.label]
        for part in parts:
            before, after = before_and_after(run, arm, part)
            cells += [score(before), score(after, error_of(run, arm, "final", part))]
        rows.append(cells)
    return table(header, rows)


def _training_rewards(run: Run) -> str:
    rows = []
    for arm in run.arms:
        values = arm.series("reward")[1]
        rows.append([arm.label, score(values[0] if values else None), score(values[-1] if values else None)])
    return table(["arm", "training reward, first logged", "training reward, last logged"], rows)


def _change(run: Run, arm: Run) -> float | None:
    """The overall measure after training minus before; None where either is unknown or not finite."""
    before, after = before_and_after(run, arm, "all")
    return after - before if before is not None and after is not None and math.isfinite(after - before) else None


def _difference(run: Run, arm: Run, control: Run, part: str) -> tuple[str, str]:
    """The measure of an arm minus the control's after training, and the same in its standard errors."""
    mine, other = (before_and_after(run, one, part)[1] for one in (arm, control))
    if mine is None or other is None or not math.isfinite(mine - other):
        return MISSING, MISSING
    errors = [error_of(run, one, "final", part) for one in (arm, control)]
    both = math.hypot(*(error or 0 for error in errors)) if None not in errors else 0
    return f"{mine - other:+.3f}", f"{abs(mine - other) / both:.1f}" if both else MISSING


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
           for index, arm in enumerate(arm for arm in run.arms if arm.label != "control")},
        "control": (CONTROL_STYLE, CONTROL_COLOUR),
    }  # fmt: skip


def score_over_steps(run: Run) -> Figure:
    """The measure over steps: overall in black, then a panel a group in the group's colour; arms by line style."""
    unit = MEASURES[run.measure or ""]
    groups = shown_groups(run)
    title = "Overall" if not groups else "Overall (groups alike)"
    panels = [Panel(title, unit, [_line(run, arm, None, "black") for arm in run.arms])]
    for index, group in enumerate(groups):
        count = f" ({run.sizes[group]:,})" if group in run.sizes else ""
        name = label(group, 16) + count if run.sizes else f"{group.capitalize()} half"
        lines = [_line(run, arm, group, CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)]) for arm in run.arms]
        panels.append(Panel(name, unit, lines))
    return curves(panels, share_y=True)


def _line(run: Run, arm: Run, group: str | None, colour: str) -> Line:
    steps, values = arm.series(f"{run.measure}/{group}" if group else str(run.measure))
    if group:
        errors = [group_error(run, arm, value) for value in values]
    elif run.groups:
        evaluations = zip(*(arm.series(f"{run.measure}/{name}")[1] for name in run.groups), strict=False)
        errors = [mean_error(run, arm, list(evaluation)) for evaluation in evaluations]
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
    ax.set_ylabel(MEASURES[run.measure or ""])
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


def _samples(run: Run) -> str:
    """A table of the measures of each arm's samples; empty for runs that kept none."""
    if not any("length/low" in arm.metrics for arm in run.arms):
        return ""
    shown = [name for name in headlines(_measured(run.arms[0])) if not _repeats(run, name)]
    rows = [[code(name), *(spread(_interval(arm, name)) for arm in run.arms)] for name in shown]
    return table(["measure", *(arm.label for arm in run.arms)], rows)


def _measured(arm: Run) -> list[str]:
    """Names of what was measured on samples: those with an interval, and the means over halves."""
    return [name for name in arm.metrics if f"{name}/low" in arm.metrics or name.startswith("halves/")]


def _interval(arm: Run, name: str) -> tuple[float, float, float] | None:
    if (value := arm.metrics.get(name)) is None:
        return None
    low, high = (arm.metrics.get(f"{name}/{end}", float("nan")) for end in ("low", "high"))
    return value, low, high


def _repeats(run: Run, name: str) -> bool:
    """Whether a reward is the verifier's, and so the validity of the same prompts."""
    twin = name.replace("reward/", "validity/", 1)
    return twin != name and all(arm.metrics.get(twin) == arm.metrics.get(name) for arm in run.arms)
