"""Factors of sampling weights, fixed and changing: what `ChangingWeightsCallback` multiplies as a round begins."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from hf_synth.sampling.weights import (
    check_weights,
    curriculum_weights,
    pass_rate_weights,
    rarity_weights,
    scheduled_strength,
)

_BEFORE_ANY = 0.5  # the pass rate of every prompt while nothing was seen: the weights are equal then


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


class RefreshedRarity(ScheduledRarity):
    """`ScheduledRarity` whose density is measured again in the first round that begins `every` steps or more later.

    Args:
        measure: gives the density [N] as it is now, the same on every process.
        every: steps; rounds that begin before the next multiple of it keep the density.
        density: [N], until the first refresh.
    """

    def __init__(self, measure: Callable[[], np.ndarray], *, every: int, density: ArrayLike, **options: Any) -> None:
        if every < 1:
            raise ValueError(f"every={every}: wanted at least 1 step between two measurements of density.")
        super().__init__(density, **options)
        self.measure, self.every, self.changes = measure, every, self.strength > 0
        self._measured_at = 0

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1; measures first where that is due."""
        if self.changes and step // self.every > self._measured_at // self.every:
            self._density, self._measured_at = self.measure(), step
        return super().weights(step, steps)

    def state(self) -> dict[str, np.ndarray]:
        """The density and the step it was measured at."""
        return {"density": self._density.copy(), "measured_at": np.array([self._measured_at])}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up a saved state; ValueError where it has another number of rows."""
        if len(state["density"]) != len(self._density):
            raise ValueError(
                f"the saved density is of {len(state['density'])} rows, this one of {len(self._density)}. Resume with "
                "the dataset of the saved run."
            )
        self._density, self._measured_at = state["density"].copy(), int(state["measured_at"][0])


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


class PassRates:
    """Running pass rates of prompts, drawn towards the mean of all where little was seen, and their weights.

    ```txt
    rate_i = (passed_i + prior * mean) / (tried_i + prior)        passed_i, tried_i: sums over the completions of i
    mean   = sum passed / sum tried                               both times `decay` at the start of each round
    ```

    Estimates fade towards the mean of all prompts, because the policy that earned them is gone. Each round of the
    sampler weighs by `pass_rate_weights`. As a factor of `ChangingWeightsCallback` it is in the checkpoints.

    Args:
        prompts: [N] whose equal values share one estimate, such as the prompts' texts: duplicates are one prompt.
        prior: completions that the mean of all counts for in each estimate; above 0.
        decay: what a completion still counts for a round later; above 0 and at most 1.
        floor: as `pass_rate_weights`.

    Raises:
        ValueError: no prompts, or a number out of range.
    """

    name = "pass_rate"
    changes = True

    def __init__(
        self, prompts: Sequence[Hashable], *, prior: float = 2.0, decay: float = 0.9, floor: float = 0.1
    ) -> None:
        if not prior > 0:
            raise ValueError(f"prior={prior}: wanted above 0.")
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay}: wanted above 0 and at most 1.")
        numbers: dict[Hashable, int] = {}
        self._prompt = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], dtype=np.int64)
        self.prior, self.decay, self.floor = prior, decay, floor
        self._passed, self._tried = np.zeros(len(numbers)), np.zeros(len(numbers))
        pass_rate_weights(self.rates(), floor=floor)  # an error in either comes before training

    def record(self, rows: ArrayLike, rewards: ArrayLike) -> None:
        """Take in completions: [M] rows of the dataset, and the reward of each, 0 to 1.

        Raises:
            ValueError: a reward outside 0 to 1, which is no pass rate.
        """
        rows, rewards = np.asarray(rows, dtype=np.int64), np.asarray(rewards, dtype=np.float64)
        bad = rewards[~((rewards >= 0) & (rewards <= 1))]
        if len(bad):
            raise ValueError(
                f"pass rates: got a reward of {bad[0]:g}, wanted numbers from 0 to 1, such as a verifier's. A reward "
                "model's scores have no pass rate: leave pass_rate out of the weights."
            )
        np.add.at(self._passed, self._prompt[rows], rewards)
        np.add.at(self._tried, self._prompt[rows], 1.0)

    def rates(self) -> np.ndarray:
        """[N] estimates, 0 to 1, one for each row."""
        tried = self._tried.sum()
        mean = self._passed.sum() / tried if tried else _BEFORE_ANY
        found = (self._passed + self.prior * mean) / (self._tried + self.prior)
        return np.clip(found, 0.0, 1.0)[self._prompt]

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] weights of mean 1 for the round that begins now; what was seen so far fades by `decay`."""
        found = pass_rate_weights(self.rates(), floor=self.floor)
        self._passed *= self.decay
        self._tried *= self.decay
        return found

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold."""
        return {"passed": self._passed.copy(), "tried": self._tried.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up a saved state.

        Raises:
            ValueError: it was saved for another number of prompts.
        """
        if len(state["passed"]) != len(self._passed):
            raise ValueError(
                f"the saved pass rates are of {len(state['passed'])} prompts, these of {len(self._passed)}. Resume "
                "with the dataset of the saved run."
            )
        self._passed, self._tried = state["passed"].copy(), state["tried"].copy()
