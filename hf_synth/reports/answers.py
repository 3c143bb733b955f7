"""The sections of a GRPO run: what the arms reached, over the steps, and at the two ends of density."""

import math

from hf_synth.experiments.plan import COMPARISON
from hf_synth.reports.answer_figures import head_against_tail, score_over_steps, training_over_steps
from hf_synth.reports.figures import save
from hf_synth.reports.run import Arm, Run
from hf_synth.reports.samples import sample_sections
from hf_synth.reports.scores import before_and_after, error_of, parts_of
from hf_synth.reports.words import code, escaped, listed, number, picture, score, table

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
