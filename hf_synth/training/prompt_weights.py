"""The weights of a recipe's rows, by every kind that `sampling_by` names: at the start, and while training."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback

from hf_synth.sampling import (
    ChangingWeightsCallback,
    Curriculum,
    FixedWeights,
    PassRates,
    RefreshedRarity,
    ScheduledRarity,
    WeightFactor,
    balanced_weights,
    combined_weights,
    hidden_state_embedder,
    permuted,
    policy_density,
    prompt_text,
)
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.weighing import (
    PromptDensity,
    measure_density,
    weight_metrics,
    with_weights,
    write_weights_table,
)

_COLUMN_OF = {"cluster": "cluster", "source": "src"}


def prompt_weights(
    prompts: Dataset, density: np.ndarray, arguments: WeightArguments, strength: float, seed: int
) -> np.ndarray:
    """[N] sampling weights of mean 1 that a run starts with: the product of all kinds that the arguments name.

    prompts: {prompt}, with `cluster`, `src` or `difficulty` where a kind needs it. density: [N], larger is more
    crowded. seed: of the permutation. Raises ValueError where a column is missing.
    """
    factors = _Kinds(prompts, density, arguments, strength, seed).factors()
    return combined_weights(*(factor.weights(0, 1) for factor in factors))


def weight_callbacks(
    trainer: Any, prompts: Dataset, density: np.ndarray, arguments: WeightArguments, strength: float, seed: int
) -> list[TrainerCallback]:
    """What a weighted trainer needs where weights change while it trains; empty where they stay.

    The arguments are those of `prompt_weights`; rows are those of `trainer.train_dataset`.
    """
    factors = _Kinds(prompts, density, arguments, strength, seed, trainer).factors()
    if not any(factor.changes for factor in factors):
        return []
    return [ChangingWeightsCallback(trainer, factors)]


@dataclasses.dataclass(frozen=True)
class WeighedRows:
    """Rows of a recipe that trains one model: {..., sampling_weight}, what they were weighed by, and the numbers."""

    rows: Dataset
    measured: PromptDensity
    arguments: WeightArguments
    seed: int
    metrics: dict[str, float]

    def add_callbacks(self, trainer: Any) -> None:
        """Give the trainer what it needs where weights change while it trains."""
        if not len(self.measured.density):
            return
        strength = self.arguments.one_strength()
        given = (self.rows, self.measured.density, self.arguments, strength, self.seed)
        for callback in weight_callbacks(trainer, *given):
            trainer.add_callback(callback)


def weigh_rows(rows: Dataset, arguments: WeightArguments, seed: int, folder: Path) -> WeighedRows:
    """Measure the density of each row's `prompt`, weigh the rows, and write their table to the folder."""
    strength = arguments.one_strength()
    measured = measure_density(rows, arguments)
    weights = prompt_weights(rows, measured.density, arguments, strength, seed)
    write_weights_table(folder, rows, measured, weights)
    return WeighedRows(with_weights(rows, weights), measured, arguments, seed, weight_metrics(measured, weights))


def unweighed_rows(rows: Dataset, arguments: WeightArguments, seed: int) -> WeighedRows:
    """The rows with a weight of 1 each; nothing is measured or written."""
    nothing = PromptDensity(np.zeros(0), np.zeros((0, 2)), 0.0)
    return WeighedRows(with_weights(rows, np.ones(len(rows))), nothing, arguments, seed, {})


@dataclasses.dataclass(frozen=True)
class _Kinds:
    """Kinds of weights by their names, for the rows of one run."""

    prompts: Dataset
    density: np.ndarray
    arguments: WeightArguments
    strength: float
    seed: int
    trainer: Any = None  # only with one can density be measured again

    def factors(self) -> list[WeightFactor]:
        return [self._factor(kind) for kind in self.arguments.sampling_by]

    def _factor(self, kind: str) -> WeightFactor:
        if kind in ("density", "permuted"):
            return self._rarity(kind)
        if kind in _COLUMN_OF:
            return FixedWeights(balanced_weights(self._column(_COLUMN_OF[kind], kind)), name=kind)
        if kind == "pass_rate":
            return PassRates([prompt_text(prompt) for prompt in self.prompts["prompt"]])
        if kind == "curriculum":
            return Curriculum(self._difficulty())
        return FixedWeights(np.ones(len(self.prompts)), name=kind)

    def _rarity(self, kind: str) -> WeightFactor:
        options: dict[str, Any] = {
            "strength": self.strength,
            "schedule": self.arguments.strength_schedule,
            "max_ratio": self.arguments.max_ratio,
        }
        density, every = self._dealt(kind, self.density), self.arguments.density_refresh
        if self.trainer is None or every is None:
            return ScheduledRarity(density, **options)
        embed = hidden_state_embedder(self.trainer.processing_class)

        def measure() -> np.ndarray:
            return self._dealt(kind, policy_density(self.trainer, embed, k=self.arguments.density_k))

        return RefreshedRarity(measure, every=every, density=density, **options)

    def _dealt(self, kind: str, density: np.ndarray) -> np.ndarray:
        return permuted(density, seed=self.seed) if kind == "permuted" else density

    def _column(self, name: str, kind: str) -> list[Any]:
        if name not in self.prompts.column_names:
            raise ValueError(
                f"sampling_by: got {kind!r}, and the prompts have no column {name!r}, only "
                f"{', '.join(self.prompts.column_names)}; leave it out, or take data that has it"
            )
        return list(self.prompts[name])

    def _difficulty(self) -> list[float]:
        """The column `difficulty`, larger is harder; where there is none, characters of the prompt."""
        if "difficulty" in self.prompts.column_names:
            return list(self.prompts["difficulty"])
        return [float(len(prompt_text(prompt))) for prompt in self.prompts["prompt"]]
