"""Hold a task to the promises that every task keeps.

Prints a line for each promise, with a row of some split where it is broken; exit code 1 if any is.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hf_synth.cli.show import shortened
from hf_synth.cli.terminal import Terminal
from hf_synth.rng import RowRandom
from hf_synth.tasks import Rows, Task, get_task, task_class
from hf_synth.tasks.base import BOS, EOS, PAD, SPECIAL_TOKENS, SPLITS

_ROWS = 200
_FLOOR_TOKENS = 5_000  # of long rows fewer are looked at: their exact floor can be dear
_GARBAGE = ("", " ", "garbage", "\0", "<sep>", "<eos>", "-1")
_SPOILT: dict[str, Callable[[list[str]], list[str]]] = {
    "a right completion without its last word": lambda words: words[:-1],
    "a right completion with its last word doubled": lambda words: [*words, *words[-1:]],
    "an empty completion": lambda words: [],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task and its preset."""
    parser.add_argument("task", help="a task's name, or the path of its file")
    parser.add_argument("--preset", help="a preset of the task (all where none is named)")


def run(arguments: argparse.Namespace) -> None:
    """Print what each preset keeps and breaks."""
    presets = task_class(arguments.task).presets if arguments.preset is None else [arguments.preset]
    terminal, broken = Terminal(sys.stdout), False
    for preset in presets:
        task = get_task(arguments.task, preset)
        print(terminal.strong(f"{task.name} {preset}"))
        for promise, problem in kept_and_broken(task):
            broken |= problem is not None
            print(
                f"  ok      {promise}" if problem is None else f"  {terminal.strong('broken')}  {promise}\n{problem}"
            )
    if broken:
        sys.exit(1)


class Sample(NamedTuple):
    """Rows of a split, each with loss on what the task says, or `cut`: with a random prefix as its prompt."""

    task: Task
    split: str
    rows: Rows
    cut: bool = False

    def rng(self, purpose: str) -> RowRandom:
        """For all of the rows."""
        return RowRandom(seed=0, split=self.split, purpose=purpose, index=np.arange(len(self.rows)))

    def texts(self, rows: Rows) -> list[tuple[str, str]]:
        """(prompt, completion) of each of these rows, `<bos>` and `<eos>` left out."""
        from hf_synth.tokenization import all_words, render

        words = all_words(self.task)
        prompts = render(rows.tokens, np.ones_like(rows.lengths), rows.loss_start, words)
        completions = render(rows.tokens, rows.loss_start, rows.lengths - _ended(rows), words)
        return list(zip(prompts.to_pylist(), completions.to_pylist(), strict=True))

    def broken(self, wrong: np.ndarray, what: str, rows: Rows | None = None) -> Iterator[str]:
        """`what`, and the first row for which `wrong`, bool [rows], is true."""
        if not wrong.any():
            return
        row, found = int(np.argmax(wrong)), self.rows if rows is None else rows
        words = np.array([*SPECIAL_TOKENS, *self.task.vocabulary()], object)
        tokens = np.clip(found.tokens[row, : found.lengths[row]], 0, len(words) - 1)
        prompt, target = np.split(words[tokens], [found.loss_start[row]])
        shown = f"{shortened(prompt, 40)} | {shortened(target, 40)}"
        yield f"          {what}\n          {self.split} row {row}{', cut' * self.cut}: {shown}"


def kept_and_broken(task: Task) -> Iterator[tuple[str, str | None]]:
    """Each promise, with what is broken of it or None; after rows that are malformed no other is looked at."""
    task.rows(0, 1)  # other splits may be empty
    whole = list(_samples(task))
    problem = next((text for sample in whole for text in _well_formed(sample)), None)
    yield "rows are well-formed, and the vocabulary has no doubles", problem
    if problem is not None:
        return
    for promise, samples, problems in _promises(task, whole):
        yield promise, next((text for sample in samples for text in problems(sample)), None)
    yield 'holdout="content" keeps splits apart, or says why it cannot', _overlap(task)


