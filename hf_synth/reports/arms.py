"""The report of arms of pretraining: what each reached, with its interval over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_synth.experiments.statistics import MINUS
from hf_synth.io import load_json
from hf_synth.metrics.intervals import Interval
from hf_synth.reports.figures import (
    STYLE,
    WIDTH,
    Line,
    Panel,
    arm_style,
    draw,
    draw_interval,
    label,
    legend_columns,
    limit_shares,
    name_rows,
    plain_log,
    save,
    set_title,
    write_exponents,
)
from hf_synth.reports.pretraining import LOGGED, PART, floor_level, log_spaced, trained_text, transfer_rows, trial
from hf_synth.reports.read import Comparison, one_token
from hf_synth.reports.tables import (
    MISSING,
    code,
    escaped,
    in_order,
    listed,
    model_facts,
    number,
    render,
    spread,
    table,
)
from hf_synth.training.run_directory import TRANSFER, read_metrics


@matplotlib.rc_context(STYLE)
def arms_figure(comparison: Comparison, measures: Sequence[tuple[str, str, str]]) -> Figure:
    """Above, each measure by arm: mean and interval over seeds, seeds as dots; below, validation over steps.

    measures: (name in metrics.json, title, unit), at most three of them.
    """
    above = 0.9 + 0.24 * len(comparison.runs)
    figure = Figure(figsize=(WIDTH, above + 3.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[above, 3.0])
    top, bottom = parts
    columns = top.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    for ax, (name, title, unit) in zip(columns, measures, strict=True):
        for index, arm in enumerate(comparison.runs):
            if (interval := comparison.interval(arm, name)) is not None:
                draw_interval(ax, interval, index, style_of(comparison, arm)[0], comparison.values(arm, name))
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        write_exponents(ax.xaxis)
        if unit.startswith("fraction") and ax.dataLim.width == 0:
            ax.set_xlim(-0.05, 1.05)
        set_title(ax, title, len(measures))
        ax.set_xlabel(unit)
    names = [label(name_of(arm), 22) for arm in comparison.runs]
    name_rows(columns[0], names)
    columns[0].set_ylabel("arm")
    floors = {round(value[0], 6) if (value := floor_level(run)) else None for run in comparison.all_runs}
    level = floor_level(comparison.first) if len(floors) == 1 else None
    for ax, name in zip(bottom.subplots(1, 2), ("loss", "accuracy"), strict=True):
        curve = f"eval_validation_{name}"
        lines = [mean_line(comparison, arm, *comparison.curve(arm, curve)) for arm in comparison.runs]
        draw(Panel(f"Validation {name}", LOGGED[name][1], lines, level if name == "loss" else None), ax)
        limit_shares(ax)
        if log_spaced(comparison.first):
            ax.set_xscale("log")
            plain_log(ax.xaxis)
    if len(names) > 1:
        entries = ax.get_legend_handles_labels()
        bottom.legend(*entries, loc="outside lower center", ncols=legend_columns(names), handlelength=3)
    return figure


def style_of(comparison: Comparison, arm: str) -> tuple[str, Any]:
    """The colour and the line style of an arm; of a difference those of its first arm."""
    return arm_style(list(comparison.arms).index(arm.partition(MINUS)[0]))


def mean_line(
    comparison: Comparison, arm: str, steps: Sequence[int], intervals: Sequence[Interval], **options: Any
) -> Line:
    """The means of an arm over steps as a line, with their intervals over seeds."""
    mean, low, high = np.array(intervals).reshape(-1, 3).T
    error = np.stack([mean - low, high - mean])
    return Line(label(name_of(arm), 24), steps, mean.tolist(), *style_of(comparison, arm), error, **options)


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


def arms_report(comparison: Comparison) -> str:
    """What was run, the table and the figure of all arms, differences between arms, and the settings."""
    config, first = comparison.config, comparison.first
    arms = {name_of(arm): runs for arm, runs in comparison.runs.items()}
    transfers = {
        arm: [report for run in by_seed.values() if (report := load_json(run.folder / TRANSFER))]
        for arm, by_seed in arms.items()
    }
    nothing = [["nothing", *[MISSING] * (len(PART) - 1)]]
    floors = {run.metrics.get("floor/test") for run in comparison.all_runs}
    single = all(len(by_seed) == 1 for by_seed in arms.values())
    measures = {measure[0]: measure for measure in _measures(comparison)}
    drawn = [measures[name] for name in _DRAWN if name in measures][:3]
    if drawn:
        save(arms_figure(comparison, drawn), comparison.folder, "arms")
    return render(
        "arms",
        config=config,
        arms=arms,
        names=[code(arm) for arm in arms],
        model=model_facts(first.folder, first.metrics),
        rows=number(first.metrics.get("rows/trained")),
        steps=number(first.log["steps"]),
        seeds=[str(seed) for seed in sorted({seed for by_seed in arms.values() for seed in by_seed})],
        seconds=(read_metrics(comparison.folder) or {}).get("seconds/total"),
        missing=[code(name) for name in comparison.missing],
        values=[[code(arm), code_values(comparison.arms[arm])] for arm in comparison.runs]
        if any(comparison.arms.values())
        else [],
        transfer=[
            [code(arm), *cells]
            for arm, reports in transfers.items()
            for cells in transfer_rows(reports, copied=True) or nothing
        ]
        if any(transfers.values())
        else [],
        transfer_header=["arm", *PART],
        transfer_facts=[
            f"{code(arm)}: {fact}"
            for arm, reports in transfers.items()
            for report in reports[:1]
            for fact in filter(None, [trained_text(report), *(escaped(note, 400) for note in report["notes"])])
        ],
        result=_result(comparison),
        lacking=_lacking(comparison),
        floor=floors.pop() if len(floors) == 1 else None,
        single=single,
        uneven=len({*map(len, arms.values())}) > 1,
        trial=trial(config, min(map(len, arms.values()))),
        drawn=bool(drawn),
        differences=_differences(comparison),
        groups=_groups(comparison),
        settings=config.get("settings"),
        places=[code(f"{arm}/" if arm else "seed-*/") for arm in comparison.runs],
    )


def code_values(values: Mapping[str, Any]) -> str:
    """The values that an arm differs in."""
    return ", ".join(code(f"{name}={value}") for name, value in values.items()) or "as configured"


def name_of(arm: str) -> str:
    """How a table calls an arm; one that has no other beside it has no name."""
    return arm or "as configured"


def _measures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Those that a run has; of two that are one in every run the first."""
    # Where text was read, loss and accuracy are those of held-out natural text.
    natural = {"loss/test": "Loss on natural text", "accuracy/test": "Token accuracy on natural text"}
    titles = natural if comparison.config.get("canonical") else {}
    runs = [run.metrics for run in comparison.all_runs]
    known = [
        (name, titles.get(name, title), unit) for name, title, unit in MEASURES if any(name in run for run in runs)
    ]
    if one_token(*([run.get(name) for run in runs] for name in ("accuracy/test", "row_accuracy/test"))):
        known = [measure for measure in known if measure[0] != "row_accuracy/test"]
    if len({run.get("floor/test") for run in runs}) == 1:  # said in words; at 0 the excess is the loss
        drop = ("floor/test", "loss/test") if runs[0].get("floor/test") == 0 else ("floor/test",)
        known = [measure for measure in known if measure[0] not in drop]
    return known


