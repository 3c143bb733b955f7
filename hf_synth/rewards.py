"""Reward functions for TRL: a task's verifier, or a reward model."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.tasks import Task

Prompt = str | list[dict[str, str]]
RewardFunction = Callable[..., list[float]]


def finished_text(completion_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text of a completion without its `<eos>`, special tokens kept; None where it was cut off before `<eos>`."""
    ids = list(completion_ids)
    if not ids or ids[-1] != tokenizer.eos_token_id:
        return None
    return tokenizer.decode(ids[:-1], skip_special_tokens=False)


def verifier(tasks: Task | Mapping[str, Task], tokenizer: PreTrainedTokenizerBase) -> RewardFunction:
    """A reward function that is 1.0 for a right and finished completion and 0.0 for any other.

    `tasks`: one task, or several by the names that stand in the dataset's `task` column.
    Completions are decoded from their ids with special tokens, so that a stray `<sep>` counts as the error it is.
    A task in which no text is wrong is a ValueError: its rewards would all be 0.
    """
    for one in [tasks] if isinstance(tasks, Task) else tasks.values():
        if not one.verifiable:
            raise ValueError(
                f"task {one.name}: got no right or wrong texts to tell apart, wanted a task with a verifier"
            )

    def verify(
        prompts: Sequence[Prompt],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        task: Sequence[str] | None = None,
        **columns: Any,
    ) -> list[float]:
        names = task if task is not None else [""] * len(prompts)
        scores = []
        for prompt, ids, name in zip(prompts, completion_ids, names, strict=True):
            judge = tasks if isinstance(tasks, Task) else _named(tasks, name)
            text = finished_text(ids, tokenizer)
            scores.append(0.0 if text is None else judge.verify(_last_message(prompt), text))
        return scores

    verify.__name__ = "verifier"
    return verify


def reward_model(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    device: torch.device | str | None = None,
) -> RewardFunction:
    """A reward function that reads the one logit of a sequence classifier for prompt and completion together.

    `model`: a path, a Hub id or a model; its own tokenizer is used, so it may differ from the policy's.
    It scores the ids that TRL's RewardTrainer makes of prompt and completion, `<eos>` included. Texts are scored in
    batches on the model's device; of one longer than `max_length` tokens the end is kept.
    """
    if isinstance(model, str):
        model, tokenizer = _load(model, tokenizer)
    if tokenizer is None:
        raise ValueError("reward_model: got a model without a tokenizer, wanted both, or a path that holds both")
    if model.config.num_labels != 1:
        raise ValueError(
            f"reward_model: got a classifier of {model.config.num_labels} labels, wanted 1; "
            "train one with recipes/reward.py"
        )
    model = model.eval().requires_grad_(False)
    if device is not None:
        model = model.to(device)
    encode = functools.partial(_encode, tokenizer=tokenizer, max_length=max_length)

    def score(prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any) -> list[float]:
        ids = [encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        # Texts of like length share a batch: padding costs as much as text does.
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        scores = [0.0] * len(ids)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for row, value in zip(rows, _logits(model, tokenizer, [ids[row] for row in rows]), strict=True):
                scores[row] = value
        return scores

    score.__name__ = "reward_model"
    return score


def _load(path: str, tokenizer: PreTrainedTokenizerBase | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(path)
        return AutoModelForSequenceClassification.from_pretrained(path), tokenizer
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"reward_model: got {path!r}, which is neither here nor on the Hub: {reason}") from error


def _encode(
    prompt: Prompt, completion: Any, *, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> list[int]:
    if isinstance(prompt, str):
        ids = tokenizer(_joined(prompt, completion, tokenizer) + (tokenizer.eos_token or "")).input_ids
    else:
        ids = tokenizer.apply_chat_template(prompt + completion, tokenize=True, return_dict=True)["input_ids"]
    return ids if max_length is None else ids[-max_length:]


def _joined(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Both as one text: a completion decoded on its own has lost the space that stood before its first word."""
    if not completion or prompt[-1:].isspace() or completion[0].isspace():
        return prompt + completion
    first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, completion))
    spaced = tokenizer.decode(first + second) == f"{tokenizer.decode(first)} {tokenizer.decode(second)}"
    return f"{prompt} {completion}" if spaced else prompt + completion


@torch.inference_mode()
def _logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[float]:
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].float().tolist()


def _named(tasks: Mapping[str, Task], name: str) -> Task:
    if name not in tasks:
        raise ValueError(f"verifier: got task {name!r} in the `task` column, wanted one of {', '.join(tasks)}")
    return tasks[name]


def _last_message(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
