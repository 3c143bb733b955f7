"""How often each prompt's completions pass, learnt while GRPO trains from the rewards it pays anyway."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hf_synth.sampling.weights import pass_rate_weights

_BEFORE_ANY = 0.5  # the rate of every prompt while nothing was seen: the weights are equal then


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
