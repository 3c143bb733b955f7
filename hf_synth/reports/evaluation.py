"""The report of an evaluation: a table of settings, a figure over lengths, and how to run the same in lm-eval."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from hf_synth.evaluation.model import Plan
from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.figures import COLOURS, STYLE, Line, Panel, blank, curves, save
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
    model: str, split: str, lm_eval: str | None,
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
        lines += [Line(setting, means["position"], means[name], colour, error=band)] if len(means) > 1 else []
    title = f"{_LOSSES[name]} by position"
    figure = curves([Panel(title, "nats", lines)])
    if figure:
        figure.axes[0].set_xlabel("position in the row")
        save(figure, folder, "positions")
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
        by_position=title if figure else "",
        results=_table(plan, results, _LOSSES | _STRINGS | _FRACTIONS),
        more=_table(plan, results, _MORE),
        fact_types={setting: _fact_types(measures) for setting, measures in results.items()},
        completions=sorted(completions) if _has(results, "verified") else [],
        lm_eval=lm_eval,
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
    figure, (left, right) = blank(3.0, 1, 2)
    for (name, title), colour in zip(_FRACTIONS.items(), COLOURS, strict=False):
        if _has(results, name):
            _draw(left, plan, results, name, colour, title)
    left.set_ylim(-0.03, 1.03)
    left.set_title("Accuracy, as a fraction", loc="left")
    excess = "excess" if _has(results, "excess") else "language/string/excess"
    _draw(right, plan, results, excess, "black", "")
    right.margins(y=0.08)
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.set_title("Excess loss, nats per " + ("token" if excess == "excess" else "string"), loc="left")
    lengths = sorted({setting.length for setting in plan.settings if setting.length is not None})
    for ax in (left, right):
        ax.set_xlabel(str(plan.length_field))
        ax.xaxis.set_major_locator(FixedLocator(lengths) if len(lengths) <= 8 else MaxNLocator(6, integer=True))
        if (trained := plan.trained_length) is not None:
            ax.axvline(trained, color="#777777", linewidth=1, linestyle=(0, (1, 2)), label="longest in training")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=2.5)
    return figure


def _draw(ax: Axes, plan: Plan, results: Mapping[str, Measures], name: str, colour: str, title: str) -> None:
    lengths = {setting.name: setting.length or 0 for setting in plan.settings}
    shown = sorted((lengths[setting], setting) for setting, measures in results.items() if name in measures)
    measures = [results[setting] for _, setting in shown]
    values = [one[name] for one in measures]
    low, high = ([one.get(f"{name}_rows_{end}", one[name]) for one in measures] for end in ("low", "high"))
    reach = np.maximum(0, [np.subtract(values, low), np.subtract(high, values)])
    ax.errorbar([length for length, _ in shown], values, reach, color=colour, marker="o", markersize=3.5,
                linewidth=1.4, capsize=2.5, label=title)  # fmt: skip
