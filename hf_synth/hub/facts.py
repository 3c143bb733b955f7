"""What a card says of a task's config, measured on its rows: an example, the floor, how its splits lie, violations."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from hf_synth.hub.publication import MEASURED_ROWS, PublishedTask
from hf_synth.hub.repository import example
from hf_synth.tasks import Task
from hf_synth.tasks.base import SPLITS, about, words_of
from hf_synth.tokenization import all_words
from hf_synth.views import floors, view_table

_MEASURED_TOKENS = 4_000_000
_BLOCK_TOKENS = 1 << 20


def task_facts(config: PublishedTask) -> dict[str, Any]:
    """All that the card says of a task's config, in values that JSON holds; `measured` rows a split are looked at."""
    task, splits, seed = config.task, list(config.splits), config.seed
    first, evaluated = splits[0], "test" if "test" in splits else splits[-1]
    sizes = {split: min(size, config.measured) for split, size in config.splits.items()}
    facts = {
        **said(task, seed),
        "preset": config.preset,
        "row": words_of(type(task)),
        "words": list(all_words(task)),
        "overlap": config.overlap,
        "example": {"words": example(task, first, seed), "row": config.table(first, 0, 1).to_pylist()[0]},
    }
    if config.view == "preference":  # of the same rows as the task's other config
        return facts
    drawn = task.size(evaluated) is None and task.config.holdout != "none"
    return facts | {
        "floor": {split: floor(task, split, sizes[split], seed) for split in dict.fromkeys((first, evaluated))},
        "shares": split_shares(task, splits, seed) if drawn else {},
        "violations": violation_counts(task, evaluated, sizes[evaluated], seed),
    }


def said(task: Task, seed: int) -> dict[str, Any]:
    """What is known of a task's config without looking at its rows; `legal`: what each field takes, in words."""
    legal = {}
    for field in dataclasses.fields(task.config_class):
        choices, bounds = field.metadata.get("choices"), field.metadata.get("range")
        others = "false, true" if isinstance(field.default, bool) else "numbers"
        legal[field.name] = ", ".join(choices) if choices else "{} to {}".format(*bounds) if bounds else others
    return {
        "task": task.name,
        "config": dataclasses.asdict(task.config),
        "version": task.version,
        "seed": seed,
        "source": task.source,
        "about": about(task),
        "parameters": words_of(task.config_class),
        "legal": legal,
        "explanations": list(task.explanations()),
        "holdout": task.config.holdout,
    }


def floor(task: Task, split: str, size: int, seed: int) -> dict[str, Any]:
    """The mean of -ln P over the loss-bearing tokens of the first rows of a split, in nats per token.

    Its standard error is that of a ratio of sums over rows: rows are independent, the tokens of one are not.
    """
    nats, tokens = [], []
    for start, number in spans(task, split, size, seed):
        rows = task.rows(start, number, split=split, seed=seed)
        nats.append(floors(task, rows))
        tokens.append(rows.loss_stop - rows.loss_start)
    loss, count = np.concatenate(nats), np.concatenate(tokens)
    mean = loss.sum() / count.sum()
    spread = np.square(loss - mean * count).sum() * loss.size / max(loss.size - 1, 1)
    return {
        "nats_per_token": float(mean) + 0.0,
        "standard_error": float(np.sqrt(spread) / count.sum()),
        "rows": int(loss.size),
        "tokens_per_row": float(count.mean()),
    }


def split_shares(task: Task, splits: list[str], seed: int) -> dict[str, float]:
    """For each split the fraction of what its generator draws, held back by nothing, that belongs to this split."""
    free = type(task)(task.config.replace(holdout="none"))
    shares = {}
    for split in splits:
        blocks = spans(free, split, MEASURED_ROWS, seed)
        places = [task.split_of(free.rows(start, count, split=split, seed=seed)) for start, count in blocks]
        shares[split] = float((np.concatenate(places) == SPLITS.index(split)).mean())
    return shares


def violation_counts(task: Task, split: str, size: int, seed: int) -> dict[str, Any]:
    """How often each kind of violation comes in the view `labelled` of a split's first rows; whether it keeps the
    length. No kinds where no text of the task is wrong.
    """
    if not task.verifiable:
        return {"rows": 0, "kinds": []}
    blocks = spans(task, split, size, seed)
    tables = [view_table(task, "labelled", start, count, split=split, seed=seed) for start, count in blocks]
    counts = Counter(kind for table in tables for kind in table["violation"].to_pylist())
    kinds = [
        {"kind": kind, "keeps_length": violation.keeps_length, "count": counts[kind]}
        for kind, violation in task.violations().items()
    ]
    return {"split": split, "rows": sum(table.num_rows for table in tables), "kinds": kinds}


def spans(task: Task, split: str, size: int, seed: int) -> list[tuple[int, int]]:
    """(start, count) of the blocks of a split's first `size` rows that are measured: fewer where rows are long.

    A block fits into memory whatever the rows' width.
    """
    width = task.rows(0, 1, split=split, seed=seed).tokens.shape[1]
    rows = min(size, max(_MEASURED_TOKENS // width, 100))
    block = max(_BLOCK_TOKENS // width, 1)
    return [(start, min(block, rows - start)) for start in range(0, rows, block)]
