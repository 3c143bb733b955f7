"""The report of arms of pretraining: what each reached, with its interval over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.reports.figures import (
    STYLE,
    WIDTH,
    Line,
    Panel,
    arm_legend,
    arm_style,
    draw,
    draw_interval,
    label,
    limit_shares,
    log_steps,
    name_rows,
    save,
)
from hf_synth.reports.page import model_facts, render
from hf_synth.reports.pretraining import PART, floor_level, log_spaced, transfer_facts, transfer_rows, trial
from hf_synth.reports.read import Comparison, SeededArm, one_token
from hf_synth.reports.tables import code, escaped, in_order, listed, number, spread, table

_OVER_STEPS = {
    "eval_validation_loss": ("Validation loss", "nats per token"),
    "eval_validation_accuracy": ("Validation accuracy", "fraction of tokens"),
}


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
        for index, arm in enumerate(comparison.arms):
            if (interval := arm.interval(name)) is not None:
                draw_interval(ax, interval, index, arm_style(index)[0], arm.of(name))
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        if unit.startswith("fraction") and ax.dataLim.width == 0:
            ax.set_xlim(-0.05, 1.05)
        ax.set_title(title, loc="left")
        ax.set_xlabel(unit)
    names = [label(arm.label, 22) for arm in comparison.arms]
    name_rows(columns[0], names)
    columns[0].set_ylabel("arm")
    for ax, (name, (title, unit)) in zip(bottom.subplots(1, 2), _OVER_STEPS.items(), strict=True):
        _over_steps(ax, comparison, name, title, unit)
    if len(comparison.arms) > 1:
        arm_legend(bottom, [arm_style(index) for index in range(len(names))], names)
    return figure


def _over_steps(ax: Axes, comparison: Comparison, name: str, title: str, unit: str) -> None:
    lines = []
    for index, arm in enumerate(comparison.arms):
        steps, found = arm.curve(name)
        colour, style = arm_style(index)
        lines.append(Line(arm.name, steps, [interval.mean for interval in found], colour, style))
        if found and all(math.isfinite(interval.high - interval.low) for interval in found):
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


# What a reader compares arms by: name in metrics.json, title, unit.
MEASURES = (
    ("excess/test", "Excess", "nats per token"),
    ("loss/test", "Loss", "nats per token"),
    ("floor/test", "Floor", "nats per token"),
    ("accuracy/test", "Token accuracy", "fraction"),
    ("row_accuracy/test", "Exact-match accuracy", "fraction"),
    ("language/validity", "Valid samples", "fraction"),
    ("language/coverage", "Coverage", "fraction of the language"),
    ("language/perplexity/ratio", "Perplexity ratio", "invalid over valid"),
    ("language/perplexity/gap", "Perplexity gap", "invalid minus valid"),
    ("language/completion", "Decision points", "fraction passed"),
)
_DRAWN = (  # the first three that there are
    "language/validity", "excess/test", "row_accuracy/test", "loss/test", "language/perplexity/ratio", "accuracy/test",
)  # fmt: skip


def measures_of(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """The measures; where text was read, loss and accuracy are those of held-out natural text, and named so."""
    if not comparison.config.get("canonical"):
        return MEASURES
    words = {"loss/test": "Loss on natural text", "accuracy/test": "Token accuracy on natural text"}
    return tuple((name, words.get(name, title), unit) for name, title, unit in MEASURES)


def arms_report(comparison: Comparison) -> str:
    """What was run, the table and the figure of all arms, differences between arms, and the settings."""
    arms, config = comparison.arms, comparison.config
    first = next(iter(arms[0].runs.values()))
    runs = {arm.label: list(arm.runs.values()) for arm in arms}
    floors = {run.metrics.get("floor/test") for of_arm in runs.values() for run in of_arm}
    single = all(len(arm.runs) == 1 for arm in arms)
    measures = {measure[0]: measure for measure in _measures(comparison)}
    drawn = [measures[name] for name in _DRAWN if name in measures][:3]
    if drawn:
        save(arms_figure(comparison, drawn), comparison.folder, "arms")
    return render(
        "arms",
        config=config,
        arms=arms,
        names=[code(arm.label) for arm in arms],
        model=model_facts(first.folder, first.metrics),
        rows=number(first.metrics.get("rows/trained")),
        steps=number(first.log["steps"]),
        seeds=[str(seed) for seed in sorted({seed for arm in arms for seed in arm.runs})],
        seconds=comparison.metrics.get("seconds/total"),
        missing=[code(name) for name in comparison.missing],
        values=[[code(arm.name), code_values(arm.values)] for arm in arms] if any(arm.values for arm in arms) else [],
        transfer=transfer_rows(runs),
        transfer_header=["arm", *PART],
        transfer_facts=transfer_facts(runs),
        result=_result(comparison),
        lacking=_lacking(comparison),
        floor=floors.pop() if len(floors) == 1 else None,
        single=single,
        uneven=len({len(arm.runs) for arm in arms}) > 1,
        trial=trial(config, 1 if single else comparison.seeds),
        drawn=bool(drawn),
        differences=_differences(comparison),
        groups=_groups(comparison),
        settings=config.get("settings"),
        places=[code(f"{arm.name}/" if arm.name else "seed-*/") for arm in arms],
    )


def code_values(values: Mapping[str, Any]) -> str:
    """The values that an arm differs in."""
    return ", ".join(code(f"{name}={value}") for name, value in values.items()) or "as configured"


def _measures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Those that a run has; of two that are one in every run the first."""
    runs = [run.metrics for arm in comparison.arms for run in arm.runs.values()]
    known = [measure for measure in measures_of(comparison) if any(measure[0] in run for run in runs)]
    if one_token(*([run.get(name) for run in runs] for name in ("accuracy/test", "row_accuracy/test"))):
        known = [measure for measure in known if measure[0] != "row_accuracy/test"]
    if len({run.get("floor/test") for run in runs}) == 1:  # said in words; at 0 the excess is the loss
        drop = ("floor/test", "loss/test") if runs[0].get("floor/test") == 0 else ("floor/test",)
        known = [measure for measure in known if measure[0] not in drop]
    return known


