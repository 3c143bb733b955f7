"""Answers that a model writes: prompts to ids, batches, decoding, and what became of the answers."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.model import Measured, map_over_processes
from hf_synth.evaluation.scoring import evaluating, policy_statistics, share_of
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import EOS, Rows, Task
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.tokenization import all_words, render
from hf_synth.views import with_prompts


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
    """Return the input ids of a prompt, string or messages."""
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    end: int | None,
    pad: int | None,
    temperature: float | None,
) -> tuple[Tensor, Tensor]:
    """Return ids [B, P + C] after prompts padded on the left, and the prompts' mask [B, P].

    Greedy where the temperature is None, else sampled from the whole vocabulary, by torch's global generator.
    end: the id that ends an answer; None: nothing does. pad: what stands before short prompts and after answers.
    """
    width = max(map(len, prompts))
    pad = next((token for token in (pad, end) if token is not None), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    decoding: dict[str, Any] = {"do_sample": False}
    if temperature is not None:
        decoding = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        # An id that no model writes, where nothing ends an answer: None would be the config's end token.
        eos_token_id=model.get_input_embeddings().weight.shape[0] if end is None else end,
        **decoding,
    )
    return output, mask


def random_state(device: torch.device) -> Any:
    """Return a context after which torch's generators, of a GPU too, are as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def until_end(made: Tensor, end: int | None) -> Tensor:
    """Return for ids [B, C] which of them belong to the answer, bool [B, C]: those up to and with the first end."""
    ends = made.eq(-1 if end is None else end)
    return ends.cumsum(-1) - ends.long() == 0


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
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    completions: list[Completion] = []
    with random_state(policy.device), evaluating(policy):
        torch.manual_seed(decoding.seed)
        for start in range(0, len(rows), decoding.batch_size):
            part = rows[start : start + decoding.batch_size]
            batch = [ids[row] for row in part]
            output, mask = generate(
                policy, batch, decoding.max_new_tokens, end=end, pad=pad, temperature=decoding.temperature
            )
            made = output[:, mask.shape[1] :]
            real = until_end(made, end)
            statistics = policy_statistics(policy, reference, output, mask, real, decoding.temperature)
            for number, row in enumerate(part):
                own = made[number][real[number]].tolist()
                completions.append(
                    Completion(
                        row,
                        (start + number) % decoding.samples,
                        own,
                        tokenizer.decode(own, skip_special_tokens=True),
                        bool(own) and own[-1] == end,
                        *(float(values[number]) for values in statistics),
                    )
                )
    return completions


def write_completions(
    measured: Measured,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    *,
    end: int | None,
    seed: int | None = None,
) -> list[list[int]]:
    """Return the ids that follow each prompt, up to and with the id `end`, or as many as its budget where none comes.

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
        if not new:
            return [[]] * len(rows)
        with random_state(measured.model.device), evaluating(measured.model):
            torch.manual_seed(0 if seed is None else seed * 1_000_003 + number)
            output, mask = generate(
                measured.model,
                [prompts[row] for row in rows],
                new,
                end=end,
                pad=measured.tokenizer.pad_token_id,
                temperature=None if seed is None else 1.0,
            )
        made = output[:, mask.shape[1] :]
        kept = until_end(made, end)
        return [ids[real][: budgets[row]].tolist() for ids, real, row in zip(made, kept, rows, strict=True)]

    written: list[list[int]] = [[]] * len(prompts)
    for rows, parts in zip(batches, map_over_processes(write, len(batches)), strict=True):
        for row, ids in zip(rows, parts, strict=True):
            written[row] = ids
    return written


def texts(measured: Measured, ids: Sequence[Sequence[int]], end: int | None) -> list[str | None]:
    """Return completions as text, without their end token; None for an unfinished one."""
    return [
        None
        if end is not None and (not row or row[-1] != end)
        else " ".join(
            word or "<unk>"
            for word in measured.tokenizer.convert_ids_to_tokens(list(row if end is None else row[:-1]))
        )
        for row in ids
    ]


def _batches(lengths: Sequence[int], budgets: Sequence[int], measured: Measured) -> Iterator[list[int]]:
    """Yield prompts of like length, as many as a batch and the model's positions may hold."""
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
    """Return one string from each opening: up to and with the closing delimiter, or without one up to the end token.

    None for a string that neither comes to by itself. At temperature 1 from the whole distribution, on the model's
    device; random state outside is left as it was. Strings are grouped by their opening.
    """
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    most = getattr(model.config, "max_position_embeddings", None)
    strings: list[str | None] = []
    with random_state(model.device), evaluating(model):
        torch.manual_seed(seed)
        for opening, count in Counter(openings).items():
            ids = [start_token_id, *tokenizer(opening, add_special_tokens=False)["input_ids"]]
            new = max_new_tokens if most is None else min(max_new_tokens, most - len(ids))
            for first in range(0, count, batch_size):
                prompts = [ids] * min(batch_size, count - first)
                output, _ = generate(model, prompts, new, end=end, pad=pad, temperature=1.0)
                strings += [_string(tokenizer, row[1:], closing) for row in output.tolist()]
    return strings


