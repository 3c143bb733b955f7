"""Emergent analogical reasoning: in which order fact types are learned, and whether analogies come and go."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.experiments.arms import filled_in
from hf_synth.metrics.intervals import mean_interval, wilson_interval
from hf_synth.reports.figures import COLOURS, Line, Panel, curves, save
from hf_synth.reports.pretraining import GEOMETRY
from hf_synth.reports.tables import MISSING, table
from hf_synth.tasks import get_task
from replication.claims import (
    Claim,
    mean_claim,
    sample_size_note,
    seed_by_seed,
    share_claim,
    share_over_units,
    with_interval,
)
from replication.records import Record, by_arm

_TYPES = ("id_atomic", "id_compositional", "near_ood_compositional", "id_analogical", "ood_analogical")
_NAME = "validation_accuracy/{}"
_GEOMETRY = {name: said for name, said in GEOMETRY.items() if name != "distortion"}  # those that were published
_LADDER = ("id_atomic", "near_ood_compositional", "id_analogical", "ood_analogical")
_LEARNED = 0.9  # of a fact type: memorised, composed, analogised


def analogy_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str | list[Claim]]:
    """Show accuracy by fact type over training, the order of what is learned, and what is lost again."""
    arms, name = by_arm(records), Path(str(config["output_dir"])).name
    _figure(arms, folder, name)
    steps = next(iter(arms.values()))[0].curve(_NAME.format("ood_analogical"))[0]
    shown = steps[:: max(1, len(steps) // 8)]
    return [
        sample_size_note(min(map(len, arms.values())), "graphs"),
        "Accuracy at the end, mean over graphs:",
        table(["weight decay", *_TYPES], [[_decay(arm), *_final(runs)] for arm, runs in arms.items()]),
        "The next table shows when each fact type is learned: the first evaluation with an accuracy of at least "
        f"{_LEARNED:g}, as the median step over the graphs that reach it. The published order is memorise "
        "(id_atomic), then compose (near_ood_compositional), then analogise (ood_analogical). Evaluations are "
        f"{config['eval_steps']} steps apart. Ties count as in order. Only the id_ types are in training.",
        table(["weight decay", *_HEAD], [[_decay(arm), *_order(runs)] for arm, runs in arms.items()]),
        "Held-out analogies by step, mean over graphs; an epoch is "
        f"{_epoch(config, records[0]):.3g} steps:",
        table(["weight decay", *(f"{step:,}" for step in shown)],
              [[_decay(arm), *_held_out(runs, shown)] for arm, runs in arms.items()]),
        "The highest accuracy on held-out analogies at any evaluation, the accuracy at the end, and how often it was "
        "lost:",
        table(["weight decay", "best", "end", "graphs that reached 0.5", "of these below 0.5 at the end"],
              [[_decay(arm), *_transience(runs)] for arm, runs in arms.items()]),
        [claim for arm, runs in arms.items() for claim in _claims(arm, runs)],
        f"![Accuracy by fact type over steps](reproduction/figures/{name}.png)",
        "The embeddings of entities e and of their images f(e) over training:",
        table(["measure", "what it is", "an analogy has", "random ones have"],
              [[title, what, analogy, random] for title, _, what, analogy, random in _GEOMETRY.values()],
              text_columns=4),
        f"![Geometry of the embeddings over steps](reproduction/figures/{name}_geometry.png)",
    ]  # fmt: skip


def transience_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str | list[Claim]]:
    """Show at which rates, depths and decays held-out analogies are learned, and lost again by the end."""
    arms, name = by_arm(records), Path(str(config["output_dir"])).name
    panels = [Panel(arm, "fraction right", [_line(runs, _NAME.format("ood_analogical"), arm, COLOURS[0])])
              for arm, runs in arms.items()]  # fmt: skip
    if figure := curves(panels, share_y=True):
        figure.axes[0].set_ylim(-0.04, 1.04)  # the bands of a mean may reach beyond 0 and 1
    save(figure, folder, name)
    steps, epoch = int(config["max_steps"]), _epoch(config, records[0])
    return [
        sample_size_note(min(len(arms[arm]) for arm in ("published", *_AGAINST) if arm in arms), "graphs"),
        f"Each run takes {steps:,} steps, {steps / epoch:,.0f} epochs, and is evaluated every {config['eval_steps']} "
        "steps. All right: all held-out analogies of a graph at once.",
        table(["arm", "graphs", "evaluations with all right", "mean accuracy", "best", "at the end",
               "graphs with all right at some evaluation", "of these not all right at the end"],
              [[arm, str(len(runs)), *_held_out_fates(runs)] for arm, runs in arms.items()]),
        [_against(arm, arms, config) for arm in _AGAINST if arm in arms],
        f"![Accuracy on held-out analogies over steps](reproduction/figures/{name}.png)",
    ]  # fmt: skip


_AGAINST = ("control", "rate-1e-3", "rate-1e-2", "decay", "two-layers")


def _held_out_curves(runs: Sequence[Record]) -> dict[int, np.ndarray]:
    """Return the accuracy on held-out analogies at each evaluation by graph; a sample of rows may have none."""
    curves_ = {run.seed: np.array(run.curve(_NAME.format("ood_analogical"))[1]) for run in runs}
    return {seed: values for seed, values in curves_.items() if len(values)}


def _held_out_fates(runs: Sequence[Record]) -> list[str]:
    every = list(_held_out_curves(runs).values())
    learned = [values for values in every if values.max() == 1]
    lost = sum(values[-1] < 1 for values in learned)
    numbers = [[np.mean(values == 1), values.mean(), values.max(), values[-1]] for values in every]
    return [*map(share_over_units, np.transpose(numbers)), _share(len(learned), len(runs)),
            _share(lost, len(learned)) if learned else MISSING] if every else [MISSING] * 6  # fmt: skip


def _against(arm: str, arms: Mapping[str, Sequence[Record]], config: Mapping[str, Any]) -> Claim:
    """Return the claim that an arm does better than `published`, graph by graph, in the study's primary measure."""
    several = "num_entities" in config["task_args"]  # of more than two held-out facts all are rarely right at once
    own, published = (
        {seed: float(np.mean(values if several else values == 1)) for seed, values in _held_out_curves(runs).items()}
        for runs in (arms[arm], arms["published"])
    )
    what = "mean accuracy on held-out analogies" if several else "fraction of evaluations with both right"
    smallest = 0.1 if several else 0.05  # as the configs say, written before the runs
    claim = f"`{arm}` has {'a higher accuracy' if several else 'both right more often'} than `published`"
    paired = seed_by_seed(own, published)
    shows = f"{what}, {arm} minus published; minimum effect {smallest:g}"
    return dataclasses.replace(mean_claim(claim, shows, paired), own=True, smallest_effect=smallest)


