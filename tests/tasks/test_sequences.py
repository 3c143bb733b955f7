"""What the tasks on sequences of numbers share, against the definitions in plain Python."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import Task, get_task

LONGEST = 65_536


def first_appearances(numbers: list[int]) -> list[int]:
    return [number for at, number in enumerate(numbers) if number not in numbers[:at]]


def without(numbers: list[int], tokens: list[int]) -> list[int] | None:
    (token,) = tokens if len(tokens) == 1 else (None,)
    if token is None or numbers == [token]:
        return None
    at = numbers.index(token) if token in numbers else len(numbers)
    return numbers[:at] + numbers[at + 1 :]


def left_on_the_stack(operations: list[int]) -> list[int] | None:
    stack: list[int] = []
    for operation in operations:
        if operation in stack or (operation == 0 and stack == []):
            return None
        stack = [operation, *stack] if operation else stack[1:]
    return stack or None


TARGETS = {
    "sort": sorted,
    "reverse": lambda numbers: [numbers[-1 - at] for at in range(len(numbers))],
    "identity": lambda numbers: numbers,
    "set": first_appearances,
    "union": lambda first, second: first_appearances(first + second),
    "delete": without,
    "stack": left_on_the_stack,
}
NAMES = list(TARGETS)
UNIFORM = [name for name in NAMES if name != "stack"]  # a push takes a number that is not on the stack
PARTS = {name: 2 if name in ("union", "delete") else 1 for name in NAMES}
FEWEST = {name: 2 if name in ("union", "delete") else 1 for name in NAMES}
SMALLEST_VOCABULARY = {name: 3 if name == "stack" else 2 for name in NAMES}


def right(name: str, prompt: str, completion: str, vocab_size: int = 10) -> float:
    """The definition, word by word."""
    legal = {str(number): number for number in range(name != "stack", vocab_size)}
    *parts, rest = [part.split() for part in f" {prompt} ".split(" <sep> ")]
    if rest or len(parts) != PARTS[name] or not all(parts) or not set(joined(parts)) <= set(legal):
        return 0.0
    target = TARGETS[name](*([legal[word] for word in part] for part in parts))
    return float(target is not None and completion.split() == list(map(str, target)))


def joined(parts: list[list]) -> list:
    return list(itertools.chain.from_iterable(parts))


def inputs_of(name: str, prompt: str) -> list[list[int]]:
    """The numbers before each `<sep>` but for the one to delete."""
    parts = [list(map(int, part.split())) for part in prompt.removesuffix("<sep>").split("<sep>")]
    return parts[:1] if name == "delete" else parts


def lengths_of(task: Task, texts, count: int, split: str) -> list[int]:
    """How many numbers each row's inputs have together."""
    pairs = texts(task, task.rows(0, count, split=split))
    return [sum(map(len, inputs_of(task.name, prompt))) for prompt, _ in pairs]


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


# The generator


@pytest.mark.parametrize("vocab_size", [3, 10, 100])
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_right_by_the_definition(name, vocab_size, split, texts):
    task = get_task(name, length=16, min_length=2, test_length=20, vocab_size=vocab_size)
    pairs = texts(task, task.rows(0, 300, split=split))
    assert [right(name, *pair, vocab_size) for pair in pairs] == [1.0] * 300


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("vocab_size", [2, 3, 10, 100])
def test_numbers_are_uniform_and_never_zero(name, vocab_size, texts):
    task = get_task(name, length=20, vocab_size=vocab_size)
    prompts = [prompt for prompt, _ in texts(task, task.rows(0, 1_500))]
    counts = Counter(number for prompt in prompts for number in joined(inputs_of(name, prompt)))
    assert set(counts) == set(range(1, vocab_size))
    assert vocab_size == 2 or stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("name", UNIFORM)
