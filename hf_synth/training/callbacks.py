"""What happens between the steps of any recipe: numbers of our own in the log, and answers to held-out prompts."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_synth.evaluation.generation import Decoding
from hf_synth.evaluation.held_out import HeldOutPrompts


def log_without_resetting_interval(
    log: Callable[[dict[str, float]], None], control: TrainerControl, found: Mapping[str, float], prefix: str = ""
) -> None:
    """Log numbers of our own, NaN left out; the training loss of this step is logged as if they had not been.

    `log`: a trainer's.
    """
    due = control.should_log
    log({prefix + name: value for name, value in found.items() if math.isfinite(value)})
    control.should_log = due  # a log of any kind counts as this step's


class HeldOutCallback(TrainerCallback):
    """Logs what HeldOutPrompts say of a policy at the first step and after every `every` steps."""

    def __init__(
        self,
        trainer: Trainer,
        held_out: HeldOutPrompts,
        reference: PreTrainedModel | None,
        decoding: Decoding,
        every: int,
    ) -> None:
        """`trainer` is the one that this callback is added to."""
        self.trainer, self.held_out, self.reference = trainer, held_out, reference
        self.decoding, self.every = decoding, every

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The policy before its first step; a resumed run has this in its log already."""
        if state.global_step == 0:
            self._log(control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
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
