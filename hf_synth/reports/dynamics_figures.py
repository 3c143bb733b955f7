"""Figures of a pretraining run over its steps: what is learned, for which rows, at which stage, in which shape."""

import math
from collections.abc import Iterable

import matplotlib
from matplotlib.figure import Figure

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
)
from hf_synth.reports.headlines import in_order
from hf_synth.reports.run import Arm, Run, one_token

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
