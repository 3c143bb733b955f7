"""How good sampled completions are, by group of prompts: before, during and after training."""

import dataclasses
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_synth.metrics.validity import grouped_mean
from hf_synth.rewards import RewardFunction
from hf_synth.training.data import prompt_ids


@dataclasses.dataclass(frozen=True)
class SampledScore:
    """The mean reward of sampled completions over held-out prompts: in each group, and over the groups alike.

    prompts: {prompt}, with {task} where the reward needs it. groups: one name a prompt. `name` is the metric's.
    """

    name: str
    prompts: Dataset
    groups: list[str]
    reward: RewardFunction
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 256

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """Sample one completion a prompt and score it; random state outside is left as it was."""
        was_training = model.training
        model.eval()
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            scores = [
                score
                for start in range(0, len(self.prompts), self.batch_size)
                for score in self._score(model, self.prompts[start : start + self.batch_size])
            ]
        model.train(was_training)
        return grouped_mean(scores, self.groups, name=self.name)

    @torch.no_grad()
    def _score(self, model: PreTrainedModel, rows: dict[str, list[Any]]) -> list[float]:
        ids = [prompt_ids(prompt, self.tokenizer) for prompt in rows["prompt"]]
        batch = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        completions = [self._until_end(row) for row in output[:, batch["input_ids"].shape[1] :].tolist()]
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in completions]
        chats = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(rows["prompt"], texts, strict=True)
        ]
        extra = {"task": rows["task"]} if "task" in rows else {}
        return self.reward(prompts=rows["prompt"], completions=chats, completion_ids=completions, **extra)

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


class SampledScoreCallback(TrainerCallback):
    """Logs a SampledScore at the first step and after every `every` steps."""

    def __init__(self, trainer: Trainer, score: SampledScore, every: int) -> None:
        """`trainer` is the one that this callback is added to."""
        self.trainer, self.score, self.every = trainer, score, every

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
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        due = control.should_log
        # Trainer's own log: the ones of TRL's subclasses would end their running averages here.
        Trainer.log(self.trainer, self.score(model))
        control.should_log = due  # a log of any kind counts as this step's, and the training loss is still to come
