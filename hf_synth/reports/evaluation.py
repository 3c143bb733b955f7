"""The report of an evaluation: a table of settings, a figure over lengths, and how to run the same in lm-eval."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hf_synth.evaluation.model import Plan
from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.figures import COLOURS, STYLE, Line, Panel, blank, curves, draw, save
from hf_synth.reports.pretraining import SCORES
from hf_synth.reports.tables import code, in_order, number, render, score, spread, table, write_pages

Measures = Mapping[str, float]

_FRACTIONS = {  # measure -> its name
    "accuracy": "token accuracy",
    "row_accuracy": "exact-match accuracy",
    "verified": "greedy completions accepted",
    "language/validity": "valid samples",
}
_LOSSES = {"loss": "loss", "floor": "floor", "excess": "excess", "kl": "KL to the best predictor"}
_LANGUAGE = {f"language/{name}": title for name, (title, _) in SCORES.items() if name != "validity"}
_STRINGS = {name: title for name, title in _LANGUAGE.items() if name.startswith("language/string/")}
_MORE = {
    "exact_match": "greedy completions equal to the row",
    "finished": "greedy completions with an end",
    **{name: title for name, title in _LANGUAGE.items() if name not in _STRINGS},
}
_OF_FACTS = ("facts", "ce", "ppl", "acc", "prob")


def write_evaluation(
    folder: Path, plan: Plan, results: Mapping[str, Measures], positions: Mapping[str, pd.DataFrame], *,
    model: str, split: str, lm_eval: str | None, top_p: float = 1.0,
) -> None:  # fmt: skip
    """Write report.md, report.html, figures/positions.png and, of several lengths, figures/lengths.png.

    results: the measures at each setting, by its name. positions: those by position. lm_eval: the command that gives
    the same numbers there.
    """
    several = len(results) > 1
    if several:
        save(lengths_figure(plan, results), folder, "lengths")
    name = "kl" if all("kl" in means for means in positions.values()) else "loss"
    lines = []
    for (setting, means), colour in zip(positions.items(), itertools.cycle(COLOURS)):
        band = 1.96 * means["kl_standard_error"] if name == "kl" else None
        called = f"{plan.length_field} {setting}" if plan.length_field else setting
        lines += [Line(called, means["position"], means[name], colour, error=band)] if len(means) > 1 else []
    title = f"{_LOSSES[name]} by position"
    drawn = save(curves([Panel(title, "nats", lines, x_label="position in the row")]), folder, "positions")
    config = json.loads(plan.settings[0].task.config.to_json())
    completions = {number(one["completions"]) for one in results.values() if "completions" in one}
    text = render(
        "evaluation",
        model=model,
        split=split,
        plan=plan,
        config=json.dumps({name: value for name, value in config.items() if name != plan.length_field}),
        rows=sorted({number(measures["rows"]) for measures in results.values()}),
        settings=[setting.name for setting in plan.settings],
        drawn=several,
        by_position=title if drawn else "",
        results=_table(plan, results, _LOSSES | _STRINGS | _FRACTIONS),
        more=_table(plan, results, _MORE),
        fact_types={setting: _fact_types(measures) for setting, measures in results.items()},
        completions=sorted(completions) if _has(results, "verified") else [],
        lm_eval=lm_eval,
        top_p=top_p,
    )
    write_pages(folder, text + "\n")


def _has(results: Mapping[str, Measures], name: str) -> bool:
    return any(name in measures for measures in results.values())


def _table(plan: Plan, results: Mapping[str, Measures], titles: Mapping[str, str]) -> str:
    """A row for each measure that there is, a column for each setting; empty without any."""
    header = ["measure", *(f"{plan.length_field or ''} {name}".strip() for name in results)]
    ends = ("", "_rows_low", "_rows_high")
    rows = [
        [title, *(spread(Interval(*(one.get(name + end, math.nan) for end in ends))) for one in results.values())]
        for name, title in titles.items()
        if _has(results, name)
    ]
    return table(header, rows) if rows else ""


def _fact_types(measures: Measures) -> list[list[str]]:
    rows = []
    for kind in in_order(name.removeprefix("ce/") for name in measures if name.startswith("ce/")):
        count, ce, ppl, accuracy, probability = (measures[f"{key}/{kind}"] for key in _OF_FACTS)
        cells = [number(count), score(ce), number(ppl), spread(share_interval(accuracy, round(count)))]
        rows.append([code(kind), *cells, score(probability)])
    return rows


@matplotlib.rc_context(STYLE)
def lengths_figure(plan: Plan, results: Mapping[str, Measures]) -> Figure:
    """Accuracies on the left and excess loss on the right, over lengths, with intervals where there are some."""
    figure, axes = blank(3.0, 1, 2)
    colours = zip(_FRACTIONS.items(), COLOURS, strict=False)
    lines = [_line(plan, results, name, title, colour) for (name, title), colour in colours if _has(results, name)]
    excess = "excess" if _has(results, "excess") else "language/string/excess"
    unit = "nats per token" if excess == "excess" else "nats per string"
    right = Panel("Excess loss", unit, [_line(plan, results, excess, "", "black")], x_label=str(plan.length_field))
    left = Panel("Accuracy", "fraction", lines, x_label=right.x_label)
    for panel, ax in zip((left, right), axes, strict=True):
        draw(panel, ax)
        if (trained := plan.trained_length) is not None:
            ax.axvline(trained, color="#777777", linewidth=1, linestyle=(0, (1, 2)), label="longest in training")
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    axes[0].set_ylim(-0.03, 1.03)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, handlelength=2.5)
    return figure


def _line(plan: Plan, results: Mapping[str, Measures], name: str, title: str, colour: str) -> Line:
    lengths = {setting.name: setting.length or 0 for setting in plan.settings}
    shown = sorted((lengths[setting], setting) for setting, measures in results.items() if name in measures)
    measures = [results[setting] for _, setting in shown]
    values = [one[name] for one in measures]
    low, high = ([one.get(f"{name}_rows_{end}", one[name]) for one in measures] for end in ("low", "high"))
    error = np.maximum(0, [np.subtract(values, low), np.subtract(high, values)])
    return Line(title, [length for length, _ in shown], values, colour, error=error, marker="o")