def is_valid(task: Grammar, string: str | None) -> bool:
    """Tell whether a string is one of the language, its delimiters included; an unfinished one is not."""
    return string is not None and task.verify("", string) == 1.0


def _string(tokenizer: PreTrainedTokenizerBase, ids: list[int], closing: str | None) -> str | None:
    ended = tokenizer.eos_token_id in ids
    text = tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)] if ended else ids)
    if closing is None:
        return text if ended else None
    sentence, end, _ = text.partition(closing)
    return f"{sentence}{end}" if end else None


def add_prompts(rows: Rows, split: str, seed: int) -> Rows:
    """Return the rows with a prompt each: where loss begins with the row, a random beginning of it, as in views."""
    return with_prompts(rows, RowRandom(seed=seed, split=split, purpose="prompt", index=np.arange(len(rows))))


def greedy_completion_metrics(measured: Measured, task: Task, rows: Rows, ids: np.ndarray) -> dict[str, float]:
    """Complete rows with prompts greedily; return `verified`, the fraction that the task's verifier accepts.

    `finished`: the share that came to an end, where rows have one; others are wrong, and cut off once they are longer
    than any right answer. `exact_match`: the share that is the row's own completion, where prompts leave no other.
    """
    every = np.arange(len(rows))
    ended = bool((rows.tokens[every, rows.lengths - 1] == EOS).all())
    end = int(ids[EOS]) if ended else None
    sizes = rows.loss_stop - rows.loss_start
    determined = not (task.optimal_log_probs(rows) * rows.loss_mask).any()
    budgets = sizes if determined or not ended else 2 * int(rows.lengths.max()) - rows.loss_start
    prompts = [ids[row[:start]].tolist() for row, start in zip(rows.tokens, rows.loss_start, strict=True)]
    written = texts(measured, write_completions(measured, prompts, budgets.tolist(), end=end), end)
    vocabulary = all_words(task)
    prompted = render(rows.tokens, np.ones_like(rows.loss_start), rows.loss_start, vocabulary).to_pylist()
    wanted = render(rows.tokens, rows.loss_start, rows.loss_stop - ended, vocabulary).to_pylist()
    pairs = zip(prompted, written, strict=True)
    right = np.array([text is not None and task.verify(prompt, text) == 1.0 for prompt, text in pairs])
    metrics = {**share_of("verified", right), "completions": float(len(rows))}
    if ended:
        metrics |= {"finished": float(np.mean([text is not None for text in written]))}
    if determined:
        metrics |= {"exact_match": float(np.mean([text == own for text, own in zip(written, wanted, strict=True)]))}
    return metrics
