"""What puts weights into a Trainer: `WeightedSamplingMixin`.

One seam carries it all: `_get_train_sampler`, which transformers and TRL both call for the order of training rows.
The trainer's own sampler says how many times each row and each batch must come; ours draws with that structure.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import RandomSampler, Sampler
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from trl.trainer.utils import RepeatSampler

from hf_synth.sampling.samplers import DensityWeightedSampler
from hf_synth.sampling.weights import check_weights, effective_sample_size

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
    (epoch) on. The seed is `data_seed`, or `seed`. `round_size`: draws in a round where it is not to be as many as
    there are rows; a round is an epoch to the trainer, so `num_train_epochs` counts rounds.

    Raises ValueError for a stream (`weighted_stream` makes one for stock trainers), a dataset without the column or
    with fewer rows than a batch, for packing (it makes new rows), and for an order that weights would overrule.
    """

    weighted_sampler: DensityWeightedSampler | None = None
    resume_directory: str | None = None  # the checkpoint that this training goes on from

    def __init__(self, *args: Any, round_size: int | None = None, **kwargs: Any) -> None:
        with _reference_is_copied(type(self), kwargs.get("model", args[0] if args else None)):
            super().__init__(*args, **kwargs)
        if getattr(self.args, "packing", False):
            raise ValueError(
                "packing=True joins rows into new ones, so a weight belongs to no row. Set packing=False "
                "(with max_length=None, padding_free=True also saves padding, and keeps rows)."
            )
        self._sampling_weights = _read_weights(self.train_dataset)
        self._weights_were_set = False
        self._round_size = round_size
        self._get_train_sampler()  # an order or a size that cannot be honoured fails here, not after loading a model
        self.add_callback(_RoundCallback(self))

    @property
    def sampling_weights(self) -> np.ndarray:
        """[N] weights of the current round, by row of `self.train_dataset`."""
        return self._sampling_weights.copy() if self.weighted_sampler is None else self.weighted_sampler.weights

    def set_sampling_weights(self, weights: ArrayLike) -> None:
        """Take new weights [N], one for each row of `train_dataset`, from the next round on."""
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
            self.resume_directory = get_last_checkpoint(self.args.output_dir)
        else:
            self.resume_directory = resume_from_checkpoint or None
        self.weighted_sampler = None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        if getattr(self, "calculate_KL", False):
            raise ValueError(
                "KTO's loss_type='kto' estimates its KL term from neighbours in the dataset's order, which weights "
                "would overrule. Set loss_type='apo_zero_unpaired', which has no such term, or train without weights."
            )
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
            size = {"seed": seed, "round_size": self._round_size}
            sampler = DensityWeightedSampler(self._sampling_weights, **size, **counts)
            if self._weights_were_set:
                sampler.set_weights(self._sampling_weights)
            saved = os.path.join(self.resume_directory or "", SAMPLER_FILE)
            if self.resume_directory is not None and os.path.exists(saved):  # else its weights had not changed
                sampler.load(saved)
                self._sampling_weights, self._weights_were_set = sampler.state_dict()["next_weights"], True
            self.weighted_sampler = sampler
        return sampler

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the trainer's own; beside each loss stands the effective sample size of the round's weights, in rows."""
        if "loss" in logs and self.weighted_sampler is not None:
            size = effective_sample_size(self.weighted_sampler.weights)
            logs = {**logs, "sampling/effective_sample_size": size}
        super().log(logs, *args, **kwargs)

    def _check_resume(self, state: TrainerState) -> None:
        """For trainers that cannot go on from every step."""


class _RoundCallback(TrainerCallback):
    """Tells the sampler which round begins, and keeps weights that changed with the checkpoints.

    With several processes, the trainer's own `set_epoch` does not get through accelerate's wrappers in the first epoch
    after a resume; this does.
    """

    def __init__(self, trainer: WeightedSamplingMixin) -> None:
        self.trainer = trainer
        self.saved_at: int | None = None  # the step of the newest checkpoint, until the next step begins
        self.checked: int | None = None  # the newest round whose weights were compared between processes

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.saved_at = self.checked = None
        self.trainer._check_resume(state)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._sampler.set_epoch(int(state.epoch))

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.checked != self._sampler.round:
            # All processes must draw in one order, or every group is broken without a sign of it.
            accelerator, self.checked = self.trainer.accelerator, self._sampler.round
            own = torch.tensor([self._sampler.fingerprint()], device=accelerator.device)
            if len(set(accelerator.gather(own).tolist())) > 1:
                raise ValueError(
                    f"the processes hold different sampling weights in round {self.checked}. Compute new weights on "
                    "one process and broadcast them, or from the same numbers on all."
                )
        if state.global_step == self.saved_at:
            # Weights set after a round's last step was saved belong to that checkpoint: it resumes with this round.
            self._save(args, state)
        self.saved_at = None

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.saved_at = state.global_step
        self._save(args, state)

    @property
    def _sampler(self) -> DensityWeightedSampler:
        sampler = self.trainer.weighted_sampler
        if sampler is None:
            raise RuntimeError("the trainer began an epoch without asking for its training sampler")
        return sampler

    def _save(self, args: Any, state: TrainerState) -> None:
        if self._sampler.changed and args.should_save:
            checkpoint = os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            self._sampler.save(os.path.join(checkpoint, SAMPLER_FILE))


def _copy_or_load(model: PreTrainedModel, load: Callable[..., Any], name: str, *args: Any, **options: Any) -> Any:
    """Return a copy of the model where its own name is asked for; another name, such as a teacher's, is loaded."""
    return copy.deepcopy(model).eval() if name == model.config.name_or_path else load(name, *args, **options)


@contextlib.contextmanager
def _reference_is_copied(trainer: type, model: Any) -> Iterator[None]:
    """Give a TRL trainer that asks for a reference model a copy of the model that it is given.

    By itself it loads one by the name in the model's config: that is the branch main, whatever revision the model is
    of, and nothing at all for a model made in memory.
    """
    kinds = trainer.__mro__ if isinstance(model, PreTrainedModel) else ()
    homes = {sys.modules[kind.__module__] for kind in kinds}
    loaders = {home: home.create_model_from_path for home in homes if hasattr(home, "create_model_from_path")}
    try:
        for home, loader in loaders.items():
            home.create_model_from_path = functools.partial(_copy_or_load, model, loader)  # type: ignore[attr-defined]
        yield
    finally:
        for home, loader in loaders.items():
            home.create_model_from_path = loader  # type: ignore[attr-defined]


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
    if type(stock) not in (RepeatSampler, RandomSampler):
        raise ValueError(
            f"the trainer orders its rows with {type(stock).__name__}, which weights would overrule. Set "
            "train_sampling_strategy='random', or use the trainer without weights."
        )
    if not getattr(stock, "shuffle", True):
        raise ValueError("shuffle_dataset=False asks for the dataset's own order, weights for another: set True.")
    counts = {"group_size": "mini_repeat_count", "batch_size": "batch_size", "repeat_count": "repeat_count"}
    return {ours: getattr(stock, trls, 1) for ours, trls in counts.items()}  # 1 each without groups
