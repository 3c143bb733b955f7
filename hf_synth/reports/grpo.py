"""The report of a GRPO run: sampled answers before and after training, by arm, overall and at the ends of density."""

import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_synth.experiments.plan import COMPARISON
from hf_synth.reports.figures import (
    ARM_COLOURS,
    ARM_STYLES,
    CLUSTER_COLOURS,
    CONTROL_COLOUR,
    CONTROL_STYLE,
    STYLE,
    WARM_UP_COLOUR,
    Line,
    Panel,
    blank,
    curves,
    label,
    save,
)
from hf_synth.reports.read import Arm, Run
from hf_synth.reports.tables import code, escaped, headlines, listed, number, picture, score, spread, table

_MOMENTS = ("warmup", "final")


def parts_of(run: Run) -> dict[str, str]:
    """`all`, and `head` and `tail` where there are such, with the words for them."""
    return {"all": "overall", **{end: end for end in run.ends}}


def before_and_after(run: Run, arm: Arm, part: str) -> tuple[float | None, float | None]:
    """The first and the last value of the measure: from metrics.json, or from the log where that has none."""
    end = "" if part == "all" else f"_{part}"
    logged: list[float | None] = [*arm.series(f"{run.measure}/{run.ends[part]}" if end else str(run.measure))[1]] or [
        None
    ]
    before, after = (
        arm.metrics.get(f"{run.measure}/{moment}{end}", logged[place])
        for moment, place in zip(_MOMENTS, (0, -1), strict=True)
    )
    return before, after


def error_of(run: Run, arm: Arm, moment: str, part: str) -> float | None:
    """The binomial standard error of a validity, or None where the number of prompts is not known.

    Each group has the same number of held-out prompts, one answer each, as the recipe samples them.
    """
    index = 0 if moment == "warmup" else -1
    if part != "all":
        return group_error(run, arm, before_and_after(run, arm, part)[index])
    looks = [arm.series(f"{run.measure}/{group}")[1] for group in run.groups]
    if not looks or not all(looks):
        return group_error(run, arm, before_and_after(run, arm, part)[index], groups=1)
    return mean_error(run, arm, [values[index] for values in looks])


def group_error(run: Run, arm: Arm, value: float | None, groups: int | None = None) -> float | None:
    """The standard error of one group's validity."""
    count = arm.metrics.get("prompts/evaluated")
    if run.measure != "validity" or not count or value is None or not 0 <= value <= 1:
        return None
    answers = count / (groups or len(run.groups) or 1)
    if value in (0, 1):  # no answer differed, which is no proof that none can: as with one more of each kind
        value = (value * answers + 1) / (answers + 2)
    return math.sqrt(value * (1 - value) / answers)


def mean_error(run: Run, arm: Arm, values: list[float]) -> float | None:
    """The standard error of the mean over groups, from each group's own."""
    errors = [group_error(run, arm, value) for value in values]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if known and len(known) == len(errors) else None


MEASURES = {"validity": "validity", "sampled_reward": "sampled reward"}


def answer_sections(run: Run) -> list[str]:
    """Result, curves and bars, in this order; without a measure on held-out prompts only the training reward."""
    if run.measure is None:
        return ["## Result", *_reward_only(run), *_training(run)]
    return [
        "## Result",
        _meaning(run),
        _table(run),
        *_verdict(run),
        *_over_steps(run),
        *_ends(run),
        *sample_sections(run),
    ]


def _meaning(run: Run) -> str:
    if run.measure == "validity":
        text = "Validity is the share of answers that the verifier accepts, from 0 to 1, on held-out prompts."
    else:
        text = "The sampled reward is the mean score that the reward model gives to answers, on held-out prompts."
    if len(run.groups) > 1:
        halves = not run.sizes
        text += f" Overall: the mean over {'both halves' if halves else 'all clusters, each counting alike'}."
    if run.ends:
        head, tail = (escaped(run.ends[end]) for end in ("head", "tail"))
        text += (
            " Head: the half of the prompts with the most others near it. Tail: the other half."
            if {head, tail} == {"crowded", "rare"} and not run.sizes
            else f" Head: the largest cluster, {head}. Tail: the smallest, {tail}."
        )
    if error_of(run, run.arms[0], "final", "all") is not None:
        evaluated = number(run.arms[0].metrics["prompts/evaluated"])
        several = run.config.get("look_samples", 1) > 1
        counted = "several answers each, counted as one" if several else "one answer each"
        text += f" The numbers after ± are binomial standard errors: {evaluated} held-out prompts, {counted}."
    elif run.measure == "sampled_reward":
        text += " How widely the scores of single prompts spread was not recorded, so no standard error is given."
    return text


