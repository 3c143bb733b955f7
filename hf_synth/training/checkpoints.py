"""Checkpoints that are known to be whole: a run cut off at any moment resumes from the last of them."""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TrackioCallback, WandbCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging as transformers_logging

from hf_synth.errors import disk_full_error
from hf_synth.io import load_json, whole_file, write_json
from hf_synth.sampling.mixin import SAMPLER_FILE
from hf_synth.training.callbacks import TrackioRun, WandbRun

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"
TRAINING_LOG = "training_log.json"
_SINCE_LOG = "since_log_{rank}.json"  # what a process has counted since it logged
_COUNTS = ("_total_loss_scalar", "_globalstep_last_logged", "_total_train_tokens")
_REFERENCE = "reference.safetensors"
LOWER = "lower learning_rate, raise warmup_steps or set max_grad_norm; checkpoints written before are whole"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class CheckpointCallback(TrainerCallback):
    """Adds to each checkpoint what Trainer and TRL leave out of it, seals it, and takes it up where a run goes on.

    Left out are a reference model that follows the policy, the means and counts since the last log, and the time
    spent. Trainer saves all else that changes what follows: weights, optimizer, schedule, scaler, random states, log,
    best model, tokens and operations so far; the weighted trainers save their weights. A generation's completions
    are never needed: GRPO saves where new ones are made.
    """

    def __init__(self, trainer: Trainer, checkpoint: Path | None) -> None:
        """`trainer` is the one that this callback is added to, last of all; it goes on from `checkpoint`."""
        self.trainer, self.checkpoint = trainer, checkpoint
        self.started, self.seconds_before = time.monotonic(), 0.0
        self.sealed_at: int | None = None
        self.deferred = False

    @property
    def seconds(self) -> float:
        """The time of this run so far, that of the commands before it included."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up what the checkpoint holds."""
        if self.checkpoint is None:
            return
        trainer: Any = self.trainer
        reference = self.checkpoint / _REFERENCE
        if getattr(args, "sync_ref_model", False):
            if not reference.exists():
                raise ValueError(
                    f"{self.checkpoint} holds no {_REFERENCE}, which sync_ref_model needs to go on; remove that folder"
                )
            load_model(trainer.accelerator.unwrap_model(trainer.ref_model), reference)
        saved = TrainerState.load_from_json(str(self.checkpoint / TRAINER_STATE_NAME)).best_model_checkpoint
        if args.load_best_model_at_end and saved is not None:
            best = Path(args.output_dir) / Path(saved).name  # the folder may have another path by now
            if problem := _problem(best):
                raise ValueError(f"{best} is the best model so far, for load_best_model_at_end, and {problem}")
            state.best_model_checkpoint = str(best)
        since_log = load_json(self.checkpoint / _SINCE_LOG.format(rank=args.process_index))
        if since_log is None:  # of an older version
            return
        self.seconds_before = since_log["seconds"]
        trainer._tr_loss.fill_(since_log["loss"])
        trainer.model.train(since_log["training"])
        for name, value in since_log["attributes"].items():
            setattr(trainer, name, value)
        if "metrics" in since_log:
            trainer._metrics["train"].update(since_log["metrics"])
        if "tallies" in since_log:
            trainer._tallies["train"] += torch.tensor(since_log["tallies"])

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the last checkpoint again where new weights of rows were added to it when a round began."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.sealed_at == state.global_step and (folder / SAMPLER_FILE).exists():
            self.manifest[SAMPLER_FILE] = _digest(folder / SAMPLER_FILE)
            write_json(folder / MANIFEST, self.manifest)
        self.sealed_at = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """At the last step of an epoch, save after what happens at its end: a run goes on with the next epoch."""
        ends = state.global_step >= state.max_steps or float(state.epoch or 0.1).is_integer()
        self.deferred = ends and control.should_save
        if self.deferred:
            control.should_save = False

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save now what the last step did not."""
        control.should_save |= self.deferred
        self.deferred = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what is left out, and the manifest last, when every process has saved its part."""
        trainer: Any = self.trainer
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        since_log = {
            "seconds": self.seconds,
            "loss": trainer._tr_loss.item(),
            "training": trainer.model.training,  # TRL logs by it
            "attributes": {name: getattr(trainer, name) for name in _COUNTS if hasattr(trainer, name)},
        }
        if hasattr(trainer, "_metrics"):  # TRL's means
            since_log["metrics"] = trainer._metrics["train"]
        if hasattr(trainer, "_tallies"):  # those of reward models with several heads
            since_log["tallies"] = trainer._tallies["train"].tolist()
        write_json(folder / _SINCE_LOG.format(rank=args.process_index), since_log)
        if getattr(args, "sync_ref_model", False) and state.is_world_process_zero:
            with whole_file(folder / _REFERENCE) as part:
                save_model(trainer.accelerator.unwrap_model(trainer.ref_model), str(part))
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            self.manifest = {name: _digest(path) for name, path in _files(folder).items()}
            write_json(folder / MANIFEST, self.manifest)
            self.sealed_at = state.global_step


