"""Completions that a policy samples for prompts, and what the policy and its reference say of each."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.training.data import prompt_ids


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How completions are sampled: `samples` a prompt, from the whole vocabulary at a temperature."""

    max_new_tokens: int
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 512


@dataclasses.dataclass(frozen=True)
class Completion:
    """A sampled completion: the row of its prompt, its number, and its ids up to and with `<eos>`.

    text leaves special tokens out. finished: whether it ended by itself. In nats, summed over its tokens: log_prob
    and reference_log_prob under the policy and its reference; entropy of the policy and its kl to the reference, each
    the exact sum over the vocabulary at every token.
    """

    row: int
    sample: int
    ids: list[int]
    text: str
    finished: bool
    log_prob: float
    reference_log_prob: float
    entropy: float
    kl: float


def sample_completions(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    prompts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    decoding: Decoding,
) -> list[Completion]:
    """Sample completions to prompts (texts or messages), in the prompts' order; random state outside stays as it was.

    `reference`: the policy before training; None where the policy is an adapter, whose base it then is.
    """
    rows = [row for row in range(len(prompts)) for _ in range(decoding.samples)]
    ids = [prompt_ids(prompt, tokenizer) for prompt in prompts]
    found: list[Completion] = []
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _evaluating(policy):
        torch.manual_seed(decoding.seed)
        for start in range(0, len(rows), decoding.batch_size):
            part = rows[start : start + decoding.batch_size]
            found += _sample(policy, reference, part, ids, tokenizer, decoding, len(found))
    return found


@contextlib.contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def _sample(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    rows: list[int],
    ids: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    decoding: Decoding,
    first: int,
) -> list[Completion]:
    given = {"input_ids": [ids[row] for row in rows]}
    batch = tokenizer.pad(given, padding_side="left", return_tensors="pt").to(policy.device)
    output = policy.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=True,
        temperature=decoding.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    made = output[:, batch["input_ids"].shape[1] :]
    real = _until_end(made, tokenizer.eos_token_id)
    told = _told(policy, reference, output, batch["attention_mask"], real, decoding.temperature)
    completions = []
    for place, row in enumerate(rows):
        own = made[place][real[place]].tolist()
        finished = bool(own) and own[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(own, skip_special_tokens=True)
        number = (first + place) % decoding.samples
        completions.append(Completion(row, number, own, text, finished, *(float(value[place]) for value in told)))
    return completions


def _until_end(made: torch.Tensor, end: int | None) -> torch.Tensor:
    """[B, C] ids -> bool [B, C]: the tokens up to and with the first `<eos>`."""
    ends = made.eq(-1 if end is None else end)
    return ends.cumsum(-1) - ends.long() == 0


def _told(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    output: torch.Tensor,
    prompt_mask: torch.Tensor,
    real: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, ...]:
    """log_prob, reference_log_prob, entropy and kl of each completion, float64 [B]."""
    chosen = output[:, -real.shape[1] :]
    mask = torch.cat([prompt_mask, real.long()], dim=1)
    own = _log_probs(policy, output, mask, real.shape[1], temperature)  # [B, C, V]
    with policy.disable_adapter() if reference is None else contextlib.nullcontext():
        other = _log_probs(policy if reference is None else reference, output, mask, real.shape[1], temperature)
    picked = [values.gather(-1, chosen[..., None])[..., 0] for values in (own, other)]
    chance = own.exp()
    per_token = (*picked, -(chance * own).sum(-1), (chance * (own - other)).sum(-1))
    return tuple((values.double() * real).sum(-1) for values in per_token)


def _log_probs(
    model: PreTrainedModel, output: torch.Tensor, mask: torch.Tensor, length: int, temperature: float
) -> torch.Tensor:
    logits = model(input_ids=output, attention_mask=mask).logits[:, -length - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1)