def _promises(
    task: Task, whole: list[Sample]
) -> Iterator[tuple[str, list[Sample], Callable[[Sample], Iterator[str]]]]:
    """Each promise with the samples that it is held against, and what finds a problem in one."""
    from hf_synth.views import with_prompts

    uncut = [sample for sample in whole if task.verifiable and (sample.rows.loss_start == 1).any()]
    cuts = [one._replace(rows=with_prompts(one.rows, one.rng("prompt")), cut=True) for one in uncut]
    every = [*whole, *cuts]
    yield "a row is the same alone and in a block", whole, _alone
    yield "text tokenises back to the rows", whole, _tokenised
    yield "the floor is finite, at most 0, and 0 outside the loss", every, _floor
    if not task.verifiable:
        return
    yield "right completions are verified 1.0", every, _gold
    yield "completions truncated, extended or empty, and garbage, are verified 0.0", every, _spoilt
    yield "corrupted rows are verified 0.0; lengths and prompts are kept", every, _corrupted
    yield "violations are verified 0.0, and keep the length where they say so", whole, _violations


def _samples(task: Task) -> Iterator[Sample]:
    """Of every split that has rows; a split that is empty to keep contents apart is none."""
    for split in SPLITS:
        try:
            yield Sample(task, split, task.rows(0, min(_ROWS, task.size(split) or _ROWS), split=split))
        except ValueError as error:
            if "holdout" not in str(error):
                raise


def _well_formed(sample: Sample) -> Iterator[str]:
    rows, words = sample.rows, sample.task.vocabulary()
    odd = [word for word in words if words.count(word) > 1 or word in SPECIAL_TOKENS or word.split() != [word]]
    if odd:
        yield f"          vocabulary: got {odd[0]!r}, wanted words without spaces, each once, and no special token"
    numbers = (rows.tokens, rows.lengths, rows.loss_start, rows.loss_stop)
    if odd_types := {str(array.dtype) for array in numbers} - {"int32"}:
        yield f"          got arrays of {', '.join(odd_types)}, wanted int32"
    place, length = np.arange(rows.tokens.shape[1]), rows.lengths[:, None]
    foreign = (rows.tokens < PAD) | (rows.tokens >= len(SPECIAL_TOKENS) + len(words))
    ordered = (rows.loss_start >= 1) & (rows.loss_start < rows.loss_stop) & (rows.loss_stop <= rows.lengths)
    no_prompt = (rows.loss_start == 1) & (rows.lengths - 1 - _ended(rows) < 2)
    for what, wrong in {
        "token ids beyond the vocabulary": foreign.any(axis=1),
        "no <bos> at the beginning": rows.tokens[:, 0] != BOS,
        "<pad> inside, or something else behind": ((place < length) != (rows.tokens != PAD)).any(axis=1),
        "<eos> before the end": ((rows.tokens == EOS) & (place != length - 1)).any(axis=1),
        "wanted 1 <= loss_start < loss_stop <= length": ~ordered,
        "of fewer than two words none can be the prompt": no_prompt & sample.task.verifiable,
    }.items():
        yield from sample.broken(wrong, what)


def _alone(sample: Sample) -> Iterator[str]:
    task, rows = sample.task, sample.rows
    alone = [_as_lists(task.rows(row, 1, split=sample.split))[0] for row in range(len(rows))]
    yield from sample.broken(_unequal(alone, _as_lists(rows)), "another row in the block of all rows than alone")
    if task.verifiable:
        together = task.corrupt(_copy(rows), sample.rng("corrupt"))
        ones = np.arange(len(rows))[:, None]
        alone = [_as_lists(task.corrupt(rows.select(one), sample.rng("corrupt").subset(one)))[0] for one in ones]
        yield from sample.broken(_unequal(alone, _as_lists(together)), "corrupted otherwise in the block than alone")


def _tokenised(sample: Sample) -> Iterator[str]:
    from hf_synth.tokenization import build_tokenizer

    texts = [" ".join(pair).strip() for pair in sample.texts(sample.rows)]
    ids = build_tokenizer(sample.task)(texts)["input_ids"]
    found = [[*row, EOS] if end else row for row, end in zip(ids, _ended(sample.rows), strict=True)]
    yield from sample.broken(_unequal(found, [row[0] for row in _as_lists(sample.rows)]), "other token ids")


