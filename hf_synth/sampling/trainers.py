"""Any Trainer, drawing rows by their `sampling_weight` column.

One seam carries it all: `_get_train_sampler`, which transformers and TRL both call for the order of training rows.
The trainer's own sampler says how many times each row and each batch must come; ours draws with that structure.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import RandomSampler, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from trl import DPOTrainer, GRPOTrainer, RewardTrainer, SFTTrainer
from trl.trainer.utils import RepeatSampler

from hf_synth.sampling.samplers import DensityWeightedSampler
from hf_synth.sampling.weights import check_weights

if TYPE_CHECKING:
    from transformers import Trainer as _TrainerBase
else:
    _TrainerBase = object

COLUMN = "sampling_weight"
SAMPLER_FILE = "weighted_sampler.safetensors"  # in a checkpoint whose weights are no longer the column's


class WeightedSamplingMixin(_TrainerBase):
    """Put before any Trainer: draws rows of `train_dataset` in proportion to its column `sampling_weight`.

    Weights are read once the trainer has prepared its dataset, so they follow the rows it filters out (SFT, DPO and
    Reward drop rows by length) or shuffles. A run and its control use the same class; the control's weights are all 1.

    What it adds to the trainer: `weighted_sampler` (while training), `sampling_weights` and `set_sampling_weights`.
    Weights that change are saved with each checkpoint, as `weighted_sampler.safetensors`, and taken up on resume.
    Change them identically on every process: before training, or in any callback; they count from the next round
    (epoch) on. The seed is `data_seed`, or `seed`.

    Raises:
        ValueError: a train_dataset that is streamed, not a `datasets.Dataset`, or without the column; weights that are
            missing in rows, NaN, negative or all 0; fewer rows than one batch of prompts; SFT packing (it makes new
            rows out of several); an order asked for that weights would overrule (`train_sampling_strategy` other than
            "random", GRPO with `shuffle_dataset=False`).
    """

    weighted_sampler: DensityWeightedSampler | None = None
    _resume_directory: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if getattr(self.args, "packing", False):
            raise ValueError(
                "packing=True joins rows into new ones, so a weight belongs to no row. Set packing=False "
                "(with max_length=None, padding_free=True also saves padding, and keeps rows)."
            )
        self._sampling_weights = _read_weights(self.train_dataset)
        self._weights_were_set = False
        self._get_train_sampler()  # an order or a size that cannot be honoured fails here, not after loading a model
        self.add_callback(_RoundCallback(self))

    @property
    def sampling_weights(self) -> np.ndarray:
        """[N] weights of the current round, by row of `self.train_dataset`."""
        return self._sampling_weights.copy() if self.weighted_sampler is None else self.weighted_sampler.weights

    def set_sampling_weights(self, weights: ArrayLike) -> None:
        """Take new weights [N] from the next round on (from the first, before training).

        Raises:
            ValueError: not one finite number of at least 0 for each row of `self.train_dataset`, or all 0.
        """
        checked = check_weights(weights)
        if len(checked) != len(self._sampling_weights):
            raise ValueError(
                f"weights: got {len(checked)}, wanted one for each of the {len(self._sampling_weights)} rows of "
                "train_dataset."
            )
        self._sampling_weights, self._weights_were_set = checked, True
        if self.weighted_sampler is not None:
            self.weighted_sampler.set_weights(checked)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own; a checkpoint's sampler is taken up with it."""
        if resume_from_checkpoint is True:
            self._resume_directory = get_last_checkpoint(self.args.output_dir)
        else:
            self._resume_directory = resume_from_checkpoint or None
        self.weighted_sampler = None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        counts = _structure(super()._get_train_sampler(train_dataset))
        rows = len(self.train_dataset if train_dataset is None else train_dataset)
        if rows != len(self._sampling_weights):
            raise ValueError(
                f"the dataset to train on has {rows} rows, and there are {len(self._sampling_weights)} weights. Give "
                "the trainer a train_dataset that nothing replaces afterwards."
            )
        sampler = self.weighted_sampler
        if sampler is None or counts != {name: getattr(sampler, name) for name in counts}:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            sampler = DensityWeightedSampler(self._sampling_weights, seed=seed, **counts)
            if self._weights_were_set:
                sampler.set_weights(self._sampling_weights)
            saved = os.path.join(self._resume_directory or "", SAMPLER_FILE)
            if self._resume_directory is not None and os.path.exists(saved):  # else its weights had not changed
                sampler.load(saved)
                self._sampling_weights, self._weights_were_set = sampler.state_dict()["next_weights"], True
            self.weighted_sampler = sampler
        return sampler

    def _check_resume(self, state: TrainerState) -> None:
        """For trainers that cannot go on from every step."""


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

    Completions live for steps_per_generation * num_iterations batches and are in no checkpoint, so a run resumes
    exactly only from a step at which new ones are made.

    Raises:
        ValueError: also where a checkpoint would be saved at another step; the nearest legal values are named.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name, every = self._save_interval()
        if every is not None and not self._saves_on_generation(every):
            below = next((s for s in range(every - 1, 0, -1) if self._saves_on_generation(s)), None)
            above = next(s for s in itertools.count(every + 1) if self._saves_on_generation(s))
            nearest = f"{above}" if below is None else f"{below} or {above}"
            raise ValueError(
                f"{name}={every} saves between generations, where a run cannot resume exactly: new completions come "
                f"every steps_per_generation * num_iterations = {self._batches_per_generation} batches, of which a "
                f"step takes gradient_accumulation_steps = {self.args.gradient_accumulation_steps}. Set "
                f"{name}={nearest}, or save_strategy='epoch'."
            )

    @property
    def _batches_per_generation(self) -> int:
        return self.args.steps_per_generation * self.num_iterations

    @property
    def _steps_per_round(self) -> int:
        prompts = self.args.generation_batch_size // self.num_generations
        batches = len(self.train_dataset) // prompts * self._batches_per_generation
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

    def _save_interval(self) -> tuple[str, int | None]:
        """The setting that says how often checkpoints come, and its value in steps; None where it cannot go wrong."""
        strategy, name = str(self.args.save_strategy.value), "save_steps"
        if strategy == "best" and self.args.eval_strategy.value == "steps":
            name = "eval_steps"
        elif strategy != "steps":
            return name, None
        every = getattr(self.args, name)
        return name, math.ceil(self._last_step * every) if every < 1 else int(every)

    def _check_resume(self, state: TrainerState) -> None:
        if state.global_step < state.max_steps and not self._on_generation(state.global_step):
            raise ValueError(
                f"the checkpoint of step {state.global_step} lies between two generations (every "
                f"{self._batches_per_generation} batches), so the run cannot go on exactly. Resume from an earlier "
                "checkpoint, or start anew from its model."
            )


