"""Emergent analogical reasoning: in which order fact types are learned, and whether analogies come and go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.metrics.intervals import mean_interval, wilson_interval
from hf_synth.reports.figures import CLUSTER_COLOURS, Line, Panel, curves, save
from hf_synth.reports.reproduction.records import Record, by_arm
from hf_synth.reports.reproduction.words import share_over_units, standing, with_interval
from hf_synth.reports.words import table

_TYPES = ("id_atomic", "id_compositional", "near_ood_compositional", "id_analogical", "ood_analogical")
_NAME = "validation_accuracy/{}"
_LEARNED = 0.9  # of a fact type: memorised, composed, analogised


def analogy_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str]:
    """Accuracy by fact type over training, the order of what is learned, and what is lost again."""
    arms, name = by_arm(records), Path(str(config["output_dir"])).name
    _figure(arms, folder, name)
    graphs = min(len(runs) for runs in arms.values())
    return [
        standing(graphs, "graphs"),
        "Accuracy at the end, mean over graphs:",
        table(["weight decay", *_TYPES], [[_decay(arm), *_final(runs)] for arm, runs in arms.items()]),
        "When, and in which order. A fact type counts as learned at the first look at which its accuracy is at least "
        f"{_LEARNED:g} (steps, median over the graphs in which it was); the order asked for is memorise (id_atomic), "
        "then compose (near_ood_compositional), then analogise (ood_analogical), none before the one before it:",
        table(["weight decay", *_HEAD], [[_decay(arm), *_order(runs)] for arm, runs in arms.items()]),
        "Held-out analogies over training: the highest accuracy at any look, at the end, and how often it was lost:",
        table(["weight decay", "best look", "end", "graphs that reached 0.5", "of these below 0.5 at the end"],
              [[_decay(arm), *_transience(runs)] for arm, runs in arms.items()]),
        f"![Accuracy by fact type over steps](reproduction/figures/{name}.png)",
        "The embeddings over training (2 is the Dirichlet energy of random ones):",
        f"![Geometry of the embeddings over steps](reproduction/figures/{name}_geometry.png)",
    ]  # fmt: skip


_HEAD = ("memorised at", "composed at", "analogised at", "graphs in that order")


def _decay(arm: str) -> str:
    return arm.removeprefix("decay-")


def _final(runs: Sequence[Record]) -> list[str]:
    found = [[run.curve(_NAME.format(kind))[1] for run in runs] for kind in _TYPES]
    ends = [[values[-1] for values in of_kind if values] for of_kind in found]  # a sample of rows may have none
    return [share_over_units(of_kind) if of_kind else "-" for of_kind in ends]


def _learned_at(run: Record, kind: str) -> float:
    """The first step at which a fact type was learned; infinity where none was."""
    steps, values = run.curve(_NAME.format(kind))
    return next((float(step) for step, value in zip(steps, values, strict=True) if value >= _LEARNED), np.inf)


def _order(runs: Sequence[Record]) -> list[str]:
    kinds = ("id_atomic", "near_ood_compositional", "ood_analogical")
    at = np.array([[_learned_at(run, kind) for kind in kinds] for run in runs])
    medians = [_median(at[:, number]) for number in range(len(kinds))]
    ordered = (np.isfinite(at).all(axis=1) & (np.diff(np.nan_to_num(at, posinf=1e18), axis=1) >= 0).all(axis=1)).sum()
    return [*medians, _share(int(ordered), len(runs))]


def _median(steps: np.ndarray) -> str:
    reached = steps[np.isfinite(steps)]
    when = f"{np.median(reached):.0f}" if len(reached) else "never"
    return f"{when} ({len(reached)} of {len(steps)})"


def _transience(runs: Sequence[Record]) -> list[str]:
    curves_ = [run.curve(_NAME.format("ood_analogical"))[1] for run in runs]
    reached = [values for values in curves_ if max(values) >= 0.5]
    lost = sum(values[-1] < 0.5 for values in reached)
    best, last = [max(values) for values in curves_], [values[-1] for values in curves_]
    found = [share_over_units(best), share_over_units(last), _share(len(reached), len(runs))]
    return [*found, _share(lost, len(reached)) if reached else "-"]


def _share(hits: int, count: int) -> str:
    return f"{hits} of {count} ({with_interval(wilson_interval(hits, count), 2)})"


def _figure(arms: Mapping[str, Sequence[Record]], folder: Path, name: str) -> None:
    panels = []
    for arm, runs in arms.items():
        coloured = zip(_TYPES, CLUSTER_COLOURS, strict=False)
        lines = [_line(runs, _NAME.format(kind), kind, colour) for kind, colour in coloured]
        panels.append(Panel(f"Weight decay {_decay(arm)}", "accuracy", lines))
    save(curves(panels, share_y=True), folder, name)
    kinds = {"dirichlet_energy": "Dirichlet energy", "parallelogram": "Parallelogram", "isometry": "Isometry"}
    panels = [
        Panel(title, "mean over graphs", [
            _line(runs, f"geometry/{kind}", f"decay {_decay(arm)}", colour)
            for (arm, runs), colour in zip(arms.items(), CLUSTER_COLOURS, strict=False)
        ]) for kind, title in kinds.items()
    ]  # fmt: skip
    save(curves(panels), folder, f"{name}_geometry")


def _line(runs: Sequence[Record], column: str, label: str, colour: str) -> Line:
    there = [curve for run in runs if (curve := run.curve(column))[1]]
    steps = there[0][0] if there else []
    found = [mean_interval(values) for values in zip(*(values for _, values in there), strict=False)]
    errors = [interval.high - interval.mean for interval in found]
    error = errors if all(np.isfinite(errors)) else None
    return Line(label, steps[: len(found)], [interval.mean for interval in found], colour, error=error)