def _table(run: Run) -> str:
    parts = parts_of(run)
    header = ["arm", *(f"{name}, {moment}" for name in parts.values() for moment in ("before", "after"))]
    rows = []
    for arm in run.arms:
        cells = [arm.label]
        for part in parts:
            before, after = before_and_after(run, arm, part)
            cells += [score(before), score(after, error_of(run, arm, "final", part))]
        rows.append(cells)
    return table(header, rows)


def _verdict(run: Run) -> list[str]:
    lines = [_progress(run)]
    lines += [_comparison(run, arm, part, name) for arm in run.weighted for part, name in parts_of(run).items()
              if run.control]  # fmt: skip
    seed = (
        "This is one seed. A difference between two arms of one seed is no evidence: another seed can turn it round. "
        "Run both arms with several values of `--seed` before believing it."
    )
    if (run.folder / "../.." / COMPARISON).exists():
        seed = (
            f"This run is one arm of a comparison, at one seed. {code('../../report.html')} has it against the other "
            "arms, over seeds."
        )
    elif not run.control:
        seed = (
            "This run has no control, so nothing here says what the weights changed. Add 0 to `sampling_strength` for "
            "an arm that draws all prompts alike, and run several seeds: one seed is no evidence."
        )
    elif not run.weighted:
        seed = "All prompts were drawn alike here: there are no weights to judge. And one seed is no evidence."
    return ["\n".join(f"- {line}" for line in lines if line), f"> {seed}"]


def _progress(run: Run) -> str:
    parts = []
    for arm in run.arms:
        before, after = before_and_after(run, arm, "all")
        if before is not None and after is not None and math.isfinite(after - before):
            change = after - before
            word = "not at all" if change == 0 else f"{'up' if change > 0 else 'down'} by {abs(change):.3f}"
            parts.append(f"{arm.label} {word}")
    return f"Training moved the overall {MEASURES[run.measure or '']}: {listed(parts)}." if parts else ""


def _comparison(run: Run, arm: Arm, part: str, name: str) -> str:
    """Who is ahead at the end, in words that do not take sides."""
    control = run.control
    assert control is not None
    mine, other = (before_and_after(run, one, part)[1] for one in (arm, control))
    if mine is None or other is None or not math.isfinite(mine - other):
        return f"{name.capitalize()}: {arm.label} and the control cannot be compared, a value is missing."
    difference = mine - other
    if difference == 0:
        return f"{name.capitalize()}: {arm.label} and the control end alike, at {score(mine)}."
    ahead = (
        f"{arm.label} does better than the control" if difference > 0 else f"the control does better than {arm.label}"
    )
    numbers = f"{score(max(mine, other))} against {score(min(mine, other))}"
    errors = [error_of(run, one, "final", part) for one in (arm, control)]
    size = ""
    if all(error is not None for error in errors) and (both := math.hypot(*(error or 0 for error in errors))) > 0:
        times = abs(difference) / both
        size = f"; {times:.1f} standard errors of a difference" + (", within chance" if times < 2 else "")
    return f"{name.capitalize()}: {ahead} by {abs(difference):.3f} ({numbers}{size})."


def _over_steps(run: Run) -> list[str]:
    name = MEASURES[run.measure or ""]
    file = f"{(run.measure or '').replace('/', '_')}_over_steps"
    save(score_over_steps(run), run.folder, file)
    bands = " The bands are one standard error." if error_of(run, run.arms[0], "final", "all") is not None else ""
    text = f"The {name} of sampled answers while training.{bands}"
    if run.sizes and len(run.groups) > 1:
        text += " In brackets: how many prompts of the cluster are trained on."
    return ["## Over the steps", text, picture(file, f"{name} over training steps"), *_training(run)]


