"""Weights that change while a trainer runs: between rounds only, the same on all processes, and in its checkpoints.

Density by the policy that is being trained is measured again every so many steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast
from numpy.typing import ArrayLike
from safetensors.numpy import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_synth.io import whole_file
from hf_synth.sampling.adaptive import PassRates, RefreshedRarity, WeightFactor
from hf_synth.sampling.density import knn_density
from hf_synth.sampling.embeddings import prompt_text
from hf_synth.sampling.weights import combined_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_synth.sampling.mixin import WeightedSamplingMixin

FACTORS_FILE = "weight_factors.safetensors"  # in a checkpoint, where a factor has a state
Embed = Callable[["PreTrainedModel", Sequence[str]], np.ndarray]  # [N] texts -> [N, D]


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
        with whole_file(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", FACTORS_FILE)) as part:
            save_file(arrays, part)

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


class DensityRefreshCallback(ChangingWeightsCallback):
    """Weighs by rarity among the policy's own hidden states, measured again every `every` steps of training.

    The density is `policy_density` of the column `prompt`; it changes between rounds only, is the same on all
    processes, and is in the checkpoints: a resumed run draws what an uninterrupted one would have.

    Args:
        trainer: a weighted trainer with a `processing_class`; this callback is added to it.
        every: steps between two measurements; they come at the next start of a round.
        density: [N], until the first of them; measured at once where not given.
        embed: (model, [N] texts) -> [N, D] where it is not to be the mean of the last layer over real tokens.
        k: neighbours.
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
            return policy_density(trainer, embed or hidden_state_embedder(trainer.processing_class), k=k)

        first = measure() if density is None else density
        super().__init__(trainer, [RefreshedRarity(measure, every=every, density=first, **options), *others])


def policy_density(trainer: WeightedSamplingMixin, embed: Embed, *, k: int = 10) -> np.ndarray:
    """[N] density of the trainer's prompts by its model as it is now: bit for bit the same on all processes.

    Each process embeds its part of the distinct prompts, the main one measures, the others are told.
    """
    texts = [prompt_text(prompt) for prompt in trainer.train_dataset["prompt"]]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = _embed_together(trainer, embed, list(place))
    found = torch.zeros(len(texts), dtype=torch.float64)
    if trainer.accelerator.is_main_process:
        found = torch.from_numpy(knn_density(vectors[[place[text] for text in texts]], k=k))
    if trainer.accelerator.num_processes > 1:
        found = broadcast(found.to(trainer.accelerator.device), from_process=0).cpu()
    return found.numpy()


def hidden_state_embedder(tokenizer: Any, *, layer: int = -1, batch_size: int = 64) -> Embed:
    """Texts to the mean of a layer's hidden states over their real tokens (`embed_hidden_states`)."""

    def embed(model: PreTrainedModel, texts: Sequence[str]) -> np.ndarray:
        from hf_synth.sampling.hidden_states import embed_hidden_states

        return embed_hidden_states(model, tokenizer, texts, layer=layer, batch_size=batch_size)

    return embed


def _embed_together(trainer: WeightedSamplingMixin, embed: Embed, texts: list[str]) -> np.ndarray:
    """[N, D] on every process, each of which embeds equally many: sharded models must be called equally often."""
    accelerator, model = trainer.accelerator, trainer.accelerator.unwrap_model(trainer.model)
    share = -(-len(texts) // accelerator.num_processes)
    first = accelerator.process_index * share
    own = [texts[row % len(texts)] for row in range(first, first + share)]
    was_training = model.training
    model.eval()
    try:
        part = torch.from_numpy(np.ascontiguousarray(embed(model, own))).to(accelerator.device)
    finally:
        model.train(was_training)
    return accelerator.gather(part).cpu().numpy()[: len(texts)]