def _floor(sample: Sample) -> Iterator[str]:
    few = 10 + _FLOOR_TOKENS // sample.rows.tokens.shape[1]
    rows = sample.rows.select(np.arange(min(few, len(sample.rows))))
    found = sample.task.optimal_log_probs(rows)
    if found.shape != rows.tokens.shape or found.dtype != np.float64:
        yield f"          got {found.dtype} {list(found.shape)}, wanted float64 {list(rows.tokens.shape)}"
        return
    wrong = {
        "a token of a valid row is impossible or NaN": ~np.isfinite(found),
        "a probability above 1": found > 0,
        "not 0 where no loss is": (found != 0) & ~rows.loss_mask,
    }
    for what, tokens in wrong.items():
        yield from sample.broken(tokens.any(axis=1), what)


def _gold(sample: Sample) -> Iterator[str]:
    return sample.broken(_scores(sample, sample.rows) != 1, "a right completion is not verified 1.0")


def _spoilt(sample: Sample) -> Iterator[str]:
    for text in _GARBAGE:
        if sample.task.verify(text, text) != 0:
            yield f"          {text!r} after {text!r} is not verified 0.0"
    pairs = sample.texts(sample.rows)
    for what, change in _SPOILT.items():
        scores = [sample.task.verify(prompt, " ".join(change(right.split()))) for prompt, right in pairs]
        yield from sample.broken(np.array(scores) != 0, f"{what} is not verified 0.0")


def _corrupted(sample: Sample) -> Iterator[str]:
    rows, given = sample.rows, _copy(sample.rows)
    wrong = sample.task.corrupt(given, sample.rng("corrupt"))
    if not np.array_equal(given.tokens, rows.tokens):
        yield "          corrupt changes the rows that it is given; wanted a copy (rows.select)"
    elif wrong.tokens.shape != rows.tokens.shape:
        yield f"          got tokens {list(wrong.tokens.shape)}, wanted {list(rows.tokens.shape)}"
    else:
        yield from sample.broken(wrong.lengths != rows.lengths, "another length", wrong)
        moved = ((wrong.tokens != rows.tokens) & ~rows.loss_mask).any(axis=1)
        yield from sample.broken(moved, "changed before loss_start, or behind loss_stop", wrong)
        yield from sample.broken(_scores(sample, wrong) != 0, "a corrupted completion is not verified 0.0", wrong)


def _violations(sample: Sample) -> Iterator[str]:
    for name, violation in sample.task.violations().items():
        wrong = violation.make(_copy(sample.rows), sample.rng("violation"))
        yield from sample.broken(_scores(sample, wrong) != 0, f"{name} is not verified 0.0", wrong)
        if violation.keeps_length:
            yield from sample.broken(wrong.lengths != sample.rows.lengths, f"{name} has another length", wrong)


def _overlap(task: Task) -> str | None:
    seen: dict[tuple[int, ...], str] = {}
    for sample in _samples(type(task)(task.config.replace(holdout="content"))):
        homes = [seen.setdefault(tuple(tokens), sample.split) for tokens, *_ in _as_lists(sample.rows)]
        foreign = np.array([home != sample.split for home in homes])
        if foreign.any():
            return next(sample.broken(foreign, f"this row is in the {homes[int(np.argmax(foreign))]} split as well"))
    return None


def _scores(sample: Sample, rows: Rows) -> np.ndarray:
    return np.array([sample.task.verify(*pair) for pair in sample.texts(rows)])


def _copy(rows: Rows) -> Rows:
    return rows.select(np.arange(len(rows)))


def _ended(rows: Rows) -> np.ndarray:
    """Whether each row ends with `<eos>`, bool [rows]."""
    ended: np.ndarray = rows.tokens[np.arange(len(rows)), rows.lengths - 1] == EOS
    return ended


def _as_lists(rows: Rows) -> list[tuple]:
    """Each row without its padding, its spans and its columns."""
    numbers = (rows.lengths, rows.loss_start, rows.loss_stop, *rows.columns.values())
    told = zip(*(array.tolist() for array in numbers), strict=True)
    return [(tokens[: numbers[0]], *numbers) for tokens, numbers in zip(rows.tokens.tolist(), told, strict=True)]


def _unequal(ones: list, others: list) -> np.ndarray:
    """Where two lists of rows differ, bool [rows]."""
    return np.array([one != other for one, other in zip(ones, others, strict=True)])
