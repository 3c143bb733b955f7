"""Trainers that draw rows by their `sampling_weight` column: those of transformers and TRL, under the mixin.

GRPO draws each prompt as a whole group, and resumes exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerState
from trl import DPOTrainer, GRPOTrainer, RewardTrainer, SFTTrainer

from hf_synth.sampling.language_models import positions_from_mask
from hf_synth.sampling.mixin import WeightedSamplingMixin

ROW = "sampling_row"  # the column that tells a reward's listeners which row of train_dataset it belongs to
RewardListener = Callable[[np.ndarray, np.ndarray], None]


class WeightedTrainer(WeightedSamplingMixin, Trainer):
    """`transformers.Trainer`, drawing by `sampling_weight`."""


class WeightedSFTTrainer(WeightedSamplingMixin, SFTTrainer):
    """`trl.SFTTrainer`, drawing by `sampling_weight`; no packing."""


class WeightedRewardTrainer(WeightedSamplingMixin, RewardTrainer):
    """`trl.RewardTrainer`, drawing by `sampling_weight`."""


class WeightedDPOTrainer(WeightedSamplingMixin, DPOTrainer):
    """`trl.DPOTrainer`, drawing by `sampling_weight`."""


class WeightedGRPOTrainer(WeightedSamplingMixin, GRPOTrainer):
    """`trl.GRPOTrainer`, drawing prompts by `sampling_weight`, each as a whole group of num_generations.

    Log-probabilities are those of each row alone: prompts are padded on the left, and models with absolute positions
    (GPT-2) are given those of the real tokens, which TRL's own trainer does not do.

    Completions live for steps_per_generation * num_iterations batches and are in no checkpoint, so a run resumes
    exactly only from a step at which new ones are made. A checkpoint at another step is a ValueError that names the
    nearest legal values.
    """

    train_dataset: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reward_listeners: list[RewardListener] = []
        strategy, name = str(self.args.save_strategy.value), "save_steps"
        if strategy == "best" and self.args.eval_strategy.value == "steps":
            strategy, name = "steps", "eval_steps"
        if strategy != "steps":
            return
        every = getattr(self.args, name)
        every = math.ceil(self._last_step * every) if every < 1 else int(every)
        if not self._saves_on_generation(every):
            below = next((s for s in range(every - 1, 0, -1) if self._saves_on_generation(s)), None)
            above = next(s for s in itertools.count(every + 1) if self._saves_on_generation(s))
            nearest = f"{above}" if below is None else f"{below} or {above}"
            raise ValueError(
                f"{name}={every} saves between generations, where a run cannot resume exactly: new completions come "
                f"every steps_per_generation * num_iterations = {self._batches_per_generation} batches, of which a "
                f"step takes gradient_accumulation_steps = {self.args.gradient_accumulation_steps}. Set "
                f"{name}={nearest}, or save_strategy='epoch'."
            )

    def on_rewards(self, listener: RewardListener) -> None:
        """Call `listener(rows, rewards)` after each generation while training, on every process with the same arrays.

        rows: [M] of train_dataset, one for each completion of all processes. rewards: [M], the mean of the reward
        functions by `reward_weights`; completions that no function could score are left out. ValueError where the
        trainer is told to drop columns (`remove_unused_columns`, False by default in GRPO).
        """
        if self.args.remove_unused_columns:
            raise ValueError(
                f"remove_unused_columns=True takes away {ROW!r}, which rewards are known by. Set it False."
            )
        if ROW not in self.train_dataset.column_names:
            self.train_dataset = self.train_dataset.add_column(ROW, list(range(len(self.train_dataset))))
        self._reward_listeners.append(listener)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, *args, **kwargs)  # [M, functions], of all processes
        if self._reward_listeners and self.model.training:
            own = torch.tensor([row[ROW] for row in inputs], device=self.accelerator.device)
            rows = self.accelerator.gather(own).cpu().numpy()
            scores, weights = rewards.cpu().double().numpy(), self.reward_weights.double().numpy()
            scored = (~np.isnan(scores) * weights).sum(axis=1)
            scored[scored == 0] = np.nan  # no function could score these
            mean = np.nansum(scores * weights, axis=1) / scored
            known = ~np.isnan(mean)
            for listener in self._reward_listeners:
                listener(rows[known], mean[known])
        return rewards

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        with positions_from_mask(self.accelerator.unwrap_model(model)):
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    @property
    def _batches_per_generation(self) -> int:
        return self.args.steps_per_generation * self.num_iterations

    @property
    def _steps_per_round(self) -> int:
        prompts = self.args.generation_batch_size // self.num_generations
        draws = self._round_size or len(self.train_dataset)
        batches = draws // prompts * self._batches_per_generation
        return math.ceil(batches / self.args.gradient_accumulation_steps)

    @property
    def _last_step(self) -> int:
        planned = math.ceil(self.args.num_train_epochs * self._steps_per_round)
        return self.args.max_steps if self.args.max_steps > 0 else planned

    def _on_generation(self, step: int) -> bool:
        # A round ends with a whole generation, and its last step may be a short one: count batches within the round.
        batches = step % self._steps_per_round * self.args.gradient_accumulation_steps
        return batches % self._batches_per_generation == 0

    def _saves_on_generation(self, every: int) -> bool:
        return all(self._on_generation(step) for step in range(every, self._last_step, every))

    def _check_resume(self, state: TrainerState) -> None:
        if state.global_step < state.max_steps and not self._on_generation(state.global_step):
            raise ValueError(
                f"the checkpoint of step {state.global_step} lies between two generations (every "
                f"{self._batches_per_generation} batches), so the run cannot go on exactly. Resume from an earlier "
                "checkpoint, or start anew from its model."
            )
