"""Weights that change while a trainer runs: between rounds only, the same on all processes, and in its checkpoints.

`ChangingWeightsCallback` multiplies factors, fixed and changing, as a round begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast
from numpy.typing import ArrayLike
from safetensors.numpy import load_file, save_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_synth.io import reading, whole_file
from hf_synth.sampling.density import knn_density
from hf_synth.sampling.embeddings import embed_hidden_states, prompt_text
from hf_synth.sampling.language_models import evaluating
from hf_synth.sampling.weights import (
    as_numbers,
    check_weights,
    combined_weights,
    curriculum_weights,
    pass_rate_weights,
    rarity_weights,
    scheduled_strength,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_synth.sampling.mixin import WeightedSamplingMixin

FACTORS_FILE = "weight_factors.safetensors"  # in a checkpoint, where a factor has a state
_BEFORE_ANY = 0.5  # the pass rate of every prompt while nothing was seen: the weights are equal then
Embed = Callable[["PreTrainedModel", Sequence[str]], np.ndarray]  # [N] texts -> [N, D]


class WeightFactor(ABC):
    """One factor of the weights. What it gives depends on its state and on (step, steps) alone, on every process."""

    name: str  # of its part of a checkpoint
    changes: bool  # whether a later round may weigh otherwise
    arrays: tuple[str, ...] = ()  # the attributes that a checkpoint must hold; none where (step, steps) says all

    @abstractmethod
    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] weights of the round that begins after `step`, the last after `steps`; called once a round."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of `arrays`, by name."""
        return {name: getattr(self, name).copy() for name in self.arrays}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave; ValueError where it is of another number of rows."""
        for name, own in self.state().items():
            if len(state[name]) != len(own):
                raise ValueError(
                    f"{self.name}: the saved state is of {len(state[name])} rows, this one of {len(own)}. Resume with "
                    "the dataset of the saved run."
                )
            setattr(self, name, state[name].copy())


class FixedWeights(WeightFactor):
    """Weights [N] that stay: sources, clusters, or any others."""

    changes = False

    def __init__(self, weights: ArrayLike, *, name: str = "fixed") -> None:
        self._weights, self.name = check_weights(weights), name

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N], the same in each round."""
        return self._weights


class ScheduledRarity(WeightFactor):
    """`rarity_weights` of a density [N], the strength by a schedule over training (`scheduled_strength`)."""

    name = "density"

    def __init__(
        self, density: ArrayLike, *, strength: float = 1.0, schedule: str = "constant", max_ratio: float = 100.0
    ) -> None:
        self.density = as_numbers(density, "density").astype(np.float64)
        self.strength, self.schedule, self.max_ratio = strength, schedule, max_ratio
        self.changes = schedule != "constant" and strength > 0
        self.weights(0, 1)  # an error comes before training

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1, at the strength of this point of training."""
        strength = scheduled_strength(self.strength, self.schedule, step / steps)
        return rarity_weights(self.density, strength=strength, max_ratio=self.max_ratio)


class RefreshedRarity(ScheduledRarity):
    """`ScheduledRarity` whose density is measured again in the first round that begins `every` steps or more later.

    measure: gives the density [N] as it is now, the same on every process.
    every: steps; rounds that begin before the next multiple of it keep the density.
    density: [N], until the first refresh.
    """

    arrays = ("density", "measured_at")

    def __init__(self, measure: Callable[[], np.ndarray], *, every: int, density: ArrayLike, **options: Any) -> None:
        if every < 1:
            raise ValueError(f"every={every}: wanted at least 1 step between two measurements of density.")
        super().__init__(density, **options)
        self.measure, self.every, self.changes = measure, every, self.strength > 0
        self.measured_at = np.array([0])

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1; measures first where that is due."""
        if self.changes and step // self.every > self.measured_at[0] // self.every:
            self.density, self.measured_at = self.measure(), np.array([step])
        return super().weights(step, steps)