def _training(run: Run) -> list[str]:
    if (figure := training_over_steps(run)) is None:
        return []
    save(figure, run.folder, "training_over_steps")
    text = "What was logged while training. The training reward is the mean over the prompts that were just drawn."
    if run.weighted and len(run.arms) > 1:
        text += (
            " The arms draw different prompts, so a lower curve may only mean harder ones: do not compare them by it."
        )
    return [text, picture("training_over_steps", "training reward and other quantities over training steps")]


def _ends(run: Run) -> list[str]:
    if not run.ends:
        return []
    save(head_against_tail(run), run.folder, "head_against_tail")
    text = "The same numbers as in the table, before training and after it. Weights are meant to lift the tail."
    return ["## Head against tail", text, picture("head_against_tail", "bars of the measure on head and tail, by arm")]


def _reward_only(run: Run) -> list[str]:
    rows = []
    for arm in run.arms:
        values = arm.series("reward")[1]
        rows.append([arm.label, score(values[0] if values else None), score(values[-1] if values else None)])
    text = (
        "No prompts were held out, so there is only the reward on the prompts that were just drawn. "
        "It says that training works; it does not say which arm is better, because arms draw different prompts."
    )
    return [text, table(["arm", "training reward, first logged", "training reward, last logged"], rows)]


_UNITS = {"validity": "validity", "sampled_reward": "sampled reward"}
_TRAINING = {  # what TRL logs: (title, label with unit)
    "reward": ("Training reward", "mean reward"),
    "completions/mean_length": ("Length of answers", "tokens"),
    "entropy": ("Entropy of the policy", "nats per token"),
    "kl": ("Distance from the first policy", "KL, nats per token"),
}


