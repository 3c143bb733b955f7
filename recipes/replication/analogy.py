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
    LEAST_FOR_INTERVAL,
    Claim,
    mean_claim,
    over_units,
    sample_size_note,
    seed_by_seed,
    share_claim,
    share_over_units,
    with_interval,
)
from replication.records import Record, by_arm

_HELD_OUT = "validation_accuracy/ood_analogical"
_ENERGY = "geometry/dirichlet_energy"
_GEOMETRY = {name: said for name, said in GEOMETRY.items() if name != "distortion"}  # those that were published
_LADDER = ("id_atomic", "near_ood_compositional", "id_analogical", "ood_analogical")
_LEARNED = 0.9  # of a fact type: memorised, composed, analogised
_SHOWN = ("base", "decay", "rate-1e-3")
_AGAINST = ("control", "rate-1e-3", "rate-1e-2", "decay", "two-layers")


def analogy_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str | list[Claim]]:
    """Show which arms learn held-out analogies and lose them again, in which order facts are learned, and geometry."""
    arms, name = by_arm(records), Path(str(config["output_dir"])).name
    guess = 1 / int(config["task_args"].get("sub_size", 5))
    _figures(arms, folder, name, guess)
    steps = int(config["max_steps"])
    return [
        _in_short(arms),
        sample_size_note([*map(len, arms.values())], "graphs") + (" That `base` is the better one of its pair with "
        "`control` was fixed after the runs; the test has two sides." if "control" in arms else ""),
        f"Each run takes {steps:,} steps, {steps / _epoch(config, records[0]):,.0f} epochs, and is evaluated every "
        f"{config['eval_steps']} steps. All right: all held-out analogies of a graph at once. Lost: not all right at "
        "the last evaluation.",
        table(["arm", "graphs", "evaluations with all right", "mean accuracy", "at the end",
               "most graphs with all right at once", "graphs with all right at some evaluation", "of these lost"],
              [[arm, str(len(runs)), *_held_out_fates(runs)] for arm, runs in arms.items()]),
        [_against(arm, arms, config) for arm in _AGAINST if arm in arms],
        "![Accuracy on held-out analogies on validation rows over steps: mean over graphs, bands of 95 %]"
        f"(reproduction/figures/{name}.png)",
        "When each fact type is learned: the first evaluation with an accuracy of at least "
        f"{_LEARNED:g}, as the median step over the graphs that reach it. The published order is memorise "
        "(id_atomic), then compose (near_ood_compositional), then analogise (ood_analogical). What is learned between "
        "two evaluations is a tie and counts as in order. The id_ types are in training, the others are held out. The "
        "Dirichlet energy is that before training and at the end.",
        table(["arm", "memorised at", "composed at", "trained analogies at", "analogised at",
               "graphs in that order", "energy before", "energy at the end"],
              [[arm, *_order(runs), *_energies(runs)] for arm, runs in arms.items()]),
        _published(arms.get("base", [])),
        "![Accuracy by fact type over steps, three arms: mean over graphs, bands of 95 %]"
        f"(reproduction/figures/{name}_types.png)",
        "The embeddings of entities e and of their images f(e) over training:",
        table(["measure", "what it is", "an analogy has", "random ones have"],
              [[title, what, analogy, random] for title, _, what, analogy, random in _GEOMETRY.values()],
              text_columns=4),
        "![Geometry of the embeddings over steps, three arms: mean over graphs, bands of 95 %]"
        f"(reproduction/figures/{name}_geometry.png)",
    ]  # fmt: skip


def _in_short(arms: Mapping[str, Sequence[Record]]) -> str:
    """Say of the arms that are drawn how many graphs have all held-out analogies right, and how many keep them."""
    fates = [f"with `{arm}` {_at_once(arms[arm])}" for arm in (*_SHOWN, "control") if arm in arms]
    energy = list(_curves(arms.get("base", []), _ENERGY).values())
    fallen = sum(values[-1] < values[0] for values in energy)
    return (
        "**In short.** The most graphs that have all held-out analogies right at the same evaluation: "
        f"{'; '.join(fates)}. The Dirichlet energy of `base` falls on {fallen} of {len(energy)} graphs."
    )


def _curves(runs: Sequence[Record], column: str = _HELD_OUT) -> dict[int, np.ndarray]:
    """Return a column at each evaluation by graph; a graph's sample of rows may have none of a fact type."""
    curves_ = {run.seed: np.array(run.curve(column)[1]) for run in runs}
    return {seed: values for seed, values in curves_.items() if len(values)}


def _fates(runs: Sequence[Record]) -> tuple[int, int]:
    """Count the graphs with all held-out analogies right at some evaluation, and those of them without at the end."""
    learned = [values for values in _curves(runs).values() if values.max() == 1]
    return len(learned), sum(values[-1] < 1 for values in learned)


def _at_once(runs: Sequence[Record]) -> str:
    """Say on how many graphs at the same evaluation all held-out analogies are right, at most and at the end."""
    curves_ = [(steps, np.equal(values, 1)) for run in runs for steps, values in [run.curve(_HELD_OUT)] if values]
    right = np.sum([values for _, values in curves_], axis=0) if curves_ else np.zeros(1, int)
    when = f" (step {curves_[0][0][right.argmax()]:,.0f})" if right.max() else ""
    return f"{right.max()} of {len(runs)}{when}, at the end {right[-1]}"