_HEAD = ("memorised at", "composed at", "trained analogies at", "analogised at", "graphs in that order")


def _epoch(config: Mapping[str, Any], record: Record) -> float:
    """Return the steps in which all training facts are read once."""
    args = filled_in(config.get("task_args") or {}, {"seed": record.seed})
    facts = get_task(config["task"], config.get("preset"), **args).size("train") or 0
    return facts / float(config["per_device_train_batch_size"])


def _held_out(runs: Sequence[Record], steps: Sequence[int]) -> list[str]:
    """Return the accuracy on held-out analogies at each of the steps, over the graphs evaluated then."""
    curves_ = [dict(zip(*run.curve(_NAME.format("ood_analogical")), strict=True)) for run in runs]
    at = [[curve[step] for curve in curves_ if step in curve] for step in steps]
    return [share_over_units(values) if values else MISSING for values in at]


def _claims(arm: str, runs: Sequence[Record]) -> list[Claim]:
    """Return what was published of one graph, as fractions of the graphs, and the fall of the Dirichlet energy."""
    ordered, (reached, lost) = int(_in_order(_when(runs)).sum()), _fates(runs)
    decay, count = f"weight decay {_decay(arm)}", len(runs)
    claimed = [("first memorise, then compose, then analogise", ordered, count),
             ("held-out analogies reach 0.5", reached, count),
             ("and are lost again by the end", lost, reached)]  # fmt: skip
    shares = [
        share_claim(claim, f"fraction of graphs, wanted above one half; {decay}", hits, of)
        for claim, hits, of in claimed
        if of
    ]
    falls = [values[0] - values[-1] for run in runs if (values := run.curve("geometry/dirichlet_energy")[1])]
    shows = f"Dirichlet energy at the first evaluation minus at the last, {decay}"
    return [*shares, *([mean_claim("the Dirichlet energy falls", shows, falls, digits=2)] if falls else [])]


