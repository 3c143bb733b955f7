"""What the last sampled answers are like: how right, how rewarded, how varied, how far from the first policy."""

from hf_synth.reports.headlines import headlines
from hf_synth.reports.run import Arm, Run
from hf_synth.reports.words import code, number, spread, table


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
