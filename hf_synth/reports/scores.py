"""The measure of an arm before and after training, overall and at the ends of density, with its standard error."""

import math

from hf_synth.reports.run import Arm, Run

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
