"""The report of a comparison: verdicts, figures, measures, differences and samples."""

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from hf_synth.evaluation.held_out import SAMPLES
from hf_synth.experiments.arms import COMPARISON, CompareArguments
from hf_synth.experiments.statistics import (
    FEWEST_FOR_A_CLAIM,
    LEVEL,
    MINUS,
    POWER,
    Difference,
    detectable,
    seed_interval,
    verdict,
)
from hf_synth.io import write_tables, write_text
from hf_synth.reports.arms import arm_cell, code_values, mean_line, style_of
from hf_synth.reports.figures import STYLE, WIDTH, Panel, curves, draw_interval, label, name_rows, save
from hf_synth.reports.read import Comparison, read_comparison
from hf_synth.reports.tables import answers, code, headlines, number, read_samples, render, spread, table, write_pages
from hf_synth.training.arguments import read_yaml, yaml_text

_MOST_CURVES = 8
# The logged measures of which the first is drawn over steps: the rare half's before that of all.
_CURVES = ("halves/validity/rare", "validity", "sampled_reward/rare", "sampled_reward", "eval_loss",
           "eval_validation_accuracy")  # fmt: skip


def draw_figures(comparison: Comparison) -> list[str]:
    """Save the figures that the runs allow into the folder; returns their names."""
    by_arm = any(comparison.values(arm, comparison.plan.primary) for arm in comparison.runs)  # at equal KL pairs alone
    figures: dict[str, Figure | None] = {}
    if by_arm or comparison.families[0]:
        figures["primary"] = primary_figure(comparison)
    if (groups := head_to_tail(comparison)) is not None:
        figures["groups"] = groups_figure(comparison, *groups)
    if measure := next((name for name in _CURVES if name in comparison.first.names()), None):
        figures["steps"] = steps_figure(comparison, measure)
    return [name for name, figure in figures.items() if save(figure, comparison.folder, name)]


