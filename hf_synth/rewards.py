"""Reward functions for TRL: a task's verifier, a reward model, or a function of the user's own."""

import asyncio
import functools
import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
)

from hf_synth import models as _registered  # noqa: F401 - the Auto classes know our own models by it
from hf_synth.errors import raised_at
from hf_synth.preferences import read_plain_text
from hf_synth.sampling.language_models import check_vocabulary, load_checkpoint, most_tokens, right_padded
from hf_synth.tasks import Task, load_file, task_from_json
from hf_synth.tasks.base import EOS, SPECIAL_TOKENS
from hf_synth.tokenization import all_words

Prompt = str | list[dict[str, str]]
RewardFunction = Callable[..., list[float]]
VERIFIER = "verifier"  # the tasks' verifier, among names of reward models

_logger = logging.getLogger(__name__)


def end_token_ids(tokenizer: PreTrainedTokenizerBase, config: Any = None) -> list[int]:
    """Return every id that ends an answer: the tokenizer's `<eos>`, and those of a GenerationConfig."""
    declared = getattr(config, "eos_token_id", None)
    ids = [tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])]
    return [token for token in dict.fromkeys(ids) if token is not None]


def finished_text(
    completion_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int] | None = None
) -> str | None:
    """Return the text of a completion without its end, special tokens kept; None where it was cut off before an end.

    ends: the ids that end an answer; by default the tokenizer's `<eos>` alone.
    """
    ids = list(completion_ids)
    if not ids or ids[-1] not in (end_token_ids(tokenizer) if ends is None else ends):
        return None
    return tokenizer.decode(ids[:-1], skip_special_tokens=False)


def verifier(
    tasks: Task | Mapping[str, Task], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int] | None = None
) -> RewardFunction:
    """A reward function that is 1.0 for a right and finished completion and 0.0 for any other.

    `tasks`: one task, or several by the names that stand in the dataset's `task` column, or in their place the JSON of
    `Task.to_json`. `ends`: as `finished_text`.
    Completions are decoded from their ids with special tokens, so that a stray `<sep>` counts as the error it is.
    A task in which no text is wrong is a ValueError: its rewards would all be 0.
    """
    for one in [tasks] if isinstance(tasks, Task) else tasks.values():
        _check_verifiable(one)
    known = {} if isinstance(tasks, Task) else {**{one.to_json(): one for one in tasks.values()}, **tasks}

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
            if not isinstance(tasks, Task) and name not in known:
                raise ValueError(f"verifier: got task {name!r} in the `task` column, wanted one of {', '.join(tasks)}")
            judge = tasks if isinstance(tasks, Task) else known[name]
            text = finished_text(ids, tokenizer, ends)
            scores.append(0.0 if text is None else judge.verify(_last_text(prompt), text))
        return scores

    verify.__name__ = VERIFIER
    return verify


def verified(
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    task: Sequence[str],
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: Any,
) -> list[float]:
    """Return 1.0 for each right completion, 0.0 for any other: TRL's `--reward_funcs hf_synth.rewards.verified`.

    task: for each row the JSON of its task, as in the view `prompt`. Where the policy has the task's own tokenizer,
    `completion_ids` are judged as `verifier` does: without `<eos>` a completion is 0.0. With another one the text
    is, which does not show whether an end followed: TRL's `mask_truncated_completions` leaves out what is unfinished.

    Raises ValueError for a task that is not installed, or in which no text is wrong.
    """
    scores = []
    all_ids = [()] * len(prompts) if completion_ids is None else completion_ids
    for prompt, completion, ids, described in zip(prompts, completions, all_ids, task, strict=True):
        judge = task_from_json(described)
        _check_verifiable(judge)
        text, vocabulary = _last_text(completion), all_words(judge)
        own = [vocabulary[token] for token in ids if 0 <= token < len(vocabulary)]
        # TRL makes the text of the ids, without special tokens: by the task's words it comes out the same.
        if own and len(own) == len(ids) and [word for word in own if word not in SPECIAL_TOKENS] == text.split():
            text = " ".join(own[:-1])
            scores.append(judge.verify(_last_text(prompt), text) if ids[-1] == EOS else 0.0)
        else:
            scores.append(judge.verify(_last_text(prompt), text))
    return scores


def is_function(name: str) -> bool:
    """Whether a reward's name is that of a function: path.py:function or module.function."""
    dotted = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) is not None and not name.endswith(".py")
    return re.fullmatch(r".+\.py:\w+", name) is not None or (dotted and not Path(name).exists())


