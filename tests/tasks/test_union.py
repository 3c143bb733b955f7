"""Union: what it does beyond tests/tasks/test_sequences.py, which holds its definition."""

import numpy as np
import pytest

from hf_synth.tasks import get_task


@pytest.mark.parametrize("length", [2, 3, 4, 9, 64])
def test_the_second_half_has_one_number_more_where_the_length_is_odd(length, texts):
    task = get_task("union", length=length)
    for prompt, _ in texts(task, task.rows(0, 50)):
        first, second, rest = prompt.split("<sep>")
        assert (len(first.split()), len(second.split()), rest) == (length // 2, length - length // 2, "")


def test_halves_of_rows_of_many_lengths_differ_by_one_at_most(texts):
    task = get_task("union", length=9, min_length=2)
    sizes = {
        tuple(len(half.split()) for half in prompt.split("<sep>")[:2]) for prompt, _ in texts(task, task.rows(0, 300))
    }
    assert sizes == {(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 5)}


def test_rows_of_one_length_hold_the_inputs_of_set_cut_in_the_middle():
    union, plain = get_task("union", "16").rows(0, 100), get_task("set", "16").rows(0, 100)
    assert np.array_equal(np.delete(union.tokens, 9, axis=1)[:, 1:17], plain.tokens[:, 1:17])


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        ("3 1 <sep> 1 2 <sep>", "3 1 2", 1.0),
        ("3 3 <sep> 3 3 <sep>", "3", 1.0),
        ("1 <sep> 2 2 2 3 <sep>", "1 2 3", 1.0),
        ("3 1 <sep> 1 2 <sep>", "1 2 3", 0.0),
        ("3 1 <sep> 1 2 <sep>", "3 1 1 2", 0.0),
        ("3 1 <sep> <sep>", "3 1", 0.0),
        ("3 1 1 2 <sep>", "3 1 2", 0.0),
    ],
)
def test_verify_by_hand(prompt, completion, score):
    assert get_task("union").verify(prompt, completion) == score
