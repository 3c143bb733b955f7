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

from accelerate import PartialState
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging as transformers_logging

from hf_synth.errors import disk_full_error
from hf_synth.io import write_json
from hf_synth.training.callbacks import name_tracked_runs

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"
TRAINING_LOG = "training_log.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class CompleteCheckpointCallback(TrainerCallback):
    """Seals each checkpoint once it is on disk, with a digest of every file in it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the manifest last, when every process has saved its part, and whole or not at all."""
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / MANIFEST, {name: _digest(path) for name, path in _files(folder).items()})


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
    before max_steps. `finish` is called on every rank once the model is trained and before it is saved; what it
    returns joins the training log. Returns that log.

    Raises ValueError where a run could not be resumed exactly, and where the disk is full, saying what is whole.
    """
    _check_resumable(trainer.args)
    started = time.monotonic()
    trainer.add_callback(CompleteCheckpointCallback())
    # TRL's card names no data and no result; hf_synth.hub makes one from the run.
    trainer.create_model_card = lambda *_, **__: None
    name_tracked_runs(trainer)
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar())
    checkpoint = last_complete_checkpoint(trainer.args.output_dir)
    if checkpoint is not None:
        logger.warning("Resuming from %s", checkpoint)
    with _full_disk_explained(Path(trainer.args.output_dir)), _without_bars_of_files():
        with without_weight_conversions(trainer.model):
            if checkpoint is not None and _is_last(checkpoint, is_over):
                _restore_finished(trainer, checkpoint)
            else:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            found = finish()
        return _finish(trainer, time.monotonic() - started, found)


def _check_resumable(args: TrainingArguments) -> None:
    if args.save_total_limit == 1:  # Trainer removes the old one before the new one is known to be whole
        raise ValueError("save_total_limit: got 1, wanted at least 2: a run that is cut off goes on from the last one")
    if args.save_only_model:
        raise ValueError(
            "save_only_model: got true, wanted false: without its optimizer a run that is cut off goes on otherwise "
            "than it would have; save_total_limit keeps checkpoints few"
        )
    if args.ignore_data_skip:
        raise ValueError(
            "ignore_data_skip: got true, wanted false: a run that is cut off would begin again with its first rows"
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
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not disk_full_error(error):
            raise
        whole = last_complete_checkpoint(folder)
        kept = f"{whole.name} is whole, and nothing before it is lost" if whole else "no checkpoint was whole yet"
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{folder} cannot be written to in full ({reason}); {kept}; make room, then give the same command again"
        ) from error


def _is_last(checkpoint: Path, is_over: Callable[[TrainerState], bool]) -> bool:
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state.global_step >= state.max_steps or is_over(state)


def _restore_finished(trainer: Trainer, checkpoint: Path) -> None:
    """What `train` would do with the checkpoint of the last step, had it not one step more in it."""
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


def _finish(trainer: Trainer, seconds: float, more: dict[str, Any]) -> dict[str, Any]:
    """Save the model, and last of all the log: a run with a training_log.json is finished."""
    folder = Path(trainer.args.output_dir)
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    log = {"seconds": seconds, "steps": trainer.state.global_step, "history": trainer.state.log_history, **more}
    if trainer.is_world_process_zero():
        write_json(folder / TRAINING_LOG, log)
    trainer.accelerator.wait_for_everyone()
    return log


def read_training_log(folder: Path) -> dict[str, Any] | None:
    """The log of a finished run {seconds, steps, history}, or None."""
    path = folder / TRAINING_LOG
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


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
    found = _files(folder)
    for name, digest in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if _digest(found[name]) != digest:
            return f"{name} is damaged"
    return None
