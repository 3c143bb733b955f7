"""How well a causal language model of any tokenizer knows a language: all of it in flat numbers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hf_synth.evaluation.generation import sample_strings, task_ends, texts, write_completions
from hf_synth.evaluation.model import Measured, map_over_processes
from hf_synth.evaluation.scoring import common_start, share_of, token_log_probs, with_ends
from hf_synth.metrics.completion import completion
from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.metrics.generation import generation
from hf_synth.metrics.perplexity import perplexity
from hf_synth.metrics.separation import separation
from hf_synth.rng import RowRandom
from hf_synth.sampling.language_models import check_vocabulary
from hf_synth.tasks import Rows, Task
from hf_synth.tasks.base import BOS, DecisionPoint
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.tokenization import all_words, render

_TRAINED_AT_ONCE = 50_000
Encode = Callable[[list[str]], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Strings:
    """Strings of a language and violations made of each, side by side.

    texts: str [strings]. valid: bool [strings]. kinds: the violation's name, or "valid". words: int [strings].
    keeps_length: bool [strings], whether all strings of that kind have the lengths of the valid ones.
    """

    texts: list[str]
    valid: np.ndarray
    kinds: list[str]
    words: np.ndarray
    keeps_length: np.ndarray


def language_scores(
    measured: Measured,
    task: Task,
    *,
    rows: int = 500,
    samples: int = 1000,
    seed: int = 0,
    rows_seed: int = 0,
    split: str = "test",
    trained: int = 0,
    trained_seed: int = 0,
) -> dict[str, float]:
    """Return all measures of a model on a language, by name; random state outside is left as it was.

    rows: of `split`, and as many strings of each violation, made with `rows_seed`.
    samples: how many strings are sampled, with `seed`.
    trained, trained_seed: how many training rows the model may have seen, and their seed.
    Before a string stands the end token, as between the documents of a corpus, or the `<bos>` of the task's tokenizer.

    The keys are those of `hf_synth.metrics`: perplexity, separation, completion, generation, and excess_loss where the
    tokenizer is the task's own. Further: `perplexity/same_length/...`, over violations that keep lengths.
    `string/loss`, `string/floor`, `string/excess`: nats a string after its opening, the delimiter or the first word;
    the floor is exact, and a tokenizer that could spell a string in several ways only adds to the excess.
    `coverage` of the strings that the language can have, none longer than its longest rows, and `coverage/of_rows`,
    that of as many rows as there are samples.

    Raises ValueError where the task is not a formal language, or the tokenizer has ids that the model has not.
    """
    if not isinstance(task, Grammar):
        raise ValueError(f"task {task.name} is not a formal language, wanted one such as tivari3 or palindrome")
    model, tokenizer = measured.model, measured.tokenizer
    check_vocabulary(model, tokenizer)
    own = tokenizer.get_vocab() == {word: number for number, word in enumerate(all_words(task))}
    start_token_id = tokenizer.bos_token_id if own else tokenizer.eos_token_id
    test = task.rows(0, rows, split=split, seed=rows_seed)
    encode = functools.partial(with_ends, tokenizer=tokenizer, start_token_id=start_token_id, ended=False)
    strings = labelled_strings(task, test, rows_seed, split)
    sequences = with_ends(strings.texts, tokenizer, start_token_id)
    log_probs = token_log_probs(model, sequences, batch_size=measured.batch_size)
    right = _texts(task, test)
    sampled = sample_strings(
        measured,
        [right[number % rows].split()[0] for number in range(samples)],  # the opening delimiter, or first words
        closing=task.delimiters[1] if task.delimiters else None,
        start_token_id=start_token_id,
        max_new_tokens=2 * max(map(len, encode(right))),
        seed=seed,
    )
    drawn = task.rows(0, samples, split=split, seed=seed)
    return {
        **_contrasts(strings, log_probs),
        **_above_floor(task, encode, test, sequences[:rows], log_probs[:rows], own),
        **_completion_tests(measured, task, encode),
        **_generation(task, test, drawn, sampled, trained, trained_seed),
    }


def labelled_strings(task: Task, valid: Rows, seed: int, split: str) -> Strings:
    """Return the rows as text, then for each kind of violation one string made of each row."""
    made, count = {"valid": (valid, True)}, len(valid)
    for name, violation in task.violations().items():
        rng = RowRandom(seed=seed, split=split, purpose=f"violation {name}", index=np.arange(count))
        made[name] = violation.make(valid, rng), violation.keeps_length
    kinds = [name for name in made for _ in range(count)]
    return Strings(
        texts=[text for rows, _ in made.values() for text in _texts(task, rows)],
        valid=np.array([kind == "valid" for kind in kinds]),
        kinds=kinds,
        words=np.concatenate([rows.lengths for rows, _ in made.values()]),
        keeps_length=np.repeat([keeps for _, keeps in made.values()], count),
    )


def _contrasts(strings: Strings, log_probs: list[np.ndarray]) -> dict[str, float]:
    """Return perplexities of valid and invalid strings, and how well the model separates the two."""
    sums, tokens = np.array([values.sum() for values in log_probs]), np.array([values.size for values in log_probs])
    metrics = perplexity(sums, tokens, strings.valid, strings.kinds)
    same = strings.keeps_length
    matched = perplexity(sums[same], tokens[same], strings.valid[same])
    for name in ("invalid", "gap", "ratio"):
        metrics[f"perplexity/same_length/{name}"] = matched[f"perplexity/{name}"]
    return {**metrics, **separation(sums / tokens, strings.valid, strings.words)}


def _above_floor(
    task: Task, encode: Encode, test: Rows, sequences: list[list[int]], log_probs: list[np.ndarray], own: bool
) -> dict[str, float]:
    """Return the excess over the exact floor: per string after its opening, and per token for the task's tokens."""
    optimal = task.optimal_log_probs(test)
    openings = encode([text.split()[0] for text in _texts(task, test)])
    skipped = [common_start(*pair) - 1 for pair in zip(sequences, openings, strict=True)]
    loss = -float(np.mean([values[skip:].sum() for values, skip in zip(log_probs, skipped, strict=True)]))
    floor = -float(optimal[:, 2:].sum(axis=1).mean())
    metrics = {"string/loss": loss, "string/floor": floor, "string/excess": loss - floor}
    if not own:
        return metrics
    model = np.zeros(optimal.shape)
    model[test.loss_mask] = np.concatenate(log_probs)
    return {**metrics, **excess_loss(model, optimal, test.loss_mask)}