def test_places_of_a_row_are_independent(name, texts):
    task = get_task(name, length=2, vocab_size=6)
    counts = Counter(tuple(joined(inputs_of(name, prompt))) for prompt, _ in texts(task, task.rows(0, 10_000)))
    assert len(counts) == 25
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_scratch_memory_of_one_row_does_not_leak_into_the_next(name):
    changes = {"token_present": 0.3} if name == "delete" else {}
    task = get_task(name, length=12, min_length=FEWEST[name], vocab_size=5, **changes)
    block = task.rows(0, 200)
    for row in range(200):
        alone = task.rows(row, 1)
        assert np.array_equal(block.tokens[row, : block.lengths[row]], alone.tokens[0])


# Lengths


def test_without_other_lengths_every_row_has_the_length(name, texts):
    task = get_task(name, length=7)
    assert {length for split in ("train", "test") for length in lengths_of(task, texts, 100, split)} == {7}


def test_lengths_are_uniform_from_the_least_on(name, texts):
    task = get_task(name, length=9, min_length=3)
    for split in ("train", "validation", "test"):
        counts = Counter(lengths_of(task, texts, 2_000, split))
        assert set(counts) == set(range(3, 10))
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("holdout", ["none", "content"])
def test_inputs_of_the_test_split_are_longer_than_any_other(name, holdout, texts):
    task = get_task(name, length=9, min_length=2, test_length=14, holdout=holdout)
    for split in ("train", "validation"):
        assert set(lengths_of(task, texts, 500, split)) == set(range(2, 10))
    assert set(lengths_of(task, texts, 500, "test")) == set(range(10, 15))


def test_lengths_of_the_test_split_are_uniform(name, texts):
    counts = Counter(lengths_of(get_task(name, length=9, test_length=14), texts, 2_000, "test"))
    assert set(counts) == set(range(10, 15))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_holdout_with_a_least_length_keeps_the_contents_of_splits_apart(name, texts):
    task = get_task(name, length=8, min_length=2, vocab_size=6, holdout="content")
    by_split = [set(texts(task, task.rows(0, 2_000, split=split))) for split in ("train", "validation", "test")]
    assert len(set().union(*by_split)) == sum(map(len, by_split))


def test_presets_begin_with_the_papers_and_generalise_to_longer_inputs(name):
    presets = type(get_task(name)).presets
    assert next(iter(presets)) == "64"
    assert (presets["64"].length, presets["64"].vocab_size) == (64, 100)
    for preset in ("16-to-32", "16-to-64"):
        config = presets[preset]
        assert (config.min_length, config.length) == (FEWEST[name], 16)
        assert preset == f"16-to-{config.test_length}"


# The verifier


@given(data=st.data(), name=st.sampled_from(NAMES))
def test_verify_equals_the_definition(data, name):
    number = st.one_of(st.integers(1, 9), st.integers(-1, 12))
    parts = data.draw(st.lists(st.lists(number, max_size=5), min_size=1, max_size=3), "parts")
    if PARTS[name] == 2 and data.draw(st.booleans(), "one to delete"):
        parts = [parts[0], [data.draw(st.sampled_from([*parts[0], 3]))]]
    prompt = " <sep> ".join(" ".join(map(str, part)) for part in parts) + data.draw(st.sampled_from([" <sep>", ""]))
    answers = [data.draw(st.lists(number, max_size=5), "answer"), *parts, joined(parts)]
    try:
        target = list(TARGETS[name](*parts) or [])
    except TypeError:  # too many parts or too few
        target = []
    task = get_task(name, length=3, vocab_size=10)
    for answer in (*answers, target, target[:-1], [*target, 1], target[::-1], sorted(target)):
        text = " ".join(map(str, answer))
        assert task.verify(prompt, text) == right(name, prompt, text)


@given(prompt=st.text(max_size=20), completion=st.text(max_size=20), name=st.sampled_from(NAMES))
def test_verify_of_garbage_equals_the_definition(prompt, completion, name):
    task = get_task(name, length=3, vocab_size=10)
    for one, other in [(prompt, completion), ("2 1 <sep>", completion), ("2 1 <sep> 1 <sep>", completion)]:
        assert task.verify(one, other) == right(name, " ".join(one.split()), " ".join(other.split()))


