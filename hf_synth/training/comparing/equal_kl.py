"""Measures of arms at one and the same distance from the reference policy, and not after as many steps.

An arm that moves further in as many steps may look better, or more collapsed, for that alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

PREFIX = "equal_kl/"
_KL = "held_out/kl"


def at_equal_kl(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Arm -> name -> value where the arm first came to the KL divergence that every arm came to; of one seed.

    histories: arm -> its log, of which entries with `held_out/kl` (nats a completion, 0 before training) are the
    looks.
    Between two looks values are interpolated along the largest KL so far. `equal_kl/kl` is that divergence itself.
    Empty where an arm has no two looks.
    """
    looks = {arm: [entry for entry in history if _KL in entry] for arm, history in histories.items()}
    if any(len(found) < 2 for found in looks.values()):
        return {arm: {} for arm in looks}
    reached = {arm: np.maximum.accumulate([entry[_KL] for entry in found]) for arm, found in looks.items()}
    common = float(min(distances[-1] for distances in reached.values()))
    return {arm: _read_off(found, reached[arm], common) for arm, found in looks.items()}


def _read_off(looks: Sequence[Mapping[str, float]], distances: np.ndarray, at: float) -> dict[str, float]:
    after = int(np.searchsorted(distances, at))  # the first look that is as far
    before = max(0, after - 1)
    gap = distances[after] - distances[before]
    share = (at - distances[before]) / gap if gap > 0 else 1.0
    names = (set(looks[before]) & set(looks[after])) - {"step", "epoch", _KL}
    found = {
        PREFIX + name.removeprefix("held_out/"): float((1 - share) * looks[before][name] + share * looks[after][name])
        for name in sorted(names)
    }
    return {**found, PREFIX + "kl": at}
