"""What happens between steps: snapshots, the best model, when to stop, a curriculum, and the shape of embeddings.

None of them keeps a state of its own: each reads the log in the checkpoint, so that a resumed run decides as an
uninterrupted one does.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_synth.evaluation.scoring import score_rows
from hf_synth.io import replace_folder
from hf_synth.metrics.geometry import geometry
from hf_synth.tasks.analogy import Analogy
from hf_synth.tasks.base import FIRST_CONTENT
from hf_synth.training.callbacks import log_without_resetting_interval
from hf_synth.training.pretraining_data import Curriculum, CurriculumArguments

VALIDATION_LOSS = "eval_validation_loss"


def spaced_steps(per_doubling: float, linear_after: int | None, most: int) -> Iterator[int]:
    """Steps 1 .. `most` spaced by the factor 2**(1/per_doubling), then by the last distance from `linear_after` on."""
    step, exact, distance = 0, 1.0, 1
    while True:
        if linear_after is not None and step >= linear_after:
            following = step + distance
        else:
            while round(exact) <= step:
                exact *= 2 ** (1 / per_doubling)
            following = round(exact)
        distance, step = following - step, following
        if step > most:
            return
        yield step


@dataclasses.dataclass(eq=False)
class SnapshotCallback(TrainerCallback):
    """Keeps the model of chosen steps of its trainer in snapshots/step-00000128, and evaluates at each."""

    trainer: Trainer
    steps: set[int]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save, and ask for an evaluation."""
        if state.global_step in self.steps:
            save_model_atomically(self.trainer, Path(args.output_dir) / "snapshots" / f"step-{state.global_step:08d}")
            control.should_evaluate = True


@dataclasses.dataclass(eq=False)
class BestModelCallback(TrainerCallback):
    """Keeps the model of the lowest validation loss of its trainer in best/."""

    trainer: Trainer

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save where the latest loss is lower than all before."""
        *before, latest = logged(state, VALIDATION_LOSS) or [(0, 0.0)]
        if latest[0] == state.global_step and all(latest[1] < loss for step, loss in before if step < latest[0]):
            save_model_atomically(self.trainer, Path(args.output_dir) / "best")


@dataclasses.dataclass(eq=False)
class StoppingCallback(TrainerCallback):
    """Ends training when the validation loss is low enough, or has not become lower for a while."""

    patience: int | None  # evaluations without a lower loss; None for never, as below
    loss_threshold: float | None  # in nats per token

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the losses so far."""
        if self.is_over(state):
            control.should_training_stop = True

    def is_over(self, state: TrainerState) -> bool:
        """Whether the losses that a state has logged end the run."""
        losses = [loss for _, loss in logged(state, VALIDATION_LOSS)]
        if not losses or (self.loss_threshold is not None and losses[-1] <= self.loss_threshold):
            return bool(losses)
        return self.patience is not None and len(losses) - 1 - losses.index(min(losses)) >= self.patience


class GeometryCallback(TrainerCallback):
    """Logs how the embeddings of an analogy's entities lie, at the start and at every evaluation: geometry/NAME."""

    def __init__(self, trainer: Trainer, task: Analogy) -> None:
        """`trainer` is the one that this callback is added to, `task` the one whose functor is measured."""
        self.trainer, self.pairs = trainer, task.functor()
        self.functor_id = FIRST_CONTENT + task.vocabulary().index("<f>")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The fresh model; a resumed run has this in its log already."""
        if state.global_step == 0:
            self._log(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure with each evaluation."""
        if control.should_evaluate:
            self._log(control)

    def _log(self, control: TrainerControl) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        table = model.get_input_embeddings().weight.detach()
        if isinstance(table, DTensor):  # under FSDP2 each rank holds a part
            table = table.full_tensor()
        measures = geometry(table.float().cpu().numpy(), self.pairs, self.functor_id)
        log_without_resetting_interval(self.trainer.log, control, measures, "geometry/")


class CurriculumCallback(TrainerCallback):
    """Begins the next stage of a curriculum when the present one is mastered.

    Mastery is token accuracy on validation rows that no earlier check has seen. A check at step s lets the next stage
    begin with the rows of step s + delay: nothing that a loader may have read ahead changes.
    """

    def __init__(self, trainer: Any, curriculum: Curriculum, arguments: CurriculumArguments, seed: int) -> None:
        """`trainer` is the PretrainingTrainer that this callback is added to; `seed` is that of the checks' rows."""
        self.trainer, self.curriculum, self.arguments, self.seed = trainer, curriculum, arguments, seed
        self.stages, args = curriculum.stages, trainer.args
        ahead = 1 + args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)  # batches that loaders hold
        least = -(-ahead // args.gradient_accumulation_steps) + 1
        if arguments.curriculum_delay < least:
            raise ValueError(
                f"curriculum_delay: got {arguments.curriculum_delay}, wanted at least {least}: the loader workers "
                "read so many steps ahead"
            )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the stages that the log of a checkpoint names."""
        for entry in state.log_history:
            if entry.get("curriculum/next_stage", 0) > self.stages.last:
                self.stages.begin(int(entry["curriculum/next_stage"]), int(entry["curriculum/first_row"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A check, once the stage's own rows are being trained on."""
        stage = self.stages.last
        step, every, size = state.global_step, self.arguments.curriculum_every, self.arguments.curriculum_rows
        begun = self.stages.first_row(stage) <= (step - 1) * self.trainer.rows_per_step
        if step % every or not begun or stage == self.curriculum.last:
            return
        rows = self.curriculum.task_of(stage).rows(step // every * size, size, split="validation", seed=self.seed)
        accuracy = score_rows(self.trainer.model, rows).token_accuracy
        logs = {"curriculum/stage": float(stage), "curriculum/accuracy": accuracy}
        if accuracy >= self.arguments.curriculum_threshold:
            first_row = (step + self.arguments.curriculum_delay) * self.trainer.rows_per_step
            self.stages.begin(stage + 1, first_row)
            logs |= {"curriculum/next_stage": float(stage + 1), "curriculum/first_row": float(first_row)}
        log_without_resetting_interval(self.trainer.log, control, logs)


def logged(state: TrainerState, name: str) -> list[tuple[int, float]]:
    """(step, value) of all that was logged under a name."""
    return [(entry["step"], entry[name]) for entry in state.log_history if name in entry]


def save_model_atomically(trainer: Trainer, folder: Path) -> None:
    """Save the model into a folder that is there as a whole or not at all."""
    draft = folder.with_name(f".{folder.name}.part")
    trainer.save_model(str(draft))
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        replace_folder(draft, folder)
