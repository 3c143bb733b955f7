"""Reward by density decile, from the densest prompts to the rarest."""

from collections.abc import Hashable, Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64
from .intervals import by_group, entries, mean_interval


def deciles(
    values: Sequence[float] | np.ndarray,
    densities: Sequence[float] | np.ndarray,
    prompts: Sequence[Hashable],
    *,
    parts: int = 10,
    name: str = "reward",
) -> dict[str, float]:
    """`NAME/decile_1`, the densest tenth of the prompts, to `NAME/decile_10`, the rarest: the mean of the values.

    values: the reward of each completion, or another number. densities: of its prompt, larger is denser. prompts:
    which prompt each belongs to. Prompts are weighted equally, and intervals are over prompts. Parts are by rank;
    equal densities keep their order. `parts` needs at least as many prompts.
    """
    means = np.array([np.mean(own) for own in by_group(as_float64("deciles", values), prompts, "deciles").values()])
    density = np.array([own[0] for own in by_group(as_float64("deciles", densities), prompts, "deciles").values()])
    if len(means) < parts or not np.isfinite(density).all():
        raise ValueError(f"deciles: got {len(means)} prompts, wanted {parts} or more, each with a finite density")
    order = np.argsort(-density, kind="stable")
    results: dict[str, float] = {}
    for number, part in enumerate(np.array_split(means[order], parts), 1):
        results |= entries(f"{name}/decile_{number}", mean_interval(part))
    return results


Deciles = as_metric(deciles, {"predictions": "float64", "densities": "float64", "references": "string"})
