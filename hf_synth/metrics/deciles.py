"""Reward by density decile: what prompts of the crowded head and of the rare tail get."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import SampleMetric
from .intervals import mean_interval
from .units import by_prompt, entries


def deciles(
    values: Sequence[float] | np.ndarray,
    densities: Sequence[float] | np.ndarray,
    prompts: Sequence[Hashable],
    *,
    parts: int = 10,
    name: str = "reward",
) -> dict[str, float]:
    """`NAME/decile_1`, the most crowded tenth of the prompts, to `NAME/decile_10`, the rarest: the mean of values.

    values: the reward of each completion, or what else is asked. densities: of its prompt, larger is more crowded.
    prompts: which prompt each belongs to. Prompts weigh alike, and intervals are over them. Tenths of the prompts by
    rank, equal densities in the order in which they come; `parts` of them, which needs as many prompts.
    """
    means = np.array([np.mean(member) for member in by_prompt(values, prompts, "deciles").values()])
    crowding = np.array([member[0] for member in by_prompt(densities, prompts, "deciles").values()])
    if len(means) < parts or not np.isfinite(crowding).all():
        raise ValueError(f"deciles: got {len(means)} prompts, wanted {parts} or more, each with a density")
    order = np.argsort(-crowding, kind="stable")
    found: dict[str, float] = {}
    for number, part in enumerate(np.array_split(means[order], parts), 1):
        found |= entries(f"{name}/decile_{number}", mean_interval(part))
    return found


class Deciles(SampleMetric):
    """`deciles` as a metric of `evaluate`: `compute(predictions=rewards, densities=..., references=prompts)`."""

    measure = staticmethod(deciles)
    columns = {"predictions": "float64", "densities": "float64", "references": "string"}
