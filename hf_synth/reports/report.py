"""The report of a folder: write report.md, report.html and figures/*.png for whichever kind of run it holds."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hf_synth.evaluation.held_out import SAMPLES
from hf_synth.experiments.arms import COMPARISON
from hf_synth.experiments.statistics import clipped
from hf_synth.io import load_json
from hf_synth.metrics.intervals import Interval, paired_interval, share_interval
from hf_synth.reports.arms import arms_report
from hf_synth.reports.comparison import write_comparison
from hf_synth.reports.figures import (
    COLOURS,
    CONTROL_COLOUR,
    Line,
    Panel,
    arm_style,
    curves,
    density_histogram,
    grouped_bars,
    label,
    prompt_map,
    save,
    weight_against_frequency,
)
from hf_synth.reports.pretraining import pretraining_section
from hf_synth.reports.read import MEASURES, Run, holds_arms, read_comparison, read_run
from hf_synth.reports.tables import (
    answers,
    code,
    escaped,
    fixed,
    headlines,
    model_facts,
    number,
    percent,
    read_samples,
    render,
    score,
    spread,
    table,
    write_pages,
)
from hf_synth.training.data import rejected_rows, unread_fields


def write_report(folder: str | Path) -> Path:
    """Write report.md, report.html and figures/*.png into a finished run's folder; returns the path of report.html.

    The same files in the folder give the same bytes. Raises ValueError where the folder holds no finished run.
    """
    folder = Path(folder)
    if (folder / COMPARISON).exists():
        return write_comparison(folder)
    return write_pages(folder, report_text(folder))


def report_text(folder: Path, *, published: bool = False, quote_texts: bool = True) -> str:
    """Write the figures of a finished run and return its report as Markdown.

    published: whether it names only files that are uploaded. quote_texts: whether it may quote prompts, answers, names
    of columns and what was wrong with rows of the user's files.
    """
    if holds_arms(folder):
        return arms_report(read_comparison(folder)) + "\n"
    run = read_run(folder)
    rejected = Counter(str(row.get("reason")) for row in rejected_rows(run.folder))
    section = {"grpo": grpo_section, "pretrain": pretraining_section}.get(run.recipe, supervised_section)
    text = render(
        "run",
        run=run,
        model=model_facts(run.folder, run.metrics),
        seconds=run.metrics.get("seconds/total", run.log.get("seconds")),
        missing=[code(name) for name in run.missing],
        diverged=[arm for arm in run.arms if not all(map(math.isfinite, arm.series("loss")[1]))],
        body=section(run, published, quote_texts),
        weights=weights_section(run, quote_texts),
        unread=[code(name) for name in unread_fields(run.folder)],
        quoted=quote_texts,
        rejected=rejected,
        reasons=[[escaped(reason), number(count)] for reason, count in rejected.most_common(10) if quote_texts],
        own_code="auto_map" in (load_json(run.folder / "config.json") or {}),
        published=published,
    )
    return text + "\n"


# SFT, reward models, DPO

_PANELS = (  # title, label with unit, logged name
    ("Loss", "loss", "loss"),
    ("Accuracy", "fraction of pairs", "accuracy"),
    ("Accuracy", "fraction of pairs", "rewards/accuracies"),
    ("Margin", "score difference", "margin"),
    ("Margin", "difference of implied rewards", "rewards/margins"),
    ("Token accuracy", "fraction of tokens", "mean_token_accuracy"),
)
_APART = ("seconds/", "weights/", "pairs/", "prompts/", "rows")  # said elsewhere in the report


def supervised_section(run: Run, published: bool, quote_texts: bool) -> str:
    """The result of sft, reward or dpo in a table and in words, and curves over the steps."""
    steps, losses = run.series("loss")
    accuracy, pairs = run.metrics.get("accuracy/held_out", math.nan), round(run.metrics.get("pairs/held_out", 0))
    known = pairs > 0 and 0 <= accuracy <= 1
    return render(
        "supervised",
        run=run,
        measures={name: value for name, value in sorted(run.metrics.items()) if not name.startswith(_APART)},
        first=(steps[0], losses[0]) if losses else None,
        unit=_loss_unit(run),
        accuracy=share_interval(accuracy, pairs) if known else None,
        pairs=pairs,
        curves=save(learning_curves(run), run.folder, "learning_curves"),
    )


def learning_curves(run: Run) -> Figure | None:
    """Loss and accuracy over steps, on training data and on held-out data where logged; None where nothing was."""
    chance = {} if run.recipe == "sft" else {"Loss": (math.log(2), "chance"), "Accuracy": (0.5, "chance")}
    panels = []
    for title, unit, logged in _PANELS:
        kinds = ((logged, "training", COLOURS[0], "-"), (f"eval_{logged}", "held out", COLOURS[1], "--"))
        lines = [Line(kind, *run.series(name), colour, style) for name, kind, colour, style in kinds]
        panels.append(Panel(title, _loss_unit(run) if title == "Loss" else unit, lines, chance.get(title)))
    return curves(panels)


def _loss_unit(run: Run) -> str:
    return "nats per token" if run.recipe == "sft" else "nats per pair"


# GRPO

_TRAINING = {  # what TRL logs: title, label with unit
    "reward": ("Training reward", "mean reward"),
    "completions/mean_length": ("Length of answers", "tokens"),
    "entropy": ("Entropy", "nats per token"),
    "kl": ("KL to first policy", "nats per token"),
}
_MOST_ARMS = 4  # whose answers stand side by side


def parts_of(run: Run) -> dict[str, str]:
    """`all`, and `head` and `tail` where there are such, with their names in tables."""
    return {"all": "overall", **{end: end for end in run.ends}}


def before_and_after(run: Run, arm: Run, part: str) -> list[float]:
    """The measure at the first and at the last evaluation; NaN where it was not taken."""
    end = "" if part == "all" else f"_{part}"
    return [arm.metrics.get(f"{run.measure}/{moment}{end}", math.nan) for moment in ("warmup", "final")]


def errors_over_steps(run: Run, arm: Run, group: str | None) -> list[float]:
    """The binomial standard error of the validity of a group, or of the mean over groups, at each evaluation.

    NaN for rewards, or without the number of prompts. Each group has the same number of held-out prompts, one answer
    each, as the recipe samples them.
    """
    names = [f"{run.measure}/{name}" for name in ([group] if group else run.groups)] or [str(run.measure)]
    fractions = np.array(list(zip(*(arm.series(name)[1] for name in names), strict=False))).reshape(-1, len(names))
    prompts = arm.metrics.get("prompts/evaluated", 0) / max(1, len(run.groups))
    if run.measure != "validity" or not prompts:
        return [math.nan] * len(fractions)
    # Where no answer differs, that is no proof that none can: as with one more of each kind.
    p = np.where(np.isin(fractions, (0, 1)), (fractions * prompts + 1) / (prompts + 2), fractions)
    return (np.sqrt((p * (1 - p)).sum(axis=1) / prompts) / len(names)).tolist()


def error_of(run: Run, arm: Run, part: str, evaluation: int = -1) -> float:
    """The standard error of `before_and_after`: of the last evaluation, or of the first with evaluation=0."""
    errors = errors_over_steps(run, arm, run.ends.get(part))
    return errors[evaluation] if errors else math.nan


def grpo_section(run: Run, published: bool, quote_texts: bool) -> str:
    """Result, curves and bars; without a measure on held-out prompts only the training reward."""
    if (measure := run.measure) is not None:
        save(score_over_steps(run), run.folder, f"{measure}_over_steps")
        if run.ends:
            save(head_against_tail(run), run.folder, "head_against_tail")
    samples = {arm.label: arm.folder / SAMPLES for arm in run.arms[:_MOST_ARMS]}
    return render(
        "grpo",
        run=run,
        measure=measure,
        name=MEASURES[measure][0] if measure else None,
        result=_result(run),
        errors=any(math.isfinite(error_of(run, arm, "all")) for arm in run.arms),
        evaluated=number(run.metrics.get("prompts/evaluated")),
        changes=[
            f"{arm.label} {after - before:+.3f}"
            for arm in run.arms
            for before, after in [before_and_after(run, arm, "all")]
            if math.isfinite(after - before)
        ],
        differences=_differences(run) if measure else [],
        compared=(run.folder / "../.." / COMPARISON).exists() and not published,
        training=save(training_over_steps(run), run.folder, "training_over_steps"),
        samples=_samples(run) if measure is not None else "",
        answers=answers(samples, 6) if quote_texts else "",
        answering=list(samples),
        published=published,
        quoted=quote_texts,
    )


def _result(run: Run) -> str:
    if run.measure is None:
        rewards = {arm.label: arm.series("reward")[1] or [math.nan] for arm in run.arms}
        rows = [[arm, score(values[0]), score(values[-1])] for arm, values in rewards.items()]
        return table(["arm", "training reward, first logged", "training reward, last logged"], rows)
    parts = parts_of(run)
    header = ["arm", *(f"{name}, {moment}" for name in parts.values() for moment in ("before", "after"))]
    rows = []
    for arm in run.arms:
        cells = [arm.label]
        for part in parts:
            before, after = before_and_after(run, arm, part)
            cells += [score(before), score(after, error_of(run, arm, part))]
        rows.append(cells)
    return table(header, rows)


def _differences(run: Run) -> list[list[str]]:
    """Each weighted arm minus the control in the final samples, paired by held-out prompt, as rows of a table."""
    control = _scores(run, run.control) if run.control else {}
    rows = []
    for arm in run.weighted:
        for part, values in _scores(run, arm).items() if control else ():
            values = values[values.index.isin(control[part].index)]
            if len(values):
                interval = paired_interval(values, control[part][values.index])
                rows.append([parts_of(run)[part], f"{arm.label} minus control", number(len(values)), spread(interval)])
    return rows


def _scores(run: Run, arm: Run) -> dict[str, pd.Series]:
    """Part of the prompts -> the measure's mean over the sampled answers by prompt; empty without samples."""
    path = arm.folder / SAMPLES
    if not path.exists():
        return {}
    measure = "truth" if run.measure == "validity" else "reward"
    columns = [(measure, "mean"), ("cluster", "min"), ("density", "min")]
    prompts = read_samples(path).group_by("prompt_row").aggregate(columns).to_pandas().set_index("prompt_row")
    half = (prompts["density_min"] > prompts["density_min"].median()).map({True: "crowded", False: "rare"})
    group, values = prompts["cluster_min"].fillna(half), prompts[f"{measure}_mean"]
    values = values[np.isfinite(values)]
    return {"all": values, **{end: values[group == name] for end, name in run.ends.items()}}


def _samples(run: Run) -> str:
    if not any("length/low" in arm.metrics for arm in run.arms):
        return ""
    first = run.arms[0].metrics
    rows = []
    for name in headlines([name for name in first if f"{name}/low" in first or name.startswith("halves/")]):
        # A reward that is the verifier's repeats the validity of the same prompts.
        twin = name.replace("reward/", "validity/", 1)
        if twin == name or any(arm.metrics.get(twin) != arm.metrics.get(name) for arm in run.arms):
            bounds = [[arm.metrics.get(name + end, math.nan) for end in ("", "/low", "/high")] for arm in run.arms]
            rows.append([code(name), *(spread(clipped(Interval(*of_arm), name)) for of_arm in bounds)])
    return table(["measure", *(arm.label for arm in run.arms)], rows)


def shown_groups(run: Run, most: int = 8) -> list[str]:
    """All groups; of many the largest and the smallest, which the report is about."""
    groups = run.groups if len(run.groups) > 1 else []
    return groups if len(groups) <= most else [*groups[: most // 2], *groups[-(most // 2) :]]


def arm_styles(run: Run) -> dict[str, tuple[str, Any]]:
    """Label of an arm -> (colour, line style); the control is always dashed and grey."""
    others = [arm.label for arm in run.arms if arm.label != "control"]
    return {**{name: arm_style(index) for index, name in enumerate(others)}, "control": (CONTROL_COLOUR, "--")}


def score_over_steps(run: Run) -> Figure | None:
    """The measure over steps: overall, then a panel a group."""
    groups = shown_groups(run)
    titles = {None: "Overall"} | {
        group: f"{label(group, 18)} ({run.sizes[group]:,})" if group in run.sizes else f"{group.capitalize()} half"
        for group in groups
    }
    panels, styles = [], arm_styles(run)
    for group, title in titles.items():
        name = f"{run.measure}/{group}" if group else str(run.measure)
        lines = [
            Line(arm.label, *arm.series(name), *styles[arm.label], errors_over_steps(run, arm, group))
            for arm in run.arms
        ]
        panels.append(Panel(title, MEASURES[run.measure or ""][1], lines))
    return curves(panels, share_y=True)


def training_over_steps(run: Run) -> Figure | None:
    """Training reward, length, entropy and KL over steps, those that were logged; None where none was."""
    panels = []
    for name, (title, unit) in _TRAINING.items():
        lines = [Line(arm.label, *arm.series(name), *arm_styles(run)[arm.label]) for arm in run.arms]
        # A KL of exactly 0 throughout is one that was not asked for.
        if name != "kl" or any(any(line.values) for line in lines):
            panels.append(Panel(title, unit, lines))
    return curves(panels)


def head_against_tail(run: Run) -> Figure:
    """Grouped bars: before training and after it in each arm, overall, on the head and on the tail."""
    parts = parts_of(run)
    bars = []
    moments = [("before", run.arms[0], 0, "#BBBBBB")]
    moments += [(f"after, {arm.label}", arm, -1, arm_styles(run)[arm.label][0]) for arm in run.arms]
    for name, arm, moment, colour in moments:
        heights = [before_and_after(run, arm, part)[moment] for part in parts]
        bars.append((name, colour, heights, [error_of(run, arm, part, moment) for part in parts]))
    names = [name if part == "all" else f"{name}: {label(run.ends[part], 20)}" for part, name in parts.items()]
    figure = grouped_bars(names, bars)
    figure.axes[0].set(xlabel="held-out prompts", ylabel=MEASURES[run.measure or ""][1])
    return figure


# Sampling weights

_EXAMPLES = 5
_CHANGING = ("strength_schedule", "density_refresh")


def weights_section(run: Run, quote_texts: bool) -> str:
    """Tables and figures of the weights; empty where the run has no table of them.

    quote_texts: whether the prompts of the lowest and of the highest density are quoted.
    """
    prompts = (run.weighted or run.arms)[0].prompts  # the first arm with weights, or the run itself
    if prompts is None or prompts.empty:
        return ""
    sources = dict(Counter(prompts.get("src", ())).most_common())
    clusters = {name: prompts["density"][prompts["cluster"] == name] for name in run.sizes}
    volume = run.config.get("density_estimator", "volume") == "volume"
    unit = "prompts per unit of volume" if volume else "1 / mean distance to neighbours"
    save(density_histogram(prompts["density"], clusters, unit), run.folder, "density_histogram")
    uniform = np.ptp(prompts["sampling_weight"]) < 1e-9
    values, name = (
        ("density", "density (larger: more similar prompts nearby)") if uniform
        else ("sampling_weight", "weight (1 = average)")
    )  # fmt: skip
    drawn = prompt_map(prompts[["x", "y"]].to_numpy(), prompts[values].to_numpy(), name, prompts.get("cluster"))
    save(drawn, run.folder, "prompt_map")
    weighted = {arm.label: arm.prompts for arm in run.weighted if arm.prompts is not None} or {run.label: prompts}
    if len(run.sizes) > 1:
        means = [
            each.groupby("cluster")["sampling_weight"].mean()[list(run.sizes)].tolist() for each in weighted.values()
        ]
        arms = [(label(arm), arm_styles(run)[arm][0], mean) for arm, mean in zip(weighted, means, strict=True)]
        save(weight_against_frequency(run.sizes, arms), run.folder, "weight_against_frequency")
    changing = [name for name in _CHANGING if run.config.get(name) not in (None, "constant")]
    return render(
        "weights",
        run=run,
        changing=changing if changing or {"pass_rate", "curriculum"} & set(run.kinds) else None,
        facts=_facts(run),
        clusters=_groups("cluster", run.sizes, weighted) if len(run.sizes) > 1 else "",
        sources=_groups("src", sources, weighted) if len(sources) > 1 else "",
        colour="density" if uniform else "weight",
        examples=_examples(prompts) if quote_texts and not run.sizes else {},
    )


def _facts(run: Run) -> str:
    header = ["arm", "effective sample size", "intrinsic dimension", "smallest weight", "median", "largest"]
    names = ["weights/" + name for name in ("intrinsic_dimension", "smallest", "median", "largest")]
    if repeated := any(arm.metrics.get("weights/repeated_share") for arm in run.arms):
        header.append("draws of repeated prompts")
    rows = []
    for arm in run.arms:
        share = arm.metrics.get("weights/effective_share")
        size = number(arm.metrics.get("weights/effective_sample_size"))
        size = size if share is None else f"{size} ({percent(share)})"
        rows.append([arm.label, size, *(number(arm.metrics.get(name)) for name in names)])
        if repeated:
            rows[-1].append(percent(arm.metrics.get("weights/repeated_share", 0)))
    return table(header, rows, drop_empty=True)


def _groups(column: str, sizes: Mapping[str, int], weighted: Mapping[str, pd.DataFrame]) -> str:
    """Each cluster's or source's size, mean weight and fraction of the draws."""
    header = [{"src": "source"}.get(column, column), "prompts", "fraction of prompts"]
    rows = [[escaped(name, 60), number(size), percent(size / sum(sizes.values()))] for name, size in sizes.items()]
    for arm, prompts in weighted.items():
        of_arm = f", {arm}" if len(weighted) > 1 else ""
        header += [f"mean weight{of_arm}", f"fraction of draws{of_arm}"]
        weights = prompts.groupby(column)["sampling_weight"].agg(["mean", "sum"])
        for row, name in zip(rows, sizes, strict=True):
            row += [fixed(weights["mean"][name], 3), percent(weights["sum"][name] / weights["sum"].sum())]
    return table(header, rows)


def _examples(prompts: pd.DataFrame) -> dict[str, list[list[str]]]:
    """The prompts of the lowest and of the highest density, each text once, as rows of a table."""
    columns = prompts.sort_values("density", kind="stable")[["prompt", "density", "sampling_weight"]]
    ends = {"lowest": columns, "highest": columns[::-1]}
    return {
        end: [
            [escaped(text), number(density), number(weight)]
            for text, density, weight in ordered.drop_duplicates("prompt").head(_EXAMPLES).itertuples(index=False)
        ]
        for end, ordered in ends.items()
    }
