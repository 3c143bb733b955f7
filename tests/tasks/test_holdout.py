"""holdout="content": splits that share no content, exactly, each content always in one and the same split."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS

COUNTED = [
    ("start_mid_end", {}, 10),
    ("tivari", {}, 10),
    ("color_shape", {}, 340),
    ("tivari3", {"max_half": 2}, 61),
    ("sort", {"length": 3, "vocab_size": 7}, 216),
    ("sort", {"length": 3, "vocab_size": 4}, 27),
    ("sort", {"length": 2, "vocab_size": 6}, 25),
]
HASHED = [("sort", {}), ("palindrome", {}), ("tivari3", {})]


def contents(task: Task, split: str, count: int, seed: int = 0) -> Counter[tuple[int, ...]]:
    """What stands before the loss and in it, without `<eos>`, row by row."""
    rows = task.rows(0, count, split=split, seed=seed)
    return Counter(
        tuple(tokens[: length - 1]) for tokens, length in zip(rows.tokens.tolist(), rows.lengths, strict=True)
    )


@pytest.mark.parametrize(("name", "config", "total"), COUNTED)
def test_splits_share_out_every_content_8_to_1_to_1(name, config, total):
    free, held = get_task(name, **config), get_task(name, holdout="content", **config)
    every = set(contents(free, "train", 20_000))
    by_split = {split: set(contents(held, split, 20_000)) for split in SPLITS}
    assert len(every) == held.contents() == total
    assert set.union(*by_split.values()) == every
    assert sum(map(len, by_split.values())) == total
    assert len(by_split["train"]) == round(0.8 * total)
    assert abs(len(by_split["validation"]) - len(by_split["test"])) <= 1


@pytest.mark.parametrize(("name", "config", "total"), COUNTED)
def test_content_is_in_the_same_split_whatever_the_seed(name, config, total):
    held = get_task(name, holdout="content", **config)
    for split in SPLITS:
        assert set(contents(held, split, 20_000, seed=1)) == set(contents(held, split, 20_000, seed=0))


@pytest.mark.parametrize(("name", "config"), HASHED)
def test_splits_of_a_large_language_are_disjoint_in_all_that_they_show(name, config):
    held = get_task(name, holdout="content", **config)
    by_split = {split: set(contents(held, split, 10_000)) for split in SPLITS}
    assert sum(map(len, by_split.values())) == len(set.union(*by_split.values()))
    for number, split in enumerate(SPLITS):
        assert (held.split_of(held.rows(0, 1_000, split=split)) == number).all()


@pytest.mark.parametrize(("name", "config"), HASHED)
def test_free_rows_of_a_large_language_do_meet(name, config):
    """Without holdout they overlap where contents are few enough to come again: sort's never do."""
    free = get_task(name, **config)
    shared = set(contents(free, "train", 10_000)) & set(contents(free, "test", 10_000))
    assert bool(shared) == (name != "sort")


def test_rows_of_a_split_are_distributed_as_free_rows_that_fall_into_it():
    free, held = get_task("color_shape"), get_task("color_shape", holdout="content")
    for split in SPLITS:
        counts = contents(held, split, 20_000)
        chance = {words: 4.0 ** -(len(words) // 2) for words in counts}
        expected = np.array([chance[words] for words in counts])
        assert stats.chisquare(list(counts.values()), 20_000 * expected / expected.sum()).pvalue > 1e-4
    assert set(contents(free, "test", 20_000)) > set(contents(held, "test", 20_000))


def test_split_that_holdout_cannot_fill_is_an_error_that_says_so():
    held = get_task("start_mid_end", max_middle=3, holdout="content")
    with pytest.raises(ValueError, match=r'holdout="content" leaves the test split empty: got 3 distinct contents'):
        held.rows(0, 4, split="test")