class Curriculum(WeightFactor):
    """Easy rows first, by `curriculum_weights` over training; difficulty [N], larger is harder."""

    name, changes = "curriculum", True

    def __init__(self, difficulty: ArrayLike, *, begin: float = 0.1, floor: float = 0.01) -> None:
        self._difficulty = as_numbers(difficulty, "difficulty").astype(np.float64)
        self.begin, self.floor = begin, floor
        self.weights(0, 1)  # an error comes before training

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] of mean 1, at this point of training."""
        return curriculum_weights(self._difficulty, step / steps, begin=self.begin, floor=self.floor)


class PassRates(WeightFactor):
    """Running pass rates of prompts, drawn towards the mean of all where little was seen, and their weights.

    ```txt
    rate_i = (passed_i + prior * mean) / (tried_i + prior)        passed_i, tried_i: sums over the completions of i
    mean   = sum passed / sum tried                               both times `decay` at the start of each round
    ```

    Estimates fade towards the mean of all prompts, because the policy that earned them is gone. Each round of the
    sampler weighs by `pass_rate_weights`. As a factor of `ChangingWeightsCallback` it is in the checkpoints.

    prompts: [N] whose equal values share one estimate, such as the prompts' texts: duplicates are one prompt.
    prior: completions that the mean of all counts for in each estimate; above 0.
    decay: what a completion still counts for a round later; above 0 and at most 1.
    floor: as `pass_rate_weights`.
    """

    name, changes, arrays = "pass_rate", True, ("passed", "tried")

    def __init__(
        self, prompts: Sequence[Hashable], *, prior: float = 2.0, decay: float = 0.9, floor: float = 0.1
    ) -> None:
        if not (prior > 0 and 0 < decay <= 1):
            raise ValueError(f"prior={prior}, decay={decay}: wanted both above 0, and decay at most 1.")
        numbers: dict[Hashable, int] = {}
        self._prompt = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], dtype=np.int64)
        self.prior, self.decay, self.floor = prior, decay, floor
        self.passed, self.tried = np.zeros(len(numbers)), np.zeros(len(numbers))
        pass_rate_weights(self.rates(), floor=floor)  # an error in either comes before training

    def record(self, rows: ArrayLike, rewards: ArrayLike) -> None:
        """Take in completions: [M] rows of the dataset, and the reward of each; ValueError for one outside 0 to 1."""
        rows, rewards = as_numbers(rows, "rows").astype(np.int64), as_numbers(rewards, "rewards").astype(np.float64)
        bad = rewards[~((rewards >= 0) & (rewards <= 1))]
        if len(bad):
            raise ValueError(
                f"pass rates: got a reward of {bad[0]:g}, wanted numbers from 0 to 1, such as a verifier's. A reward "
                "model's scores have no pass rate: leave pass_rate out of the weights."
            )
        np.add.at(self.passed, self._prompt[rows], rewards)
        np.add.at(self.tried, self._prompt[rows], 1.0)

    def rates(self) -> np.ndarray:
        """[N] estimates, 0 to 1, one for each row."""
        tried = self.tried.sum()
        mean = self.passed.sum() / tried if tried else _BEFORE_ANY
        return np.clip((self.passed + self.prior * mean) / (self.tried + self.prior), 0.0, 1.0)[self._prompt]

    def weights(self, step: int, steps: int) -> np.ndarray:
        """[N] weights of mean 1 for the round that begins now; what was seen so far fades by `decay`."""
        weights = pass_rate_weights(self.rates(), floor=self.floor)
        self.passed *= self.decay
        self.tried *= self.decay
        return weights


class ChangingWeightsCallback(TrainerCallback):
    """Weighs each round of a weighted trainer by the product of factors, all of them: the column's weights give way.

    Pass rates among the factors learn from the rewards of a `WeightedGRPOTrainer`. A run resumed from a checkpoint
    draws what an uninterrupted one would have.

    trainer: the one this callback is added to.
    factors: `PassRates`, `ScheduledRarity`, `FixedWeights`, ... each with a name of its own. Pass rates need a trainer
    that pays rewards; factors that change, a run of more than one round.
    """

    def __init__(self, trainer: WeightedSamplingMixin, factors: Sequence[WeightFactor]) -> None:
        names = [factor.name for factor in factors]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"factors: got {', '.join(names) or 'none'}, wanted at least one, each of another name.")
        self.trainer, self.factors = trainer, tuple(factors)
        for rates in factors:
            if isinstance(rates, PassRates):
                if not hasattr(trainer, "on_rewards"):
                    kind = type(trainer).__name__
                    raise ValueError(
                        f"pass rates are learnt from rewards, and {kind} pays none. Use WeightedGRPOTrainer."
                    )
                trainer.on_rewards(rates.record)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take up the checkpoint's factors; refuse a run in which nothing could change."""
        changing = [factor.name for factor in self.factors if factor.changes]
        if changing and state.num_train_epochs <= 1:
            raise ValueError(
                f"weights by {', '.join(changing)} change from round to round, and this run of {state.max_steps} "
                "steps ends within its first round. Make rounds shorter (round_size), or train for longer."
            )
        saved = Path(self.trainer.resume_directory or "", FACTORS_FILE)
        if self.trainer.resume_directory is None or not saved.exists():
            return
        with reading(saved):
            arrays = load_file(saved)
        for factor in self.factors:
            prefix = f"{factor.name}."
            if saved_state := {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}:
                factor.load(saved_state)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Weigh the round that begins. A run resumed within a round goes on with the weights it had."""
        if float(state.epoch or 0).is_integer():
            last = round(state.global_step / (state.epoch or 1) * (state.num_train_epochs - 1)) or state.max_steps
            weights = [factor.weights(state.global_step, last) for factor in self.factors]
            self.trainer.set_sampling_weights(combined_weights(*weights))

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Put what the factors have learnt into the checkpoint."""
        arrays = {f"{part.name}.{name}": array for part in self.factors for name, array in part.state().items()}
        if not (arrays and args.should_save):
            return
        with whole_file(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", FACTORS_FILE)) as part:
            save_file(arrays, part)


class DensityRefreshCallback(ChangingWeightsCallback):
    """Weighs by rarity among the policy's own hidden states, measured again every `every` steps of training.

    The density is `policy_density` of the column `prompt`; it changes between rounds only, is the same on all
    processes, and is in the checkpoints: a resumed run draws what an uninterrupted one would have.

    trainer: a weighted trainer with a `processing_class`; this callback is added to it.
    every: steps between two measurements; they come at the next start of a round.
    density: [N], until the first of them; measured at once where not given.
    embed: (model, [N] texts) -> [N, D] where it is not to be the mean of the last layer over real tokens.
    others: factors to multiply with, such as `PassRates`.
    options: strength, schedule and max_ratio, as `ScheduledRarity`.
    """

    def __init__(
        self,
        trainer: WeightedSamplingMixin,
        *,
        every: int,
        density: ArrayLike | None = None,
        embed: Embed | None = None,
        k: int = 10,
        others: Sequence[WeightFactor] = (),
        **options: Any,
    ) -> None:
        def measure() -> np.ndarray:
            return policy_density(trainer, embed, k=k)

        first = measure() if density is None else density
        super().__init__(trainer, [RefreshedRarity(measure, every=every, density=first, **options), *others])


def policy_density(trainer: WeightedSamplingMixin, embed: Embed | None = None, *, k: int = 10) -> np.ndarray:
    """[N] density of the trainer's prompts by its model as it is now: bit for bit the same on all processes.

    Of the mean of the last layer over real tokens (`embed_hidden_states`), where `embed` is not to give other vectors.
    Each process embeds its part of the distinct prompts, the main one measures, the others are told.
    """
    accelerator, model = trainer.accelerator, trainer.accelerator.unwrap_model(trainer.model)
    texts = [prompt_text(prompt) for prompt in trainer.train_dataset["prompt"]]
    number_of = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    distinct = list(number_of)
    # Equally many on each process, some of them twice: sharded models must be called equally often.
    share = -(-len(distinct) // accelerator.num_processes)
    first = accelerator.process_index * share
    part = [distinct[row % len(distinct)] for row in range(first, first + share)]
    with evaluating(model):
        own = (
            embed(model, part) if embed else embed_hidden_states(model, trainer.processing_class, part, batch_size=64)
        )
    vectors = accelerator.gather(torch.from_numpy(np.ascontiguousarray(own)).to(accelerator.device)).cpu().numpy()
    density = torch.zeros(len(texts), dtype=torch.float64)
    if accelerator.is_main_process:
        density = torch.from_numpy(knn_density(vectors[[number_of[text] for text in texts]], k=k))
    if accelerator.num_processes > 1:
        density = broadcast(density.to(accelerator.device), from_process=0).cpu()
    return density.numpy()
