"""Reward functions for TRL: a task's verifier, or a reward model."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.tasks import Task

Prompt = str | list[dict[str, str]]
RewardFunction = Callable[..., list[float]]
VERIFIER = "verifier"  # the tasks' verifier, among names of reward models


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

    verify.__name__ = VERIFIER
    return verify


def reward_model(
    model: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    device: torch.device | str | None = None,
    heads: Mapping[str, float] | None = None,
) -> RewardFunction:
    """A reward function that reads the logit of a sequence classifier for prompt and completion together.

    `model`: a path, a Hub id or a model; its own tokenizer is used, so it may differ from the policy's. Of a model
    with several labels the reward is the sum by `heads`, label -> weight; labels that it does not name count nothing.
    It scores the ids that TRL's RewardTrainer makes of prompt and completion, `<eos>` included. Texts are scored in
    batches on the model's device; of one longer than `max_length` tokens the end is kept.
    """
    if isinstance(model, str):
        model, tokenizer = _load(model, tokenizer)
    if tokenizer is None:
        raise ValueError("reward_model: got a model without a tokenizer, wanted both, or a path that holds both")
    mix = _head_weights(model, heads)
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
            logits = _logits(model, tokenizer, [ids[row] for row in rows])
            for row, value in zip(rows, (logits @ mix).tolist(), strict=True):
                scores[row] = value
        return scores

    score.__name__ = "reward_model"
    return score


def weighted_sum(rewards: Sequence[RewardFunction], weights: Sequence[float] | None = None) -> RewardFunction:
    """One reward function out of several, as GRPO adds them up by its `reward_weights` (1 each where not given).

    What one of them cannot score (None) counts nothing; a completion that none can score is None.
    """
    weights = [1.0] * len(rewards) if weights is None else list(weights)
    if len(weights) != len(rewards) or not rewards:
        raise ValueError(f"reward_weights: got {len(weights)} for {len(rewards)} rewards, wanted one for each")

    def total(prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any) -> list[float]:
        scores = zip(*(reward(prompts=prompts, completions=completions, **columns) for reward in rewards), strict=True)
        return [_sum(row, weights) for row in scores]

    total.__name__ = "weighted_sum"
    return total


def load_rewards(
    sources: Sequence[str],
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    *,
    heads: Mapping[str, float] | None = None,
    max_length: int | None = None,
    device: Any = None,
) -> list[RewardFunction]:
    """Return one reward function a source: `verifier`, or a reward model by path or Hub id; without any, the verifier.

    heads: what each head of a reward model with several counts for. Raises ValueError where natural prompts, of no
    task, have no reward model, or a source is named twice.
    """
    sources = list(sources) or [VERIFIER]
    if len(set(sources)) < len(sources):
        raise ValueError(f"reward: got {', '.join(sources)}, wanted each once; reward_weights says what each counts")
    if VERIFIER in sources and not tasks:
        raise ValueError("got no reward: natural prompts have no verifier, so set `reward` to a reward model")
    rewards = []
    for number, source in enumerate(sources, start=1):
        if source == VERIFIER:
            rewards.append(verifier(tasks, tokenizer))
            continue
        reward = reward_model(source, max_length=max_length, device=device, heads=heads)
        if len(sources) > 1:
            reward.__name__ = f"reward_model_{number}"  # the name in the logs, where each must have its own
        rewards.append(reward)
    return rewards


def held_out_measures(
    rewards: Sequence[RewardFunction],
    weights: Sequence[float] | None,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, RewardFunction]:
    """Return what held-out answers are measured by, first of all what is trained on.

    `sampled_reward` is the sum of the rewards by their weights, where that is not the verifier alone; `validity` is
    the verifier, where there is one.
    """
    measures = {"validity": verifier(tasks, tokenizer)} if tasks else {}
    if tasks and [reward.__name__ for reward in rewards] == [VERIFIER]:
        return measures
    return {"sampled_reward": weighted_sum(rewards, weights), **measures}


def _sum(scores: Sequence[float | None], weights: Sequence[float]) -> Any:
    known = [weight * score for weight, score in zip(weights, scores, strict=True) if score is not None]
    return sum(known) if known else None


def _load(path: str, tokenizer: PreTrainedTokenizerBase | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(path)
        return AutoModelForSequenceClassification.from_pretrained(path), tokenizer
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"reward_model: got {path!r}, which is neither here nor on the Hub: {reason}") from error


def _head_weights(model: PreTrainedModel, heads: Mapping[str, float] | None) -> torch.Tensor:
    """[labels] float32: what each logit counts for."""
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    if heads is None:
        if len(labels) == 1:
            return torch.ones(1)
        raise ValueError(
            f"reward_model: got a classifier of {len(labels)} labels ({', '.join(map(str, labels[:8]))}), wanted 1, "
            "or `heads` with the weight of each label that counts"
        )
    if strange := [head for head in heads if head not in labels]:
        raise ValueError(f"reward_model: got heads {', '.join(strange)}, wanted some of {', '.join(map(str, labels))}")
    if not any(heads.values()):
        raise ValueError(f"reward_model: got heads {dict(heads)}, wanted at least one weight that is not 0")
    return torch.tensor([float(heads.get(label, 0.0)) for label in labels])


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
def _logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> torch.Tensor:
    """[B, labels] float32 on the CPU."""
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float().cpu()


def _named(tasks: Mapping[str, Task], name: str) -> Task:
    if name not in tasks:
        raise ValueError(f"verifier: got task {name!r} in the `task` column, wanted one of {', '.join(tasks)}")
    return tasks[name]


def _last_message(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
