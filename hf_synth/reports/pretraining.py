"""The report of a pretraining run: loss above the floor, curves, groups, curriculum, language, transfer, geometry."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.figures import (
    ARM_COLOURS,
    CLUSTER_COLOURS,
    CONTROL_COLOUR,
    STYLE,
    Line,
    Panel,
    blank,
    curves,
    label,
    save,
)
from hf_synth.reports.read import Arm, Run, one_token
from hf_synth.reports.report import short_path
from hf_synth.reports.tables import (
    MISSING,
    code,
    escaped,
    in_order,
    listed,
    number,
    percent,
    picture,
    score,
    spread,
    table,
)
from hf_synth.tasks.families.knowledge_graph import KINDS
from hf_synth.training.run_directory import TRANSFER

LOSS_UNIT = "nats per token"
_LOOKS = (("train", "training rows", "--", CONTROL_COLOUR), ("validation", "validation rows", "-", ARM_COLOURS[0]))
_MEASURES = {
    "loss": ("Loss", LOSS_UNIT),
    "accuracy": ("Accuracy of tokens", "share of tokens"),
    "row_accuracy": ("Accuracy of rows", "share of rows"),
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
        "Distortion", "share", "mean difference of these distances, as a share of their mean",
        "0, where the shapes have one size", "0.8 / √width",
    ),
    "separation": (
        "Separation", "silhouette", "mean silhouette of entities and images as two clusters",
        "says how far apart they are, and nothing of analogy", "0",
    ),
}  # fmt: skip
_MOST_GROUPS = len(CLUSTER_COLOURS)


def learning_figure(run: Run) -> Figure | None:
    """Loss with the floor as a level, accuracy of tokens and of rows, on training and on validation rows."""
    arm = run.arms[0]
    same = one_token(*(arm.series(f"eval_validation_{name}")[1] for name in ("accuracy", "row_accuracy")))
    panels = []
    for name, (title, unit) in _MEASURES.items():
        lines = [
            Line(kind, *arm.series(f"eval_{look}_{name}"), colour, style)
            for look, kind, style, colour in _LOOKS
            if f"eval_{look}_{name}" in arm.names()
        ]
        if lines and not (name == "row_accuracy" and same):
            panels.append(Panel(title, unit, lines, floor_level(arm) if name == "loss" else None))
    return curves(panels, log_x=log_spaced(arm)) if panels else None


def floor_of(arm: Arm) -> float | None:
    """The floor of the validation rows in nats per token, where it is known."""
    losses, excesses = (arm.series(f"eval_validation_{name}")[1] for name in ("loss", "excess"))
    return max(0.0, losses[-1] - excesses[-1]) if losses and excesses else None


def floor_level(arm: Arm) -> tuple[float, str] | None:
    """The floor of the validation rows as a level of a panel."""
    value = floor_of(arm)
    return None if value is None else (value, "validation floor")


def log_spaced(arm: Arm) -> bool:
    """Whether the looks crowd near the start, as those at doubling steps do."""
    steps = arm.series("eval_validation_loss")[0]
    return len(steps) > 4 and steps[0] > 0 and steps[len(steps) // 2] < steps[-1] / 4


def groups_of(arm: Arm, look: str = "validation") -> list[str]:
    """The groups of rows that a look tells apart."""
    prefix = f"eval_{look}_loss/"
    return in_order(name.removeprefix(prefix) for name in arm.names() if name.startswith(prefix))


def groups_figure(run: Run) -> Figure | None:
    """Accuracy and loss over steps by group of rows; a group that validation has not is shown from training rows."""
    arm = run.arms[0]
    held_out, trained = groups_of(arm), groups_of(arm, "train")
    groups = [*held_out, *(group for group in trained if group not in held_out)][:_MOST_GROUPS]
    panels = []
    for name in ("accuracy", "loss"):
        lines = [
            Line(
                label(group.replace("_", " "), 30) + ("" if group in held_out else " (training)"),
                *arm.series(f"eval_{'validation' if group in held_out else 'train'}_{name}/{group}"),
                CLUSTER_COLOURS[index],
                "-" if group in held_out else "--",
            )
            for index, group in enumerate(groups)
        ]
        panels.append(Panel(*_MEASURES[name], lines))
    return curves(panels, log_x=log_spaced(arm)) if groups else None


def geometry_figure(run: Run) -> Figure | None:
    """How the embeddings lie, each measure in a panel of its own."""
    arm = run.arms[0]
    panels = []
    for name, (title, unit, *_) in GEOMETRY.items():
        steps, values = arm.series(f"geometry/{name}")
        if steps:
            panels.append(Panel(title, unit, [Line(title, steps, values, ARM_COLOURS[0])]))
    return curves(panels, log_x=log_spaced(arm)) if panels else None


@matplotlib.rc_context(STYLE)
def curriculum_figure(name: str, begun: Iterable[tuple[float, float]], last_step: int, run: Run) -> Figure:
    """The field that grows as a staircase over steps, and the accuracy of each check.

    begun: (step, value of the field) of each stage, from step 0 on.
    """
    figure, (stairs, checks) = blank(2.6, 1, 2)
    steps, values = zip(*begun, strict=True)
    stairs.step([*steps, last_step], [*values, values[-1]], where="post", color=ARM_COLOURS[0], linewidth=1.6)
    stairs.set_title("Stages", loc="left")
    stairs.set(xlabel="training step", ylabel=label(name))
    stairs.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    checks.plot(*run.arms[0].series("curriculum/accuracy"), "o-", color=ARM_COLOURS[0], linewidth=1, markersize=3)
    threshold = run.config.get("curriculum_threshold")
    if threshold is not None:
        checks.axhline(threshold, color=CONTROL_COLOUR, linewidth=1, linestyle="--")
        checks.annotate("mastery", (1, threshold), xycoords=("axes fraction", "data"), xytext=(0, 3), ha="right",
                        textcoords="offset points", fontsize=8, color=CONTROL_COLOUR)  # fmt: skip
    checks.set_title("Checks on fresh rows", loc="left")
    checks.set(xlabel="training step", ylabel="share of tokens")
    for ax in (stairs, checks):
        ax.set_xlim(0, last_step)
    return figure


@matplotlib.rc_context(STYLE)
def lengths_figure(validity: dict[int, float]) -> Figure:
    """The share of valid samples by their length."""
    figure, (ax,) = blank(2.4)
    ax.bar(list(validity), list(validity.values()), color=ARM_COLOURS[0], width=0.7)
    ax.set(xlabel="length of the sample in words", ylabel="share that is valid", ylim=(0, 1))
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(12, integer=True))
    return figure


def learned_share(arm: Arm) -> tuple[int, float] | None:
    """The step of the first look, and which part of the loss above the floor then is gone at the last."""
    steps, excesses = arm.series("eval_validation_excess")
    if len(steps) < 2 or not excesses[0] > 0 or not math.isfinite(excesses[-1]):
        return None
    return steps[0], 1 - excesses[-1] / excesses[0]


_KINDS = {"canonical": "natural text", "example": "strings of the language", "explanation": "explanations"}
SCORES = {  # what language_scores gives: name -> (what it is, whether it is a share)
    "validity": ("samples that are valid", True),
    "validity_by_length": ("the same, all lengths counting alike", True),
    "distinct": ("samples that differ from all others", True),
    "coverage": ("strings of the language among the samples", True),
    "coverage/of_rows": ("the same, of as many rows of the language", True),
    "in_training": ("valid samples that training may have shown", True),
    "new_and_valid": ("samples that are valid and new", True),
    "perplexity/valid": ("perplexity of valid strings", False),
    "perplexity/invalid": ("perplexity of invalid strings", False),
    "perplexity/gap": ("gap: invalid less valid", False),
    "perplexity/ratio": ("ratio: invalid over valid", False),
    "perplexity/same_length/ratio": ("ratio, violations that keep the length", False),
    "auroc": ("a valid string before an invalid one, by ln P", True),
    "auroc/same_length": ("the same, of strings of one length", True),
    "completion": ("decision points passed", True),
    "completion/strict": ("decision points passed strictly", True),
    "string/loss": ("loss, nats a string", False),
    "string/floor": ("floor, nats a string", False),
    "string/excess": ("excess, nats a string", False),
}
_LENGTH = re.compile(r"language/validity_by_length/(\d+)")
_POINT = re.compile(r"language/completion/(.+)/p_valid")


def language_sections(run: Run) -> list[str]:
    """Shares of the corpus, scores on the language, and validity by length; nothing where no text was read."""
    metrics = run.metrics
    if "tokens/canonical" not in metrics:
        return []
    return ["## Corpus", corpus_table(metrics), *_scores(metrics), *_points(metrics), *_lengths(run)]


def corpus_table(metrics: dict[str, float]) -> str:
    """Tokens and documents of each kind."""
    total = sum(metrics.get(f"tokens/{kind}", 0.0) for kind in _KINDS)
    rows = [
        [
            words,
            number(metrics.get(f"tokens/{kind}")),
            percent(metrics.get(f"tokens/{kind}", 0.0) / total) if total else MISSING,
            number(metrics.get(f"documents/{kind}")),
        ]
        for kind, words in _KINDS.items()
    ]
    return table(["kind", "tokens", "share of tokens", "documents"], rows)


def _scores(metrics: dict[str, float]) -> list[str]:
    rows = [
        [words, f"{metrics[f'language/{name}']:.3f}" if share else number(metrics[f"language/{name}"])]
        for name, (words, share) in SCORES.items()
        if f"language/{name}" in metrics
    ]
    if not rows:
        return []
    text = (
        "Strings are sampled from the model and checked by the language's own rules; test strings and violations made "
        "of them are scored. Perplexity is exp of the mean loss per token."
    )
    return ["## The language", text, table(["measure", "value"], rows)]


def _points(metrics: dict[str, float]) -> list[str]:
    points = [match[1] for name in metrics if (match := _POINT.fullmatch(name))]
    if not points:
        return []
    names = ("p_valid", "p_invalid", "passed")
    rows = [
        [escaped(point), *(score(metrics.get(f"language/completion/{point}/{name}")) for name in names)]
        for point in points
    ]
    return ["### Decision points", table(["point", "P of the valid words", "P of the invalid ones", "passed"], rows)]


def _lengths(run: Run) -> list[str]:
    validity = {int(match[1]): value for name, value in run.metrics.items() if (match := _LENGTH.fullmatch(name))}
    if len(validity) < 2:
        return []
    save(lengths_figure(dict(sorted(validity.items()))), run.folder, "validity_by_length")
    return [picture("validity_by_length", "share of valid samples by length")]


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


Metrics = Mapping[str, float]
ENOUGH_SEEDS = 8  # a claim about a way of training takes as many


def pretraining_sections(run: Run) -> list[str]:
    """Everything that the run measured, in the order in which a reader asks."""
    return [
        "## Result",
        result_table(run.metrics),
        *_verdict(run),
        *language_sections(run),
        *_curves(run),
        *_groups(run),
        *curriculum_sections(run),
        *transfer_sections(run),
        *geometry_sections(run),
    ]


def result_table(metrics: Metrics) -> str:
    """Loss, floor, excess and accuracies on the test rows, with intervals over those rows."""
    natural = _natural(metrics)
    held_out = "held-out natural text" if natural else "test rows"
    rows = [[f"loss on {held_out}, nats per token", _value(metrics, "loss/test"), MISSING]]
    if "floor/test" in metrics:
        rows += [
            ["floor, the least that any predictor can lose, nats per token", _value(metrics, "floor/test"), MISSING],
            ["excess, loss above the floor, nats per token", _value(metrics, "excess/test"), _bounds(excess(metrics))],
        ]
    if "excess/test_share" in metrics:
        rows.append(["excess as a share of the floor", percent(metrics["excess/test_share"]), MISSING])
    what = {"accuracy/test": "tokens foretold", "row_accuracy/test": "rows with all tokens foretold"}
    for name in list(what)[: 1 if one_token(*([metrics.get(name)] for name in what)) else 2]:
        if name in metrics:
            bounds = MISSING if natural else _bounds(share_of_rows(metrics, name))
            rows.append([f"{what[name]}, share", _value(metrics, name), bounds])
    return table(["measure", "value", "95 % over rows"], rows)


def _natural(metrics: Metrics) -> bool:
    """Whether the test rows are natural text."""
    return "tokens/canonical" in metrics and "floor/test" not in metrics


def excess(metrics: Metrics) -> Interval | None:
    """The loss above the floor with its interval over test rows."""
    names = ("excess/test", "excess/test_rows_low", "excess/test_rows_high")
    return Interval(*(metrics[name] for name in names)) if set(names) <= set(metrics) else None


def share_of_rows(metrics: Metrics, name: str) -> Interval | None:
    """A share with Wilson's interval over the test rows that it was taken from: all, or those of a group.

    Tokens of a row are no independent trials: a share of tokens gets the interval of one trial a row, the widest.
    """
    group = name.partition("/test/")[2]
    rows, share = metrics.get(f"rows/test/{group}" if group else "rows/test"), metrics.get(name)
    if not rows or share is None or not 0 <= share <= 1:
        return None
    return share_interval(share, round(rows))


def _value(metrics: Metrics, name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else MISSING


def _bounds(interval: Interval | None) -> str:
    return MISSING if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def verdict(metrics: Metrics) -> list[str]:
    """How far from the floor, on what sort of rows, and what the intervals are over."""
    found = excess(metrics)
    if found is None:
        return [_NO_ROWS] if _natural(metrics) else []
    rows = number(metrics.get("rows/test"))
    text = f"The model loses {found.mean:.4f} nats per token more than the floor"
    text += f" (95 % interval over {rows} test rows: {found.low:.4f} to {found.high:.4f})."
    if found.low <= 0:
        text += " That interval holds 0: on these rows the model cannot be told from the best predictor."
    return [
        *(_held_out(metrics) or _seen(metrics)),
        text + " The floor is exact: the loss of a predictor that knows how the rows are made.",
        "The intervals are over test rows of this one model. They say how well its score is known, and nothing of "
        "how another seed would end. For tokens a row counts as one trial, which makes their interval a wide one.",
    ]


_NO_ROWS = (
    "No interval: the blocks of natural text follow one another in the same documents, and are no independent rows."
)


def _held_out(metrics: Metrics) -> list[str]:
    """Of facts, which share of the test rows was trained on, and how either sort was foretold."""
    facts = [name.removeprefix("rows/test/") for name in metrics if name.startswith("rows/test/")]
    if not set(facts) <= set(KINDS):
        return []
    parts = [[name for name in facts if name.startswith("id_") == trained] for trained in (True, False)]
    if not all(parts):
        return []
    (known, trained), (new, held_out) = (_of_groups(metrics, part) for part in parts)
    return [
        f"The table mixes facts that were trained on with others. Of the {number(known + new)} test rows, "
        f"{number(known)} are of the groups `id_...`, which training had: {trained}. The other {number(new)} are held "
        f"out: {held_out}."
    ]


def _seen(metrics: Metrics) -> list[str]:
    """How many of the test rows were trained on, where that was looked for."""
    if "seen/test" not in metrics:
        return []
    compared = f"the {number(metrics['rows/compared'])} training rows that were compared with them"
    if metrics["seen/test"] == 0:
        return [f"None of the test rows is among {compared}."]
    return [
        f"{percent(metrics['seen/test'])} of the test rows are among {compared}: two splits may have equal rows by "
        "chance, which `holdout: content` in `task_args` rules out for the tasks that have it."
    ]


def _of_groups(metrics: Metrics, groups: Sequence[str]) -> tuple[float, str]:
    """How many test rows groups have together, and in words how they were foretold."""
    rows = {name: metrics[f"rows/test/{name}"] for name in groups}
    total = sum(rows.values())
    share, loss = (
        sum(metrics[f"{key}/test/{name}"] * count for name, count in rows.items()) / total
        for key in ("row_accuracy", "loss")
    )
    return total, f"{percent(share)} of rows foretold, loss {loss:.4f} nats per token"


def _verdict(run: Run) -> list[str]:
    lines = verdict(run.metrics)
    if (learned := learned_share(run.arms[0])) is not None:
        step, share = learned
        gone = f"Of the excess on validation rows at step {number(step)}, {percent(share)} was gone at the end."
        worse = f"The excess on validation rows is higher than it was at step {number(step)}."
        lines.insert(len(lines) - 1, gone if share >= 0 else worse)
    found = ["\n".join(f"- {line}" for line in lines)] if lines else []
    return [*found, f"> {trial(run.config)}"]


def trial(config: Mapping[str, object], seeds: int = 1) -> str:
    """What may be concluded from so many seeds."""
    quick = "This was a quick run (`--quick`), which shows that all works. " if config.get("quick") else ""
    if seeds == 1:
        return (
            f"{quick}One seed is a trial: it says what this model does, not what this way of training does. "
            f"Run it with `--seeds` and {ENOUGH_SEEDS} values before believing a difference."
        )
    if seeds < ENOUGH_SEEDS:
        return f"{quick}{seeds} seeds are a trial: they show that it runs. A claim takes at least {ENOUGH_SEEDS}."
    return f"{quick}The intervals are over {seeds} training seeds."


def _curves(run: Run) -> list[str]:
    if (figure := learning_figure(run)) is None:
        return []
    save(figure, run.folder, "learning_curves")
    return [
        "## Over the steps",
        _curves_words(run.config),
        picture("learning_curves", "loss and accuracy over training steps"),
    ]


def _curves_words(config: Mapping[str, object]) -> str:
    """What the two sets of the curves are."""
    train = "Training rows are the first rows of the training set"
    if config.get("curriculum_field"):
        train += " at the curriculum's last stage, whatever stage is trained on"
    validation = "validation rows are of another split"
    if config.get("task") == "analogy":
        validation = "validation rows are all facts of the graph, those of the groups `id_...` trained on"
    if config.get("canonical"):
        validation = "validation rows are natural text that is never trained on"
    return f"{train}; {validation}. `dynamics.csv` has the numbers."


_OF_FACTS = {"perplexity": "perplexity", "probability": "P of the right token"}


def _groups(run: Run) -> list[str]:
    metrics = run.metrics
    names = in_order(name.removeprefix("loss/test/") for name in metrics if name.startswith("loss/test/"))
    if not names:
        return []
    more = {key: words for key, words in _OF_FACTS.items() if f"{key}/test/{names[0]}" in metrics}
    rows = [
        [
            escaped(name),
            number(metrics.get(f"rows/test/{name}")),
            _value(metrics, f"loss/test/{name}"),
            *(number(metrics.get(f"{key}/test/{name}")) for key in more),
            spread(share_of_rows(metrics, f"row_accuracy/test/{name}"), metrics.get(f"row_accuracy/test/{name}")),
        ]
        for name in names
    ]
    found = [
        "## By group of rows",
        table(["group", "test rows", "loss, nats per token", *more.values(), "rows foretold, share [95 %]"], rows),
    ]
    if groups_of(run.arms[0]) and (figure := groups_figure(run)) is not None:
        save(figure, run.folder, "groups_over_steps")
        found.append(picture("groups_over_steps", "accuracy and loss of each group of rows over training steps"))
    return found
