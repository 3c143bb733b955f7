"""Answers that a model writes: prompts to ids, batches, decoding, and what became of the answers."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.model import Measured, map_over_processes
from hf_synth.evaluation.scoring import policy_statistics, share_of
from hf_synth.rewards import end_token_ids
from hf_synth.rng import RowRandom
from hf_synth.sampling.language_models import evaluating, progress
from hf_synth.tasks.base import EOS, Rows, Task
from hf_synth.tokenization import all_words, render
from hf_synth.views import with_prompts


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How completions are sampled: `samples` a prompt, from the whole vocabulary at a temperature.

    options: further values of a GenerationConfig, such as top_k, or eos_token_id for several ids that end an answer.
    template: what `apply_chat_template` is given beside the messages.
    """

    max_new_tokens: int
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 512
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    template: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_trainer(cls, trainer: Any, samples: int) -> Self:
        """Return how a GRPOTrainer samples what it trains on; ValueError where its answers call something."""
        for name in ("tools", "rollout_func", "environment_factories"):
            if getattr(trainer, name, None):
                raise ValueError(
                    f"{name}: got a trainer with them, and held-out answers would be sampled without; wanted none, or "
                    "an evaluation of your own"
                )
        args, own = trainer.args, trainer.model.generation_config
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        options = own.to_diff_dict() | {name: getattr(args, name) for name in names}
        options |= {"do_sample": True, "max_new_tokens": args.max_completion_length}
        if not args.use_vllm:  # which has options of other names
            options |= args.generation_kwargs or {}
        chosen = np.atleast_1d(options.get("eos_token_id") or []).tolist()
        options["eos_token_id"] = list(dict.fromkeys([*end_token_ids(trainer.processing_class, own), *chosen]))
        new = options.pop("max_new_tokens")
        options.pop("max_length", None)  # max_new_tokens counts
        template = {"chat_template": trainer.chat_template, **trainer.chat_template_kwargs}
        return cls(new, samples, args.temperature, args.seed, options=options, template=template)


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


def prompt_ids(
    prompt: Any, tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any] | None = None
) -> list[int]:
    """Return the input ids of a prompt, string or messages; `template`: what `apply_chat_template` is given beside."""
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **(template or {})}
    return tokenizer.apply_chat_template(prompt, **options)["input_ids"]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    ends: Sequence[int],
    pad: int | None,
    **options: Any,
) -> Tensor:
    """Return the ids [B, C] that follow each prompt.

    ends: the ids that end an answer; none: nothing does. pad: what stands before short prompts and after answers.
    options: of a GenerationConfig; without any the answers are greedy. What the model's own config adds, such as a
    penalty of repetition, does not count. Draws are those of torch's global generator.
    """
    width = max(map(len, prompts))
    pad = next((token for token in (pad, *ends) if token is not None), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        # An id that no model writes, where nothing ends an answer: None would be the config's end token.
        eos_token_id=list(ends) or model.get_input_embeddings().weight.shape[0],
        **options,
    )
    # What is None in a config is taken from the model's own. PEFT hands its own on to the model under it.
    models = [model, *([model.get_base_model()] if hasattr(model, "get_base_model") else [])]
    own = [one.generation_config for one in models]
    try:
        model.generation_config = GenerationConfig()
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, width:]
    finally:
        for one, before in zip(models, own, strict=True):
            one.generation_config = before


SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}  # from the whole distribution


def random_state(device: torch.device) -> Any:
    """Return a context after which torch's generators, of a GPU too, are as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def until_end(made: Tensor, ends: Sequence[int]) -> Tensor:
    """Return for ids [B, C] which of them belong to the answer, bool [B, C]: those up to and with the first end."""
    ended = torch.isin(made, torch.tensor(ends, dtype=made.dtype, device=made.device))
    return ended.cumsum(-1) - ended.long() == 0


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
    ids = [prompt_ids(prompt, tokenizer, decoding.template) for prompt in prompts]
    options = {**SAMPLED, "temperature": decoding.temperature, **decoding.options}
    ends = options.pop("eos_token_id", None) or end_token_ids(tokenizer, policy.generation_config)
    pad = options.pop("pad_token_id", None)
    pad = tokenizer.pad_token_id if pad is None else pad
    completions: list[Completion] = []
    with random_state(policy.device), evaluating(policy):
        torch.manual_seed(decoding.seed)
        for start in progress("sampled answers", range(0, len(rows), decoding.batch_size), unit="batch"):
            part = rows[start : start + decoding.batch_size]
            batch = [ids[row] for row in part]
            made = generate(policy, batch, decoding.max_new_tokens, ends=ends, pad=pad, **options)
            answers = [own[kept].tolist() for own, kept in zip(made, until_end(made, ends), strict=True)]
            statistics = policy_statistics(policy, reference, batch, answers, decoding.temperature)
            completions += [
                Completion(
                    row,
                    (start + number) % decoding.samples,
                    own,
                    tokenizer.decode(own, skip_special_tokens=True),
                    bool(own) and own[-1] in ends,
                    *map(float, numbers),
                )
                for number, (row, own, numbers) in enumerate(zip(part, answers, statistics, strict=True))
            ]
    return completions


def write_completions(
    measured: Measured,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    *,
    ends: Sequence[int],
    seed: int | None = None,
) -> list[list[int]]:
    """Return the ids that follow each prompt, up to and with one of `ends`, or as many as its budget where none comes.

    Greedy, or with a `seed` sampled at temperature 1 with the top_p of `measured`. The same for any number of
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
        pad = measured.tokenizer.pad_token_id
        with random_state(measured.model.device), evaluating(measured.model):
            torch.manual_seed(0 if seed is None else seed * 1_000_003 + number)
            chosen = [prompts[row] for row in rows]
            options = {} if seed is None else SAMPLED | {"top_p": measured.top_p}
            made = generate(measured.model, chosen, new, ends=ends, pad=pad, **options)
        kept = until_end(made, ends)
        return [ids[real][: budgets[row]].tolist() for ids, real, row in zip(made, kept, rows, strict=True)]

    written: list[list[int]] = [[]] * len(prompts)
    for rows, parts in zip(batches, map_over_processes(write, len(batches), "batches completed"), strict=True):
        for row, ids in zip(rows, parts, strict=True):
            written[row] = ids
    return written


