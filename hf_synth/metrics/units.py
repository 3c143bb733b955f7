"""Prompts as units: what is measured on the completions of a prompt, and on equal amounts of text of several prompts.

A measure of sampled text generalises over prompts, so that its interval counts prompts and not completions. Measures
whose value depends on the amount of text are taken on blocks of one size: each holds whole prompts, and no prompt is
in two, so that blocks are independent too. Nothing is resampled: a bootstrap repeats prompts, which is what measures
of repetition measure.
"""

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def entries(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    """An `Interval` as `name`, `name/low` and `name/high`."""
    return dict(zip((name, f"{name}/low", f"{name}/high"), interval, strict=True))


def by_prompt(values: Sequence[Any] | np.ndarray, prompts: Sequence[Hashable], name: str) -> dict[Hashable, list[Any]]:
    """The values of each prompt, prompts in the order in which they first come; `name` is for the error."""
    if len(values) != len(prompts) or not len(values):
        raise ValueError(f"{name}: got {len(values)} values for {len(prompts)} prompts, wanted one each, one or more")
    members: dict[Hashable, list[Any]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        members.setdefault(prompt, []).append(value)
    return members


def shuffled(prompts: Sequence[Hashable], seed: int) -> list[Hashable]:
    """The different prompts in a random order that the seed determines."""
    distinct = list(dict.fromkeys(prompts))
    return [distinct[number] for number in np.random.default_rng(seed).permutation(len(distinct))]


def equal_blocks(
    sequences: Sequence[Sequence[T]], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[Sequence[T]]]:
    """Blocks of `size` items each: the sequences of shuffled prompts, the last one of a block cut short.

    A block starts with a prompt of its own; what is left over at the end is dropped. Raises ValueError where there
    are too few items for one block.
    """
    members, blocks = by_prompt(sequences, prompts, name), []
    block: list[Sequence[T]] = []
    room = size
    for prompt in shuffled(prompts, seed):
        for sequence in members[prompt]:
            if room:
                block.append(sequence[:room])
                room -= len(block[-1])
        if not room:
            blocks.append(block)
            block, room = [], size
    if not blocks:
        total = sum(map(len, sequences))
        raise ValueError(
            f"{name}: got {total} items in all, wanted {size} or more; sample more, or ask for smaller blocks"
        )
    return blocks


def within(values: Sequence[T], prompts: Sequence[Hashable], name: str) -> list[list[T]]:
    """For each prompt its first m values, m being the fewest that a prompt has; empty where that is one."""
    members = list(by_prompt(values, prompts, name).values())
    fewest = min(map(len, members))
    return [member[:fewest] for member in members] if fewest > 1 else []


def across(
    values: Sequence[T], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[tuple[T, ...]]]:
    """For each of disjoint groups of `size` shuffled prompts, as many tuples as a prompt has values: one of each.

    Prompts that are left over are dropped; empty where there are fewer than `size`.
    """
    members = by_prompt(values, prompts, name)
    order = shuffled(prompts, seed)
    groups = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return [list(zip(*(members[prompt] for prompt in group), strict=False)) for group in groups]


def sums_by_prompt(
    counts: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray, prompts: Sequence[Hashable], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of both over the completions of each prompt, float64 [prompts] each."""
    if len(sizes) != len(counts):
        raise ValueError(f"{name}: got {len(sizes)} sizes for {len(counts)} counts, wanted one each")
    members = by_prompt(np.stack([counts, sizes], axis=1).astype(np.float64), prompts, name)
    count, size = np.array([np.sum(values, axis=0) for values in members.values()]).T
    return count, size
