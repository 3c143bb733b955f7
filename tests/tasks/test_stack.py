"""Stack: what it does beyond tests/tasks/test_sequences.py, which holds its definition."""

from collections import Counter

import pytest
from scipy import stats

from hf_synth.tasks import get_task


def programs(texts, count: int, **config) -> list[list[int]]:
    task = get_task("stack", **config)
    return [list(map(int, prompt.removesuffix(" <sep>").split())) for prompt, _ in texts(task, task.rows(0, count))]


def steps(operations: list[int]):
    """(place, numbers on the stack before, operation) of each operation of a program."""
    stack: list[int] = []
    for at, operation in enumerate(operations):
        yield at, list(stack), operation
        stack = [*stack, operation] if operation else stack[:-1]


def test_programs_push_and_pop_where_they_must(texts):
    for length, vocab_size in [(1, 3), (2, 3), (3, 3), (9, 4), (12, 5), (64, 100)]:
        for operations in programs(texts, 100, length=length, vocab_size=vocab_size):
            assert len(operations) == length
            for at, stack, operation in steps(operations):
                assert operation not in stack
                if len(stack) <= 1:
                    assert operation > 0
                elif at == length - 1 or len(stack) == vocab_size - 1:
                    assert operation == 0


@pytest.mark.parametrize("length", [8, 16, 64, 65])
def test_pushes_where_there_is_a_choice_have_the_rate_of_their_phase(length, texts):
    pushes: dict[str, list[bool]] = {"first two thirds": [], "after": [], "last of the first": [], "first after": []}
    for operations in programs(texts, 40_000 // length, length=length):
        for at, stack, operation in steps(operations):
            if len(stack) <= 1 or at == length - 1:
                continue
            pushes["first two thirds" if at < 2 * length // 3 else "after"].append(operation > 0)
            if at == 2 * length // 3 - 1:
                pushes["last of the first"].append(operation > 0)
            if at == 2 * length // 3:
                pushes["first after"].append(operation > 0)
    for phase, rate in [("first two thirds", 3), ("last of the first", 3), ("after", 1), ("first after", 1)]:
        assert len(pushes[phase]) > 200
        assert stats.binomtest(sum(pushes[phase]), len(pushes[phase]), rate / 4).pvalue > 1e-4, phase


def test_phases_are_those_of_each_rows_own_length(texts):
    rates: dict[int, list[bool]] = {6: [], 5: []}
    for operations in programs(texts, 20_000, length=18, min_length=9):
        if len(operations) == 9:
            for at, stack, operation in steps(operations):
                if at in rates and len(stack) > 1:
                    rates[at].append(operation > 0)
    assert stats.binomtest(sum(rates[5]), len(rates[5]), 0.75).pvalue > 1e-4
    assert stats.binomtest(sum(rates[6]), len(rates[6]), 0.25).pvalue > 1e-4


def test_pushed_number_is_uniform_among_those_not_on_the_stack(texts):
    places: dict[int, Counter] = {}
    for operations in programs(texts, 3_000, length=12, vocab_size=6):
        for _, stack, operation in steps(operations):
            free = [number for number in range(1, 6) if number not in stack]
            if operation:
                places.setdefault(len(free), Counter())[free.index(operation)] += 1
    assert set(places) == {1, 2, 3, 4, 5}
    for count, counts in places.items():
        assert count == 1 or stats.chisquare([counts[place] for place in range(count)]).pvalue > 1e-4


def test_number_comes_back_after_a_pop_as_often_as_any_other(texts):
    again = []
    for operations in programs(texts, 4_000, length=12, vocab_size=8):
        popped = None
        for _, stack, operation in steps(operations):
            if popped is not None and operation:
                again.append((operation == popped, 7 - len(stack)))
            popped = None if operation else stack[-1]
    for free in (3, 4, 5):
        same = [hit for hit, count in again if count == free]
        assert len(same) > 200
        assert stats.binomtest(sum(same), len(same), 1 / free).pvalue > 1e-4


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        ("3 1 0 2 <sep>", "2 3", 1.0),
        ("3 1 0 2 <sep>", "3 2", 0.0),
        ("3 <sep>", "3", 1.0),
        ("3 0 3 <sep>", "3", 1.0),  # legal, though the generator never pops the only number
        ("3 1 2 <sep>", "2 1 3", 1.0),
        ("3 3 <sep>", "3 3", 0.0),
        ("3 1 3 <sep>", "3 1 3", 0.0),
        ("0 3 <sep>", "3", 0.0),
        ("3 0 0 3 <sep>", "3", 0.0),
        ("3 0 <sep>", "", 0.0),
        ("3 0 <sep>", "0", 0.0),
    ],
)
def test_verify_by_hand(prompt, completion, score):
    assert get_task("stack").verify(prompt, completion) == score