@pytest.mark.parametrize("spelling", ["03", "+3", "3.0", "3,", "٣", "³", "3_", "0_3", "3" * 5_000, "-3", "0x3", "3e0"])
def test_verify_knows_one_spelling_of_a_number(name, spelling):
    task = get_task(name, length=3, vocab_size=1_000)
    prompt = "3 2 1 <sep>" if PARTS[name] == 1 else "3 2 <sep> 1 <sep>"
    gold = " ".join(task.answer(prompt.split()))
    assert task.verify(prompt, gold) == 1.0
    assert task.verify(prompt, gold.replace("3", spelling)) == 0.0
    assert task.verify(prompt.replace("3", spelling), gold) == 0.0
    assert task.verify(prompt.replace("3", spelling), gold.replace("3", spelling)) == 0.0


@pytest.mark.parametrize(
    "prompt", ["", "<sep>", "<sep> <sep>", "1 2", "1 <sep> 2", "1 <sep> 2 <sep> 3 <sep>", "<bos> 1 2 <sep>", "<sep> 1"]
)
def test_verify_refuses_prompts_of_another_form(name, prompt):
    task = get_task(name, length=3, vocab_size=10)
    assert task.answer(prompt.split()) is None
    assert {task.verify(prompt, text) for text in ("", "1", "2", "1 2", "2 1")} == {0.0}


def test_inputs_of_any_length_can_be_verified(name):
    task = get_task(name, length=64)
    prompt = "7 8 <sep>" if PARTS[name] == 1 else "7 <sep> 8 <sep>"
    gold = {"sort": "7 8", "reverse": "8 7", "identity": "7 8", "set": "7 8", "union": "7 8", "stack": "8 7"}
    assert task.verify(prompt, gold.get(name, "7")) == 1.0


# Wrong rows


@pytest.mark.parametrize(("length", "vocab_size"), [(2, 3), (3, 3), (5, 4), (16, 100)])
def test_corrupt_swaps_two_neighbours_or_changes_one_number_where_all_are_equal(name, length, vocab_size, texts, rng):
    task = get_task(name, length=length, vocab_size=vocab_size)
    rows = task.rows(0, 300)
    wrong = task.corrupt(rows, rng(300, "corrupt"))
    for (prompt, gold), (same_prompt, spoilt) in zip(texts(task, rows), texts(task, wrong), strict=True):
        gold, spoilt = gold.split(), spoilt.split()
        differing = [at for at in range(len(gold)) if gold[at] != spoilt[at]]
        assert prompt == same_prompt
        if len(set(gold)) == 1:
            assert len(differing) == 1
            assert set(spoilt) <= set(task.vocabulary()[1:])
        else:
            assert Counter(spoilt) == Counter(gold)
            assert differing == [differing[0], differing[0] + 1]


def test_number_that_takes_the_place_of_the_only_one_is_uniform_among_the_others(rng):
    task = get_task("identity", length=1, vocab_size=6)
    rows = task.rows(0, 8_000)
    wrong = task.corrupt(rows, rng(8_000, "corrupt"))
    counts = Counter(zip(rows.tokens[:, 3].tolist(), wrong.tokens[:, 3].tolist(), strict=True))
    assert set(counts) == {(one, other) for one in range(5, 10) for other in range(5, 10) if one != other}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_zero_takes_the_place_of_the_only_number_that_there_is(rng):
    task = get_task("identity", length=1, vocab_size=2)
    assert task.corrupt(task.rows(0, 5), rng(5)).tokens[:, 3].tolist() == [4] * 5


# Contents


@pytest.mark.parametrize("name", ["sort", "reverse", "identity", "set", "union"])
@pytest.mark.parametrize("length", [2, 3])
def test_rank_numbers_every_input(name, length, texts):
    task = get_task(name, length=length, vocab_size=4)
    assert task.contents() == 3**length
    rows = task.rows(0, 2_000)
    ranked = set(zip(texts(task, rows), task.content_rank(rows).tolist(), strict=True))
    assert sorted(rank for _, rank in ranked) == list(range(3**length))


def test_contents_are_not_counted_where_lengths_or_tokens_differ(name):
    assert get_task(name, length=3, min_length=2).contents() is None
    assert get_task(name, length=3, test_length=4).contents() is None
    assert (get_task(name, length=3, min_length=3).contents() is None) == (name in ("delete", "stack"))


