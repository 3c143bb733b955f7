"""Tasks that end: a pass holds each row once, and every pass the same rows in an order of its own."""

import pytest

from hf_synth import get_task, load_dataset
from hf_synth.checks import Samples, repeated
from hf_synth.tasks import Task

FINITE = [
    ("rlm", {"vocab_size": 6, "depth": 2, "size": 37}),
    ("rlm", {"vocab_size": 6, "depth": 2, "size": 37, "holdout": "content"}),
    ("analogy", {}),
]


@pytest.fixture(params=FINITE, ids=str)
def finite(request) -> Task:
    name, config = request.param
    return get_task(name, **config)


def contents(task: Task, start: int, count: int, seed: int = 0) -> list[tuple]:
    return list(map(tuple, task.rows(start, count, seed=seed).tokens.tolist()))


def test_every_pass_holds_the_same_rows_in_another_order(finite):
    assert list(repeated(Samples(finite))) == []


def test_dataset_of_no_stated_size_is_one_pass(finite):
    rows = load_dataset(finite.name, split="train", **vars(finite.config))
    assert len(rows) == finite.size("train")


def test_facts_of_a_graph_stand_once_in_a_pass():
    task = get_task("analogy")
    facts = contents(task, 0, task.size("train"))
    assert len(set(facts)) == len(facts)


def test_finite_training_set_of_rlm_is_drawn_by_the_seed_and_other_splits_never_end():
    task = get_task("rlm", size=50)
    assert sorted(contents(task, 0, 50)) != sorted(contents(task, 0, 50, seed=1))
    assert task.size("test") is None
    endless = get_task("rlm")
    assert sorted(contents(task, 0, 50)) == sorted(contents(endless, 0, 50))
