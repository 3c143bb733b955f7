"""The report of an evaluation: a table of settings, a figure over lengths, and how to run the same in lm-eval."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from hf_synth.evaluation.model import Plan
from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.figures import COLOURS, STYLE, blank, save
from hf_synth.reports.pretraining import SCORES
from hf_synth.reports.tables import code, in_order, number, render, score, spread, table, write_pages

Measures = Mapping[str, float]

_FRACTIONS = {  # measure -> its name
    "accuracy": "token accuracy",
    "row_accuracy": "exact-match accuracy",
    "verified": "greedy completions accepted",
    "language/validity": "valid samples",
}
_LOSSES = {"loss": "loss", "floor": "floor", "excess": "excess"}
_LANGUAGE = {f"language/{name}": title for name, (title, _) in SCORES.items() if name != "validity"}
_STRINGS = {name: title for name, title in _LANGUAGE.items() if name.startswith("language/string/")}
_MORE = {
    "exact_match": "greedy completions equal to the row",
    "finished": "greedy completions with an end",
    **{name: title for name, title in _LANGUAGE.items() if name not in _STRINGS},
}
_OF_FACTS = ("facts", "ce", "ppl", "acc", "prob")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a report is about; `lm_eval`: the command that gives the same numbers there.

    results: the measures at each setting, by its name.
    """

    model: str
    split: str
    plan: Plan
    results: Mapping[str, Measures]
    lm_eval: str | None = None

    def has(self, *names: str) -> bool:
        """Whether a setting has one of the measures."""
        return any(name in measures for measures in self.results.values() for name in names)


def write_evaluation(folder: Path, done: Evaluation) -> None:
    """Write report.md, report.html and, of several lengths, figures/lengths.png."""
    several, plan = len(done.results) > 1, done.plan
    if several:
        save(lengths_figure(done), folder, "lengths")
    config = json.loads(plan.settings[0].task.config.to_json())
    completions = {number(one["completions"]) for one in done.results.values() if "completions" in one}
    text = render(
        "evaluation",
        model=done.model,
        split=done.split,
        plan=plan,
        config=json.dumps({name: value for name, value in config.items() if name != plan.length_field}),
        rows=sorted({number(measures["rows"]) for measures in done.results.values()}),
        settings=[setting.name for setting in plan.settings],
        drawn=several,
        results=_table(done, _LOSSES | _STRINGS | _FRACTIONS),
        more=_table(done, _MORE) if done.has(*_MORE) else "",
        fact_types={setting: _fact_types(measures) for setting, measures in done.results.items()},
        completions=sorted(completions) if done.has("verified") else [],
        lm_eval=done.lm_eval,
    )
    write_pages(folder, text + "\n")


def _table(done: Evaluation, titles: Mapping[str, str]) -> str:
    """A row for each measure that there is, a column for each setting."""
    header = ["measure", *(f"{done.plan.length_field or ''} {name}".strip() for name in done.results)]
    ends = ("", "_rows_low", "_rows_high")
    rows = [
        [title, *(spread(Interval(*(one.get(name + end, math.nan) for end in ends))) for one in done.results.values())]
        for name, title in titles.items()
        if done.has(name)
    ]
    return table(header, rows)


def _fact_types(measures: Measures) -> list[list[str]]:
    """A row for each type of facts, of tasks that have such."""
    rows = []
    for kind in in_order(name.removeprefix("ce/") for name in measures if name.startswith("ce/")):
        count, ce, ppl, accuracy, probability = (measures[f"{key}/{kind}"] for key in _OF_FACTS)
        cells = [number(count), score(ce), number(ppl), spread(share_interval(accuracy, round(count)))]
        rows.append([code(kind), *cells, score(probability)])
    return rows


@matplotlib.rc_context(STYLE)
def lengths_figure(done: Evaluation) -> Figure:
    """Accuracies on the left and excess loss on the right, over lengths, with intervals where there are some."""
    figure, (left, right) = blank(3.0, 1, 2)
    for (name, title), colour in zip(_FRACTIONS.items(), COLOURS, strict=False):
        if done.has(name):
            _draw(left, done, name, colour, title)
    left.set_ylim(-0.03, 1.03)
    left.set_title("Accuracy, as a fraction", loc="left")
    excess = "excess" if done.has("excess") else "language/string/excess"
    _draw(right, done, excess, "black", "")
    right.margins(y=0.08)
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.set_title("Excess loss, nats per " + ("token" if excess == "excess" else "string"), loc="left")
    lengths = sorted({setting.length for setting in done.plan.settings if setting.length is not None})
    for ax in (left, right):
        ax.set_xlabel(str(done.plan.length_field))
        ax.xaxis.set_major_locator(FixedLocator(lengths) if len(lengths) <= 8 else MaxNLocator(6, integer=True))
        if (trained := done.plan.trained_length) is not None:
            ax.axvline(trained, color="#777777", linewidth=1, linestyle=(0, (1, 2)), label="longest in training")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=2.5)
    return figure


def _draw(ax: Axes, done: Evaluation, name: str, colour: str, title: str) -> None:
    """A measure over lengths, with its interval over rows where it has one."""
    lengths = {setting.name: setting.length or 0 for setting in done.plan.settings}
    shown = sorted((lengths[setting], setting) for setting, measures in done.results.items() if name in measures)
    measures = [done.results[setting] for _, setting in shown]
    values = [one[name] for one in measures]
    low, high = ([one.get(f"{name}_rows_{end}", one[name]) for one in measures] for end in ("low", "high"))
    reach = np.maximum(0, [np.subtract(values, low), np.subtract(high, values)])
    ax.errorbar([length for length, _ in shown], values, reach, color=colour, marker="o", markersize=3.5,
                linewidth=1.4, capsize=2.5, label=title)  # fmt: skip
