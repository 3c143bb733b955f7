"""Sections of a pretraining run that only some have: its curriculum, what was handed on to it, and its geometry."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hf_synth.reports.dynamics_figures import GEOMETRY, curriculum_figure, geometry_figure
from hf_synth.reports.figures import save
from hf_synth.reports.opening import short_path
from hf_synth.reports.run import Arm, Run
from hf_synth.reports.words import MISSING, code, escaped, listed, number, percent, picture, score, table
from hf_synth.training.run_directory import TRANSFER


def curriculum_sections(run: Run) -> list[str]:
    """The stages: when each began, and what mastered the one before."""
    name = run.config.get("curriculum_field")
    if not name:
        return []
    begun = stages(run)
    last_step = int(run.arms[0].log["steps"])
    rows = [[number(value), number(step), score(mastery)] for value, step, mastery in begun]
    figure = curriculum_figure(name, [(step, value) for value, step, _ in begun], last_step, run)
    save(figure, run.folder, "curriculum")
    final = (run.config.get("task_args") or {}).get(name)
    missed = final is not None and begun[-1][0] < final
    short = f" The last stage, {final}, was not reached." if missed else ""
    text = (
        f"{code(str(name))} grows by {run.config.get('curriculum_step')} whenever token accuracy on fresh validation "
        f"rows reaches {run.config.get('curriculum_threshold')}.{short}"
    )
    header = [escaped(str(name)), "first step", "accuracy that mastered the one before"]
    return ["## Curriculum", text, table(header, rows), picture("curriculum", "stages and checks over training steps")]


def stages(run: Run) -> list[tuple[float, float, float | None]]:
    """Of each stage the value of its field, its first step, and the accuracy of the check that began it."""
    config, arm = run.config, run.arms[0]
    rows_per_step = run.metrics.get("rows/trained", 0) / max(1, arm.log["steps"]) or 1.0
    final = (config.get("task_args") or {}).get(config["curriculum_field"])
    found: list[tuple[float, float, float | None]] = [(config["curriculum_start"], 0, None)]
    for entry in arm.log["history"]:
        if "curriculum/next_stage" in entry:
            value = config["curriculum_start"] + entry["curriculum/next_stage"] * config["curriculum_step"]
            value = value if final is None else min(final, value)
            found.append((value, entry["curriculum/first_row"] / rows_per_step, entry["curriculum/accuracy"]))
    return found


def read_transfer(run: Run | Arm) -> dict[str, Any] | None:
    """What was copied, as the run wrote it down."""
    path = run.folder / TRANSFER
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def transfer_sections(run: Run) -> list[str]:
    """What was copied from where, and what was trained."""
    report = read_transfer(run)
    if report is None:
        return []
    rows = [_part_cells(part, report["embeddings"]) for part in report["parts"]]
    found = ["## Transfer", transfer_text(report), table(_PART, rows, text_columns=2), _CHANGE]
    if report["notes"]:
        found.append("\n".join(f"- {note}" for note in _notes(report)))
    return found


_PART = ("part", "from", "tensors copied", "parameters copied", "rows of tokens", "change")
_CHANGE = "Change: the norm of what moved over the norm of the fresh weights; 0 where a part stayed fresh."


def copied_sections(arms: Mapping[str, Sequence[Arm]]) -> list[str]:
    """What a checkpoint handed on to each arm, counted; nothing where none did. arms: the runs of each by name."""
    reports = {name: [report for run in runs if (report := read_transfer(run))] for name, runs in arms.items()}
    if not any(reports.values()):
        return []
    rows = [[code(name), *cells] for name, found in reports.items() for cells in _copied(found)]
    lines = [
        f"- {code(name)}: {fact}"
        for name, found in reports.items()
        for fact in ([*_trained(found[0]), *_notes(found[0])] if found else [])
    ]
    text = (
        "What was copied from checkpoints before training; all other weights began fresh. Where seeds differ, the "
        "first's and the last's are given."
    )
    facts = ["\n".join(lines)] if lines else []
    return ["### What was copied", text, table(["arm", *_PART], rows, text_columns=3), _CHANGE, *facts]


def _copied(reports: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line for each part that was copied in an arm, over its seeds."""
    parts: dict[str, list[list[str]]] = {}
    for report in reports:
        for part in report["parts"]:
            if part["parameters"]:
                parts.setdefault(part["part"], []).append(_part_cells(part, report["embeddings"]))
    lines = [[_over_seeds(cells) for cells in zip(*found, strict=True)] for found in parts.values()]
    return lines or [["nothing", *[MISSING] * (len(_PART) - 1)]]


def _over_seeds(cells: Sequence[str]) -> str:
    """What all seeds have, or what the first and the last have."""
    return cells[0] if len(set(cells)) == 1 else f"{cells[0]} ... {cells[-1]}"


def transfer_text(report: dict[str, Any]) -> str:
    """In one or two sentences: which parts came from a checkpoint, and which train."""
    copied = [part["part"] for part in report["parts"] if part["parameters"]]
    text = f"Copied from a checkpoint: {listed(copied)}." if copied else "Nothing was copied."
    return " ".join([text, *(_trained(report) or ["All weights trained."])])


def _trained(report: dict[str, Any]) -> list[str]:
    """Which parts train, where others are frozen."""
    trained = report.get("trained")
    if not trained:
        return []
    many, few = trained["trained_parameters"], trained["frozen_parameters"]
    parts = listed([escaped(str(part)) for part in trained["parts"]])
    return [f"Trained: {parts}, {percent(many / max(1, many + few))} of the parameters; the rest is frozen."]


def _notes(report: dict[str, Any]) -> list[str]:
    return [escaped(note, 400) for note in report["notes"]]


def _part_cells(part: dict[str, Any], embeddings: str) -> list[str]:
    """A part of the model as a line of `_PART`; `embeddings`: how rows of tokens were found."""
    return [
        escaped(part["part"]),
        _source(part, embeddings),
        f"{number(part['tensors'])} of {number(part['of_tensors'])}",
        f"{number(part['parameters'])} of {number(part['of_parameters'])}",
        MISSING if part["rows"] is None else f"{number(part['rows'])} of {number(part['of_rows'])}",
        MISSING if part["change"] is None else f"{part['change']:.3f}",
    ]


def _source(part: dict[str, Any], embeddings: str) -> str:
    if part["source"] is None:
        return "fresh"
    how = f", {code(embeddings)}" if part["part"] in ("embeddings", "head") else ""
    return code(short_path(part["source"])) + how + (", shuffled" if part["shuffled"] else "")


def geometry_sections(run: Run) -> list[str]:
    """How the embeddings of an analogy's entities lie, over the steps."""
    if (figure := geometry_figure(run)) is None:
        return []
    save(figure, run.folder, "geometry")
    text = (
        "How the embeddings of entities e lie to those of their images f(e) under the functor, and to one another. "
        "Random embeddings have those values on average; those of few entities stray from them."
    )
    return [
        "## Geometry of the embeddings",
        text,
        picture("geometry", "measures of geometry over training steps"),
        _geometry_table(run.arms[0]),
    ]


def _geometry_table(arm: Arm) -> str:
    """What each measure is, what to hold it against, and its values at the first and the last look."""
    rows = []
    for name, (title, _, what, analogy, random) in GEOMETRY.items():
        steps, values = arm.series(f"geometry/{name}")
        if steps:
            ends = [f"{values[at]:.3f} (step {number(steps[at])})" for at in (0, -1)]
            rows.append([title, what, analogy, random, *ends])
    header = ["measure", "what it is", "an analogy has", "random ones have", "first look", "last look"]
    return table(header, rows, text_columns=4)
