"""The report of an evaluation: a table of settings, a figure over lengths, and how to run the same in lm-eval."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from hf_synth.evaluation.model import Plan
from hf_synth.metrics.intervals import share_interval
from hf_synth.reports.figures import ARM_COLOURS, STYLE, blank, save
from hf_synth.reports.page import html_page, render
from hf_synth.reports.pretraining import SCORES
from hf_synth.reports.tables import code, in_order, number, score, spread, table

Measures = Mapping[str, float]

_SHARES = {  # measure -> its name
    "accuracy": "token accuracy",
    "row_accuracy": "exact-match accuracy",
    "verified": "greedy completions accepted",
    "language/validity": "valid samples",
}
_LOSSES = {"loss": "loss", "floor": "floor", "excess": "excess"}
_LANGUAGE = {f"language/{name}": words for name, (words, _) in SCORES.items() if name != "validity"}
_STRINGS = {name: words for name, words in _LANGUAGE.items() if name.startswith("language/string/")}
_MORE = {
    "exact_match": "greedy completions equal to the row",
    "finished": "greedy completions with an end",
    **{name: words for name, words in _LANGUAGE.items() if name not in _STRINGS},
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a report is about; `lm_eval`: the command that gives the same numbers there."""

    model: str
    split: str
    plan: Plan
    found: Mapping[str, Measures]
    lm_eval: str | None = None


def write_evaluation(folder: Path, done: Evaluation) -> None:
    """Write report.md, report.html and, of several lengths, figures/lengths.png."""
    several = len(done.found) > 1
    if several:
        save(lengths_figure(done), folder, "lengths")
    completions = {number(one["completions"]) for one in done.found.values() if "completions" in one}
    text = render(
        "evaluation",
        model=done.model,
        split=done.split,
        plan=done.plan,
        config=_config(done.plan),
        rows=sorted({number(measures["rows"]) for measures in done.found.values()}),
        settings=[setting.name for setting in done.plan.settings],
        drawn=several,
        results=_table(done, _LOSSES | _STRINGS | _SHARES),
        more=_table(done, _MORE) if any(_has(done, name) for name in _MORE) else "",
        fact_types={setting: _fact_types(measures) for setting, measures in done.found.items()},
        completions=sorted(completions) if _has(done, "verified") else [],
        lm_eval=done.lm_eval,
    )
    (folder / "report.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    (folder / "report.html").write_text(html_page(text + "\n"), encoding="utf-8", newline="\n")


def _config(plan: Plan) -> str:
    """The task's config as JSON, without the field that the settings differ in."""
    values = json.loads(plan.settings[0].task.config.to_json())
    return json.dumps({name: value for name, value in values.items() if name != plan.length_field})


def _table(done: Evaluation, columns: Mapping[str, str]) -> str:
    """A row for each measure that there is, a column for each setting."""
    there = {
        name: words for name, words in columns.items() if any(name in measures for measures in done.found.values())
    }
    field = done.plan.length_field or ""
    head = ["", *(f"{field} {name}".strip() for name in done.found)]
    return table(head, [[words, *(_cell(one, name) for one in done.found.values())] for name, words in there.items()])


def _cell(measures: Measures, name: str) -> str:
    shown = score(measures.get(name))
    low, high = (measures.get(f"{name}_rows_{end}") for end in ("low", "high"))
    return shown if low is None else f"{shown} [{score(low)}, {score(high)}]"


def _fact_types(measures: Measures) -> list[list[str]]:
    """A row for each type of facts, of tasks that have such."""
    kinds = in_order(name.removeprefix("ce/") for name in measures if name.startswith("ce/"))
    return [
        [code(kind), *(_fact_cell(measures, key, kind) for key in ("facts", "ce", "ppl", "acc", "prob"))]
        for kind in kinds
    ]


def _fact_cell(measures: Measures, key: str, kind: str) -> str:
    value = measures[f"{key}/{kind}"]
    if key == "acc":
        return spread(share_interval(value, round(measures[f"facts/{kind}"])))
    return number(value) if key in ("facts", "ppl") else score(value)


@matplotlib.rc_context(STYLE)
def lengths_figure(done: Evaluation) -> Figure:
    """Accuracies on the left and excess loss on the right, over lengths, with intervals where there are some."""
    figure, (left, right) = blank(3.0, 1, 2)
    lines = {key: name for key, name in _SHARES.items() if _has(done, key)}
    for (key, name), colour in zip(lines.items(), ARM_COLOURS, strict=False):
        _draw(left, done, key, colour, name)
    left.set_ylim(-0.03, 1.03)
    left.set_title("Accuracy, as a fraction", loc="left")
    excess = "excess" if _has(done, "excess") else "language/string/excess"
    _draw(right, done, excess, "black", "")
    right.margins(y=0.08)
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.set_title("Excess loss, nats per " + ("token" if excess == "excess" else "string"), loc="left")
    for ax in (left, right):
        ax.set_xlabel(str(done.plan.length_field))
        measured = sorted({setting.length for setting in done.plan.settings if setting.length is not None})
        ax.xaxis.set_major_locator(FixedLocator(measured) if len(measured) <= 8 else MaxNLocator(6, integer=True))
        if done.plan.trained_length is not None:
            ax.axvline(
                done.plan.trained_length,
                color="#777777",
                linewidth=1,
                linestyle=(0, (1, 2)),
                label="longest in training",
            )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=2.5)
    return figure


def _has(done: Evaluation, key: str) -> bool:
    return any(key in measures for measures in done.found.values())


def _draw(ax: Axes, done: Evaluation, key: str, colour: str, name: str) -> None:
    lengths = {setting.name: setting.length or 0 for setting in done.plan.settings}
    shown = sorted(
        ((lengths[setting], one) for setting, one in done.found.items() if key in one), key=lambda pair: pair[0]
    )
    values = [one[key] for _, one in shown]
    below = [max(0.0, one[key] - one.get(f"{key}_rows_low", one[key])) for _, one in shown]
    above = [max(0.0, one.get(f"{key}_rows_high", one[key]) - one[key]) for _, one in shown]
    ax.errorbar([length for length, _ in shown], values, [below, above], color=colour, marker="o", markersize=3.5,
                linewidth=1.4, capsize=2.5, label=name)  # fmt: skip
