"""Procedural pretraining: the nine tasks by themselves, and what two of them hand on to four others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.metrics.intervals import mean_interval, paired_interval
from hf_synth.reports.figures import CLUSTER_COLOURS, Line, Panel, curves, save
from hf_synth.reports.reproduction.records import Record, by_arm
from hf_synth.reports.reproduction.words import over_units, standing, with_interval
from hf_synth.reports.words import table

_LEARNED = 0.99
_INITIALISATIONS = ("nothing", "set-attention", "eca-everything", "set-and-eca", "set-shuffled")
_PUBLISHED = {
    "nothing": (11.3, 59.1, 76.4, 82.7),
    "set-attention": (88.9, 81.1, 54.4, 98.1),
    "eca-everything": (10.5, 69.6, 91.0, 76.9),
    "set-and-eca": (94.4, 80.3, 82.9, 99.4),
}
_TARGETS = ("haystack", "addition", "reversed_addition", "sort")
_CLEARED = 0.3  # token accuracy of the model from nothing, for a comparison with it to count


def tasks_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str]:
    """Each task: how well it is learned, and after how many steps."""
    arms = by_arm(records)
    rows = [
        [task, over_units([run.metrics["accuracy/test"] for run in runs]),
         over_units([run.metrics["row_accuracy/test"] for run in runs]),
         over_units([run.metrics["floor/test"] for run in runs], 4),
         over_units([run.metrics["excess/test"] for run in runs], 4),
         ", ".join(_learned(run) for run in runs), f"{runs[0].metrics['steps']:.0f}"]
        for task, runs in arms.items()
    ]  # fmt: skip
    head = ["task", "token accuracy", "rows all right", "floor", "excess", f"steps to {_LEARNED:g}", "steps"]
    lines = [
        Line(task, *runs[0].curve("validation_accuracy"), CLUSTER_COLOURS[number % 8], "-" if number < 8 else "--")
        for number, (task, runs) in enumerate(arms.items())
    ]
    save(curves([Panel("Nine tasks", "token accuracy, validation", lines)]), folder, "procedural")
    return [
        standing(min(map(len, arms.values()))),
        table(head, rows),
        "Steps to 0.99: the first look at which token accuracy on validation rows was as high, that no rows of "
        "dyck and dyck_shuffle can be: there the excess over the floor says how much is learned.",
        "![Token accuracy over steps](reproduction/figures/procedural.png)",
    ]


def _learned(run: Record) -> str:
    steps, values = run.curve("validation_accuracy")
    return next((f"{step:,}" for step, value in zip(steps, values, strict=True) if value >= _LEARNED), "not reached")


def downstream_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str]:
    """Token accuracy by what the weights came from, and paired differences to weights from nothing."""
    arms = by_arm(records)
    seeds = min(map(len, arms.values()))
    rows = [[start, *(_cell(arms, target, start) for target in _TARGETS)] for start in _INITIALISATIONS]
    gains = [[start, *(_gain(arms, target, start) for target in _TARGETS)] for start in _INITIALISATIONS[1:]]
    control = ["set-attention", *(_gain(arms, target, "set-attention", "set-shuffled") for target in _TARGETS)]
    published = [[start, *(f"{value:.1f}" for value in values)] for start, values in _PUBLISHED.items()]
    weak = [target for target in _TARGETS if _mean(arms, target, "nothing") < _CLEARED]
    left_out = f" From nothing, {', '.join(weak)} stays below it, so no comparison there counts." if weak else ""
    _downstream_figure(arms, folder)
    return [
        standing(seeds),
        "Token accuracy in %:",
        table(["initialised from", *_TARGETS], rows),
        "Published (10 seeds, longer inputs, batch 1,000, 10,000 steps):",
        table(["initialised from", *_TARGETS], published),
        "Difference to nothing, in points, seed by seed:",
        table(["initialised from", *_TARGETS], gains),
        "Difference to the same weights with their entries shuffled: what their order does, and not their sizes:",
        table(["initialised from", *_TARGETS], [control]),
        f"A comparison counts where nothing reaches a token accuracy of {100 * _CLEARED:.0f} %.{left_out}",
        "![Token accuracy by initialisation](reproduction/figures/downstream.png)",
    ]


def _values(arms: Mapping[str, Sequence[Record]], target: str, start: str) -> list[float]:
    return [100 * run.metrics["accuracy/test"] for run in arms.get(f"{target}-{start}", [])]


def _mean(arms: Mapping[str, Sequence[Record]], target: str, start: str) -> float:
    return float(np.mean(_values(arms, target, start) or [np.nan])) / 100


def _cell(arms: Mapping[str, Sequence[Record]], target: str, start: str) -> str:
    values = _values(arms, target, start)
    return over_units(values, 1) if values else "-"


def _gain(arms: Mapping[str, Sequence[Record]], target: str, start: str, other: str = "nothing") -> str:
    first, second = (
        {run.seed: 100 * run.metrics["accuracy/test"] for run in arms.get(f"{target}-{name}", [])}
        for name in (start, other)
    )
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return "-"
    return with_interval(paired_interval([first[s] for s in shared], [second[s] for s in shared]), 1)


def _downstream_figure(arms: Mapping[str, Sequence[Record]], folder: Path) -> None:
    panels = []
    for target in _TARGETS:
        lines = []
        for start, colour in zip(_INITIALISATIONS, CLUSTER_COLOURS, strict=False):
            runs = arms.get(f"{target}-{start}", [])
            if not runs:
                continue
            steps = runs[0].curve("validation_accuracy")[0]
            found = [
                mean_interval(values)
                for values in zip(*(r.curve("validation_accuracy")[1] for r in runs), strict=True)
            ]
            error = None if len(runs) < 2 else [interval.high - interval.mean for interval in found]
            lines.append(Line(start, steps, [interval.mean for interval in found], colour, error=error))
        panels.append(Panel(target, "token accuracy", lines))
    save(curves(panels), folder, "downstream")