def _decay(arm: str) -> str:
    return arm.removeprefix("decay-")


def _final(runs: Sequence[Record]) -> list[str]:
    accuracies = [[run.curve(_NAME.format(kind))[1] for run in runs] for kind in _TYPES]
    ends = [[values[-1] for values in of_kind if values] for of_kind in accuracies]  # a sample of rows may have none
    return [share_over_units(of_kind) if of_kind else MISSING for of_kind in ends]


def _learned_at(run: Record, kind: str) -> float:
    """Return the first step at which a fact type was learned; infinity where none was."""
    steps, values = run.curve(_NAME.format(kind))
    return next((float(step) for step, value in zip(steps, values, strict=True) if value >= _LEARNED), np.inf)


def _when(runs: Sequence[Record]) -> np.ndarray:
    """Return the step at which each of _LADDER was learned, float [graphs, kinds]; infinity where it never was."""
    return np.array([[_learned_at(run, kind) for kind in _LADDER] for run in runs])


def _in_order(at: np.ndarray) -> np.ndarray:
    """Tell whether all but the trained analogies were learned, none before the one listed before it."""
    steps = np.delete(at, _LADDER.index("id_analogical"), axis=1)
    return np.isfinite(steps).all(axis=1) & (np.diff(np.nan_to_num(steps, posinf=1e18), axis=1) >= 0).all(axis=1)


def _order(runs: Sequence[Record]) -> list[str]:
    at = _when(runs)
    return [*(_median(column) for column in at.T), _share(int(_in_order(at).sum()), len(runs))]


def _median(steps: np.ndarray) -> str:
    reached = steps[np.isfinite(steps)]
    when = f"{np.median(reached):.0f}" if len(reached) else "never"
    return f"{when} ({len(reached)} of {len(steps)})"


def _fates(runs: Sequence[Record]) -> tuple[int, int]:
    """Count the graphs where held-out analogies reached 0.5, and those of them where they ended below it."""
    reached = [values for values in _held_out_curves(runs).values() if values.max() >= 0.5]
    return len(reached), sum(values[-1] < 0.5 for values in reached)


def _transience(runs: Sequence[Record]) -> list[str]:
    ends = [[values.max(), values[-1]] for values in _held_out_curves(runs).values()]
    reached, lost = _fates(runs)
    return [*map(share_over_units, np.transpose(ends)), _share(reached, len(runs)),
            _share(lost, reached) if reached else MISSING] if ends else [MISSING] * 4  # fmt: skip


def _share(hits: int, count: int) -> str:
    return f"{hits} of {count} ({with_interval(wilson_interval(hits, count), 2)})"


def _figure(arms: Mapping[str, Sequence[Record]], folder: Path, name: str) -> None:
    panels = []
    for arm, runs in arms.items():
        lines = [_line(runs, _NAME.format(kind), kind, COLOURS[index]) for index, kind in enumerate(_TYPES)]
        panels.append(Panel(f"Weight decay {_decay(arm)}", "accuracy", lines))
    save(curves(panels, share_y=True), folder, name)
    panels = [
        Panel(title, "mean over graphs", [
            _line(runs, f"geometry/{kind}", f"decay {_decay(arm)}", colour)
            for (arm, runs), colour in zip(arms.items(), COLOURS, strict=False)
        ]) for kind, (title, *_) in _GEOMETRY.items()
    ]  # fmt: skip
    save(curves(panels), folder, f"{name}_geometry")


def _line(runs: Sequence[Record], column: str, label: str, colour: str) -> Line:
    there = [curve for run in runs if (curve := run.curve(column))[1]]
    steps = there[0][0] if there else []
    intervals = [mean_interval(values) for values in zip(*(values for _, values in there), strict=False)]
    widths = [interval.high - interval.mean for interval in intervals]
    errors = widths if all(np.isfinite(widths)) else None
    return Line(label, steps[: len(intervals)], [interval.mean for interval in intervals], colour, error=errors)
