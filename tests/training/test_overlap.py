"""The share of test rows that training had, against row after row."""

import pytest

from hf_synth.tasks import get_task
from hf_synth.training import pretraining as overlap
from hf_synth.training.pretraining import seen_share


def rows_of(task, count, split, seed):
    rows = task.rows(0, count, split=split, seed=seed)
    return [row[:length].tolist() for row, length in zip(rows.tokens, rows.lengths, strict=True)]


@pytest.mark.parametrize("trained", [1, 7, 300])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_share_is_that_of_each_row_looked_for(trained, seed, monkeypatch):
    monkeypatch.setattr(overlap, "_AT_ONCE", 64)  # 300 rows in five parts, the last one not whole
    task = get_task("haystack", max_keys=4, num_values=4)
    known = rows_of(task, trained, "train", seed)
    asked = rows_of(task, 100, "test", seed)
    result = seen_share(task, task.rows(0, 100, split="test", seed=seed), trained, seed=seed)
    assert result == pytest.approx(sum(row in known for row in asked) / 100)
    assert trained < 300 or 0 < result < 1


def test_held_out_content_is_never_seen():
    task = get_task("haystack", "10", holdout="content")
    assert seen_share(task, task.rows(0, 500, split="test"), 20_000) == 0
    free = get_task("haystack", "10")
    assert seen_share(free, free.rows(0, 500, split="test"), 20_000) > 0.05


def test_no_more_rows_than_a_finite_task_has():
    task = get_task("analogy", "e10")
    assert 0.5 < seen_share(task, task.rows(0, task.size("test"), split="test"), 10**9) < 1