def _held_out_fates(runs: Sequence[Record]) -> list[str]:
    every, (learned, lost) = list(_curves(runs).values()), _fates(runs)
    numbers = [[np.mean(values == 1), values.mean(), values[-1]] for values in every]
    return [*map(share_over_units, np.transpose(numbers)), _at_once(runs), _share(learned, len(runs)),
            _share(lost, learned) if learned else MISSING] if every else [MISSING] * 6  # fmt: skip


def _against(arm: str, arms: Mapping[str, Sequence[Record]], config: Mapping[str, Any]) -> Claim:
    """Return the claim that an arm does better than `base`, graph by graph, in the study's primary measure.

    Of `control`, which nothing tells the held-out facts, that `base` does better than it.
    """
    several = "num_entities" in config["task_args"]  # of more than two held-out facts all are rarely right at once
    better, worse = ("base", arm) if arm == "control" else (arm, "base")
    first, second = (
        {seed: float(np.mean(values if several else values == 1)) for seed, values in _curves(runs).items()}
        for runs in (arms.get(better, []), arms.get(worse, []))
    )
    what = "mean accuracy on held-out analogies" if several else "fraction of evaluations with all right"
    smallest = 0.1 if several else 0.05  # as the configs say, written before the runs
    claim = f"`{better}` has {'a higher accuracy' if several else 'all right more often'} than `{worse}`"
    paired = seed_by_seed(first, second)
    shows = f"{what}, {better} minus {worse}; minimum effect {smallest:g}"
    return dataclasses.replace(mean_claim(claim, shows, paired), own=True, smallest_effect=smallest)


def _published(runs: Sequence[Record]) -> list[Claim]:
    """Return what was published of one graph, as fractions of the graphs, and the fall of the Dirichlet energy."""
    ordered, (learned, lost), count = int(_in_order(_when(runs)).sum()), _fates(runs), len(runs)
    claimed = [("first memorise, then compose, then analogise", ordered, count),
               ("all held-out analogies are right at some evaluation", learned, count),
               ("and are lost again by the end", lost, learned)]  # fmt: skip
    shows = "fraction of graphs, wanted above one half"
    shares = [share_claim(claim, shows, hits, of) for claim, hits, of in claimed if of]
    falls = [values[0] - values[-1] for values in _curves(runs, _ENERGY).values()]
    return [
        *shares,
        mean_claim("the Dirichlet energy falls", "energy before training minus at the end", falls, digits=2),
    ]


def _epoch(config: Mapping[str, Any], record: Record) -> float:
    """Return the steps in which all training facts are read once."""
    args = filled_in(config.get("task_args") or {}, {"seed": record.seed})
    facts = get_task(config["task"], config.get("preset"), **args).size("train") or 0
    return facts / float(config["per_device_train_batch_size"])


def _learned_at(run: Record, kind: str) -> float:
    """Return the first step at which a fact type was learned; infinity where none was."""
    steps, values = run.curve(f"validation_accuracy/{kind}")
    return next((float(step) for step, value in zip(steps, values, strict=True) if value >= _LEARNED), np.inf)


def _when(runs: Sequence[Record]) -> np.ndarray:
    """Return the step at which each of _LADDER was learned, float [graphs, kinds]; infinity where it never was."""
    return np.array([[_learned_at(run, kind) for kind in _LADDER] for run in runs]).reshape(-1, len(_LADDER))


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


def _energies(runs: Sequence[Record]) -> list[str]:
    ends = [(values[0], values[-1]) for values in _curves(runs, _ENERGY).values()]
    return [over_units(values, 2) for values in zip(*ends, strict=True)] or [MISSING] * 2


def _share(hits: int, count: int) -> str:
    return f"{hits} of {count} ({with_interval(wilson_interval(hits, count), 2)})"


def _figures(arms: Mapping[str, Sequence[Record]], folder: Path, name: str, guess: float) -> None:
    """Draw held-out analogies by arm; then fact types and geometry of `base` and two that learn more."""
    panels = [Panel(arm, "fraction right", [_line(runs, _HELD_OUT, arm, COLOURS[0])], (guess, "guess"))
              for arm, runs in arms.items()]  # fmt: skip
    _save_fractions(panels, folder, name)
    shown = {arm: arms[arm] for arm in _SHOWN if arm in arms}
    panels = [Panel(arm, "accuracy", [_line(runs, f"validation_accuracy/{kind}", kind, colour)
                                      for kind, colour in zip(_LADDER, COLOURS, strict=False)])
              for arm, runs in shown.items()]  # fmt: skip
    _save_fractions(panels, folder, f"{name}_types")
    panels = [Panel(title, unit, [_line(runs, f"geometry/{kind}", arm, colour)
                                                for (arm, runs), colour in zip(shown.items(), COLOURS, strict=False)])
              for kind, (title, unit, *_) in _GEOMETRY.items()]  # fmt: skip
    save(curves(panels), folder, f"{name}_geometry")


def _save_fractions(panels: Sequence[Panel], folder: Path, name: str) -> None:
    if figure := curves(panels, share_y=True, log_x=True):
        figure.axes[0].set_ylim(-0.04, 1.04)  # the bands of a mean may reach beyond 0 and 1
    save(figure, folder, name)


def _line(runs: Sequence[Record], column: str, label: str, colour: str) -> Line:
    there = [curve for run in runs if (curve := run.curve(column))[1]]
    steps = there[0][0] if there else []
    intervals = [mean_interval(values) for values in zip(*(values for _, values in there), strict=False)]
    widths = [interval.high - interval.mean for interval in intervals]
    errors = widths if len(there) >= LEAST_FOR_INTERVAL else None
    return Line(label, steps[: len(intervals)], [interval.mean for interval in intervals], colour, error=errors)
