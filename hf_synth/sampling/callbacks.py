"""Weights that change while a trainer runs: between rounds only, the same on all processes, and in its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_synth.sampling.factors import WeightFactor
from hf_synth.sampling.pass_rates import PassRates
from hf_synth.sampling.weights import combined_weights

if TYPE_CHECKING:
    from hf_synth.sampling.mixin import WeightedSamplingMixin

FACTORS_FILE = "weight_factors.safetensors"  # in a checkpoint, where a factor has a state


class ChangingWeightsCallback(TrainerCallback):
    """Weighs each round of a weighted trainer by the product of factors, all of them: the column's weights give way.

    Pass rates among the factors learn from the rewards of a `WeightedGRPOTrainer`. A run resumed from a checkpoint
    draws what an uninterrupted one would have.

    Args:
        trainer: the one this callback is added to.
        factors: `PassRates`, `ScheduledRarity`, `FixedWeights`, ... each with a name of its own.

    Raises:
        ValueError: two factors of one name; pass rates where no trainer pays rewards. When training begins: factors
            that change, in a run that ends within its first round.
    """

    def __init__(self, trainer: WeightedSamplingMixin, factors: Sequence[WeightFactor]) -> None:
        names = [factor.name for factor in factors]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"factors: got {', '.join(names) or 'none'}, wanted at least one, each of another name.")
        self.trainer, self.factors = trainer, tuple(factors)
        for factor in factors:
            if isinstance(factor, PassRates):
                self._listen(factor)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the checkpoint's factors; refuse a run in which nothing could change."""
        self._require_rounds(state)
        saved = os.path.join(self.trainer.resume_directory or "", FACTORS_FILE)
        if self.trainer.resume_directory is None or not os.path.exists(saved):
            return
        arrays = load_file(saved)
        for factor in self.factors:
            prefix = f"{factor.name}."
            found = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
            if found:
                factor.load(found)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Weigh the round that begins. A run resumed within a round goes on with the weights it had."""
        if float(state.epoch or 0).is_integer():
            found = [factor.weights(state.global_step, state.max_steps) for factor in self.factors]
            self.trainer.set_sampling_weights(combined_weights(*found))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put what the factors have learnt into the checkpoint."""
        arrays = {f"{part.name}.{name}": array for part in self.factors for name, array in part.state().items()}
        if not (arrays and args.should_save):
            return
        path = os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", FACTORS_FILE)
        save_file(arrays, path + ".part")
        os.replace(path + ".part", path)

    def _listen(self, rates: PassRates) -> None:
        if not hasattr(self.trainer, "on_rewards"):
            kind = type(self.trainer).__name__
            raise ValueError(f"pass rates are learnt from rewards, and {kind} pays none. Use WeightedGRPOTrainer.")
        self.trainer.on_rewards(rates.record)

    def _require_rounds(self, state: TrainerState) -> None:
        changing = [factor.name for factor in self.factors if factor.changes]
        if changing and state.num_train_epochs <= 1:
            raise ValueError(
                f"weights by {', '.join(changing)} change from round to round, and this run of {state.max_steps} "
                "steps ends within its first round. Make rounds shorter (round_size), or train for longer."
            )