def task_ends(measured: Measured, ids: np.ndarray) -> list[int]:
    """Return what ends a text of a task: its `<eos>`, by the ids of its words, and what the model's config names."""
    return [int(ids[EOS]), *end_token_ids(measured.tokenizer, measured.model.generation_config)]


def texts(measured: Measured, ids: Sequence[Sequence[int]], ends: Sequence[int]) -> list[str | None]:
    """Return completions as text, without their end token; None for an unfinished one."""
    return [
        None
        if ends and (not row or row[-1] not in ends)
        else " ".join(
            word or "<unk>" for word in measured.tokenizer.convert_ids_to_tokens(list(row[:-1] if ends else row))
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
    measured: Measured,
    openings: Sequence[str],
    *,
    closing: str | None,
    start_token_id: int,
    max_new_tokens: int,
    seed: int = 0,
) -> list[str | None]:
    """Return one string from each opening: up to and with the closing delimiter, or without one up to the end token.

    None for a string that neither comes to by itself. At temperature 1 with the top_p of `measured`, on the model's
    device; random state outside is left as it was. Strings are grouped by their opening.
    """
    model, tokenizer, most = measured.model, measured.tokenizer, measured.positions
    ends, pad = end_token_ids(tokenizer, model.generation_config), tokenizer.pad_token_id
    strings: list[str | None] = []
    with random_state(model.device), evaluating(model), progress("sampled strings", total=len(openings)) as bar:
        torch.manual_seed(seed)
        for opening, count in Counter(openings).items():
            ids = [start_token_id, *tokenizer(opening, add_special_tokens=False)["input_ids"]]
            new = max_new_tokens if most is None else min(max_new_tokens, most - len(ids))
            for first in range(0, count, measured.batch_size):
                prompts = [ids] * min(measured.batch_size, count - first)
                made = generate(model, prompts, new, ends=ends, pad=pad, **SAMPLED | {"top_p": measured.top_p})
                for row in made.tolist():
                    own = ids[1:] + row
                    at = next((number for number, token in enumerate(own) if token in ends), None)
                    text = tokenizer.decode(own[:at])
                    sentence, closed, _ = text.partition(closing) if closing is not None else (text, at, "")
                    strings.append(None if closed in (None, "") else sentence + (closing or ""))
                bar.update(len(prompts))
    return strings


def add_prompts(rows: Rows, split: str, seed: int) -> Rows:
    """Return the rows with a prompt each: where loss begins with the row, a random beginning of it, as in views."""
    return with_prompts(rows, RowRandom(seed=seed, split=split, purpose="prompt", index=np.arange(len(rows))))


def greedy_completion_metrics(measured: Measured, task: Task, rows: Rows, ids: np.ndarray) -> dict[str, float]:
    """Complete rows with prompts greedily; return `verified`, the fraction that the task's verifier accepts.

    `finished`: the fraction that came to an end, where rows have one; others are wrong, and cut off once longer than
    any right answer. `exact_match`: the fraction that is the row's own completion, where prompts leave no other.
    """
    every = np.arange(len(rows))
    ended = bool((rows.tokens[every, rows.lengths - 1] == EOS).all())
    ends = task_ends(measured, ids) if ended else []
    sizes = rows.loss_stop - rows.loss_start
    determined = not (task.optimal_log_probs(rows) * rows.loss_mask).any()
    budgets = sizes if determined or not ended else 2 * int(rows.lengths.max()) - rows.loss_start
    prompts = [ids[row[:start]].tolist() for row, start in zip(rows.tokens, rows.loss_start, strict=True)]
    written = texts(measured, write_completions(measured, prompts, budgets.tolist(), ends=ends), ends)
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