def _completion_tests(measured: Measured, task: Task, encode: Encode) -> dict[str, float]:
    """Return P(next word), the product over its tokens, as a fraction of that of all words at a decision point."""

    def shares(point: DecisionPoint, words: list[str]) -> np.ndarray:
        prefix, *sequences = encode([point.prefix, *(f"{point.prefix} {word}" for word in words)])
        context = min(common_start(prefix, ids) for ids in sequences) - 1
        log_probs = token_log_probs(measured.model, sequences, batch_size=measured.batch_size)
        log_p = np.array([values[context:].sum() for values in log_probs])
        return np.exp(log_p - np.logaddexp.reduce(log_p))

    return _decided(task, shares)


def _decided(task: Task, chances_of: Callable[[DecisionPoint, list[str]], np.ndarray]) -> dict[str, float]:
    """Measure the chances of the valid and the invalid words at each decision point."""
    points = task.decision_points()
    if not points:
        return {}
    chances = [chances_of(point, [*point.valid, *point.invalid]).tolist() for point in points]
    right = [own[: len(point.valid)] for own, point in zip(chances, points, strict=True)]
    wrong = [own[len(point.valid) :] for own, point in zip(chances, points, strict=True)]
    return completion([point.name for point in points], right, wrong)


def _generation(
    task: Grammar, test: Rows, drawn: Rows, sampled: list[str | None], trained: int, trained_seed: int
) -> dict[str, float]:
    """Measure strings that a model sampled; drawn: as many rows of the language."""
    strings = [None if text is None else " ".join(text.split()) for text in sampled]
    valid = [float(text is not None and task.verify("", text) == 1.0) for text in strings]
    seen = set[str]()
    for start in range(0, trained, _TRAINED_AT_ONCE):
        rows = task.rows(start, min(_TRAINED_AT_ONCE, trained - start), split="train", seed=trained_seed)
        seen |= set(_texts(task, rows)).intersection(strings)
    metrics = generation(strings, valid, training=seen if trained else None)
    if (contents := task.contents()) is None:
        return metrics
    most = int(test.lengths.max()) - 2
    different = {text for text, right in zip(strings, valid, strict=True) if text and right}
    metrics["coverage"] = sum(len(text.split()) <= most for text in different) / contents
    return {**metrics, "coverage/of_rows": len(set(_texts(task, drawn))) / contents}


def _texts(task: Task, rows: Rows) -> list[str]:
    """Return rows as strings, delimiters included."""
    return render(rows.tokens, np.ones_like(rows.lengths), rows.lengths - 1, all_words(task)).to_pylist()


def language_measures(
    measured: Measured, task: Task, rows: Rows, ids: np.ndarray | None, *, split: str, samples: int, seed: int
) -> dict[str, float]:
    """Measure a language, each result `language/NAME`: those of `language_scores` for a Grammar, of any tokenizer.

    seed: of rows and of samples.
    Other languages, such as dyck: validity, distinct and coverage of sampled strings, and the completion tests.
    """
    if isinstance(task, Grammar):
        options: dict[str, Any] = {"rows": min(len(rows), samples), "split": split, "rows_seed": seed}
        options |= {"samples": samples, "seed": seed}
        # One process does it: its samples come in an order that batches on several would change.
        [metrics] = map_over_processes(lambda _: language_scores(measured, task, **options), 1, "languages")
    else:
        assert ids is not None  # only grammars are read by tokenizers that split words
        metrics = {**_sampled(measured, task, rows, ids, samples, seed), **_next_words(measured, task, ids)}
    metrics |= share_of("validity", np.arange(samples) < round(metrics["validity"] * samples))
    return {f"language/{name}": value for name, value in metrics.items()}


def _sampled(measured: Measured, task: Task, rows: Rows, ids: np.ndarray, samples: int, seed: int) -> dict[str, float]:
    ends, longest = task_ends(measured, ids), int(rows.lengths.max())
    written = write_completions(measured, [[int(ids[BOS])]] * samples, [2 * longest] * samples, ends=ends, seed=seed)
    strings = texts(measured, written, ends)
    valid = [float(text is not None and task.verify("", text) == 1.0) for text in strings]
    contents, one_length = task.contents(), (rows.lengths == longest).all()
    return generation(strings, valid, counts={longest - 2: contents} if contents and one_length else None)


@torch.no_grad()
def _next_words(measured: Measured, task: Task, ids: np.ndarray) -> dict[str, float]:
    """Return P(next word) at each decision point."""
    id_of = dict(zip(all_words(task), ids.tolist(), strict=True))

    def chances(point: DecisionPoint, words: list[str]) -> np.ndarray:
        context = [int(ids[BOS]), *(id_of[word] for word in point.prefix.split())]
        logits = measured.model(input_ids=torch.tensor([context], device=measured.model.device)).logits[0, -1]
        return logits.double().softmax(-1).cpu().numpy()[[id_of[word] for word in words]]

    return _decided(task, chances)
