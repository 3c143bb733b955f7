"""Haystack against the definition in plain Python."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.tasks.base import SPLITS

SMALL = {"max_keys": 3, "num_values": 4}
KEYS = ("k1", "k2", "k3")
VALUES = ("v1", "v2", "v3", "v4")


def right(prompt: str, completion: str) -> float:
    """The definition for the small config: pairs of distinct keys and values, one of the keys, its value."""
    words = prompt.split()
    if len(words) < 5 or words[-3] != "<sep>" or words[-1] != "<sep>" or len(words) % 2 == 0:
        return 0.0
    pairs, query = words[:-3], words[-2]
    keys, values = pairs[0::2], pairs[1::2]
    fine = all(key in KEYS for key in keys) and all(value in VALUES for value in values)
    if not fine or len(set(keys)) != len(keys) or query not in keys:
        return 0.0
    return float(completion.split() == [values[keys.index(query)]])


def numbers(texts, count: int, **config) -> list[tuple[list[int], list[int], int, int]]:
    """Keys, values, query and answer of each row."""
    task = get_task("haystack", **config)
    parsed = []
    for prompt, completion in texts(task, task.rows(0, count)):
        pairs, query, rest = prompt.split("<sep>")
        assert rest == ""
        words = pairs.split()
        assert {word[0] for word in words[0::2]} | {query.strip()[0]} == {"k"}
        assert {word[0] for word in words[1::2]} | {completion[0]} == {"v"}
        keys, values = ([int(word[1:]) for word in words[start::2]] for start in (0, 1))
        parsed.append((keys, values, int(query.strip()[1:]), int(completion[1:])))
    return parsed


def uniform(counts: Counter, expected: range) -> bool:
    return set(counts) == set(expected) and stats.chisquare(list(counts.values())).pvalue > 1e-4


# The generator


@pytest.mark.parametrize("config", [{}, {"max_keys": 3, "num_values": 4}, {"max_keys": 1, "num_values": 2}])
def test_answer_is_the_value_of_the_query_among_distinct_keys(config, texts):
    for keys, values, query, answer in numbers(texts, 500, **config):
        assert len(set(keys)) == len(keys) == len(values)
        assert answer == values[keys.index(query)]


def test_number_of_pairs_is_uniform(texts):
    assert uniform(Counter(len(keys) for keys, *_ in numbers(texts, 6_000)), range(1, 31))


def test_values_are_uniform(texts):
    assert uniform(Counter(value for _, values, *_ in numbers(texts, 3_000) for value in values), range(1, 128))


def test_pair_that_is_asked_for_is_uniform(texts):
    asked: dict[int, Counter] = {}
    for keys, _, query, _ in numbers(texts, 10_000, max_keys=5):
        asked.setdefault(len(keys), Counter())[keys.index(query)] += 1
    assert set(asked) == {1, 2, 3, 4, 5}
    assert all(count == 1 or uniform(counts, range(count)) for count, counts in asked.items())


def test_choices_of_keys_in_order_are_uniform(texts):
    counts = Counter(tuple(keys) for keys, *_ in numbers(texts, 12_000, max_keys=4))
    for count in range(1, 5):
        orders = list(itertools.permutations(range(1, 5), count))
        assert stats.chisquare([counts[order] for order in orders]).pvalue > 1e-4


def test_values_of_two_pairs_are_independent(texts):
    pairs = Counter(tuple(values[:2]) for _, values, *_ in numbers(texts, 8_000, max_keys=4, num_values=5))
    twos = [count for values, count in pairs.items() if len(values) == 2]
    assert len(twos) == 25
    assert stats.chisquare(twos).pvalue > 1e-4


# The verifier


@given(
    pairs=st.lists(st.tuples(st.sampled_from((*KEYS, "k4")), st.sampled_from((*VALUES, "v5"))), max_size=3),
    query=st.sampled_from([*KEYS, "k4", "v1"]),
    swap=st.booleans(),
)
def test_verify_equals_the_definition(pairs, query, swap):
    task = get_task("haystack", **SMALL)
    words = [word for pair in pairs for word in (pair[::-1] if swap else pair)]
    for prompt in (f"{' '.join(words)} <sep> {query} <sep>", f"{' '.join(words)} {query} <sep>", " ".join(words)):
        for completion in (*VALUES, "v5", "k1", "", "v1 v1"):
            assert task.verify(prompt, completion) == right(prompt, completion)


@given(
    words=st.lists(st.sampled_from([*KEYS[:2], *VALUES[:2], "<sep>", "k", "v", "k01", "v٣", "1", "<eos>"]), max_size=8)
)
def test_verify_of_any_words_equals_the_definition(words):
    task = get_task("haystack", **SMALL)
    for completion in VALUES[:2]:
        assert task.verify(" ".join(words), completion) == right(" ".join(words), completion)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("k1 v3 <sep> k1 <sep>", "3"),
        ("k1 v3 <sep> k1 <sep>", "v03"),
        ("k1 v3 <sep> k1 <sep>", "v3 <eos>"),
        ("k1 v03 <sep> k1 <sep>", "v03"),
        ("k1 v٣ <sep> k1 <sep>", "v٣"),
        ("k1 v3 k1 v2 <sep> k1 <sep>", "v2"),
        ("k1 v3 k2 <sep> k1 <sep>", "v3"),
        ("k1 v3 <sep> k1 k1 <sep>", "v3"),
        ("k1 v3 <sep> k1", "v3"),
        ("k1 v3 <sep> k1 <sep> v3", ""),
        ("<bos> k1 v3 <sep> k1 <sep>", "v3"),
        ("k0 v3 <sep> k0 <sep>", "v3"),
        ("k31 v3 <sep> k31 <sep>", "v3"),
        ("k1 v128 <sep> k1 <sep>", "v128"),
        ("k1 v" + "9" * 5_000 + " <sep> k1 <sep>", "v" + "9" * 5_000),
        ("<sep> k1 <sep>", "v3"),
    ],
)
def test_verify_is_strict(prompt, completion):
    assert get_task("haystack").verify("k1 v3 <sep> k1 <sep>", "v3") == 1.0
    assert get_task("haystack").verify(prompt, completion) == 0.0


# Wrong rows, contents, configs


def test_wrong_answer_is_another_value_each_as_likely(rng):
    task = get_task("haystack", **SMALL)
    rows = task.rows(0, 6_000)
    wrong = task.corrupt(rows, rng(6_000, "corrupt"))
    last = (np.arange(6_000), rows.lengths - 2)
    counts = Counter(zip(rows.tokens[last].tolist(), wrong.tokens[last].tolist(), strict=True))
    assert set(counts) == {(one, other) for one in range(7, 11) for other in range(7, 11) if one != other}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize(("max_keys", "num_values"), [(1, 2), (2, 3), (3, 2)])
def test_rank_numbers_every_row(max_keys, num_values, texts):
    task = get_task("haystack", max_keys=max_keys, num_values=num_values)
    every = {
        (tuple(zip(keys, values, strict=True)), asked)
        for count in range(1, max_keys + 1)
        for keys in itertools.permutations(range(max_keys), count)
        for values in itertools.product(range(num_values), repeat=count)
        for asked in keys
    }
    assert task.contents() == len(every)
    rows = task.rows(0, 6_000)
    ranked = set(zip(texts(task, rows), task.content_rank(rows).tolist(), strict=True))
    assert sorted(rank for _, rank in ranked) == list(range(len(every)))


def test_holdout_shares_few_contents_out_8_to_1_to_1(texts):
    task = get_task("haystack", max_keys=2, num_values=3, holdout="content")
    by_split = [len(set(texts(task, task.rows(0, 2_000, split=split)))) for split in SPLITS]
    assert sum(by_split) == task.contents() == 42
    assert by_split == [pytest.approx(share * 42, abs=1) for share in (0.8, 0.1, 0.1)]


def test_first_preset_is_the_papers():
    task = get_task("haystack")
    assert (task.config.max_keys, task.config.num_values) == (30, 127)
    assert next(iter(type(task).presets)) == "30"


def test_explanation_is_one_sentence():
    (sentence,) = get_task("haystack").explanations()
    assert sentence.endswith(".")
    assert sentence.count(".") == 1


@given(max_keys=st.sampled_from([1, 2, 30, 16_384]), num_values=st.sampled_from([2, 3, 127, 1_000_000]))
def test_every_legal_config_makes_right_rows(max_keys, num_values, texts, rng):
    if max_keys * num_values > 10**9:
        max_keys = 2
    task = get_task("haystack", max_keys=max_keys, num_values=num_values)
    rows = task.rows(0, 2)
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 2
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(2)))] == [0.0] * 2
    assert rows.tokens.max() < 4 + max_keys + num_values


@pytest.mark.parametrize(("field", "low", "high"), [("max_keys", 1, 16_384), ("num_values", 2, 1_000_000)])
@pytest.mark.parametrize("value", ["low", "high", 2.0, True, "8", None])
def test_illegal_value_is_an_error_that_names_the_field(field, low, high, value):
    value = {"low": low - 1, "high": high + 1}.get(value, value)
    with pytest.raises(ValueError, match=f"HaystackConfig.{field}: got .*, wanted (int|a value from {low} to {high})"):
        get_task("haystack", **{field: value})
