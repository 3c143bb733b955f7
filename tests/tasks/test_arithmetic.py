"""Addition, reversed addition and multiplication against Python's own numbers."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS

SIGNS = {"addition": "+", "reversed_addition": "+", "multiplication": "*"}
NAMES = list(SIGNS)
OPERAND = "[1-9]( [0-9])*"


def right(name: str, prompt: str, completion: str) -> float:
    """The definition: two numbers without leading zeros, the sign between them, `<sep>`, the result's digits."""
    words = prompt.split()
    if words[-1:] != ["<sep>"] or words.count(SIGNS[name]) != 1:
        return 0.0
    at = words.index(SIGNS[name])
    operands = [words[:at], words[at + 1 : -1]]
    if name == "reversed_addition":
        operands = [digits[::-1] for digits in operands]
    if not all(re.fullmatch(OPERAND, " ".join(digits)) for digits in operands):
        return 0.0
    one, other = (int("".join(digits)) for digits in operands)
    result = list(str(one * other if name == "multiplication" else one + other))
    if name == "reversed_addition":
        result.reverse()
    return float(completion.split() == ["r" + digit for digit in result])


def operands(task: Task, texts, count: int, split: str = "train") -> list[tuple[list[int], list[int]]]:
    """The digits of both operands of each row, the highest first."""
    pairs = []
    for prompt, _ in texts(task, task.rows(0, count, split=split)):
        left, right_ = prompt.removesuffix(" <sep>").split(f" {SIGNS[task.name]} ")
        step = -1 if task.name == "reversed_addition" else 1
        pairs.append((list(map(int, left.split()))[::step], list(map(int, right_.split()))[::step]))
    return pairs


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


# The generator


@pytest.mark.parametrize("digits", [1, 2, 5, 20, 256])
def test_rows_are_right_by_the_definition(name, digits, texts):
    task = get_task(name, digits=digits)
    pairs = texts(task, task.rows(0, 100))
    assert [right(name, *pair) for pair in pairs] == [1.0] * 100


@pytest.mark.parametrize("digits", [1, 3, 5])
def test_operands_have_their_digits_and_are_uniform(name, digits, texts):
    pairs_of_operands = operands(get_task(name, digits=digits), texts, 3_000)
    for side in (0, 1):
        assert {len(pair[side]) for pair in pairs_of_operands} == {digits}
        for place in range(digits):
            counts = Counter(pair[side][place] for pair in pairs_of_operands)
            assert set(counts) == set(range(place == 0, 10))
            assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_digits_of_a_pair_are_independent(name, texts):
    pairs_of_operands = operands(get_task(name, digits=2), texts, 20_000)
    for one, other in [((0, 0), (1, 0)), ((0, 1), (1, 1)), ((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 1), (1, 0))]:
        counts = Counter((pair[one[0]][one[1]], pair[other[0]][other[1]]) for pair in pairs_of_operands)
        assert len(counts) == (10 - (one[1] == 0)) * (10 - (other[1] == 0))
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_rows_hold_sums_and_products_of_every_length(texts):
    for name, digits, lengths in [
        ("addition", 3, {3, 4}),
        ("reversed_addition", 3, {3, 4}),
        ("multiplication", 3, {5, 6}),
    ]:
        task = get_task(name, digits=digits)
        assert {len(completion.split()) for _, completion in texts(task, task.rows(0, 200))} == lengths


def test_numbers_of_digits_are_uniform_and_those_of_the_test_split_larger(name, texts):
    task = get_task(name, digits=5, min_digits=2, test_digits=8)
    for split, expected in [("train", range(2, 6)), ("validation", range(2, 6)), ("test", range(6, 9))]:
        pairs_of_operands = operands(task, texts, 1_500, split)
        assert all(len(left) == len(right_) for left, right_ in pairs_of_operands)
        counts = Counter(len(left) for left, _ in pairs_of_operands)
        assert set(counts) == set(expected)
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4
        assert all(right(name, *pair) for pair in texts(task, task.rows(0, 50, split=split)))


@pytest.mark.parametrize("config", [{"min_digits": 1}, {"min_digits": 1, "test_digits": 4}])
def test_holdout_with_several_sizes_keeps_the_contents_of_splits_apart(name, config, texts):
    task = get_task(name, digits=3, holdout="content", **config)
    by_split = [set(texts(task, task.rows(0, 1_000, split=split))) for split in SPLITS]
    assert len(set().union(*by_split)) == sum(map(len, by_split))


@pytest.mark.parametrize(("name", "preset"), [("addition", "5"), ("reversed_addition", "10"), ("multiplication", "5")])
def test_first_preset_is_the_papers(name, preset):
    task = get_task(name)
    assert next(iter(type(task).presets)) == preset
    assert task.config.digits == int(preset)
    longer = next(config for config in type(task).presets.values() if config.test_digits)
    assert (longer.min_digits, longer.digits) == (1, int(preset))


# The verifier


@given(
    left=st.integers(0, 12_000),
    other=st.one_of(st.integers(0, 12), st.integers(0, 10**12)),
    name=st.sampled_from(NAMES),
    sign=st.sampled_from("+*-"),
    end=st.sampled_from([" <sep>", " =", ""]),
)
def test_verify_equals_the_definition_on_numbers_of_any_size(left, other, name, sign, end):
    task = get_task(name)
    turn = -1 if name == "reversed_addition" else 1
    prompt = f"{' '.join(str(left)[::turn])} {sign} {' '.join(str(other)[::turn])}{end}"
    for result in (left + other, left * other, abs(left - other), int(str(left + other)[::-1])):
        for digits in (str(result), str(result)[::-1], f"0{result}"):
            text = " ".join(f"r{digit}" for digit in digits)
            assert task.verify(prompt, text) == right(name, prompt, text)


