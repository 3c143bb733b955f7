"""Density by the policy that is being trained: measured again every so many steps, the same on all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast
from numpy.typing import ArrayLike

from hf_synth.sampling.callbacks import ChangingWeightsCallback
from hf_synth.sampling.density import knn_density
from hf_synth.sampling.embeddings import prompt_text
from hf_synth.sampling.factors import ScheduledRarity, WeightFactor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_synth.sampling.mixin import WeightedSamplingMixin

Embed = Callable[["PreTrainedModel", Sequence[str]], np.ndarray]  # [N] texts -> [N, D]


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
