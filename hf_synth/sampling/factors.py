"""Factors of sampling weights, fixed and changing: what `ChangingWeightsCallback` multiplies as a round begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from hf_synth.sampling.weights import check_weights, curriculum_weights, rarity_weights, scheduled_strength


class WeightFactor(Protocol):
    """One factor of the weights. What it gives depends on its state and on (step, steps) alone, on every process."""

    name: str  # of its part of a checkpoint
    changes: bool  # whether a later round may weigh otherwise

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] weights of the round that begins after `step` of `steps`; called once a round."""

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that a checkpoint must hold; empty where (step, steps) says all."""

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""


class _Stateless:
    """A factor that remembers nothing."""

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        pass


class FixedWeights(_Stateless):
    """Weights [N] that stay: sources, clusters, or any others."""

    changes = False

    def __init__(self, weights: ArrayLike, *, name: str = "fixed") -> None:
        self._weights, self.name = check_weights(weights), name

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N], the same in each round."""
        return self._weights


class ScheduledRarity(_Stateless):
    """`rarity_weights` of a density [N], the strength by a schedule over training (`scheduled_strength`)."""

    name = "density"

    def __init__(
        self, density: ArrayLike, *, strength: float = 1.0, schedule: str = "constant", max_ratio: float = 100.0
    ) -> None:
        self._density = np.array(density, dtype=np.float64)
        self.strength, self.schedule, self.max_ratio = strength, schedule, max_ratio
        self.changes = schedule != "constant" and strength > 0
        self.weights(0, 1)  # an error comes before training

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1, at the strength of this point of training."""
        strength = scheduled_strength(self.strength, self.schedule, step / steps)
        return rarity_weights(self._density, strength=strength, max_ratio=self.max_ratio)


class Curriculum(_Stateless):
    """Easy rows first, by `curriculum_weights` over training; difficulty [N], larger is harder."""

    name, changes = "curriculum", True

    def __init__(self, difficulty: ArrayLike, *, begin: float = 0.1, floor: float = 0.01) -> None:
        self._difficulty = np.array(difficulty, dtype=np.float64)
        self.begin, self.floor = begin, floor
        self.weights(0, 1)  # an error comes before training

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1, at this point of training."""
        return curriculum_weights(self._difficulty, step / steps, begin=self.begin, floor=self.floor)
