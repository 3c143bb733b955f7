"""The promises of a task, each once: what `hf-synth check` prints and what the tests hold every task to.

A promise is a function from `Samples` to problems; none found, it is kept. Each looks at a number of rows of every
split and at cut rows, whose prompt is a random prefix. The promises are listed at the end, with the names they go by.
"""

import dataclasses
import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hf_synth.errors import raised_at
from hf_synth.rng import RowRandom
from hf_synth.tasks import Rows, Task, TaskConfig
from hf_synth.tasks.base import (
    BOS,
    EOS,
    FIRST_CONTENT,
    PAD,
    SPECIAL_TOKENS,
    SPLITS,
    NoDistributionError,
    UnknownIdsError,
)
from hf_synth.tokenization import all_words, build_tokenizer
from hf_synth.views import IGNORED, completions, ended, prompts, view_table, with_prompts

_FLOOR_TOKENS = 5_000  # fewer long rows are checked: their exact floor can be expensive
_LONGEST_PASS = 2_000
_HELD_ROWS = 200
_FAR = 2**61
_GARBAGE = ("", " ", "garbage", "\0", "<pad>", "<bos>", "<eos>", "<sep>", "٣ <sep>", "²", "-1", "1e3", "1.0", "🙂")
_INCOMPLETE: dict[str, Callable[[list[str]], list[str]]] = {
    "a right completion without its last word": lambda words: words[:-1],
    "a right completion with its last word doubled": lambda words: [*words, *words[-1:]],
    "a right completion with <eos> behind it": lambda words: [*words, "<eos>"],
    "a right completion with <pad> behind it": lambda words: [*words, "<pad>"],
    "an empty completion": lambda words: [],
}


class Problem(NamedTuple):
    """What is broken, and the row that shows it: its address ("test row 3, cut"), the words of prompt and target."""

    what: str
    address: str = ""
    prompt: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


class Sample(NamedTuple):
    """Rows of a split, each with loss on what the task says, or `cut`: with a random prefix as its prompt."""

    task: Task
    split: str
    rows: Rows
    cut: bool = False

    def rng(self, purpose: str) -> RowRandom:
        """Random numbers for all of the rows."""
        return RowRandom(seed=0, split=self.split, purpose=purpose, index=np.arange(len(self.rows)))

    def texts(self, rows: Rows | None = None) -> list[tuple[str, str]]:
        """(prompt, completion) of each of these rows or of others, `<bos>` and `<eos>` left out."""
        rows = self.rows if rows is None else rows
        return list(zip(*(side(self.task, rows).to_pylist() for side in (prompts, completions)), strict=True))

    def scores(self, texts: Iterable[tuple[str, str]]) -> np.ndarray:
        """What `verify` says of each (prompt, completion), float64 [texts]; NaN where it raises."""
        return np.array([_score(self.task, *pair) for pair in texts])

    def problems(self, broken: Mapping[str, np.ndarray], rows: Rows | None = None) -> Iterator[Problem]:
        """What is broken, bool [rows], with the first row (of these, or of `rows`) for which it is."""
        rows, words = self.rows if rows is None else rows, np.array(all_words(self.task), object)
        for what, wrong in broken.items():
            for row in np.flatnonzero(wrong)[:1]:
                tokens = np.clip(rows.tokens[row, : rows.lengths[row]], 0, len(words) - 1)
                prompt, target = np.split(words[tokens], [rows.loss_start[row]])
                yield Problem(what, f"{self.split} row {row}{', cut' * self.cut}", tuple(prompt), tuple(target))


class Samples:
    """Up to `count` rows of every split of a task, made once for all promises."""

    def __init__(self, task: Task, count: int = 200) -> None:
        """The train split must have rows; another may be empty."""
        task.rows(0, 1)
        self.task, self.count = task, count
        self.whole = list(_samples(task, count))

    @functools.cached_property
    def cut(self) -> list[Sample]:
        """The samples in which rows have loss from their first word on, cut at random; not where one word is all."""
        uncut = [one for one in self.whole if (one.rows.loss_start == 1).any() and not _single_words(one.rows).any()]
        return [one._replace(rows=with_prompts(one.rows, one.rng("prompt")), cut=True) for one in uncut]

    @property
    def every(self) -> list[Sample]:
        """Whole rows and cut ones."""
        return [*self.whole, *self.cut]


