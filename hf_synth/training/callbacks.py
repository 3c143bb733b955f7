"""What happens between the steps of any recipe: numbers of our own in the log, answers to held-out prompts."""

import dataclasses
import functools
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TrackioCallback, WandbCallback

from hf_synth.evaluation.generation import Decoding
from hf_synth.evaluation.held_out import HeldOutPrompts
from hf_synth.io import load_json, write_json


def log_without_resetting_interval(
    log: Callable[[dict[str, float]], None], control: TrainerControl, numbers: Mapping[str, float], prefix: str = ""
) -> None:
    """Log numbers of our own, NaN left out; the training loss of this step is logged as if they had not been.

    `log`: a trainer's.
    """
    due = control.should_log
    log({prefix + name: value for name, value in numbers.items() if math.isfinite(value)})
    control.should_log = due  # a log of any kind counts as this step's


@dataclasses.dataclass(eq=False)
class HeldOutCallback(TrainerCallback):
    """Logs what HeldOutPrompts say of a policy at the first step and after every `every` steps.

    `trainer` is the one that this callback is added to.
    """

    trainer: Trainer
    held_out: HeldOutPrompts
    reference: PreTrainedModel | None
    decoding: Decoding
    every: int

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The policy before its first step; a resumed run has this in its log already."""
        if state.global_step == 0:
            self._log(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Every `every` steps, and at the last."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._log(control)

    def _log(self, control: TrainerControl) -> None:
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
        completions = self.held_out.sample(policy, self.reference, self.decoding)
        # The logs of TRL's trainers would end their running averages here.
        log_without_resetting_interval(
            functools.partial(Trainer.log, self.trainer), control, self.held_out.means(completions)
        )


WANDB_RUN = "wandb_run.json"  # in the folder of a run: its id, by which a resumed run goes on in the same one
_DEFAULT_PROJECT = "huggingface"  # Trainer's own


class TrackedRun(NamedTuple):
    """How trackers call a run: `group` holds the seeds of one arm."""

    project: str
    name: str
    group: str


def tracked_run(args: TrainingArguments) -> TrackedRun:
    """The names of a run: those that were given, or the output directory as project and the seed as name."""
    named = args.project if args.project != _DEFAULT_PROJECT else None
    project, name = named or Path(args.output_dir).resolve().name, args.run_name or f"seed-{args.seed}"
    return TrackedRun(project, name, re.sub(r"-?seed-\d+$", "", name) or project)


def names_for_trackers(
    folder: Path, arm: str, seed: int, *, project: str | None = None, run_name: str | None = None
) -> dict[str, str]:
    """`project` and `run_name` of one of several runs: ARM-seed-N, behind the name that was given for all of them.

    folder: of all runs; its name is the project where none is given. WANDB_NAME takes precedence over `run_name`.
    """
    named = project if project != _DEFAULT_PROJECT else None
    parts = [os.environ.get("WANDB_NAME") or run_name, arm, f"seed-{seed}"]
    return {"project": named or folder.resolve().name, "run_name": "-".join(filter(None, parts))}


class WandbRun(WandbCallback):
    """Logs to a W&B run of its own, open until the next run begins or the process ends: an evaluation may come last.

    WANDB_PROJECT, WANDB_NAME, WANDB_RUN_GROUP and WANDB_RUN_ID take precedence over the run's own names.
    """

    opened: Any = None  # by the run before this one

    def setup(self, args: TrainingArguments, state: TrainerState, model: Any, **kwargs: Any) -> None:
        """Open the run, unless the user has opened one."""
        if state.is_world_process_zero:
            if self._wandb.run is not None and self._wandb.run is WandbRun.opened:
                self._wandb.finish()
            if self._wandb.run is None:
                names, wanted = tracked_run(args), os.environ.get("WANDB_NAME")
                name = wanted if wanted and not names.name.startswith(f"{wanted}-") else names.name
                group = None if os.environ.get("WANDB_RUN_GROUP") else names.group
                # W&B refuses some characters in the name of a project.
                project = os.environ.get("WANDB_PROJECT") or re.sub(r"[/\\#?%:]", "-", names.project)
                run_id = None if os.environ.get("WANDB_RUN_ID") else _wandb_id(Path(args.output_dir), state)
                WandbRun.opened = self._wandb.init(project=project, name=name, group=group, id=run_id, resume="allow")
        super().setup(args, state, model, **kwargs)


def _wandb_id(folder: Path, state: TrainerState) -> str:
    """The id of the run in a folder: that which it has where it goes on from a checkpoint, or else a new one."""
    path = folder / WANDB_RUN
    if state.global_step and (kept := load_json(path)):
        return str(kept["id"])
    run_id = uuid.uuid4().hex[:8]
    write_json(path, {"id": run_id})
    return run_id


class TrackioRun(TrackioCallback):
    """Logs to a trackio run of its own, open until the next run begins or the process ends.

    A run on a Space is frozen when training ends, as Trainer does it.
    """

    def setup(self, args: TrainingArguments, state: TrainerState, model: Any, **kwargs: Any) -> None:
        """Open a run; one that goes on from a checkpoint goes on in the run of its name."""
        if state.is_world_process_zero:
            names = tracked_run(args)
            self._trackio.init(
                project=names.project,
                name=names.name,
                group=names.group,
                space_id=args.trackio_space_id,
                bucket_id=args.trackio_bucket_id,
                private=args.hub_private_repo,
                resume="allow" if state.global_step else "never",
                config=args.to_dict(),
            )
            self._space_id = self._trackio.context_vars.current_space_id.get()
        self._initialized = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Leave the run open, except on a Space."""
        if self._space_id:
            super().on_train_end(args, state, control, **rest)
