"""The report of a pretraining run: loss above the floor, curves, groups, curriculum, language, transfer, geometry."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_synth.io import load_json
from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.figures import COLOURS, CONTROL_COLOUR, Line, Panel, curves, label, save
from hf_synth.reports.read import Run, one_token
from hf_synth.reports.tables import (
    MISSING,
    code,
    escaped,
    fixed,
    in_order,
    number,
    percent,
    render,
    score,
    sentence,
    short_path,
    spread,
    table,
)
from hf_synth.tasks.families.knowledge_graph import KINDS
from hf_synth.training.run_directory import TRANSFER

Metrics = Mapping[str, float]
ENOUGH_SEEDS = 8  # a claim about a way of training takes as many
_SETS = (("train", "training rows", "--", CONTROL_COLOUR), ("validation", "validation rows", "-", COLOURS[0]))
LOGGED = {
    "loss": ("Loss", "nats per token"),
    "accuracy": ("Token accuracy", "fraction of tokens"),
    "row_accuracy": ("Exact-match accuracy", "fraction of rows"),
}
# Title, unit, what it is, what an analogy that is laid out in space has, what random embeddings have.
GEOMETRY = {
    "dirichlet_energy": (
        "Dirichlet energy", "squared distance", "mean squared distance of e and f(e), scaled to unit vectors",
        "0, where each entity lies on its image", "2",
    ),
    "parallelogram": (
        "Parallelogram", "cosine", "mean cosine of the step f(e) - e and the embedding of the functor",
        "1, where the functor is that step", "0",
    ),
    "translation_consistency": (
        "Translation", "cosine", "mean cosine of the steps f(e) - e of two entities",
        "1, where all take one step", "0",
    ),
    "isometry": (
        "Isometry", "correlation", "correlation of the distances among entities e with those among their images",
        "1, where both have one shape", "0",
    ),
    "distortion": (
        "Distortion", "fraction", "mean difference of these distances, as a fraction of their mean",
        "0, where the shapes have one size", "0.8 / √width",
    ),
    "separation": (
        "Separation", "silhouette", "mean silhouette of entities and images as two clusters",
        "none: it measures the distance, not analogy", "0",
    ),
}  # fmt: skip


def learning_figure(run: Run) -> Figure | None:
    """Loss with the floor as a level, accuracy of tokens and of rows, on training and on validation rows."""
    arm = run.arms[0]
    same = one_token(*(arm.series(f"eval_validation_{name}")[1] for name in ("accuracy", "row_accuracy")))
    panels = []
    for name, (title, unit) in LOGGED.items():
        lines = [Line(kind, *arm.series(f"eval_{rows}_{name}"), colour, style) for rows, kind, style, colour in _SETS]
        if name != "row_accuracy" or not same:
            panels.append(Panel(title, unit, lines, floor_level(arm) if name == "loss" else None))
    return curves(panels, log_x=log_spaced(arm))


def floor_level(arm: Run) -> tuple[float, str] | None:
    """The floor of the validation rows in nats per token as a level of a panel, where it is known."""
    losses, excesses = (arm.series(f"eval_validation_{name}")[1] for name in ("loss", "excess"))
    floors = [loss - excess for loss, excess in zip(losses, excesses, strict=False) if math.isfinite(loss - excess)]
    return (max(0.0, floors[-1]), "validation floor") if floors else None


def log_spaced(arm: Run) -> bool:
    """Whether the evaluations are dense near the start, as those at doubling steps do."""
    steps = arm.series("eval_validation_loss")[0]
    return len(steps) > 4 and steps[0] > 0 and steps[len(steps) // 2] < steps[-1] / 4


def groups_of(arm: Run, rows: str = "validation") -> list[str]:
    """The groups of rows that an evaluation distinguishes."""
    prefix = f"eval_{rows}_loss/"
    return in_order(name.removeprefix(prefix) for name in arm.names() if name.startswith(prefix))


def groups_figure(run: Run) -> Figure | None:
    """Accuracy and loss over steps by group of rows; a group that validation has not is shown from training rows."""
    arm = run.arms[0]
    held_out, trained = groups_of(arm), groups_of(arm, "train")
    groups = [*held_out, *(group for group in trained if group not in held_out)][: len(COLOURS)]
    panels = []
    for name in ("accuracy", "loss"):
        lines = [
            Line(
                label(group.replace("_", " "), 30) + ("" if group in held_out else " (training)"),
                *arm.series(f"eval_{'validation' if group in held_out else 'train'}_{name}/{group}"),
                COLOURS[index],
                "-" if group in held_out else "--",
            )
            for index, group in enumerate(groups)
        ]
        panels.append(Panel(*LOGGED[name], lines))
    return curves(panels, log_x=log_spaced(arm))


def geometry_figure(run: Run) -> Figure | None:
    """How the embeddings lie, each measure in a panel of its own."""
    arm = run.arms[0]
    panels = [
        Panel(title, unit, [Line(title, *arm.series(f"geometry/{name}"), COLOURS[0])])
        for name, (title, unit, *_) in GEOMETRY.items()
    ]
    return curves(panels, log_x=log_spaced(arm))


def curriculum_figure(begun: Sequence[tuple[float, float, float | None]], run: Run) -> Figure | None:
    """The field that grows as a staircase over steps, and the accuracy of each check; begun: as `stages` has it."""
    name, last_step = str(run.config["curriculum_field"]), int(run.arms[0].log["steps"])
    values, steps, _ = zip(*begun, strict=True)
    stairs = Line(name, np.repeat([*steps, last_step], 2)[1:-1].tolist(), np.repeat(values, 2).tolist(), COLOURS[0])
    checks = Line("accuracy", *run.arms[0].series("curriculum/accuracy"), COLOURS[0])
    level = (threshold := run.config.get("curriculum_threshold")) and (threshold, "threshold")
    panels = [
        Panel("Stages", label(name), [stairs]),
        Panel("Checks on fresh rows", "fraction of tokens", [checks], level),
    ]
    return curves(panels)


_KINDS = {"canonical": "natural text", "example": "strings of the language", "explanation": "explanations"}
SCORES = {  # what language_scores gives: name -> (what it is, whether it is a fraction)
    "validity": ("samples that are valid", True),
    "validity_by_length": ("valid samples, all lengths with equal weight", True),
    "distinct": ("distinct samples, of all samples", True),
    "coverage": ("fraction of the language that was sampled", True),
    "coverage/of_rows": ("coverage of as many rows of the language", True),
    "in_training": ("valid samples that may be in the training data", True),
    "valid_and_new": ("samples that are valid and new", True),
    "perplexity/valid": ("perplexity of valid strings", False),
    "perplexity/invalid": ("perplexity of invalid strings", False),
    "perplexity/gap": ("perplexity gap, invalid minus valid", False),
    "perplexity/ratio": ("perplexity ratio, invalid over valid", False),
    "perplexity/same_length/ratio": ("perplexity ratio, invalid strings of the same length", False),
    "auroc": ("AUROC of valid against invalid strings, by mean ln P per token", True),
    "auroc/same_length": ("AUROC for strings of one length", True),
    "completion": ("decision points passed", True),
    "completion/strict": ("decision points passed strictly", True),
    "string/loss": ("loss, nats a string", False),
    "string/floor": ("floor, nats a string", False),
    "string/excess": ("excess, nats a string", False),
}
_LENGTH = re.compile(r"language/validity_by_length/(\d+)")
_POINT = re.compile(r"language/completion/(.+)/p_valid")
_POINT_ENDS = ("p_valid", "p_invalid", "passed")


def language_scores(metrics: Mapping[str, float]) -> list[list[str]]:
    """What was measured on a language, in words and in numbers."""
    return [
        [what, (score if fraction else number)(metrics[f"language/{name}"])]
        for name, (what, fraction) in SCORES.items()
        if f"language/{name}" in metrics
    ]


def corpus_table(metrics: dict[str, float]) -> str:
    """Tokens and documents of each kind."""
    total = sum(metrics.get(f"tokens/{kind}", 0.0) for kind in _KINDS)
    rows = [
        [
            title,
            number(metrics.get(f"tokens/{kind}")),
            percent(metrics.get(f"tokens/{kind}", 0.0) / total) if total else MISSING,
            number(metrics.get(f"documents/{kind}")),
        ]
        for kind, title in _KINDS.items()
    ]
    return table(["kind", "tokens", "fraction of tokens", "documents"], rows)


def stages(run: Run) -> list[tuple[float, float, float | None]]:
    """Of each stage the value of its field, its first step, and the accuracy of the check that began it."""
    config, arm = run.config, run.arms[0]
    rows_per_step = run.metrics.get("rows/trained", 0) / max(1, arm.log["steps"]) or 1.0
    final = (config.get("task_args") or {}).get(config["curriculum_field"])
    begun: list[tuple[float, float, float | None]] = [(config["curriculum_start"], 0, None)]
    for entry in arm.log["history"]:
        first = entry.get("curriculum/first_row", math.inf) / rows_per_step
        if first < arm.log["steps"]:  # one that was decided on before the end may begin after it
            value = config["curriculum_start"] + entry["curriculum/next_stage"] * config["curriculum_step"]
            value = value if final is None else min(final, value)
            begun.append((value, first, entry["curriculum/accuracy"]))
    return begun


PART = ("part", "from", "tensors", "parameters", "rows", "change")


def transfer_rows(reports: Sequence[dict[str, Any]], *, copied: bool = False) -> list[list[str]]:
    """A row of `PART` for each part of the model; where seeds differ, with the values of the first and the last.

    reports: transfer.json of each seed. copied: only the parts that were copied.
    """
    parts: dict[str, list[list[str]]] = {}
    for report in reports:
        for part in report["parts"]:
            if copied and not part["parameters"]:
                continue
            source = "fresh"
            if part["source"] is not None:
                how = f", {code(report['embeddings'])}" if part["part"] in ("embeddings", "head") else ""
                source = code(short_path(part["source"])) + how + (", shuffled" if part["shuffled"] else "")
                source += f", {part['noise']} noise" if part.get("noise") else ""
            counted = [
                MISSING if part[name] is None else f"{number(part[name])} of {number(part[f'of_{name}'])}"
                for name in ("tensors", "parameters", "rows")
            ]
            cells = [escaped(part["part"]), source, *counted, fixed(part["change"], 3)]
            parts.setdefault(part["part"], []).append(cells)
    return [
        [cells[0] if len(set(cells)) == 1 else f"{cells[0]} ... {cells[-1]}" for cells in zip(*seeds, strict=True)]
        for seeds in parts.values()
    ]


def transfer_text(report: dict[str, Any]) -> str:
    """In one or two sentences: which parts came from a checkpoint, or are noise like it, and which are trained."""
    copied = [part["part"] + " (as noise)" * bool(part.get("noise")) for part in report["parts"] if part["parameters"]]
    return sentence("transferred", copied=copied, trained=trained_text(report))


def trained_text(report: dict[str, Any]) -> str:
    """Which parts are trained, where others are frozen; else empty."""
    if not (trained := report.get("trained")):
        return ""
    many, few = trained["trained_parameters"], trained["frozen_parameters"]
    parts = [escaped(str(part)) for part in trained["parts"]]
    return sentence("trained", parts=parts, fraction=many / max(1, many + few))


def _geometry(arm: Run) -> list[list[str]]:
    """What each measure is, what to compare it with, and its values at the first and the last evaluation."""
    rows = []
    for name, (title, _, what, analogy, random) in GEOMETRY.items():
        steps, values = arm.series(f"geometry/{name}")
        if steps:
            ends = [f"{values[at]:.3f} (step {number(steps[at])})" for at in (0, -1)]
            rows.append([title, what, analogy, random, *ends])
    return rows


def pretraining_section(run: Run, published: bool, quote_texts: bool) -> str:
    """Everything that the run measured, in the order in which a reader asks."""
    arm, metrics = run.arms[0], run.metrics
    validity = {int(match[1]): value for name, value in metrics.items() if (match := _LENGTH.fullmatch(name))}
    by_length = Line("", [*validity], [*validity.values()], COLOURS[0], marker="o")
    steps, excesses = arm.series("eval_validation_excess")
    learned = None
    if len(steps) > 1 and excesses[0] > 0 and math.isfinite(excesses[-1]):
        learned = steps[0], 1 - excesses[-1] / excesses[0]
    begun = stages(run) if run.config.get("curriculum_field") else []
    final = (run.config.get("task_args") or {}).get(run.config.get("curriculum_field"))
    transfer = load_json(run.folder / TRANSFER)
    groups = groups_table(metrics)
    figures = {
        "learning_curves": learning_figure(run),
        "groups_over_steps": groups_figure(run) if groups and groups_of(arm) else None,
        "curriculum": curriculum_figure(begun, run) if begun else None,
        "geometry": geometry_figure(run),
        "validity_by_length": curves([Panel("Valid samples", "fraction", [by_length], x_label="length in words")])
        if "tokens/canonical" in metrics and len(validity) > 1
        else None,
    }
    drawn = {name: save(figure, run.folder, name) for name, figure in figures.items()}
    return render(
        "pretraining",
        config=run.config,
        result=result_table(metrics),
        verdict=verdict(metrics),
        learned=learned,
        trial=trial(run.config),
        corpus=corpus_table(metrics) if "tokens/canonical" in metrics else "",
        scores=language_scores(metrics),
        points=[
            [escaped(match[1]), *(score(metrics.get(f"language/completion/{match[1]}/{end}")) for end in _POINT_ENDS)]
            for name in metrics
            if (match := _POINT.fullmatch(name))
        ],
        lengths=drawn["validity_by_length"],
        curves=drawn["learning_curves"],
        groups=groups,
        groups_drawn=drawn["groups_over_steps"],
        stages=[[number(value), number(step), score(accuracy)] for value, step, accuracy in begun],
        missed=final if begun and final is not None and begun[-1][0] < final else None,
        transfer=transfer
        and {
            "text": transfer_text(transfer),
            "header": PART,
            "rows": transfer_rows([transfer]),
            "notes": [escaped(note, 400) for note in transfer["notes"]],
        },
        geometry=_geometry(arm),
    )


def result_table(metrics: Metrics) -> str:
    """Loss, floor, excess and accuracies on the test rows, with intervals over those rows."""
    natural = _natural(metrics)
    held_out = "held-out natural text" if natural else "test rows"
    rows = [[f"loss on {held_out}, nats per token", fixed(metrics.get("loss/test")), MISSING]]
    if "floor/test" in metrics:
        rows += [
            ["floor (lowest achievable loss), nats per token", fixed(metrics.get("floor/test")), MISSING],
            ["excess (loss minus floor), nats per token", fixed(metrics.get("excess/test")), _bounds(excess(metrics))],
        ]
    if "excess/test_share" in metrics:
        rows.append(["excess as a fraction of the floor", percent(metrics["excess/test_share"]), MISSING])
    what = {"accuracy/test": "token accuracy", "row_accuracy/test": "exact-match accuracy"}
    for name in list(what)[: 1 if one_token(*([metrics.get(name)] for name in what)) else 2]:
        if name in metrics:
            bounds = MISSING if natural else _bounds(share_of_rows(metrics, name))
            rows.append([what[name], fixed(metrics.get(name)), bounds])
    return table(["measure", "value", "95 % interval over rows"], rows)


def _natural(metrics: Metrics) -> bool:
    return "tokens/canonical" in metrics and "floor/test" not in metrics


def excess(metrics: Metrics) -> Interval | None:
    """The loss above the floor with its interval over test rows; None where it is not known or not finite."""
    interval = Interval(*(metrics.get(f"excess/test{end}", math.nan) for end in ("", "_rows_low", "_rows_high")))
    return interval if all(map(math.isfinite, interval)) else None


def share_of_rows(metrics: Metrics, name: str) -> Interval | None:
    """A fraction with Wilson's interval over the test rows that it was taken from: all, or those of a group.

    Tokens of a row are not independent trials: token accuracy gets the widest interval, that of one trial a row.
    """
    group = name.partition("/test/")[2]
    rows, share = metrics.get(f"rows/test/{group}" if group else "rows/test"), metrics.get(name)
    return share_interval(share, round(rows)) if rows and share is not None and 0 <= share <= 1 else None


def _bounds(interval: Interval | None) -> str:
    return MISSING if interval is None else f"{fixed(interval.low)} to {fixed(interval.high)}"


def verdict(metrics: Metrics) -> list[str]:
    """How far from the floor, on what sort of rows, and what the intervals are over."""
    interval = excess(metrics)
    if interval is None:
        return [sentence("no_rows")] if _natural(metrics) else []
    trained_on = _held_out(metrics)
    if not trained_on and "seen/test" in metrics:
        trained_on = [sentence("seen", fraction=metrics["seen/test"], compared=metrics["rows/compared"])]
    return [
        *trained_on,
        sentence("excess", excess=interval, rows=number(metrics.get("rows/test"))),
        sentence("over_rows"),
    ]


def _held_out(metrics: Metrics) -> list[str]:
    """Of facts, how many of the test rows were trained on, and the accuracy of both sorts."""
    facts = [name.removeprefix("rows/test/") for name in metrics if name.startswith("rows/test/")]
    parts = [[name for name in facts if name.startswith("id_") == trained] for trained in (True, False)]
    if not set(facts) <= set(KINDS) or not all(parts):
        return []
    means = []
    for groups in parts:
        rows, *of_rows = (
            [metrics[f"{key}/test/{name}"] for name in groups] for key in ("rows", "row_accuracy", "loss")
        )
        accuracy, loss = np.average(of_rows, axis=1, weights=rows)
        means.append({"rows": sum(rows), "accuracy": accuracy, "loss": loss})
    return [sentence("facts", known=means[0], new=means[1])]


def trial(config: Mapping[str, object], seeds: int = 1) -> str:
    """What may be concluded from so many seeds."""
    return sentence("trial", quick=bool(config.get("quick")), seeds=seeds, enough=ENOUGH_SEEDS)


_OF_FACTS = {"perplexity": "perplexity", "probability": "P of the right token"}


def groups_table(metrics: Metrics) -> str:
    """The table of groups of test rows; empty where there are none."""
    names = in_order(name.removeprefix("loss/test/") for name in metrics if name.startswith("loss/test/"))
    if not names:
        return ""
    more = {key: title for key, title in _OF_FACTS.items() if f"{key}/test/{names[0]}" in metrics}
    rows = [
        [
            escaped(name),
            number(metrics.get(f"rows/test/{name}")),
            fixed(metrics.get(f"loss/test/{name}")),
            *(number(metrics.get(f"{key}/test/{name}")) for key in more),
            spread(share_of_rows(metrics, f"row_accuracy/test/{name}"), metrics.get(f"row_accuracy/test/{name}")),
        ]
        for name in names
    ]
    return table(["group", "test rows", "loss, nats per token", *more.values(), "exact-match accuracy [95 %]"], rows)