class _RoundCallback(TrainerCallback):
    """Tells the sampler which round begins, and keeps weights that changed with the checkpoints.

    With several processes, the trainer's own `set_epoch` does not get through accelerate's wrappers in the first epoch
    after a resume; this does.
    """

    def __init__(self, trainer: WeightedSamplingMixin) -> None:
        self.trainer = trainer
        self.saved_at: int | None = None  # the step of the newest checkpoint, until the next step begins
        self.checked: int | None = None  # the newest round whose weights were compared between processes

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved_at = self.checked = None
        self.trainer._check_resume(state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._sampler.set_epoch(int(state.epoch))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.checked != self._sampler.round:
            self._check_ranks()
        if state.global_step == self.saved_at:
            # Weights set after a round's last step was saved belong to that checkpoint: it resumes with this round.
            self._save(args, state)
        self.saved_at = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved_at = state.global_step
        self._save(args, state)

    @property
    def _sampler(self) -> DensityWeightedSampler:
        sampler = self.trainer.weighted_sampler
        if sampler is None:
            raise RuntimeError("the trainer began an epoch without asking for its training sampler")
        return sampler

    def _check_ranks(self) -> None:
        """Once a round: all processes must draw in one order, or every group is broken without a sign of it."""
        accelerator, self.checked = self.trainer.accelerator, self._sampler.round
        if accelerator.num_processes > 1:
            prints = accelerator.gather(torch.tensor([self._sampler.fingerprint()], device=accelerator.device))
            if len(set(prints.tolist())) > 1:
                raise ValueError(
                    f"the processes hold different sampling weights in round {self.checked}. Compute new weights on "
                    "one process and broadcast them, or from the same numbers on all."
                )

    def _save(self, args: TrainingArguments, state: TrainerState) -> None:
        if self._sampler.changed and args.should_save:
            checkpoint = os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            self._sampler.save(os.path.join(checkpoint, SAMPLER_FILE))


def _read_weights(dataset: Any) -> np.ndarray:
    """[N] weights from the column of a map-style dataset, or a ValueError."""
    if isinstance(dataset, (datasets.IterableDataset, torch.utils.data.IterableDataset)):
        raise ValueError(
            "train_dataset is streamed: rows without an index cannot be drawn by weight. Load it with streaming=False."
        )
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"train_dataset: wanted a datasets.Dataset with a column {COLUMN!r}, got {type(dataset).__name__}."
        )
    if COLUMN not in dataset.column_names:
        raise ValueError(
            f"train_dataset has no column {COLUMN!r}, only {', '.join(dataset.column_names)}. Add it with "
            f"train_dataset.add_column({COLUMN!r}, rarity_weights(knn_density(...))); a control run has 1 in each row."
        )
    return check_weights(dataset.select_columns([COLUMN]).with_format("numpy")[:][COLUMN], name=COLUMN)


def _structure(stock: Any) -> dict[str, int]:
    """How often each row and each batch must come, read off the trainer's own sampler."""
    if type(stock) is RepeatSampler:
        if not stock.shuffle:
            raise ValueError("shuffle_dataset=False asks for the dataset's own order, weights for another: set True.")
        return {
            "group_size": stock.mini_repeat_count,
            "batch_size": stock.batch_size,
            "repeat_count": stock.repeat_count,
        }
    if type(stock) is RandomSampler:
        return {"group_size": 1, "batch_size": 1, "repeat_count": 1}
    raise ValueError(
        f"the trainer orders its rows with {type(stock).__name__}, which weights would overrule. Set "
        "train_sampling_strategy='random', or use the trainer without weights."
    )