def well_formed(samples: Samples) -> Iterator[Problem]:
    """Rows are int32, `<bos> ... [<eos>] <pad> ...`, of known ids, with a loss span inside; words are unique.

    A row of a verifiable task with loss on all of its words has two of them or more, so that one can be the prompt.
    """
    words = samples.task.vocabulary()
    counts = Counter([*words, *SPECIAL_TOKENS])
    odd = [word for word in words if not isinstance(word, str) or counts[word] > 1 or word.split() != [word]]
    if odd:
        wanted = "words without spaces, each once, and no special token"
        yield Problem(f"vocabulary: got {odd[0]!r}, wanted {wanted}")
    texts = {name: getattr(samples.task, name)() for name in ("explanations", "statements")}
    for name, value in texts.items():
        if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
            yield Problem(f"{name}: got {value!r}, wanted a tuple of texts")
    for sample in samples.whole:
        rows = sample.rows  # int32 and of known ids: Task.sound makes sure
        position, length = np.arange(rows.tokens.shape[1]), rows.lengths[:, None]
        ordered = (rows.loss_start >= 1) & (rows.loss_start < rows.loss_stop) & (rows.loss_stop <= rows.lengths)
        broken = {
            "no <bos> at the beginning": rows.tokens[:, 0] != BOS,
            "<pad> inside, or something else behind": ((position < length) != (rows.tokens != PAD)).any(axis=1),
            "<eos> before the end": ((rows.tokens == EOS) & (position != length - 1)).any(axis=1),
            "wanted 1 <= loss_start < loss_stop <= length": ~ordered,
            "of fewer than two words none can be the prompt": _single_words(rows) & samples.task.verifiable,
        }
        yield from sample.problems(broken)