def test_floor_is_zero(name):
    task = get_task(name, "8")
    assert (task.optimal_log_probs(task.rows(0, 10)) == 0).all()


def test_explanation_is_one_sentence(name):
    (sentence,) = get_task(name).explanations()
    assert sentence.endswith(".")
    assert sentence.count(".") == 1


# Configs


def check_rows(task: Task, count: int, texts, rng, split: str = "train") -> None:
    rows = task.rows(0, count, split=split)
    assert {task.verify(*pair) for pair in texts(task, rows)} == {1.0}
    assert {task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(count)))} == {0.0}


@given(data=st.data(), name=st.sampled_from(NAMES))
def test_every_legal_config_makes_right_rows(data, name, texts, rng):
    length = data.draw(st.sampled_from([FEWEST[name], 3, 4, 40]), "length")
    least = data.draw(st.sampled_from([0, FEWEST[name], length]), "min_length")
    most = data.draw(st.sampled_from([0, length + 1, 2 * length]), "test_length")
    vocab_size = data.draw(st.sampled_from([SMALLEST_VOCABULARY[name], 4, 100, 70_000]), "vocab_size")
    task = get_task(name, length=length, min_length=least, test_length=most, vocab_size=vocab_size)
    for split in ("train", "test"):
        check_rows(task, 5, texts, rng, split)
        low, high = (length + 1, most) if most and split == "test" else (least or length, length)
        assert all(low <= length <= high for length in lengths_of(task, texts, 5, split))


@pytest.mark.parametrize(
    "extreme",
    [
        {"length": LONGEST},
        {"length": LONGEST, "vocab_size": 3},
        {"length": LONGEST, "min_length": LONGEST, "vocab_size": LONGEST},
        {"length": LONGEST - 1, "test_length": LONGEST},
        {"length": 2, "vocab_size": 1_000_000},
    ],
    ids=json.dumps,
)
def test_extreme_config_makes_right_rows(name, extreme, texts, rng):
    check_rows(get_task(name, **extreme), 1, texts, rng, "test")


@pytest.mark.parametrize("field", ["length", "min_length", "test_length"])
@pytest.mark.parametrize("value", [-1, LONGEST + 1, 2.0, True, "8", None])
def test_illegal_length_is_an_error_that_names_the_field(name, field, value):
    with pytest.raises(ValueError, match=rf"Config.{field}: got .*, wanted (int|a value from \d to 65536)"):
        get_task(name, **{field: value})


def test_length_too_small_for_the_task_is_an_error_that_names_the_range(name):
    with pytest.raises(ValueError, match=f"Config.length: got .*, wanted a value from {FEWEST[name]} to 65536"):
        get_task(name, length=FEWEST[name] - 1)


def test_vocabulary_too_small_for_the_task_is_an_error_that_names_the_range(name):
    least = SMALLEST_VOCABULARY[name]
    with pytest.raises(ValueError, match=f"Config.vocab_size: got .*, wanted a value from {least} to 1000000"):
        get_task(name, vocab_size=least - 1)


@pytest.mark.parametrize("least", [9, 64])
def test_least_length_above_the_length_is_an_error(name, least):
    wanted = f"Config.min_length: got {least}, wanted 0, or from {FEWEST[name]} to length=8"
    with pytest.raises(ValueError, match=wanted):
        get_task(name, length=8, min_length=least)


@pytest.mark.parametrize("name", ["union", "delete"])
def test_least_length_below_two_is_an_error_where_two_numbers_are_needed(name):
    with pytest.raises(ValueError, match=r"Config.min_length: got 1, wanted 0, or from 2 to length=8"):
        get_task(name, length=8, min_length=1)


@pytest.mark.parametrize("longest", [1, 8])
def test_test_length_that_is_not_above_the_length_is_an_error(name, longest):
    with pytest.raises(ValueError, match=f"Config.test_length: got {longest}, wanted 0, or more than length=8"):
        get_task(name, length=8, test_length=longest)
