"""`Trainer` for rows by number: losses token by token and against the floor, schedules, and no NaN that passes."""

import contextlib
import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from hf_synth.evaluation.scoring import label_scores, target_mask
from hf_synth.online import HeldRows, only_batch
from hf_synth.training.checkpoints import LOWER
from hf_synth.training.pretraining_callbacks import VALIDATION_LOSS
from hf_synth.training.pretraining_data import ScheduleArguments


class PretrainingTrainer(Trainer):
    """`Trainer` over an endless training set that is read in order.

    Each evaluation set gives `eval_NAME_loss`, `_accuracy` (of tokens) and `_row_accuracy` (of rows all right), exact
    means over all tokens that carry loss; with a floor also `_excess`, and for each group of rows (analogy's types of
    facts) the same by group with `_perplexity` and `_probability`: CE, ACC, PPL and PROB.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        train_dataset: Dataset,
        eval_dataset: Mapping[str, Dataset],
        schedule: ScheduleArguments,
        epoch_steps: float,
        **options: Any,
    ) -> None:
        """`train_dataset`: one of those of `hf_synth.online`; `epoch_steps`: what the log calls an epoch.

        `options`: further ones of Trainer.
        """
        if args.metric_for_best_model in ("loss", "eval_loss"):  # what Trainer calls that of a single evaluation set
            args.metric_for_best_model = VALIDATION_LOSS
        args.remove_unused_columns = False
        args.dataloader_drop_last = False  # training rows have no end, and every evaluation row counts
        args.train_sampling_strategy = "sequential"
        args.logging_nan_inf_filter = False  # a NaN shall be seen, not averaged away
        self.schedule, self.epoch_steps = schedule, epoch_steps
        self._operations_per_token: int | None = None
        betas = (args.adam_beta1, args.adam_beta2)
        adam = {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon, "fused": True}
        super().__init__(
            model,
            args,
            data_collator=only_batch,
            train_dataset=train_dataset,
            eval_dataset=dict(eval_dataset),
            compute_metrics=lambda _: {},
            preprocess_logits_for_metrics=label_scores,
            optimizer_cls_and_kwargs=(torch.optim.Adam, adam) if schedule.optimizer == "adam" else None,
            **options,
        )

    @property
    def rows_per_step(self) -> int:
        """Return how many rows one optimizer step reads, on all ranks together."""
        return self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return all names, or as Trainer does: neither biases nor norms."""
        if self.schedule.weight_decay_on == "all":
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def create_optimizer(self, *args: Any, **options: Any) -> torch.optim.Optimizer:
        """Create it as usual; SGD is fused, as AdamW is by default, where weights are whole."""
        optimizer = super().create_optimizer(*args, **options)
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled or self.get_tp_size() > 1)
        if isinstance(optimizer, torch.optim.SGD) and whole:
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create the cosine of ScheduleArguments where it is set, else Trainer's own schedule."""
        cosine = self.schedule.decay_steps is not None or self.schedule.decay_to is not None
        if self.lr_scheduler is not None or not cosine:
            return super().create_scheduler(num_training_steps, optimizer)
        factor = partial(
            cosine_factor,
            warmup=self.args.get_warmup_steps(num_training_steps),
            horizon=self.schedule.decay_steps or num_training_steps,
            floor=self.schedule.decay_to or 0.0,
        )
        self.lr_scheduler: Any = LambdaLR(optimizer if optimizer is not None else self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def train(self, *args: Any, **options: Any) -> TrainOutput:
        """Train as usual, without a search of the disk at every step: see `cache_missing_import`."""
        with cache_missing_import("lomo_optim"):
            return super().train(*args, **options)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count as usual, but the weights once and not at every step."""
        tokens = inputs["input_ids"].numel()
        if self._operations_per_token is None:
            self._operations_per_token = super().floating_point_ops(inputs) // tokens
        return self._operations_per_token * tokens

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """Compute it as usual, without the cache of keys and values that models would fill."""
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as usual, with the epoch of the rows: the dataset itself has no end."""
        self.state.epoch = self.state.global_step / self.epoch_steps
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as usual, with means over tokens instead of the mean over batches."""
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        log_probs, hits = output.predictions
        computed = summary(log_probs, hits == 1, target_mask(output.label_ids), dataloader.dataset)
        metrics = output.metrics | {f"{metric_key_prefix}_{name}": value for name, value in computed.items()}
        return EvalLoopOutput(output.predictions, output.label_ids, metrics, output.num_samples)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return it as usual; without clipping only at the steps that log it, as nobody else reads it."""
        step, every = self.state.global_step + 1, self.state.logging_steps
        read = self.args.logging_strategy != "steps" or step == 1 or step % every == 0
        return super()._get_grad_norm(model, grad_norm) if grad_norm is not None or read else None

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, *args: Any, **options: Any) -> None:
        """Raise ValueError for a NaN or infinite loss before anything is logged or saved."""
        due = self.control.should_log or self.control.should_save or self.control.should_evaluate
        if due and not bool(torch.isfinite(tr_loss).all()):
            step = self.state.global_step
            raise ValueError(f"the training loss is {tr_loss.item()} at step {step} or shortly before; {LOWER}")
        super()._maybe_log_save_evaluate(tr_loss, *args, **options)


@contextlib.contextmanager
def cache_missing_import(package: str) -> Iterator[None]:
    """Let Python remember that a package is not there: accelerate searches the disk for one at every step."""
    if importlib.util.find_spec(package) is not None:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(package, None)


def cosine_factor(step: int, *, warmup: int, horizon: int, floor: float) -> float:
    """Return the fraction of the full rate: linear to 1 at `warmup`, a cosine to `floor` at `horizon`, then level."""
    if step < warmup:
        return step / warmup
    done = min(1.0, (step - warmup) / max(1, horizon - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def summary(log_probs: np.ndarray, hits: np.ndarray, mask: np.ndarray, dataset: Any) -> dict[str, float]:
    """Return loss, accuracy, row_accuracy, the excess over the floor where it is known, and all by group of rows."""
    log_probs = np.where(mask, log_probs, 0.0).astype(np.float64)
    metrics = _means(log_probs, hits, mask)
    if not isinstance(dataset, HeldRows):
        return metrics
    if dataset.optimal is not None:
        metrics["excess"] = metrics["loss"] + float(dataset.optimal.sum() / mask.sum())
    if dataset.groups is not None:
        for group in sorted(set(dataset.groups.tolist())):
            inside = dataset.groups == group
            parts = _means(log_probs[inside], hits[inside], mask[inside])
            with np.errstate(over="ignore"):  # a loss beyond 709 nats has no perplexity below infinity
                parts |= {"perplexity": float(np.exp(parts["loss"]))}
            parts |= {"probability": float(np.exp(log_probs[inside])[mask[inside]].mean())}
            metrics |= {f"{name}/{group}": value for name, value in parts.items()}
    return metrics


def _means(log_probs: np.ndarray, hits: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    tokens = max(1, int(mask.sum()))
    return {
        "loss": float(-log_probs.sum() / tokens),
        "accuracy": float((hits & mask).sum() / tokens),
        "row_accuracy": float((hits | ~mask).all(axis=1).mean()),
    }
