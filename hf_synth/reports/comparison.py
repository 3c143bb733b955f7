"""The report of a comparison: verdicts, figures, measures, differences and samples."""

import csv
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from matplotlib.figure import Figure

from hf_synth.evaluation.held_out import SAMPLES
from hf_synth.experiments.plan import COMPARISON
from hf_synth.experiments.statistics import Difference, power_statement, verdict
from hf_synth.metrics.intervals import mean_interval
from hf_synth.reports.arms import code_values
from hf_synth.reports.figures import STYLE, WIDTH, arm_legend, arm_style, blank, draw_interval, label, name_rows, save
from hf_synth.reports.page import html_page, render
from hf_synth.reports.read import Compared, read_compared
from hf_synth.reports.tables import MISSING, code, escaped, number, spread, table

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


def _style(compared: Compared, arm: str) -> tuple[str, Any]:
    return arm_style(list(compared.arguments.arms).index(arm))


@matplotlib.rc_context(STYLE)
def primary_figure(compared: Compared) -> Figure:
    """The primary measure by arm, and each pair's difference beside it."""
    heights = [1.1 + 0.26 * len(compared.arms), 1.1 + 0.26 * len(compared.primary)]
    parts = heights if compared.primary else heights[:1]
    figure = Figure(figsize=(WIDTH, sum(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, height_ratios=parts, squeeze=False)[:, 0]
    top, bottom = axes if compared.primary else (axes[0], None)
    for place, arm in enumerate(compared.arms):
        if values := compared.values(arm, compared.arguments.primary):
            draw_interval(top, mean_interval(values), place, _style(compared, arm)[0], values)
    name_rows(top, [label(arm, 24) for arm in compared.arms])
    top.set_title(label(compared.arguments.primary, 34), loc="left")
    top.set_xlabel(f"{compared.arguments.better} is better")
    if bottom is not None:
        for place, difference in enumerate(compared.primary):
            draw_interval(bottom, difference.interval, place, _style(compared, difference.arm)[0])
        bottom.axvline(0, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
        name_rows(bottom, [label(f"{found.arm} \u2212 {found.other}", 48) for found in compared.primary])
        bottom.set_title("paired differences", loc="left")
        bottom.set_xlabel("in the same unit")
    return figure


def head_to_tail(compared: Compared) -> tuple[str, list[tuple[str, str]]] | None:
    """What a measure is known for from the highest to the lowest density: its title, and (name, label) of each place.

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
    return ("reward by tenth of density, the highest first", [(n, n[14:]) for n in tenths]) if tenths else None


@matplotlib.rc_context(STYLE)
def groups_figure(compared: Compared, title: str, places: Sequence[tuple[str, str]]) -> Figure:
    """A measure at each place from head to tail, a line an arm."""
    figure, (ax,) = blank(3.4)
    x = np.arange(len(places))
    arms = compared.arms[:_MOST_CURVES]
    for index, arm in enumerate(arms):
        colour, style = _style(compared, arm)
        found = [compared.interval(arm, name) for name, _ in places]
        shift = (index - (len(arms) - 1) / 2) * 0.06
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
    arm_legend(figure, [_style(compared, arm) for arm in arms], [label(arm, 24) for arm in arms])
    return figure


def curve_of(compared: Compared) -> str | None:
    """The logged measure that curves are drawn of: the rare half's, or the measure itself."""
    run = next(iter(compared.runs[compared.arms[0]].values()))
    logged = {name for entry in run.log["history"] for name in entry}
    candidates = ("halves/validity/rare", "validity", "sampled_reward/rare", "sampled_reward", "eval_loss")
    return next((name for name in candidates if name in logged), None)


@matplotlib.rc_context(STYLE)
def steps_figure(compared: Compared, measure: str) -> Figure:
    """A measure over steps, and over the KL divergence that the arm has come to."""
    figure, axes = blank(3.2, 1, 2, share_y=True)
    arms = compared.arms[:_MOST_CURVES]
    for arm in arms:
        colour, style = _style(compared, arm)
        runs = [_evaluations(run.log["history"], measure) for run in compared.runs[arm].values()]
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
    arm_legend(figure, [_style(compared, arm) for arm in arms], [label(arm, 24) for arm in arms])
    return figure


def _evaluations(history: Sequence[dict[str, float]], measure: str) -> dict[int, dict[str, float]]:
    return {int(entry["step"]): entry for entry in history if measure in entry}


DIFFERENCES = "differences.csv"
_SIDE_BY_SIDE = 6
_SHARE = "weights/effective_share"


def write_comparison(folder: Path) -> Path:
    """Write report.md, report.html, figures, differences.csv and all samples into the folder; returns report.html.

    With `page` the report becomes a section of that Markdown file too.
    """
    compared = read_compared(folder)
    figures = draw_figures(compared)
    text = _text(compared, figures, _SIDE_BY_SIDE)
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
    (folder / "report.html").write_text(html_page(text), encoding="utf-8", newline="\n")
    write_differences(compared)
    write_all_samples(compared)
    if compared.arguments.page:
        shown = _text(compared, figures, compared.arguments.page_prompts)
        add_to_page(Path(compared.arguments.page), compared, shown, figures)
    return folder / "report.html"


def _text(compared: Compared, figures: Sequence[str], prompts: int) -> str:
    """The report in Markdown, with the answers to so many prompts."""
    arguments = compared.arguments
    without = [
        f"{arm}/seed-{seed}"
        for arm, runs in compared.results.items()
        for seed in runs
        if arguments.primary not in runs[seed]
    ]
    primary = []
    for difference in compared.primary:
        found = verdict(difference, arguments.better, arguments.smallest_effect, tests=len(compared.primary))
        primary.append((found.word, difference, found.reason))
    text = render(
        "comparison",
        arguments=arguments,
        power=power_statement(arguments),
        arms=[
            [code(arm), code_values(values or {}), number(len(compared.results.get(arm, {}))),
             spread(compared.interval(arm, _SHARE))]
            for arm, values in arguments.arms.items()
        ],
        unfinished={
            "Not finished, so not in this report": [code(name) for name in compared.missing],
            "Without the primary metric": [code(name) for name in without],
        },
        primary=primary,
        figures=figures,
        measures=_measures(compared),
        differences=_differences(compared),
        family=len(compared.headlines),
        side_by_side=_side_by_side(compared, prompts),
        settings=settings_lines(compared.folder),
    )  # fmt: skip
    return text + "\n"


def settings_lines(folder: Path) -> str:
    """The lines of a config that makes a comparison again."""
    kept: dict[str, Any] = yaml.safe_load((folder / COMPARISON).read_text(encoding="utf-8"))
    settings = {**kept.pop("base"), **{name: value for name, value in kept.items() if value not in (None, {}, [])}}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110)


def _measures(compared: Compared) -> str:
    rows = [[code(name), *(spread(compared.interval(arm, name)) for arm in compared.arms)] for name in compared.shown]
    return table(["metric", *(code(arm) for arm in compared.arms)], rows)


def _differences(compared: Compared) -> str:
    """The shown measures in which any seed differs, a column a pair."""
    pairs = compared.arguments.pairs
    moved = [name for name in compared.shown if any(_moves(compared.of(name, *pair)) for pair in pairs)]
    rows = [[code(name), *(_cell(compared, name, *pair) for pair in pairs)] for name in moved]
    return table(["metric", *(f"{code(arm)} minus {code(other)}" for arm, other in pairs)], rows)


def _moves(found: Difference | None) -> bool:
    """Whether any seed differs at all."""
    return found is not None and bool(found.sd or found.interval.mean)


def _cell(compared: Compared, measure: str, arm: str, other: str) -> str:
    found = compared.of(measure, arm, other)
    if found is None:
        return MISSING
    text = spread(found.interval)
    return f"**{text}**" if found.corrected < 0.05 else text


def _side_by_side(compared: Compared, shown: int) -> dict[str, Any]:
    """The first answers of the arms of the first pair to a few prompts, spread evenly over all; empty without any."""
    arm, other = compared.arguments.pairs[0]
    seeds = sorted(set(compared.runs.get(arm, {})) & set(compared.runs.get(other, {})))
    if not seeds or not shown:
        return {}
    tables = [compared.runs[name][seeds[0]].folder / SAMPLES for name in (arm, other)]
    if not all(path.exists() for path in tables):
        return {}
    one, two = (_first_answers(path) for path in tables)
    prompts = [prompt for prompt in one if prompt in two]
    step = max(1, len(prompts) // shown)
    rows = [
        [escaped(prompt[-160:]), escaped(one[prompt], 160), escaped(two[prompt], 160)]
        for prompt in prompts[::step][:shown]
    ]
    return {"seed": seeds[0], "arm": arm, "other": other, "rows": rows}


def _first_answers(path: Path) -> dict[str, str]:
    columns = pq.read_table(path, columns=["prompt", "completion", "sample"]).to_pydict()
    rows = zip(columns["prompt"], columns["completion"], columns["sample"], strict=True)
    return {prompt: completion for prompt, completion, sample in rows if sample == 0}


def write_differences(compared: Compared) -> None:
    """Write differences.csv: every measure and pair, with interval, standard deviation and p-values."""
    header = ["measure", "arm", "other", "seeds", "mean", "low", "high", "sd", "p", "corrected_p"]
    with (compared.folder / DIFFERENCES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for found in compared.differences:
            numbers = [*found.interval, found.sd, found.p, found.corrected]
            writer.writerow(
                [found.measure, found.arm, found.other, found.seeds, *(f"{value:.6g}" for value in numbers)]
            )


def write_all_samples(compared: Compared) -> None:
    """Write samples.parquet: those of all runs, with their arm and seed."""
    parts = []
    for arm, runs in compared.runs.items():
        for seed, run in sorted(runs.items()):
            if (path := run.folder / SAMPLES).exists():
                part = pq.read_table(path)
                rows = len(part)
                parts.append(part.add_column(0, "seed", pa.array([seed] * rows, pa.int32())).add_column(
                    0, "arm", pa.array([arm] * rows)))  # fmt: skip
    if parts:
        pq.write_table(pa.concat_tables(parts), compared.folder / SAMPLES)


def add_to_page(page: Path, compared: Compared, text: str, figures: Sequence[str]) -> None:
    """Put the report into a Markdown file as a section of its own, in place of what the same folder put there."""
    key = compared.folder.name
    begin, end = f"<!-- begin {key} -->", f"<!-- end {key} -->"
    place = page.parent / page.stem
    place.mkdir(parents=True, exist_ok=True)
    for name in figures:
        shutil.copyfile(compared.folder / "figures" / f"{name}.png", place / f"{key}_{name}.png")
        text = text.replace(f"(figures/{name}.png)", f"({page.stem}/{key}_{name}.png)")
    section = "\n".join("#" + line if line.startswith("#") else line for line in text.splitlines())
    before = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
    head, _, rest = before.partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head.rstrip()}\n\n{begin}\n{section}\n{end}\n{tail.lstrip()}", encoding="utf-8", newline="\n")
