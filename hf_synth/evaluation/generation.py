"""Completions that a policy samples for prompts, and what the policy and its reference say of each."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.model import Measured
from hf_synth.tasks.families.grammars import Grammar


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


def prompt_ids(prompt: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that a policy is given for a prompt, string or messages."""
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


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


def completions(
    measured: Measured,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    *,
    end: int | None,
    seed: int | None = None,
) -> list[list[int]]:
    """The ids that follow each prompt, up to and with the id `end`, or as many as its budget where none comes.

    Greedy, or with a `seed` sampled at temperature 1 from the whole distribution. The same for any number of
    processes; random state outside is left as it was. No batch, padding included, exceeds the model's positions.
    """
    most = measured.positions
    budgets = [
        budget if most is None else max(0, min(budget, most - len(prompt)))
        for prompt, budget in zip(prompts, budgets, strict=True)
    ]
    batches = list(_batches([len(prompt) for prompt in prompts], budgets, measured))

    def write(number: int) -> list[list[int]]:
        rows = batches[number]
        new = max(budgets[row] for row in rows)
        address = None if seed is None else seed * 1_000_003 + number
        written = _written(measured, [prompts[row] for row in rows], new, end, address) if new else [[]] * len(rows)
        return [_until(ids[: budgets[row]], end) for ids, row in zip(written, rows, strict=True)]

    found: list[list[int]] = [[]] * len(prompts)
    for rows, written in zip(batches, shared(write, len(batches)), strict=True):
        for row, ids in zip(rows, written, strict=True):
            found[row] = ids
    return found


def texts(measured: Measured, ids: Sequence[Sequence[int]], end: int | None) -> list[str | None]:
    """Completions in words, without their end; None for one that did not come to it."""
    return [_text(measured, row, end) for row in ids]


def _batches(lengths: Sequence[int], budgets: Sequence[int], measured: Measured) -> Iterator[list[int]]:
    """Prompts of like length, as many as a batch may have and as there are positions for."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        needed = lengths[row] + max((budgets[other] for other in [*batch, row]), default=0)
        full = len(batch) == measured.batch_size
        if batch and (full or (measured.positions is not None and needed > measured.positions)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _written(
    measured: Measured, prompts: Sequence[Sequence[int]], new: int, end: int | None, seed: int | None
) -> list[list[int]]:
    model, width = measured.model, max(map(len, prompts))
    pad = next((token for token in (measured.tokenizer.pad_token_id, end) if token is not None), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    how: dict[str, Any] = {"do_sample": False}
    if seed is not None:
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed or 0)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            num_beams=1,
            max_new_tokens=new,
            pad_token_id=pad,
            # An id that no model writes, where nothing ends a completion: None would be the config's end token.
            eos_token_id=model.get_input_embeddings().weight.shape[0] if end is None else end,
            **how,
        )
    return output[:, width:].tolist()


def _until(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def _text(measured: Measured, ids: Sequence[int], end: int | None) -> str | None:
    if end is not None:
        if not ids or ids[-1] != end:
            return None
        ids = ids[:-1]
    return " ".join(word or "<unk>" for word in measured.tokenizer.convert_ids_to_tokens(list(ids)))


ResultT = TypeVar("ResultT")


def shared(work: Callable[[int], ResultT], count: int) -> list[ResultT]:
    """work(0) .. work(count - 1), every process doing its part; all of them get all results."""
    state = PartialState()
    mine = [(number, work(number)) for number in range(state.process_index, count, state.num_processes)]
    return [result for _, result in sorted(gather_object(mine), key=lambda pair: pair[0])]


@torch.no_grad()
def sample_strings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[str],
    *,
    closing: str | None,
    start_token_id: int,
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 64,
) -> list[str | None]:
    """One string from each opening: up to and with the closing delimiter, or without one up to the end token.

    None for a string that neither comes to by itself. At temperature 1 from the whole distribution, on the model's
    device; random state outside is left as it was. Strings are grouped by their opening.
    """
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    strings: list[str | None] = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for opening, count in Counter(openings).items():
            ids = [start_token_id, *tokenizer(opening, add_special_tokens=False)["input_ids"]]
            for first in range(0, count, batch_size):
                found = _continued(model, tokenizer, ids, min(batch_size, count - first), max_new_tokens)
                strings += [_string(tokenizer, row[1:], closing) for row in found]
    model.train(was_training)
    return strings


def is_valid(task: Grammar, string: str | None) -> bool:
    """Whether a string is one of the language, its delimiters included; an unfinished one is not."""
    return string is not None and task.verify("", string) == 1.0


def _continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], count: int, max_new_tokens: int
) -> list[list[int]]:
    most = getattr(model.config, "max_position_embeddings", None) or len(ids) + max_new_tokens
    prompt = torch.tensor([ids] * count, device=model.device)
    output = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=min(max_new_tokens, most - len(ids)),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return output.tolist()


def _string(tokenizer: PreTrainedTokenizerBase, ids: list[int], closing: str | None) -> str | None:
    ended = tokenizer.eos_token_id in ids
    text = tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)] if ended else ids)
    if closing is None:
        return text if ended else None
    sentence, found, _ = text.partition(closing)
    return f"{sentence}{found}" if found else None
