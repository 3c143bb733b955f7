"""Grouping of completions: by prompt, and into blocks of equal amounts of text.

An interval is over prompts, not over completions, because a claim about sampled text generalises over prompts.
Metrics whose value depends on the amount of text are computed on blocks of one size. A block holds whole prompts and
no prompt is in two blocks, so that blocks are independent. A bootstrap would not do: it repeats prompts, and
repetition is what these metrics measure.
"""

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from .checks import same_length

T = TypeVar("T")


def entries(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    """Return an `Interval` as `name`, `name/low` and `name/high`."""
    return dict(zip((name, f"{name}/low", f"{name}/high"), interval, strict=True))


def by_group(values: Sequence[Any] | np.ndarray, labels: Sequence[Hashable], name: str) -> dict[Hashable, list[Any]]:
    """Return the values of each group, such as a prompt, in order of first occurrence; `name` is for the error."""
    same_length(name, values=values, groups=labels)
    groups: dict[Hashable, list[Any]] = {}
    for value, label in zip(values, labels, strict=True):
        groups.setdefault(label, []).append(value)
    return groups


def shuffled(prompts: Sequence[Hashable], seed: int) -> list[Hashable]:
    """Return the distinct prompts in a random order that the seed determines."""
    distinct = list(dict.fromkeys(prompts))
    return [distinct[number] for number in np.random.default_rng(seed).permutation(len(distinct))]


def equal_blocks(
    sequences: Sequence[Sequence[T]], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[Sequence[T]]]:
    """Return blocks of `size` items each: the sequences of shuffled prompts, the last one of a block cut short.

    Each block starts with a new prompt. Items left over at the end are dropped. Raises ValueError if there are too
    few items for one block.
    """
    groups, blocks = by_group(sequences, prompts, name), []
    block: list[Sequence[T]] = []
    room = size
    for prompt in shuffled(prompts, seed):
        for sequence in groups[prompt]:
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
    """Return the first m values of each prompt, m being the smallest number a prompt has; [] if m is 1."""
    groups = list(by_group(values, prompts, name).values())
    fewest = min(map(len, groups))
    return [group[:fewest] for group in groups] if fewest > 1 else []


def across(
    values: Sequence[T], prompts: Sequence[Hashable], size: int, name: str, seed: int = 0
) -> list[list[tuple[T, ...]]]:
    """Return, for each of disjoint sets of `size` shuffled prompts, tuples with one value of each prompt.

    There are as many tuples as the prompt with the fewest values has. Prompts left over are dropped; [] if there are
    fewer than `size` prompts.
    """
    groups = by_group(values, prompts, name)
    order = shuffled(prompts, seed)
    sets = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return [list(zip(*(groups[prompt] for prompt in chosen), strict=False)) for chosen in sets]