def own_reward(name: str) -> RewardFunction:
    """Load a reward function by path.py:function or module.function, as TRL's `--reward_funcs` takes the latter.

    It is called as GRPOTrainer calls it: with prompts, completions, completion_ids, trainer_state, log_extra,
    log_metric and the dataset's other columns. It returns a number a completion, or None where it cannot say.

    Raises ValueError where there is no such function; the reward does where it raises, or returns anything else.
    """
    path, _, attribute = name.rpartition(":" if ".py:" in name else ".")
    try:
        if path.endswith(".py"):
            module = load_file(Path(path))
        else:
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            module = importlib.import_module(path)
        function = getattr(module, attribute, None)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"reward: got {name!r}, and Python finds no module {error.name!r}; wanted path.py:function, or the "
            "function of a module that is here or installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"reward: got {name!r}, which cannot be loaded: {raised_at(error)}") from error
    if not callable(function):
        what = "a value that cannot be called" if hasattr(module, attribute) else f"no {attribute!r} in {path}"
        raise ValueError(f"reward: got {name!r}, {what}; wanted a function of prompts, completions and columns")

    @functools.wraps(function)
    def score(prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any) -> list[Any]:
        loggers = dict.fromkeys(("log_extra", "log_metric"), lambda name, value: None)  # held-out answers: no training
        columns = {"trainer_state": TrainerState(), **loggers} | columns

        def call(rows: slice) -> list[Any]:
            own = {name: values[rows] if isinstance(values, list) else values for name, values in columns.items()}
            scores = function(prompts=prompts[rows], completions=completions[rows], **own)
            scores = list(asyncio.run(scores) if inspect.iscoroutine(scores) else scores)
            if len(scores) != len(prompts[rows]):
                raise ValueError(f"got {len(scores)} rewards for {len(prompts[rows])} completions, wanted one each")
            return [None if value is None else float(value) for value in scores]

        try:
            return call(slice(None))
        except Exception as error:
            where = ""
            for row, prompt in enumerate(prompts):  # which of them it was
                try:
                    call(slice(row, row + 1))
                except Exception as of_row:
                    if str(of_row) == str(error):
                        where = f" (the row that begins {' '.join(_last_text(prompt).split()[:8])!r})"
                        break
            raise ValueError(f"reward {name}: {raised_at(error)}{where}") from error

    score.__name__ = attribute
    return score


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
    batches on the model's device, each as if it were alone. Of one longer than `max_length` tokens, or than the
    model's positions, the end is kept, and a `[CLS]` before it.

    Raises ValueError, which names the model, where it has no weights of a classifier, or cannot read its tokenizer's
    ids; and when prompts are messages and its tokenizer has no chat template.
    """
    name = model if isinstance(model, str) else model.name_or_path or type(model).__name__
    if isinstance(model, str):
        tokenizer = tokenizer or load_checkpoint(AutoTokenizer, model)
        model = load_checkpoint(AutoModelForSequenceClassification, model)
    if tokenizer is None:
        raise ValueError("reward_model: got a model without a tokenizer, wanted both, or a path that holds both")
    mix = _head_weights(model, heads)
    if model.config.is_encoder_decoder:
        kind = f"{model.config.model_type} of an encoder and a decoder"
        raise ValueError(f"reward_model: got {name}, a {kind}; wanted a classifier of one of them")
    check_vocabulary(model, tokenizer)
    # As TRL's RewardTrainer pads. The classifiers of transformers find a text's last token by that id, and without one
    # they read texts one by one.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.config.get_text_config().pad_token_id = pad
    batch_size = 1 if pad is None else batch_size
    model = model.eval().requires_grad_(False)
    if device is not None:
        model = model.to(device)
    longest = min(max_length or sys.maxsize, most_tokens(model) or sys.maxsize)
    shortened = False

    @torch.inference_mode()
    def score(prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any) -> list[float]:
        nonlocal shortened
        ids = [_ids(name, tokenizer, *texts) for texts in zip(prompts, completions, strict=True)]
        too_long = [row for row, own in enumerate(ids) if len(own) > longest]
        if too_long and max_length is None and not shortened:
            shortened = True
            _logger.warning("%s reads %d tokens: of longer texts, the end is scored", name, longest)
        for row in too_long:
            first = ids[row][:1] if ids[row][0] == tokenizer.cls_token_id else []
            ids[row] = first + ids[row][len(first) + len(ids[row]) - longest :]
        # Texts of like length share a batch: padding costs as much as text does.
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        scores = [0.0] * len(ids)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = right_padded([ids[row] for row in rows], model.device, pad or 0)
            logits = model(**batch).logits.float().cpu()
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

    def total(prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any) -> list[Any]:
        scores = zip(*(reward(prompts=prompts, completions=completions, **columns) for reward in rewards), strict=True)
        known = [[w * score for w, score in zip(weights, row, strict=True) if score is not None] for row in scores]
        return [sum(row) if row else None for row in known]

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
    ends: Sequence[int] | None = None,
) -> list[RewardFunction]:
    """Return one reward function a source; without any, the verifier.

    sources: `verifier`, a reward model by path or Hub id, or a function as `own_reward` takes it. heads: what each
    head of a reward model with several counts for. ends: the ids that end an answer, for the verifier.
    Raises ValueError where natural prompts, of no task, have no reward, or a source is named twice.
    """
    named = ", ".join(sources) or "none"
    sources = list(sources) or [VERIFIER]
    if len(set(sources)) < len(sources):
        raise ValueError(f"reward: got {named}, wanted each once; reward_weights sets the weight of each")
    if VERIFIER in sources and not tasks:
        raise ValueError(
            f"reward: got {named}, but natural prompts have no verifier; set `reward` to a reward model or a function"
        )
    rewards: list[RewardFunction] = []
    for number, source in enumerate(sources, start=1):
        if source == VERIFIER:
            reward = verifier(tasks, tokenizer, ends)
        elif is_function(source):
            reward = own_reward(source)
            if reward.__name__ in [other.__name__ for other in rewards]:
                reward.__name__ = source
        else:
            own = load_checkpoint(AutoTokenizer, source)
            if tokenizer.split_special_tokens:
                read_plain_text(own)
            reward = reward_model(source, own, max_length=max_length, device=device, heads=heads)
            if len(sources) > 1:
                reward.__name__ = f"reward_model_{number}"  # the name in the logs, where each must have its own
        rewards.append(reward)
    return rewards


def held_out_measures(
    rewards: Sequence[RewardFunction],
    weights: Sequence[float] | None,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int] | None = None,
) -> dict[str, RewardFunction]:
    """Return what held-out answers are measured by, first of all what is trained on.

    `sampled_reward` is the sum of the rewards by their weights, where that is not the verifier alone; `validity` is
    the verifier, where there is one.
    """
    measures = {"validity": verifier(tasks, tokenizer, ends)} if tasks else {}
    if tasks and [reward.__name__ for reward in rewards] == [VERIFIER]:
        return measures
    return {"sampled_reward": weighted_sum(rewards, weights), **measures}


def _check_verifiable(task: Task) -> None:
    if not task.verifiable:
        raise ValueError(f"task {task.name}: got no right or wrong texts to tell apart, wanted a task with a verifier")


def _last_text(prompt: Any) -> str:
    """Return a text, or that of the last message; a message without any is empty."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"] or ""


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
    if strange := [str(head) for head in heads if head not in labels]:
        raise ValueError(f"reward_model: got heads {', '.join(strange)}, wanted some of {', '.join(map(str, labels))}")
    if not any(heads.values()):
        raise ValueError(f"reward_model: got heads {dict(heads)}, wanted at least one weight that is not 0")
    return torch.tensor([float(heads.get(label, 0.0)) for label in labels])


def _ids(name: str, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Any) -> list[int]:
    if not isinstance(prompt, str):
        if tokenizer.chat_template is None:
            raise ValueError(
                f"reward_model: got {name}, whose tokenizer has no chat template, for prompts of messages; wanted a "
                "model that was trained on conversations, or a chat_template in its tokenizer"
            )
        return tokenizer.apply_chat_template(prompt + completion, tokenize=True, return_dict=True)["input_ids"]
    ids = tokenizer(_joined(prompt, completion, tokenizer)).input_ids
    # RoBERTa's and DeBERTa's tokenizers have ended the text already.
    ended = tokenizer.eos_token_id is None or ids[-1:] == [tokenizer.eos_token_id]
    return ids if ended else [*ids, tokenizer.eos_token_id]


def _joined(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Both as one text: a completion decoded on its own has lost the space that stood before its first word."""
    if not completion or prompt[-1:].isspace() or completion[0].isspace():
        return prompt + completion
    first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, completion))
    spaced = tokenizer.decode(first + second) == f"{tokenizer.decode(first)} {tokenizer.decode(second)}"
    return f"{prompt} {completion}" if spaced else prompt + completion