@matplotlib.rc_context(STYLE)
def primary_figure(comparison: Comparison) -> Figure:
    """The primary measure by arm, and each pair's difference beside it."""
    plan, primary = comparison.plan, comparison.families[0]
    arms = [arm for arm in comparison.runs if comparison.values(arm, plan.primary)]
    rows = [rows for rows in (len(arms), len(primary)) if rows]
    figure = Figure(figsize=(WIDTH, sum(1.1 + 0.26 * count for count in rows)), layout="constrained")
    axes = [*figure.subplots(len(rows), 1, height_ratios=[1.1 + 0.26 * count for count in rows], squeeze=False)[:, 0]]
    if arms:
        top = axes.pop(0)
        for row, arm in enumerate(arms):
            values = comparison.values(arm, plan.primary)
            draw_interval(top, seed_interval(values, plan.primary), row, style_of(comparison, arm)[0], values)
        name_rows(top, [label(arm, 24) for arm in arms])
        top.set_title(label(plan.primary, 34), loc="left")
        top.set_xlabel(f"{plan.better} is better")
    for bottom in axes:
        for row, difference in enumerate(primary):
            draw_interval(bottom, difference.interval, row, style_of(comparison, difference.arm)[0])
        bottom.axvline(0, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
        names = [f"{label(each.arm, 36)} \u2212 {label(each.other, 36)}" for each in primary]
        name_rows(bottom, [re.sub(f"(.*{MINUS}.*) \u2212 (.*)", "(\\1)\n\u2212 (\\2)", name) for name in names])
        bottom.set_title("paired differences" if arms else label(plan.primary, 34), loc="left")
        bottom.set_xlabel("in the same unit" if arms else f"paired differences; {plan.better} is better")
    return figure


def head_to_tail(comparison: Comparison) -> tuple[str, list[tuple[str, str]]] | None:
    """What a measure is known for from the highest to the lowest density: its title, and (name, label) of each place.

    Clusters in the order of their size, or tenths of the prompts by density; None where there are neither.
    """
    run = comparison.first
    mixture = comparison.config.get("mixture")
    if isinstance(mixture, dict) and len(mixture) > 1:
        order = sorted(mixture, key=lambda name: -float(mixture[name].get("share", 1)))
        names = [(f"validity/{name}", name) for name in order]
        if all(name in run.metrics for name, _ in names):
            return "validity by cluster, the largest first", names
    tenths = sorted(
        (name for name in run.metrics if re.fullmatch(r"reward/decile_\d+", name)), key=lambda name: int(name[14:])
    )
    return ("reward by tenth of density, the highest first", [(n, n[14:]) for n in tenths]) if tenths else None


def groups_figure(comparison: Comparison, title: str, groups: Sequence[tuple[str, str]]) -> Figure | None:
    """A measure at each place from head to tail, a line an arm."""
    lines = []
    for arm in list(comparison.runs)[:_MOST_CURVES]:
        intervals = [comparison.interval(arm, name) for name, _ in groups]
        known = {at: interval for at, interval in enumerate(intervals) if interval is not None}
        lines.append(mean_line(comparison, arm, list(known), list(known.values()), marker="o"))
    figure = curves([Panel(title, title.partition(" ")[0], lines, x_label="")])
    for ax in figure.axes if figure else []:
        ax.set_xticks(range(len(groups)), [label(name, 14) for _, name in groups], rotation=30, ha="right")
    return figure


def steps_figure(comparison: Comparison, measure: str) -> Figure | None:
    """A measure over steps, and over the KL divergence that the arm has come to."""
    over_steps, over_kl = [], []
    for arm in list(comparison.runs)[:_MOST_CURVES]:
        line = mean_line(comparison, arm, *comparison.curve(arm, measure))
        distances = dict(zip(*comparison.curve(arm, "held_out/kl"), strict=True))
        at = [step in distances for step in line.steps]
        values, kl = np.compress(at, line.values), [distances[step].mean for step in np.compress(at, line.steps)]
        over_steps.append(line)
        over_kl.append(dataclasses.replace(line, steps=kl, values=values.tolist(), error=None, marker="o"))
    panels = [Panel("During training", label(measure, 34), over_steps)]
    panels.append(Panel("At equal KL", label(measure, 34), over_kl, x_label="KL to the reference, nats a completion"))
    return curves(panels, share_y=True)


DIFFERENCES = "differences.csv"
_SIDE_BY_SIDE = 6
_SHARE = "weights/effective_share"


def write_comparison(folder: Path) -> Path:
    """Write report.md, report.html, figures, differences.csv and all samples into the folder; returns report.html.

    With `page` the report, without the settings, becomes a section of that Markdown file too.
    """
    comparison = read_comparison(folder)
    plan, figures = comparison.plan, draw_figures(comparison)
    write_pages(folder, _text(comparison, figures, _SIDE_BY_SIDE, settings_lines(folder)))
    write_differences(comparison)
    write_all_samples(comparison)
    if plan.page:
        add_to_page(Path(plan.page), comparison, _text(comparison, figures, plan.page_prompts, ""), figures)
    return folder / "report.html"


def power_statement(plan: CompareArguments) -> str:
    """The smallest difference that the seeds can detect in the primary measure, a line each, as a list in Markdown."""
    known, enough = (detectable(seeds, len(plan.pairs)) for seeds in (len(plan.seeds), FEWEST_FOR_A_CLAIM))
    return render("power", plan=plan, detectable=known, enough=enough, power=POWER, fewest=FEWEST_FOR_A_CLAIM)


def _text(comparison: Comparison, figures: Sequence[str], prompts: int, settings: str) -> str:
    """The report in Markdown, with the answers to so many prompts, and with the settings where they are given."""
    plan, (primary, shown, _) = comparison.plan, comparison.families
    without = [f"{arm}/seed-{seed}" for arm in comparison.runs for seed in comparison.lacking(arm, plan.primary)]
    pair = next((pair for pair in comparison.pairs if set(pair) <= set(comparison.arms)), comparison.pairs[0])
    seed = min(set.intersection(*(set(comparison.runs.get(arm, {})) for arm in pair)), default=None)
    samples = {} if seed is None else {arm: comparison.runs[arm][seed].folder / SAMPLES for arm in pair}
    return render(
        "comparison",
        arguments=plan,
        power=power_statement(plan),
        arms=[
            [code(arm), code_values(values), number(len(comparison.runs.get(arm, {}))),
             spread(comparison.interval(arm, _SHARE))]
            for arm, values in comparison.arms.items()
        ],
        unfinished={
            "Not finished, so not in this report": [code(name) for name in comparison.missing],
            "Without a finite value of the primary metric, so not in its means": [code(name) for name in without],
        },
        primary=[(each, verdict(each, plan.better, plan.smallest_effect)) for each in primary],
        unanswered=[pair for pair in comparison.pairs if pair not in {(each.arm, each.other) for each in primary}],
        fewest=FEWEST_FOR_A_CLAIM,
        likely=POWER,
        figures=figures,
        groups=head_to_tail(comparison),
        measures=_measures(comparison),
        differences=_differences(comparison),
        family=max((each.tests for each in shown), default=0),
        seed=seed,
        answers=answers(samples, prompts),
        settings=settings,
    ) + "\n"  # fmt: skip


def settings_lines(folder: Path) -> str:
    """The lines of a config that makes a comparison again."""
    kept = read_yaml(folder / COMPARISON)
    settings = {**kept.pop("base"), **{name: value for name, value in kept.items() if value not in (None, {}, [])}}
    return yaml_text(settings, allow_unicode=True, width=110)


def _measures(comparison: Comparison) -> str:
    arms = list(comparison.runs)
    names = dict.fromkeys([comparison.plan.primary, *headlines(comparison.measures)])
    shown = [name for name in names if any(comparison.values(arm, name) for arm in arms)]
    rows = [[code(name), *(arm_cell(comparison, arm, name) for arm in arms)] for name in shown]
    return table(["metric", *map(code, arms)], rows)


def _differences(comparison: Comparison) -> str:
    """The primary and the shown measures in which any seed differs, a column a pair."""
    differences = {(each.measure, (each.arm, each.other)): each for each in chain(*comparison.families[:2])}
    moved = dict.fromkeys(measure for (measure, _), each in differences.items() if each.sd or each.interval.mean)
    rows = [[code(name), *(_cell(differences.get((name, pair))) for pair in comparison.pairs)] for name in moved]
    return table(["metric", *(f"{code(arm)} minus {code(other)}" for arm, other in comparison.pairs)], rows)


def _cell(difference: Difference | None) -> str:
    text = spread(difference.interval if difference else None)
    return f"**{text}**" if difference and difference.corrected < LEVEL else text


def write_differences(comparison: Comparison) -> None:
    """Write differences.csv: every measure and pair, with interval, standard deviation and p-values."""
    header = ["measure", "arm", "other", "seeds", "mean", "low", "high", "sd", "p", "corrected_p"]
    rows = [
        [each.measure, each.arm, each.other, each.seeds, *each.interval, each.sd, each.p, each.corrected]
        for each in chain(*comparison.families)
    ]
    form = {"float_format": "%.6g", "na_rep": "nan", "lineterminator": "\r\n"}
    write_text(comparison.folder / DIFFERENCES, pd.DataFrame(rows, columns=header).to_csv(index=False, **form))


def write_all_samples(comparison: Comparison) -> None:
    """Write samples.parquet: those of all runs, with their arm and seed."""
    parts = []
    (comparison.folder / SAMPLES).unlink(missing_ok=True)
    for arm, runs in comparison.runs.items():
        for seed, run in sorted(runs.items()):
            if (path := run.folder / SAMPLES).exists():
                part = read_samples(path)
                part = part.add_column(0, "seed", pa.array([seed] * len(part), pa.int32()))
                parts.append(part.add_column(0, "arm", pa.array([arm] * len(part))))
    if parts:
        write_tables(comparison.folder / SAMPLES, parts[0].schema, parts)


def add_to_page(page: Path, comparison: Comparison, text: str, figures: Sequence[str]) -> None:
    """Put the report into a Markdown file as a section of its own, in place of what the same folder put there.

    Beside it go the figures, and the metrics of every run, so that the page can be computed again.
    """
    key = comparison.folder.name
    begin, end = f"<!-- begin {key} -->", f"<!-- end {key} -->"
    files = page.parent / page.stem
    files.mkdir(parents=True, exist_ok=True)
    for name in {"primary", "groups", "steps"} - set(figures):
        (files / f"{key}_{name}.png").unlink(missing_ok=True)
    for name in figures:
        shutil.copyfile(comparison.folder / "figures" / f"{name}.png", files / f"{key}_{name}.png")
        text = text.replace(f"(figures/{name}.png)", f"({page.stem}/{key}_{name}.png)".replace(" ", "%20"))
    rows = [
        {"arm": arm, "seed": seed, "metrics": metrics}
        for arm, by_seed in comparison.results.items()
        for seed, metrics in by_seed.items()
    ]
    write_text(files / f"{key}.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    section = "\n".join("#" + line if line.startswith("#") else line for line in text.splitlines())
    before = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
    head, _, rest = before.partition(begin)
    _, _, tail = rest.partition(end)
    write_text(page, f"{head.rstrip()}\n\n{begin}\n{section}\n{end}\n{tail.lstrip()}")