def _result(comparison: Comparison) -> str:
    measures = _measures(comparison)
    rows = [
        [
            code(arm.label),
            number(len(arm.runs)),
            *(spread(arm.interval(name)) + _of_seeds(arm, name) for name, _, _ in measures),
        ]
        for arm in comparison.arms
    ]
    header = ["arm", "seeds", *(f"{title.lower()}, {unit}" for _, title, unit in measures)]
    return table(header, rows)


def _of_seeds(arm: SeededArm, name: str) -> str:
    """How many seeds a mean is of, where not of all."""
    having = len(arm.of(name))
    return f" ({having} of {len(arm.runs)} seeds)" if 0 < having < len(arm.runs) else ""


def _lacking(comparison: Comparison) -> list[str]:
    """The runs that lack a measure which other seeds of their arm have."""
    lines = []
    for arm in comparison.arms:
        for seed, run in arm.runs.items():
            titles = [
                title.lower() for name, title, _ in _measures(comparison) if name not in run.metrics and arm.of(name)
            ]
            if titles:
                lines.append(f"{code(arm.label)}, seed {seed}: {listed(titles)}")
    return lines


def _differences(comparison: Comparison) -> str:
    """Each arm minus the first, paired by seed; empty where no pair of arms has two seeds."""
    measures = [measure for measure in _measures(comparison) if measure[0] != "floor/test"][:4]
    others = comparison.arms[1:]
    found = [[comparison.difference(arm, name) for name, _, _ in measures] for arm in others]
    if not any(interval for line in found for interval in line):
        return ""
    rows = [[code(arm.name), *map(spread, line)] for arm, line in zip(others, found, strict=True)]
    return table(["arm", *(title.lower() for _, title, _ in measures)], rows)


def _groups(comparison: Comparison) -> str:
    """Exact-match accuracy by group of rows and arm."""
    prefix = "row_accuracy/test/"
    runs = [run.metrics for arm in comparison.arms for run in arm.runs.values()]
    names = in_order({name.removeprefix(prefix) for run in runs for name in run if name.startswith(prefix)})
    if not names:
        return ""
    rows = [[escaped(name), *(spread(arm.interval(prefix + name)) for arm in comparison.arms)] for name in names]
    return table(["group", *(code(arm.label) for arm in comparison.arms)], rows)