def shown_groups(run: Run, most: int = 8) -> list[str]:
    """All groups; of many the largest and the smallest, which the report is about."""
    groups = run.groups if len(run.groups) > 1 else []
    return groups if len(groups) <= most else [*groups[: most // 2], *groups[-(most // 2) :]]


def arm_styles(run: Run) -> dict[str, tuple]:
    """Label of an arm -> (line style, colour); the control is always dashed and grey."""
    return {
        **{arm.label: (ARM_STYLES[index % len(ARM_STYLES)], ARM_COLOURS[index % len(ARM_COLOURS)])
           for index, arm in enumerate(arm for arm in run.arms if arm.strength != 0)},
        "control": (CONTROL_STYLE, CONTROL_COLOUR),
    }  # fmt: skip


def score_over_steps(run: Run) -> Figure:
    """The measure over steps: overall in black, then a panel a group in the group's colour; arms by line style."""
    unit = _UNITS[run.measure or ""]
    groups = shown_groups(run)
    title = "Overall" if not groups else "Overall (groups alike)"
    panels = [Panel(title, unit, [_line(run, arm, None, "black") for arm in run.arms])]
    for index, group in enumerate(groups):
        count = f" ({run.sizes[group]:,})" if group in run.sizes else ""
        name = label(group, 16) + count if run.sizes else f"{group.capitalize()} half"
        lines = [_line(run, arm, group, CLUSTER_COLOURS[index % len(CLUSTER_COLOURS)]) for arm in run.arms]
        panels.append(Panel(name, unit, lines))
    return curves(panels, share_y=True)


def _line(run: Run, arm: Arm, group: str | None, colour: str) -> Line:
    steps, values = arm.series(f"{run.measure}/{group}" if group else str(run.measure))
    if group:
        errors = [group_error(run, arm, value) for value in values]
    elif run.groups:
        looks = zip(*(arm.series(f"{run.measure}/{name}")[1] for name in run.groups), strict=False)
        errors = [mean_error(run, arm, list(look)) for look in looks]
    else:
        errors = [group_error(run, arm, value, groups=1) for value in values]
    known = [error for error in errors if error is not None]
    band = known if len(known) == len(values) else None
    return Line(arm.label, steps, values, colour, arm_styles(run)[arm.label][0], band)


def training_over_steps(run: Run) -> Figure | None:
    """Training reward, length, entropy and KL over steps, those that were logged; None where none was."""
    panels = []
    for name, (title, unit) in _TRAINING.items():
        lines = []
        for arm in run.arms:
            style, colour = arm_styles(run)[arm.label]
            steps, values = arm.series(name)
            if steps:
                lines.append(Line(arm.label, steps, values, colour, style))
        # A KL of exactly 0 throughout is one that was not asked for.
        if lines and (name != "kl" or any(any(line.values) for line in lines)):
            panels.append(Panel(title, unit, lines))
    return curves(panels) if panels else None


@matplotlib.rc_context(STYLE)
def head_against_tail(run: Run) -> Figure:
    """Grouped bars: before training and after it in each arm, overall, on the head and on the tail."""
    figure, (ax,) = blank(3.0)
    parts = parts_of(run)
    bars = [("before", run.arms[0], 0, WARM_UP_COLOUR)]
    bars += [(f"after, {arm.label}", arm, 1, arm_styles(run)[arm.label][1]) for arm in run.arms]
    width = 0.8 / len(bars)
    for place, (name, arm, moment, colour) in enumerate(bars):
        x = np.arange(len(parts)) + (place - (len(bars) - 1) / 2) * width
        heights = [
            value if (value := before_and_after(run, arm, part)[moment]) is not None else np.nan for part in parts
        ]
        errors = [error_of(run, arm, ("warmup", "final")[moment], part) for part in parts]
        spread = None if any(error is None for error in errors) else [error or 0.0 for error in errors]
        ax.bar(x, heights, width * 0.92, yerr=spread, color=colour, label=name, capsize=2,
               error_kw={"linewidth": 1, "ecolor": "#222222"})  # fmt: skip
        for position, height, error in zip(x, heights, spread or [0.0] * len(x), strict=True):
            _write_value(ax, position, height, error, len(bars))
    ax.set_xticks(range(len(parts)), [_part_label(run, part, name) for part, name in parts.items()])
    ax.set_xlabel("held-out prompts")
    ax.set_ylabel(_UNITS[run.measure or ""])
    ax.grid(False, axis="x")
    ax.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=min(len(bars), 4))
    return figure


def _write_value(ax: matplotlib.axes.Axes, x: float, height: float, error: float, bars: int) -> None:
    if not np.isfinite(height) or bars > 6:
        return
    up = height >= 0
    ax.annotate(f"{height:.2f}", (x, height + (error if up else -error)), xytext=(0, 2 if up else -2),
                textcoords="offset points", ha="center", va="bottom" if up else "top", fontsize=8)  # fmt: skip


def _part_label(run: Run, part: str, name: str) -> str:
    return name if part == "all" else f"{name}: {label(run.ends[part], 20)}"


def sample_sections(run: Run) -> list[str]:
    """A table of the measures of each arm's samples; nothing for runs that kept none."""
    if not any("length/low" in arm.metrics for arm in run.arms):
        return []
    shown = [name for name in headlines(_measured(run.arms[0])) if not _repeats(run, name)]
    rows = [[code(name), *(spread(_interval(arm, name)) for arm in run.arms)] for name in shown]
    samples = number(run.config.get("final_samples", 4))
    text = (
        f"The trained policy answers each held-out prompt {samples} times (`samples.parquet`); in brackets 95 % "
        "intervals over prompts, of this one policy. docs/metrics.md says what each measure is; `halves/` are means "
        "over the larger and the smaller half of the clusters."
    )
    return ["## The answers", text, table(["measure", *(arm.label for arm in run.arms)], rows)]


def _measured(arm: Arm) -> list[str]:
    """Names of what was measured on samples: those with an interval, and the means over halves."""
    return [name for name in arm.metrics if f"{name}/low" in arm.metrics or name.startswith("halves/")]


def _interval(arm: Arm, name: str) -> tuple[float, float, float] | None:
    if (value := arm.metrics.get(name)) is None:
        return None
    low, high = (arm.metrics.get(f"{name}/{end}", float("nan")) for end in ("low", "high"))
    return value, low, high


def _repeats(run: Run, name: str) -> bool:
    """Whether a reward is the verifier's, and so the validity of the same prompts."""
    twin = name.replace("reward/", "validity/", 1)
    return twin != name and all(arm.metrics.get(twin) == arm.metrics.get(name) for arm in run.arms)