def _result(comparison: Comparison) -> str:
    measures = _measures(comparison)
    rows = [
        [code(name_of(arm)), number(len(runs)), *(arm_cell(comparison, arm, name) for name, _, _ in measures)]
        for arm, runs in comparison.runs.items()
    ]
    return table(["arm", "seeds", *(f"{title.lower()}, {unit}" for _, title, unit in measures)], rows)


def arm_cell(comparison: Comparison, arm: str, name: str) -> str:
    """A mean over seeds with its interval, and how many seeds it is of, where not of all."""
    having, seeds = len(comparison.values(arm, name)), len(comparison.runs[arm])
    return spread(comparison.interval(arm, name)) + (f" ({having} of {seeds} seeds)" if 0 < having < seeds else "")


def _lacking(comparison: Comparison) -> list[str]:
    """The runs that lack a measure which other seeds of their arm have."""
    lines = []
    for arm, by_seed in comparison.results.items():
        measures = [measure for measure in _measures(comparison) if comparison.values(arm, measure[0])]
        for seed, metrics in by_seed.items():
            if titles := [title.lower() for name, title, _ in measures if name not in metrics]:
                lines.append(f"{code(name_of(arm))}, seed {seed}: {listed(titles)}")
    return lines


def _differences(comparison: Comparison) -> str:
    """Each arm minus the first, paired by seed; empty where no pair of arms has two seeds."""
    measures = [measure for measure in _measures(comparison) if measure[0] != "floor/test"][:4]
    intervals = {
        (each.arm, each.measure): each.interval for each in comparison.differences(name for name, *_ in measures)
    }
    arms = [arm for arm, _ in comparison.pairs if arm in comparison.runs]
    rows = [[code(arm), *(spread(intervals.get((arm, name))) for name, _, _ in measures)] for arm in arms]
    header = ["arm", *(title.lower() for _, title, _ in measures)]
    return table(header, rows, drop_empty=True) if intervals else ""


def _groups(comparison: Comparison) -> str:
    prefix = "row_accuracy/test/"
    runs = [run.metrics for run in comparison.all_runs]
    names = in_order({name.removeprefix(prefix) for run in runs for name in run if name.startswith(prefix)})
    if not names:
        return ""
    rows = [[escaped(name), *(arm_cell(comparison, arm, prefix + name) for arm in comparison.runs)] for name in names]
    return table(["group", *(code(name_of(arm)) for arm in comparison.runs)], rows)