@given(
    words=st.lists(st.sampled_from(["1", "2", "0", "+", "*", "<sep>", "r3", "12", "٣", "-1", "="]), max_size=7),
    name=st.sampled_from(NAMES),
)
def test_verify_of_any_words_equals_the_definition(words, name):
    task = get_task(name)
    for prompt in (" ".join(words), " ".join([*words, "<sep>"]), f"1 {SIGNS[name]} {' '.join(words)} <sep>"):
        for completion in ("r3", "r2", "r1 r3", "r3 r1", "3", ""):
            assert task.verify(prompt, completion) == right(name, prompt, completion)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("1 2 + 3 4 <sep>", "4 6"),
        ("1 2 + 3 4 <sep>", "r46"),
        ("1 2 + 3 4 <sep>", "r0 r4 r6"),
        ("1 2 + 3 4 <sep>", "r4 r6 <eos>"),
        ("12 + 34 <sep>", "r4 r6"),
        ("1 2 + 3 4 =", "r4 r6"),
        ("1 2 + 3 4", "r4 r6"),
        ("0 1 2 + 3 4 <sep>", "r4 r6"),
        ("1 2 + 3 4 + <sep>", "r4 r6"),
        ("+ 1 2 + 3 4 <sep>", "r4 r6"),
        ("4 6 + <sep>", "r4 r6"),
        ("٣ + 1 <sep>", "r4"),
        ("1 2 + 3 4 <sep> <sep>", "r4 r6"),
    ],
)
def test_verify_is_strict(prompt, completion):
    assert get_task("addition").verify("1 2 + 3 4 <sep>", "r4 r6") == 1.0
    assert get_task("addition").verify(prompt, completion) == 0.0


def test_endless_operands_are_wrong_and_no_error(name):
    prompt = " ".join(["7"] * 10_000 + [SIGNS[name], "1", "<sep>"])
    assert get_task(name).verify(prompt, " ".join(["r7"] * 10_000)) == 0.0


# Wrong rows, contents, configs


def test_corrupt_swaps_two_neighbours_or_changes_the_only_digit(name, texts, rng):
    task = get_task(name, digits=1)
    rows = task.rows(0, 2_000)
    others = Counter()
    for (_, gold), (_, spoilt) in zip(texts(task, rows), texts(task, task.corrupt(rows, rng(2_000))), strict=True):
        gold, spoilt = gold.split(), spoilt.split()
        assert set(spoilt) <= {f"r{digit}" for digit in range(10)}
        if len(set(gold)) > 1:
            assert Counter(gold) == Counter(spoilt)
        else:
            assert sum(one != other for one, other in zip(gold, spoilt, strict=True)) == 1
            others.update(spoilt)
    assert len(others) == 10


@pytest.mark.parametrize("digits", [1, 2])
def test_rank_numbers_every_pair_of_operands(name, digits, texts):
    task = get_task(name, digits=digits)
    total = (9 * 10 ** (digits - 1)) ** 2
    assert task.contents() == total
    rows = task.rows(0, 12 * total)
    ranked = set(
        zip(map(tuple, rows.tokens[:, : 2 * digits + 2].tolist()), task.content_rank(rows).tolist(), strict=True)
    )
    assert sorted(rank for _, rank in ranked) == list(range(total))


def test_contents_are_not_counted_where_sizes_differ(name):
    assert get_task(name, digits=3, min_digits=1).contents() is None
    assert get_task(name, digits=3, test_digits=4).contents() is None
    assert get_task(name, digits=256).contents() == (9 * 10**255) ** 2


def test_floor_is_zero(name):
    task = get_task(name)
    assert (task.optimal_log_probs(task.rows(0, 10)) == 0).all()


def test_explanation_is_one_sentence(name):
    (sentence,) = get_task(name).explanations()
    assert sentence.endswith(".")
    assert sentence.count(".") == 1


@given(data=st.data(), name=st.sampled_from(NAMES))
def test_every_legal_config_makes_right_rows(data, name, texts, rng):
    digits = data.draw(st.sampled_from([1, 2, 7, 255]), "digits")
    least = data.draw(st.sampled_from([0, 1, digits]), "min_digits")
    most = data.draw(st.sampled_from([0, digits + 1, 256]), "test_digits")
    task = get_task(name, digits=digits, min_digits=least, test_digits=most)
    for split in ("train", "test"):
        rows = task.rows(0, 4, split=split)
        assert [right(name, *pair) for pair in texts(task, rows)] == [1.0] * 4
        assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 4
        assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(4)))] == [0.0] * 4


@pytest.mark.parametrize(("field", "low"), [("digits", 1), ("min_digits", 0), ("test_digits", 0)])
@pytest.mark.parametrize("value", [-1, 257, 2.0, True, "8", None])
def test_illegal_value_is_an_error_that_names_the_field(name, field, low, value):
    with pytest.raises(ValueError, match=rf"Config.{field}: got .*, wanted (int|a value from {low} to 256)"):
        get_task(name, **{field: value})


def test_sizes_that_contradict_each_other_are_errors(name):
    with pytest.raises(ValueError, match=r"Config.min_digits: got 4, wanted 0, or from 1 to digits=3"):
        get_task(name, digits=3, min_digits=4)
    with pytest.raises(ValueError, match=r"Config.test_digits: got 3, wanted 0, or more than digits=3"):
        get_task(name, digits=3, test_digits=3)