def same_in_any_block(samples: Samples) -> Iterator[Problem]:
    """A row is a function of its address: the same alone, in any block, far away, and from another instance.

    So are its corruption and its violations.
    """
    task, again = samples.task, type(samples.task)(samples.task.config)
    for sample in samples.whole:
        rows, split, size = sample.rows, sample.split, len(sample.rows)
        together = _as_lists(rows)
        alone = [_as_lists(task.rows(row, 1, split=split))[0] for row in range(size)]
        blocks = itertools.pairwise(sorted({0, 1, min(4, size), size // 2, size - 1, size}))
        split_up = [row for start, stop in blocks for row in _as_lists(again.rows(start, stop - start, split=split))]
        yield from sample.problems(
            {
                "another row in the block of all rows than alone": _unequal(alone, together),
                "another row from another instance of the task, in other blocks": _unequal(split_up, together),
            }
        )
        if not task.verifiable:
            continue
        changes = {"corrupted": task.corrupt} | {name: kind.make for name, kind in task.violations().items()}
        for name, change in changes.items():
            changed = _as_lists(change(rows.copy(), sample.rng("change")))
            alone = [
                _as_lists(change(rows.select(one), sample.rng("change").subset(one)))[0]
                for one in np.arange(size)[:, None]
            ]
            yield from sample.problems(
                {f"{name}: changed otherwise in the block than alone": _unequal(alone, changed)}
            )
    if len(task.rows(5, 0)):
        yield Problem("a block of no rows has some")
    far = _as_lists(task.rows(_FAR, 3))
    if _as_lists(task.rows(_FAR + 2, 1)) != far[2:]:
        yield Problem(f"train row {_FAR + 2} is another one alone than in a block of three")


def different(samples: Samples) -> Iterator[Problem]:
    """Rows of another split, another seed and (where rows never end) another purpose are others.

    Not checked where fewer than 8 different rows are seen: chance can make few equal.
    """
    task, rows = samples.task, samples.whole[0].rows
    if len({json.dumps(row) for row in _as_lists(rows)}) < 8:
        return
    blocks = {sample.split: sample.rows for sample in samples.whole}
    blocks["seed 1"] = task.rows(0, len(rows), seed=1)
    if task.size("train") is None:
        blocks["another purpose"] = task.generate(samples.whole[0].rng("another purpose"))
    seen: dict[str, str] = {}
    for name, block in blocks.items():
        if (first := seen.setdefault(json.dumps(_as_lists(block)), name)) != name:
            yield Problem(f"the same rows: {first}, {name}")


def repeated(samples: Samples) -> Iterator[Problem]:
    """Every pass over a finite split holds the same rows, in an order of its own, and blocks may cross its end."""
    task = samples.task
    for sample in samples.whole:
        size, split = task.size(sample.split), sample.split
        if size is None or size > _LONGEST_PASS:
            continue
        both = _as_lists(task.rows(0, 2 * size, split=split))
        passes = [both[:size], both[size:], _as_lists(task.rows(1_000 * size, size, split=split))]
        if any(sorted(one) != sorted(passes[0]) for one in passes):
            yield Problem(f"{split} split: another pass holds other rows")
        if len({json.dumps(row) for row in passes[0]}) >= 8 and len({json.dumps(one) for one in passes}) < 3:
            yield Problem(f"{split} split: two passes have one order")
        if _as_lists(task.rows(size - 1, 2, split=split)) != both[size - 1 : size + 1]:
            yield Problem(f"{split} split: a block across the end of a pass is not the rows on both sides of it")


def tokenised(samples: Samples) -> Iterator[Problem]:
    """`build_tokenizer` gives back the ids of a row's prompt, and of prompt and completion together."""
    tokenizer = build_tokenizer(samples.task)
    for sample in samples.every:
        pairs, rows = sample.texts(), sample.rows
        try:
            ids = tokenizer([" ".join(pair).strip() for pair in pairs])["input_ids"]
            prompt_ids = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        except ValueError as error:
            yield Problem(str(error))
            continue
        whole = [[*row, EOS] if end else row for row, end in zip(ids, ended(rows), strict=True)]
        lists = _as_lists(rows)
        broken = {
            "other token ids": _unequal(whole, [row for row, *_ in lists]),
            "other token ids of the prompt": _unequal(prompt_ids, [row[:start] for row, _, start, *_ in lists]),
        }
        yield from sample.problems(broken)


def viewed(samples: Samples) -> Iterator[Problem]:
    """Each view shows these rows: their ids and loss, their text, the same prompts, and which text is wrong."""
    task = samples.task
    cuts = {sample.split: sample for sample in samples.cut}
    for sample in samples.whole:
        rows, positions = sample.rows, range(len(sample.rows))
        texts = [" ".join(pair).strip() for pair in sample.texts()]
        labels = np.where(rows.loss_mask, rows.tokens, IGNORED).tolist()
        expected: dict[str, dict[str, list]] = {
            "tokens": {
                "input_ids": [tokens for tokens, *_ in _as_lists(rows)],
                "labels": [labels[row][: rows.lengths[row]] for row in positions],
            },
            "text": {"text": texts},
        }
        if not _single_words(rows).any():
            pairs = cuts.get(sample.split, sample).texts()
            before, after = [prompt for prompt, _ in pairs], [f" {completion}" for _, completion in pairs]
            expected["prompt"] = {"prompt": before, "task": [task.to_json()] * len(rows)}
            expected["prompt_completion"] = {"prompt": before, "completion": after}
            if task.verifiable:
                expected["preference"] = {"prompt": before, "chosen": after}
        if task.verifiable:
            expected["labelled"] = {"valid": [row % 2 == 0 for row in positions]}
        for view, columns in expected.items():
            shown = view_table(task, view, 0, len(rows), split=sample.split, seed=0).to_pydict()
            own = {name: rows.columns[name].tolist() for name in task.columns if view != "labelled"}
            broken = {
                f"another {name} than the row's": _unequal(shown[name], values)
                for name, values in {**columns, **own}.items()
            }
            if view == "preference":
                scores = sample.scores(zip(shown["prompt"], shown["rejected"], strict=True))
                broken["the rejected text is not verified 0.0"] = scores != 0
            if view == "labelled":
                valid, kinds = np.array(shown["valid"]), set(task.violations()) - {""}
                named = np.array([name in kinds for name in shown["violation"]])
                broken["a valid text is changed, or an invalid one not"] = _unequal(shown["text"], texts) == valid
                broken["not every invalid text has a kind of violation"] = named == valid
            yield from sample.problems({f"view {view}: {what}": wrong for what, wrong in broken.items()})


def floor(samples: Samples) -> Iterator[Problem]:
    """`optimal_log_probs` is finite and at most 0, 0 outside the loss; neither the block nor a cut changes it."""
    task = samples.task
    whole = {sample.split: sample.rows for sample in samples.whole}
    for sample in samples.every:
        some = np.arange(min(10 + _FLOOR_TOKENS // sample.rows.tokens.shape[1], len(sample.rows)))
        rows = sample.rows.select(some)
        log_probs = task.optimal_log_probs(rows)
        array = isinstance(log_probs, np.ndarray)
        if not array or log_probs.shape != rows.tokens.shape or log_probs.dtype != np.float64:
            got = f"{log_probs.dtype} {list(log_probs.shape)}" if array else f"a {type(log_probs).__name__}"
            yield Problem(f"got {got}, wanted float64 {list(rows.tokens.shape)}")
            continue
        broken = {
            "a token of a valid row is impossible or NaN": ~np.isfinite(log_probs),
            "a probability above 1": log_probs > 0,
            "not 0 where no loss is": (log_probs != 0) & ~rows.loss_mask,
        }
        if sample.cut:
            uncut = np.where(rows.loss_mask, task.optimal_log_probs(whole[sample.split].select(some)), 0.0)
            broken["another probability than in the row that is not cut"] = np.abs(log_probs - uncut) > 1e-12
        yield from sample.problems({what: tokens.any(axis=1) for what, tokens in broken.items()})
        for row in some[::8] if not sample.cut else ():
            alone = rows.select(np.array([row]))
            alone.tokens = alone.tokens[:, : rows.lengths[row]]
            if np.abs(task.optimal_log_probs(alone)[0] - log_probs[row, : rows.lengths[row]]).max() > 1e-12:
                yield from sample.problems({"another probability in the block than alone": some == row})


def distributed(samples: Samples) -> Iterator[Problem]:
    """`optimal_distribution` sums to 1 and gives a row's own token what the floor says, at any positions in any order.

    Rows that begin alike have one distribution; a position without loss is a ValueError. Not checked where a task
    says of its rows' own tokens alone how likely they are.
    """
    task = samples.task
    for sample in samples.whole:
        rows = sample.rows.select(np.arange(min(2 + _FLOOR_TOKENS // sample.rows.tokens.shape[1], len(sample.rows))))
        start, last = rows.loss_start.astype(np.int64), rows.loss_stop - 1
        positions = np.stack([last, (start + last) // 2, start, last], axis=1)
        try:
            probs = task.optimal_distribution(rows, positions)
        except NoDistributionError:
            return
        if probs.shape != (wanted := (*positions.shape, len(all_words(task)))) or probs.dtype != np.float64:
            yield Problem(f"got {probs.dtype} {list(probs.shape)}, wanted float64 {list(wanted)}")
            continue
        own = np.take_along_axis(probs, np.take_along_axis(rows.tokens, positions, axis=1)[:, :, None], axis=2)
        floors = np.exp(np.take_along_axis(task.optimal_log_probs(rows), positions, axis=1))
        first: dict[bytes, np.ndarray] = {}
        others = [
            np.abs(values - first.setdefault(tokens[:position].tobytes(), values)).max() > 1e-9
            for tokens, row_positions, row_values in zip(rows.tokens, positions, probs, strict=True)
            for position, values in zip(row_positions, row_values, strict=True)
        ]
        first_row, span = rows.select(np.array([0])), np.arange(start[0], last[0] + 1)
        alone = task.optimal_distribution(first_row, span)[0, positions[0] - start[0]]
        broken = {
            "a probability below 0 or NaN": ~(probs >= 0),
            "probabilities of the next token do not sum to 1": np.abs(probs.sum(axis=2) - 1) > 1e-9,
            "another probability of the row's own token than the floor's": np.abs(own[:, :, 0] - floors) > 1e-10,
            "rows that begin alike have two distributions": np.array(others).reshape(positions.shape),
            "another distribution in the row alone": (np.arange(len(rows)) == 0)
            & (np.abs(probs[0] - alone).max() > 1e-9),
        }
        yield from sample.problems({what: each.reshape(len(rows), -1).any(axis=1) for what, each in broken.items()})
        for position in (int(start[0]) - 1, int(rows.loss_stop[0])):
            try:
                task.optimal_distribution(first_row, [position])
            except ValueError:
                continue
            yield Problem(f"position {position} of a row carries no loss and is not refused")


def gold(samples: Samples) -> Iterator[Problem]:
    """`verify` gives 1.0 to the completion of every row, whole or cut."""
    for sample in samples.every:
        yield from sample.problems({"a right completion is not verified 1.0": sample.scores(sample.texts()) != 1})


def incomplete(samples: Samples) -> Iterator[Problem]:
    """`verify` gives 0.0 to garbage, and to right completions that lack a word, go on, or are empty."""
    right_prompt = samples.every[0].texts()[0][0]
    for garbage in _GARBAGE:
        for prompt in (garbage, right_prompt):
            if _score(samples.task, prompt, garbage) != 0:
                yield Problem(f"{garbage!r} after {prompt!r} is not verified 0.0")
    for sample in samples.every:
        pairs = sample.texts()
        for what, change in _INCOMPLETE.items():
            texts = [(prompt, " ".join(change(right.split()))) for prompt, right in pairs]
            yield from sample.problems({f"{what} is not verified 0.0": sample.scores(texts) != 0})


def scored(samples: Samples) -> Iterator[Problem]:
    """`verify` returns the float 0.0 or 1.0 for any text and never raises; tried on random words and spoilt rows."""
    task, draw = samples.task, random.Random(0)
    pool = [*task.vocabulary(), *SPECIAL_TOKENS, *_GARBAGE]
    texts = [(draw.choices(pool, k=draw.randrange(9)), draw.choices(pool, k=draw.randrange(9))) for _ in range(100)]
    for sample in samples.every:
        for prompt, completion in sample.texts()[:20]:
            words = f"{prompt} {completion}".split()
            at, cut = draw.randrange(len(words)), draw.randrange(len(words) + 1)
            words[at : at + 1] = draw.choices(pool, k=draw.randrange(2))
            texts.append((words[:cut], words[cut:]))
    for prompt, completion in (map(" ".join, pair) for pair in texts):
        try:
            score = task.verify(prompt, completion)
        except Exception as error:  # whatever it raises breaks the promise
            yield Problem(f"verify({prompt!r}, {completion!r}) raises {error!r}")
            continue
        if not isinstance(score, float) or score not in (0.0, 1.0):
            yield Problem(f"verify({prompt!r}, {completion!r}): got {score!r}, wanted 0.0 or 1.0")


def corrupted(samples: Samples) -> Iterator[Problem]:
    """`corrupt` returns wrong rows, changed within their loss alone, and leaves its argument as it is.

    Lengths, loss spans and a last `<eos>` are kept; no `<pad>` or `<eos>` comes in.
    """
    for sample in samples.every:
        rows, argument = sample.rows, sample.rows.copy()
        wrong = samples.task.corrupt(argument, sample.rng("corrupt"))
        if not np.array_equal(argument.tokens, rows.tokens):
            yield Problem("corrupt changes the rows that it is given; wanted a copy (rows.select)")
        elif wrong.tokens.shape != rows.tokens.shape:
            yield Problem(f"got tokens {list(wrong.tokens.shape)}, wanted {list(rows.tokens.shape)}")
        else:
            changed = wrong.tokens != rows.tokens
            spans = (wrong.loss_start != rows.loss_start) | (wrong.loss_stop != rows.loss_stop)
            foreign = (wrong.tokens < PAD) | (wrong.tokens >= FIRST_CONTENT + len(samples.task.vocabulary()))
            special = np.isin(wrong.tokens, (PAD, EOS)) | np.isin(rows.tokens, (PAD, EOS))
            broken = {
                "another length": wrong.lengths != rows.lengths,
                "another loss_start or loss_stop": spans,
                "changed before loss_start, or behind loss_stop": (changed & ~rows.loss_mask).any(axis=1),
                "token ids beyond the vocabulary": foreign.any(axis=1),
                "<pad> or <eos> put in or taken away": (changed & special).any(axis=1),
                "a corrupted completion is not verified 0.0": sample.scores(sample.texts(wrong)) != 0,
            }
            yield from sample.problems(broken, wrong)


def violations(samples: Samples) -> Iterator[Problem]:
    """There is a kind of violation; each makes texts verified 0.0, and keeps all lengths if and only if it says so."""
    if not samples.task.violations():
        yield Problem("violations: got none, wanted at least one kind")
    for name, violation in samples.task.violations().items():
        changes_length = False
        for sample in samples.whole:
            wrong = violation.make(sample.rows.copy(), sample.rng("violation"))
            other_length = wrong.lengths != sample.rows.lengths
            changes_length |= bool(other_length.any())
            broken = {f"{name} is not verified 0.0": sample.scores(sample.texts(wrong)) != 0}
            broken |= {f"{name} has another length": other_length} if violation.keeps_length else {}
            yield from sample.problems(broken, wrong)
        if not changes_length and not violation.keeps_length:
            yield Problem(f"{name} keeps the length of every row; wanted keeps_length=True")


def decided(samples: Samples) -> Iterator[Problem]:
    """Decision points are made of words of the vocabulary, with valid and invalid next ones and none that is both."""
    words = set(samples.task.vocabulary())
    for point in samples.task.decision_points():
        if foreign := {*point.prefix.split(), *point.valid, *point.invalid} - words:
            yield Problem(f"decision point {point.name}: got {min(foreign)!r}, wanted words of the vocabulary")
        if not point.valid or not point.invalid or set(point.valid) & set(point.invalid):
            yield Problem(
                f"decision point {point.name}: wanted next words both valid and invalid, and none that is both"
            )


def configured(samples: Samples) -> Iterator[Problem]:
    """Config fields refuse what is out of range or of another type; with one at its least value rows are right."""
    make, config_class = type(samples.task), samples.task.config_class
    for field in dataclasses.fields(config_class):
        low, high = field.metadata.get("range", (None, None))
        beyond = [] if low is None else [low - 1, high + 1, float("nan")]
        for value in [*beyond, "3", None, [1], object()] if field.metadata else []:
            try:
                config_class(**{field.name: value})
            except ValueError as error:
                if f"{config_class.__name__}.{field.name}: got" in str(error):
                    continue
            yield Problem(f"{config_class.__name__}.{field.name}={value!r} is not refused by name")
        for value in [] if low is None else [high, low]:  # a bound may be illegal beside the other fields' defaults
            try:
                task = make(config_class(**{field.name: value}))
            except ValueError as error:
                if field.name not in str(error):
                    yield Problem(f"{config_class.__name__}.{field.name}={value!r}: {error}")
                continue
            if value == low:
                least = Samples(task, 8)
                promises = (well_formed, gold) if task.verifiable else (well_formed,)
                for problem in itertools.islice((one for promise in promises for one in promise(least)), 1):
                    yield problem._replace(what=f"{field.name}={value!r}: {problem.what}")


def held_apart(samples: Samples) -> Iterator[Problem]:
    """With `holdout="content"` no row is in two splits, and rows are the same in any block.

    A split that the config cannot fill is a ValueError that names holdout. Contents that are counted are numbered.
    """
    task = type(samples.task)(samples.task.config.replace(holdout="content"))
    seen: dict[tuple[int, ...], str] = {}
    for sample in _samples(task, _HELD_ROWS):
        homes = [seen.setdefault(tuple(tokens), sample.split) for tokens, *_ in _as_lists(sample.rows)]
        foreign = np.array([home != sample.split for home in homes])
        if foreign.any():
            yield from sample.problems({f"this row is in the {homes[int(np.argmax(foreign))]} split as well": foreign})
        if sample.split == "validation":
            some = range(min(16, len(sample.rows)))
            try:
                alone = [_as_lists(task.rows(row, 1, split=sample.split))[0] for row in some]
            except ValueError as error:
                yield Problem(f"a validation row is made in the block of all rows, but alone: {error}")
                continue
            yield from sample.problems({"another row alone": _unequal(alone, _as_lists(sample.rows)[: len(some)])})
    contents = samples.task.contents()
    if contents is not None and contents <= 2**20:
        rows = samples.task.rows(0, 500)
        ranks = samples.task.content_rank(rows).tolist()
        texts = [tuple(tokens) for tokens, *_ in _as_lists(rows)]
        if min(ranks) < 0 or max(ranks) >= contents:
            yield Problem(f"content_rank: got {min(ranks)} to {max(ranks)}, wanted 0 to {contents - 1}")
        if not len(set(zip(ranks, texts, strict=True))) == len(set(ranks)) == len(set(texts)):
            yield Problem("content_rank: got one number for two contents, or two for one")


class Promise(NamedTuple):
    """A promise: the name that is shown, what finds its problems, and whether only verifiable tasks make it."""

    name: str
    problems: Callable[[Samples], Iterator[Problem]]
    verifiable: bool = False


PROMISES = (
    Promise("rows are well-formed, and the vocabulary has no duplicates", well_formed),  # the others need such rows
    Promise("a row is the same alone and in a block", same_in_any_block),
    Promise("another split, seed or purpose gives other rows", different),
    Promise("every epoch of finite rows has the same rows, in a new order", repeated),
    Promise("text tokenises back to the rows", tokenised),
    Promise("every view shows the rows", viewed),
    Promise("the floor is finite, at most 0, and 0 outside the loss", floor),
    Promise("the distribution of the next token sums to 1, and agrees with the floor", distributed),
    Promise("right completions are verified 1.0", gold, verifiable=True),
    Promise("completions truncated, extended or empty, and garbage, are verified 0.0", incomplete, verifiable=True),
    Promise("any text is verified 0.0 or 1.0", scored, verifiable=True),
    Promise("corrupted rows are verified 0.0; lengths and prompts are kept", corrupted, verifiable=True),
    Promise("violations are verified 0.0, and keep the length if they say so", violations, verifiable=True),
    Promise("decision points have valid and invalid words of the vocabulary", decided),
    Promise("config fields refuse invalid values, and work at their minimum", configured),
    Promise('holdout="content" keeps splits apart, or says why it cannot', held_apart),
)


def promises_of(task: type[Task]) -> list[Promise]:
    """Return the promises that this task makes."""
    return [promise for promise in PROMISES if task.verifiable or not promise.verifiable]


def check_properties(kind: type[Task], config: TaskConfig) -> Iterator[tuple[str, Problem | None]]:
    """Yield each promise's name with its first problem or None; nothing follows rows that are malformed."""
    samples: Samples | None = None
    for promise in promises_of(kind):
        try:
            samples = samples or Samples(kind(config))
            problem = next(promise.problems(samples), None)
        except UnknownIdsError as error:
            sample = Sample(kind(config), "train", error.rows)
            problem = next(sample.problems({str(error): error.wrong}))
        except (Exception, SystemExit) as error:  # whatever a task's own code raises, it keeps no promise so
            problem = Problem(raised_at(error))
        yield promise.name, problem
        if problem is not None and promise.problems is well_formed:
            return


def _samples(task: Task, count: int) -> Iterator[Sample]:
    """Yield a sample of every split that has rows; a split that is empty to keep contents apart has none."""
    for split in SPLITS:
        try:
            size = min(count, task.size(split) or count)
            yield Sample(task, split, task.sound(task.rows(0, size, split=split), size, "rows"))
        except ValueError as error:
            if "holdout" not in str(error):
                raise


def _score(task: Task, prompt: str, completion: str) -> float:
    """Return the verdict on a text; NaN where `verify` raises, which is no verdict and what `scored` reports."""
    try:
        return task.verify(prompt, completion)
    except Exception:
        return float("nan")


def _single_words(rows: Rows) -> np.ndarray:
    """Whether each row has loss on its first word and no second one, bool [rows]."""
    return np.asarray((rows.loss_start == 1) & (rows.lengths - 1 - ended(rows) < 2))


def _as_lists(rows: Rows) -> list[tuple]:
    """Each row without its padding, its spans and its columns."""
    numbers = (rows.lengths, rows.loss_start, rows.loss_stop, *rows.columns.values())
    per_row = zip(*(array.tolist() for array in numbers), strict=True)
    return [(tokens[: spans[0]], *spans) for tokens, spans in zip(rows.tokens.tolist(), per_row, strict=True)]


def _unequal(one: Sequence, other: Sequence) -> np.ndarray:
    """Where two lists of rows differ, bool [rows]."""
    return np.array([left != right for left, right in zip(one, other, strict=True)])
