"""The report of arms of pretraining: what each reached, with its interval over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import Interval
from hf_synth.reports.figures import (
    CLUSTER_COLOURS,
    STYLE,
    WIDTH,
    Line,
    Panel,
    draw,
    label,
    legend_columns,
    limit_shares,
    log_steps,
    save,
)
from hf_synth.reports.pretraining import copied_sections, floor_level, log_spaced, trial
from hf_synth.reports.read import Comparison, SeededArm, one_token
from hf_synth.reports.report import again, essentials, model_facts, settings_block, settings_of_task
from hf_synth.reports.tables import code, duration, escaped, in_order, listed, number, picture, spread, table

_OVER_STEPS = {
    "eval_validation_loss": ("Validation loss", "nats per token"),
    "eval_validation_accuracy": ("Validation accuracy", "share of tokens"),
}
_STYLES = ("-", "--", ":", "-.")


def colour_of(comparison: Comparison, arm: SeededArm) -> tuple[str, Any]:
    """The colour of an arm and its line style, which changes where colours come again."""
    index = comparison.arms.index(arm)
    return CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)], _STYLES[index // len(CLUSTER_COLOURS) % len(_STYLES)]


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
        _by_arm(ax, comparison, name)
        if unit.startswith("share") and ax.dataLim.width == 0:
            ax.set_xlim(-0.05, 1.05)
        ax.set_title(title, loc="left")
        ax.set_xlabel(unit)
    names = [label(arm.label, 22) for arm in comparison.arms]
    columns[0].set_yticks(range(len(names)), names)
    columns[0].set_ylabel("arm")
    columns[0].set_ylim(len(names) - 0.4, -0.6)
    for ax, (name, (title, unit)) in zip(bottom.subplots(1, 2), _OVER_STEPS.items(), strict=True):
        _over_steps(ax, comparison, name, title, unit)
    if len(comparison.arms) > 1:
        handles = [
            matplotlib.lines.Line2D([], [], color=colour, linestyle=style)
            for colour, style in (colour_of(comparison, arm) for arm in comparison.arms)
        ]
        bottom.legend(handles, names, loc="outside lower center", ncols=legend_columns(names), handlelength=3)
    return figure


def _by_arm(ax: Axes, comparison: Comparison, name: str) -> None:
    for place, arm in enumerate(comparison.arms):
        interval = arm.interval(name)
        if interval is None:
            continue
        colour, _ = colour_of(comparison, arm)
        ax.plot(arm.of(name), [place + 0.22] * len(arm.of(name)), "o", color=colour, markersize=2.5, alpha=0.6)
        if _known(interval):
            ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.2)
        ax.plot(interval.mean, place, "D", color=colour, markersize=5)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


def _over_steps(ax: Axes, comparison: Comparison, name: str, title: str, unit: str) -> None:
    lines = []
    for arm in comparison.arms:
        steps, found = arm.curve(name)
        colour, style = colour_of(comparison, arm)
        lines.append(Line(arm.name, steps, [interval.mean for interval in found], colour, style))
        if found and all(map(_known, found)):
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


def _known(interval: Interval) -> bool:
    return math.isfinite(interval.high - interval.low)


# What a reader compares arms by: name in metrics.json, title, unit.
MEASURES = (
    ("excess/test", "Excess", "nats per token"),
    ("loss/test", "Loss", "nats per token"),
    ("floor/test", "Floor", "nats per token"),
    ("accuracy/test", "Tokens foretold", "share"),
    ("row_accuracy/test", "Rows foretold", "share"),
    ("language/validity", "Valid samples", "share"),
    ("language/coverage", "Coverage", "share of the language"),
    ("language/perplexity/ratio", "Perplexity ratio", "invalid over valid"),
    ("language/perplexity/gap", "Perplexity gap", "invalid less valid"),
    ("language/completion", "Decision points", "share passed"),
)
_DRAWN = (  # the first three that there are
    "language/validity", "excess/test", "row_accuracy/test", "loss/test", "language/perplexity/ratio", "accuracy/test",
)  # fmt: skip


def measures_of(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """The measures; where text was read, loss and accuracy are those of held-out natural text, and named so."""
    if not comparison.config.get("canonical"):
        return MEASURES
    words = {"loss/test": "Loss on natural text", "accuracy/test": "Tokens of natural text foretold"}
    return tuple((name, words.get(name, title), unit) for name, title, unit in MEASURES)


def comparison_sections(comparison: Comparison) -> list[str]:
    """What was run, the table and the figure of all arms, differences between arms, and the settings."""
    return [
        "# Pretraining: " + ("arms compared" if len(comparison.arms) > 1 else "one way of training, several seeds"),
        "## What was run",
        _opening(comparison),
        *_unfinished(comparison),
        *_arms(comparison),
        *copied_sections({arm.label: list(arm.runs.values()) for arm in comparison.arms}),
        "## Result",
        _result(comparison),
        *_lacking(comparison),
        _meaning(comparison),
        *_figure(comparison),
        *_differences(comparison),
        *_groups(comparison),
        *_notes(comparison),
    ]


def _opening(comparison: Comparison) -> str:
    run = next(iter(comparison.arms[0].runs.values()))
    config = comparison.config
    seeds = sorted({seed for arm in comparison.arms for seed in arm.runs})
    facts = ["Recipe: `recipes/pretrain.py`"]
    facts += [f"Task: {settings_of_task(config)}"] if config.get("task") else []
    facts += [f"Natural text: {code(str(config['canonical']))}"] if config.get("canonical") else []
    facts += model_facts(run)
    facts += [f"Rows seen by a run: {number(run.metrics.get('rows/trained'))} in {number(run.log['steps'])} steps"]
    if len(comparison.arms) > 1:
        facts[-1] += " (the first; arms may differ)"
        names = listed([code(arm.name) for arm in comparison.arms])
        facts.append(f"Arms: {names}; they differ in what the next table says and in nothing else")
    facts += [f"Seeds: {listed([str(seed) for seed in seeds])}; they change the model and its training, not the rows"]
    if "seconds/total" in comparison.metrics:
        facts.append(f"Wall time since the last start: {duration(comparison.metrics['seconds/total'])}")
    return "\n".join(f"- {fact}" for fact in facts)


def _unfinished(comparison: Comparison) -> list[str]:
    if not comparison.missing:
        return []
    names = listed([code(name) for name in comparison.missing])
    return [f"> Not finished, so not in this report: {names}. The command that began them goes on with what is left."]


def _arms(comparison: Comparison) -> list[str]:
    if not any(arm.values for arm in comparison.arms):
        return []
    rows = [
        [code(arm.name), ", ".join(code(f"{name}={value}") for name, value in arm.values.items()) or "as configured"]
        for arm in comparison.arms
    ]
    return [table(["arm", "what it differs in"], rows, text_columns=2)]


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
                lines.append(f"> - {code(arm.label)}, seed {seed}: {listed(titles)}")
    if not lines:
        return []
    text = "> Without a finite value, and so left out of the mean; a run whose loss grew beyond all numbers has none:"
    return ["\n".join([text, ">", *lines])]


def _meaning(comparison: Comparison) -> str:
    some = " Arms have different numbers of seeds." if len({len(arm.runs) for arm in comparison.arms}) > 1 else ""
    if all(len(arm.runs) == 1 for arm in comparison.arms):
        return f"{_floor(comparison)}One seed of each arm, so there is no interval.\n\n> {trial(comparison.config)}"
    return _floor(comparison) + (
        "Means over training seeds; in brackets Student's 95 % interval over seeds, none where there is one "
        "seed, and cut at 0 and 1 for shares. "
        f"All runs are measured on the same test rows.{some}\n\n> {trial(comparison.config, comparison.seeds)}"
    )


def _floor(comparison: Comparison) -> str:
    """The floor, where it is one and the same."""
    floors = {run.metrics.get("floor/test") for arm in comparison.arms for run in arm.runs.values()}
    if len(floors) > 1 or None in floors:
        return ""
    return f"No predictor can lose less than {floors.pop():.4f} nats per token on the test rows: the exact floor. "


def _figure(comparison: Comparison) -> list[str]:
    known = {measure[0]: measure for measure in _measures(comparison)}
    shown = [known[name] for name in _DRAWN if name in known][:3]
    if not shown:
        return []
    save(arms_figure(comparison, shown), comparison.folder, "arms")
    text = (
        "Above: diamonds are means, lines 95 % intervals over seeds, dots single seeds. "
        "Below: means over seeds at each look, with the interval as a band; the floor there is that of the validation "
        "rows."
    )
    return [text, picture("arms", "results by arm, and validation over training steps")]


def _differences(comparison: Comparison) -> list[str]:
    """Each arm less the first, paired by seed."""
    measures = [measure for measure in _measures(comparison) if measure[0] != "floor/test"][:4]
    others = comparison.arms[1:]
    found = [[comparison.difference(arm, name) for name, _, _ in measures] for arm in others]
    if not any(interval for line in found for interval in line):
        return []
    rows = [[code(arm.name), *map(spread, line)] for arm, line in zip(others, found, strict=True)]
    text = (
        f"Each arm less {code(comparison.arms[0].name)}, seed by seed, with the 95 % interval of the mean difference. "
        "An interval that holds 0 shows no difference. The intervals are not corrected for how many there are."
    )
    return ["## Differences", text, table(["arm", *(title.lower() for _, title, _ in measures)], rows)]


def _groups(comparison: Comparison) -> list[str]:
    """Accuracy by group of rows and arm."""
    prefix = "row_accuracy/test/"
    runs = [run.metrics for arm in comparison.arms for run in arm.runs.values()]
    names = in_order({name.removeprefix(prefix) for run in runs for name in run if name.startswith(prefix)})
    if not names:
        return []
    rows = [[escaped(name), *(spread(arm.interval(prefix + name)) for arm in comparison.arms)] for name in names]
    text = "Rows with all tokens foretold, share, with the interval over seeds."
    return ["## By group of rows", text, table(["group", *(code(arm.label) for arm in comparison.arms)], rows)]


def _notes(comparison: Comparison) -> list[str]:
    settings = essentials(comparison.config)
    names = {"arms": comparison.config.get("arms"), "seeds": comparison.config.get("seeds")}
    settings = {name: value for name, value in names.items() if value} | settings
    places = listed([code(f"{arm.name}/" if arm.name else "seed-*/") for arm in comparison.arms])
    return [
        "## Notes",
        *settings_block(settings),
        *again("pretrain"),
        f"Models, dynamics and numbers of single runs are in {places}; `hf-synth report FOLDER` writes the report of "
        "one.",
    ]