class ProgressBar(ProgressCallback):
    """Shows the bar and the last loss; all that is logged stands in training_log.json, and is not printed."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Put the training loss beside the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3g}")


def train(
    trainer: Trainer,
    *,
    is_over: Callable[[TrainerState], bool] = lambda state: False,
    finish: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Train to the end and save; from the last whole checkpoint in the output directory if there is one.

    A torn checkpoint is skipped with a warning. `is_over`: whether a checkpoint's state is that of a run that ended
    before max_steps. What Trainer does at the end, such as loading the best model, it does after a resume too,
    wherever the run was cut off. `finish` is called on every rank once the model is trained and before it is saved;
    what it returns joins the training log. Returns that log.

    Raises ValueError where a run could not be resumed exactly, and where the disk is full, saying what is whole.
    """
    _check_resumable(trainer.args)
    # TRL's card names no data and no result; hf_synth.hub makes one from the run.
    trainer.create_model_card = lambda *_, **__: None
    for stock, own in ((WandbCallback, WandbRun), (TrackioCallback, TrackioRun)):  # a run is named by arm and seed
        if any(type(callback) is stock for callback in trainer.callback_handler.callbacks):
            trainer.remove_callback(stock)
            trainer.add_callback(own())
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar())
    folder = Path(trainer.args.output_dir)
    checkpoint = last_complete_checkpoint(folder)
    keeper = CheckpointCallback(trainer, checkpoint)
    trainer.add_callback(keeper)
    finalize, save_model = trainer._finalize_training, trainer.save_model

    def finalize_whole_run(trial: Any, samples: int, start_time: float) -> Any:
        """Trainer's loss and speed of the training would be those since the resume."""
        trainer._initial_global_step = 0
        return finalize(trial, samples, start_time - keeper.seconds_before)

    def save_finite_model(*args: Any, **options: Any) -> None:
        """A checkpoint of NaN would be gone on from for ever, and such a model is of no use to anybody."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in trainer.model.parameters()):
            raise ValueError(f"NaN or inf in the weights after step {trainer.state.global_step}; {LOWER}")
        save_model(*args, **options)

    trainer._finalize_training, trainer.save_model = finalize_whole_run, save_finite_model
    if checkpoint is not None:
        logger.warning("Resuming from %s", checkpoint)
        trainer.args.eval_on_start = False  # it is in the log already
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step >= state.max_steps or is_over(state):
            # Trainer would take one step more before it sees that none is left.
            trainer._run_epoch = lambda **_: setattr(trainer.control, "should_training_stop", True)
    with _disk_errors_explained(folder), _without_bars_of_files():
        with without_weight_conversions(trainer.model):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            more = finish()
        trainer.save_model(str(folder))
        trainer.accelerator.wait_for_everyone()
        steps, history = trainer.state.global_step, trainer.state.log_history
        log = {"seconds": keeper.seconds, "steps": steps, "history": history, **more}
        if trainer.is_world_process_zero():  # last of all: a run with a training_log.json is finished
            write_json(folder / TRAINING_LOG, log)
        trainer.accelerator.wait_for_everyone()
    return log


_NOT_RESUMED = (
    ("save_total_limit", 1, "at least 2", "the last checkpoint would be removed before the next one is whole"),
    ("save_only_model", True, "false", "no run goes on exactly without its optimizer; save_total_limit keeps few"),
    ("ignore_data_skip", True, "false", "a run that is cut off would begin again with its first rows"),
    ("train_sampling_strategy", "group_by_length", "random or sequential", "a resume would draw another order"),
)


def _check_resumable(args: TrainingArguments) -> None:
    if getattr(args, "sync_ref_model", False) and (args.fsdp or args.deepspeed):
        raise ValueError(
            "sync_ref_model: got true with fsdp or deepspeed, wanted false: a reference in parts is in no checkpoint"
        )
    for name, refused, wanted, why in _NOT_RESUMED:
        if getattr(args, name) == refused:
            raise ValueError(f"{name}: got {str(refused).lower()}, wanted {wanted}: {why}")
    if not args.accelerator_config.use_seedable_sampler:
        raise ValueError(
            "accelerator_config: got use_seedable_sampler false, wanted true: a resume would draw another order"
        )


@contextlib.contextmanager
def without_weight_conversions(model: PreTrainedModel) -> Iterator[None]:
    """Let checkpoints hold weights by the names that the model has for them.

    transformers saves some architectures by the names of older versions, and Trainer does not translate these back
    when it resumes: a GPT-NeoX would go on with the head that it began with (embed_out in the file, lm_head in the
    model). Both kinds of file load by `from_pretrained`.
    """
    there = hasattr(model, "_weight_conversions")
    before = getattr(model, "_weight_conversions", None)
    model._weight_conversions = []
    try:
        yield
    finally:
        if there:
            model._weight_conversions = before
        else:
            del model._weight_conversions


@contextlib.contextmanager
def _without_bars_of_files() -> Iterator[None]:
    """Keep transformers from drawing a bar for every file of weights: the run has one of its own."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _disk_errors_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not folder.is_dir():
            raise ValueError(
                f"{folder} is gone, and the run was writing to it; give the same command again"
            ) from error
        if isinstance(error, KeyError) and "metric_for_best_model" in str(error):
            raise ValueError(f"metric_for_best_model: {str(error)[1:-1].split('Please')[0]}") from error
        if isinstance(error, SafetensorError) and not disk_full_error(error):  # which names no file
            raise ValueError(f"a file of weights in {folder} cannot be read or written: {error}") from error
        if not disk_full_error(error):
            raise
        whole = last_complete_checkpoint(folder)
        kept = f"{whole.name} is whole, and nothing before it is lost" if whole else "no checkpoint was whole yet"
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{folder} cannot be written to in full ({reason}); {kept}; make room, then give the same command again"
        ) from error


def read_training_log(folder: Path) -> dict[str, Any] | None:
    """The log of a finished run {seconds, steps, history}, or None."""
    return load_json(folder / TRAINING_LOG)


def last_complete_checkpoint(output_dir: str | os.PathLike) -> Path | None:
    """The checkpoint of the most steps whose files are all as they were written; others are named in a warning."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return None
    steps = {int(match[1]): path for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))}
    for step in sorted(steps, reverse=True):
        if (problem := _problem(steps[step])) is None:
            return steps[step]
        logger.warning("Skipping checkpoint %s: %s", steps[step], problem)
    return None


def _files(folder: Path) -> dict[str, Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _problem(folder: Path) -> str | None:
    try:
        wanted = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:  # neither JSON nor perhaps UTF-8
        wanted = None
    if not isinstance(wanted, dict):
        return f"its {MANIFEST} is damaged"
    files = _files(folder)
    if TRAINER_STATE_NAME not in wanted:
        return f"its {MANIFEST} names no {TRAINER_STATE_NAME}"
    for name, digest in wanted.items():
        if name not in files:
            return f"{name} is missing"
        if _digest(files[name]) != digest:
            return f"{name} is damaged"
    return None
