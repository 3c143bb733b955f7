"""How long a run is and when it looks, from what its user said in steps, epochs or steps an epoch."""

import math

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from hf_synth.training.pretraining.arguments import RowsArguments


def rows_per_step(args: TrainingArguments) -> int:
    """Rows of one optimizer step, on all processes together. Raises ValueError for sizes that are none."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: got {getattr(args, name)}, wanted at least 1")
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def settle_steps(args: TrainingArguments, rows: RowsArguments, epoch: int | None) -> float:
    """Set max_steps, and where nothing else is said the steps between looks; returns the steps of an epoch.

    `epoch`: rows in one pass over the training set, None of endless rows. An epoch of endless rows is
    `steps_per_epoch` steps, or the whole run; what shall happen every epoch happens every so many steps.
    Raises ValueError where the run would have no end.
    """
    batch = rows_per_step(args)
    steps = rows.steps_per_epoch or (None if epoch is None else epoch / batch)
    if args.max_steps < 1:
        if steps is None:
            raise ValueError(
                "got neither max_steps nor steps_per_epoch, and fresh rows never end; wanted one: set max_steps, or "
                "steps_per_epoch with num_train_epochs"
            )
        if not 0 < args.num_train_epochs < math.inf:
            raise ValueError(f"num_train_epochs: got {args.num_train_epochs}, wanted a finite number above 0")
        args.max_steps = math.ceil(args.num_train_epochs * steps)
    epoch_steps = steps or args.max_steps
    if rows.steps_per_epoch and args.eval_strategy == "no":
        args.eval_strategy = IntervalStrategy.EPOCH
    for name in ("eval", "save", "logging"):  # Trainer sees rows without end, and would wait for ever
        if getattr(args, f"{name}_strategy") == "epoch":
            setattr(args, f"{name}_strategy", type(getattr(args, f"{name}_strategy"))("steps"))
            setattr(args, f"{name}_steps", max(1, round(epoch_steps)))
    return epoch_steps
