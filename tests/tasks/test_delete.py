"""Delete: what it does beyond tests/tasks/test_sequences.py, which holds its definition."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from hf_synth.tasks import get_task


def drawn(texts, count: int, preset: str = "64", **config) -> list[tuple[list[int], int]]:
    """The input and the number to delete of each row."""
    task = get_task("delete", preset, **config)
    prompts = [prompt.split("<sep>") for prompt, _ in texts(task, task.rows(0, count))]
    return [(list(map(int, numbers.split())), int(token)) for numbers, token, _ in prompts]


def test_number_to_delete_is_always_present_by_default(texts):
    assert all(token in numbers for numbers, token in drawn(texts, 2_000))


@pytest.mark.parametrize(("preset", "share"), [("64-paper", 0.47), ("64", 0.9), ("16", 0.2)])
def test_number_to_delete_is_present_in_the_share_of_rows_that_the_config_says(preset, share, texts):
    rows = drawn(texts, 6_000, preset, token_present=share)
    present = sum(token in numbers for numbers, token in rows)
    assert stats.binomtest(present, len(rows), share).pvalue > 1e-4


def test_paper_preset_is_that_of_the_paper():
    config = get_task("delete", "64-paper").config
    assert (config.length, config.vocab_size, config.token_present) == (64, 100, 0.47)


def test_number_to_delete_is_never_present_at_a_share_of_zero(texts):
    assert not any(token in numbers for numbers, token in drawn(texts, 500, token_present=0.0))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_place_of_the_number_to_delete_is_uniform(share, texts):
    rows = drawn(texts, 6_000, length=8, vocab_size=1_000_000, token_present=share)
    places = Counter(numbers.index(token) for numbers, token in rows if token in numbers)
    assert set(places) == set(range(8))
    assert stats.chisquare(list(places.values())).pvalue > 1e-4


def test_number_that_occurs_more_often_is_deleted_more_often(texts):
    rows = drawn(texts, 20_000, length=3, vocab_size=3)
    twice = [numbers.count(token) == 2 for numbers, token in rows if len(set(numbers)) == 2]
    assert stats.binomtest(sum(twice), len(twice), 2 / 3).pvalue > 1e-4


@pytest.mark.parametrize("vocab_size", [6, 10])
def test_absent_number_is_uniform_among_those_that_do_not_occur(vocab_size, texts):
    places: dict[int, Counter] = {}
    for numbers, token in drawn(texts, 10_000, length=4, vocab_size=vocab_size, token_present=0.0):
        absent = [number for number in range(1, vocab_size) if number not in numbers]
        places.setdefault(len(absent), Counter())[absent.index(token)] += 1
    assert len(places) == 4
    for count, counts in places.items():
        assert set(counts) <= set(range(count))
        assert count == 1 or stats.chisquare([counts[place] for place in range(count)]).pvalue > 1e-4


def test_number_to_delete_is_present_where_all_numbers_occur(texts):
    rows = drawn(texts, 500, length=3, vocab_size=3, token_present=0.0)
    full = [token in numbers for numbers, token in rows if set(numbers) == {1, 2}]
    assert len(full) > 300
    assert all(full)
    assert not any(token in numbers for numbers, token in rows if len(set(numbers)) == 1)


def test_only_number_of_the_smallest_vocabulary_is_present(texts):
    assert set(map(str, drawn(texts, 20, length=2, vocab_size=2, token_present=0.0))) == {"([1, 1], 1)"}


def test_no_target_is_empty():
    rows = get_task("delete", length=9, min_length=2, vocab_size=2).rows(0, 500)
    assert (rows.loss_stop - rows.loss_start).min() == 2  # a number and `<eos>`


@pytest.mark.parametrize("config", [{"length": 65_536, "vocab_size": 65_537}, {"vocab_size": 1_000_000}])
def test_absent_number_is_found_in_extreme_configs(config, texts):
    ((numbers, token),) = drawn(texts, 1, **config, token_present=0.0)
    assert token not in numbers


def test_inputs_do_not_depend_on_the_share():
    always, never = (get_task("delete", token_present=share).rows(0, 50).tokens for share in (1.0, 0.0))
    assert np.array_equal(always[:, :66], never[:, :66])


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        ("3 1 3 2 <sep> 3 <sep>", "1 3 2", 1.0),
        ("3 1 3 2 <sep> 3 <sep>", "3 1 2", 0.0),
        ("3 1 3 2 <sep> 3 <sep>", "1 2", 0.0),
        ("3 1 <sep> 7 <sep>", "3 1", 1.0),
        ("3 <sep> 7 <sep>", "3", 1.0),
        ("3 <sep> 3 <sep>", "", 0.0),
        ("3 1 <sep> 3 1 <sep>", "", 0.0),
        ("3 1 <sep> 3 1 <sep>", "3 1", 0.0),
    ],
)
def test_verify_by_hand(prompt, completion, score):
    assert get_task("delete").verify(prompt, completion) == score


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "1", None, True])
def test_illegal_share_is_an_error_that_names_the_field(value):
    with pytest.raises(
        ValueError, match=r"DeleteConfig.token_present: got .*, wanted (float|a value from 0.0 to 1.0)"
    ):
        get_task("delete", token_present=value)
