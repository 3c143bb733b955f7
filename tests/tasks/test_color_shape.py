"""Pairs of color and shape against the definition in plain Python, and every string of them."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.views import with_prompts

PAIRS = ("RED CIRCLE", "RED SQUARE", "BLUE TRIANGLE", "BLUE DIAMOND")
WORDS = ("RED", "BLUE", "CIRCLE", "SQUARE", "TRIANGLE", "DIAMOND")


def strings(max_pairs: int):
    """The generator: the number of pairs is uniform on 1 .. max_pairs, and so are colors and shapes."""
    for pairs in range(1, max_pairs + 1):
        for chosen in itertools.product(PAIRS, repeat=pairs):
            yield tuple(" ".join(chosen).split()), 1 / max_pairs / 4**pairs


def valid(text: str, max_pairs: int = 4) -> float:
    pair = "(RED (CIRCLE|SQUARE)|BLUE (TRIANGLE|DIAMOND))"
    return float(re.fullmatch(f"{pair}( {pair}){{0,{max_pairs - 1}}}", text) is not None)


# The generator


def test_default_has_340_strings_and_all_are_made(texts):
    task = get_task("color_shape")
    sampled = {completion for _, completion in texts(task, task.rows(0, 20_000))}
    assert sampled == {" ".join(words) for words, _ in strings(4)}
    assert len(sampled) == task.contents() == 340


def test_pairs_are_uniform_in_number_and_kind(texts):
    task = get_task("color_shape")
    sentences = [completion.split() for _, completion in texts(task, task.rows(0, 20_000))]
    assert stats.chisquare(np.bincount([len(words) // 2 for words in sentences], minlength=5)[1:]).pvalue > 1e-4
    kinds = Counter(" ".join(words[at : at + 2]) for words in sentences for at in range(0, len(words), 2))
    assert set(kinds) == set(PAIRS)
    assert stats.chisquare(list(kinds.values())).pvalue > 1e-4


def test_neighbouring_pairs_are_independent():
    rows = get_task("color_shape", max_pairs=2).rows(0, 40_000)
    two = rows.tokens[rows.lengths == 6]
    table = np.zeros((4, 4))
    np.add.at(table, (two[:, 2] - 6, two[:, 4] - 6), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


# The verifier


@pytest.mark.parametrize("max_pairs", [1, 2, 4])
def test_verify_equals_the_definition_on_every_short_text_cut_anywhere(max_pairs):
    task = get_task("color_shape", max_pairs=max_pairs)
    for length in range(1, 6):
        for words in itertools.product(WORDS, repeat=length):
            expected = valid(" ".join(words), max_pairs)
            for cut in {0, length // 2, length - 1}:
                assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == expected


@pytest.mark.parametrize(("max_pairs", "pairs", "right"), [(4, 4, 1.0), (4, 5, 0.0), (1, 2, 0.0), (60, 60, 1.0)])
def test_number_of_pairs_is_part_of_the_language(max_pairs, pairs, right):
    task = get_task("color_shape", max_pairs=max_pairs)
    assert task.verify("RED", "CIRCLE" + " BLUE DIAMOND" * (pairs - 1)) == right


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("RED CIRCLE", ""),
        ("RED CIRCLE", " "),
        ("", ""),
        ("", "red circle"),
        ("RED", "CIRCLE <eos>"),
        ("RED", "CIRCLE,"),
    ],
)
def test_verify_refuses_empty_completions_and_foreign_words(prompt, completion):
    assert get_task("color_shape").verify(prompt, completion) == 0.0


# The floor


@pytest.mark.parametrize("max_pairs", [1, 2, 3, 4])
def test_floor_equals_the_enumerated_one(max_pairs, language, rows_of, assert_exact):
    task, enumerated = get_task("color_shape", max_pairs=max_pairs), language(strings(max_pairs))
    assert_exact(task, enumerated)
    log_probs = task.optimal_log_probs(rows_of(task, enumerated.strings))
    mean = -np.average(log_probs.sum(axis=1), weights=list(enumerated.strings.values()))
    assert mean == pytest.approx(enumerated.entropy(), abs=1e-12)
    assert mean == pytest.approx(math.log(max_pairs) + (max_pairs + 1) / 2 * math.log(4), abs=1e-12)


# Wrong texts


def test_corrupt_keeps_the_words_unless_one_alone_may_change(texts, rng):
    task = get_task("color_shape")
    cut = with_prompts(task.rows(0, 2_000), rng(2_000, "prompt"))
    wrong = task.corrupt(cut, rng(2_000, "corrupt"))
    for (_, gold), (_, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
        if len(gold.split()) > 1:
            assert Counter(spoilt.split()) == Counter(gold.split())
        else:
            assert ({"CIRCLE", "SQUARE"} >= {gold}) == ({"TRIANGLE", "DIAMOND"} >= {spoilt})
            assert spoilt in WORDS[2:]


def test_corrupt_pairs_colors_wrongly_wherever_both_may_change(texts, rng):
    task = get_task("color_shape")
    rows = task.rows(0, 2_000)
    for (_, gold), (_, spoilt) in zip(texts(task, rows), texts(task, task.corrupt(rows, rng(2_000))), strict=True):
        assert (spoilt.split()[::2] == gold.split()[::2]) == ({"RED", "BLUE"} <= set(gold.split()))


def test_violations_are_what_their_names_say(texts, rng):
    task = get_task("color_shape")
    rows = task.rows(0, 500)
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(500)))]
        for name, kind in task.violations().items()
    }
    gold = [text.split() for _, text in texts(task, rows)]
    assert set(made) == {"wrong_pairing", "odd_length", "too_many_pairs", "swapped_order"}
    for before, after in zip(gold, made["wrong_pairing"], strict=True):
        assert [one == two for one, two in zip(before, after, strict=True)].count(False) == 1
        assert set(after[::2]) <= {"RED", "BLUE"}
        assert set(after[1::2]).isdisjoint({"RED", "BLUE"})
    for before, after in zip(gold, made["odd_length"], strict=True):
        assert any(before[:at] + before[at + 1 :] == after for at in range(len(before)))
    for before, after in zip(gold, made["too_many_pairs"], strict=True):
        assert after[8:] == before
        assert valid(" ".join(after[:8])) == 1.0
    for before, after in zip(gold, made["swapped_order"], strict=True):
        swaps = [[*before[:at], before[at + 1], before[at], *before[at + 2 :]] for at in range(0, len(before), 2)]
        assert after in swaps


@pytest.mark.parametrize("max_pairs", [1, 2, 4])
def test_decision_points_are_right_and_reachable(max_pairs, language):
    task, enumerated = get_task("color_shape", max_pairs=max_pairs), language(strings(max_pairs))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in enumerated.prefixes for word in point.invalid), point


def test_default_decision_points_follow_red_and_blue_and_a_pair():
    points = [
        (point.prefix, set(point.valid), set(point.invalid)) for point in get_task("color_shape").decision_points()
    ]
    assert points == [
        ("RED", {"CIRCLE", "SQUARE"}, {"TRIANGLE", "DIAMOND", "RED", "BLUE"}),
        ("BLUE", {"TRIANGLE", "DIAMOND"}, {"CIRCLE", "SQUARE", "RED", "BLUE"}),
        ("RED CIRCLE", {"RED", "BLUE"}, {"CIRCLE", "SQUARE", "TRIANGLE", "DIAMOND"}),
    ]


# Contents, explanations, configs


@pytest.mark.parametrize("max_pairs", [1, 2, 3])
def test_rank_numbers_every_content(max_pairs, language, rows_of):
    task, enumerated = get_task("color_shape", max_pairs=max_pairs), language(strings(max_pairs))
    ranks = task.content_rank(rows_of(task, enumerated.strings))
    assert sorted(ranks.tolist()) == list(range(task.contents()))


def test_explanation_is_one_block_of_the_statements():
    task = get_task("color_shape", max_pairs=7)
    (block,) = task.explanations()
    assert block == " ".join(task.statements())
    assert len(task.statements()) > 1
    assert all(word in block for word in (*WORDS, "7"))


@given(max_pairs=st.sampled_from([1, 2, 3, 1_000, 10_000]), row=st.integers(0, 2**40))
def test_every_legal_config_makes_right_rows(max_pairs, row, texts, rng):
    task = get_task("color_shape", max_pairs=max_pairs)
    rows = task.rows(row, 3)
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert rows.lengths.max() <= 2 * max_pairs + 2
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize("value", [0, -1, 10_001, 1.5, "4", True])
def test_illegal_max_pairs_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"ColorShapeConfig.max_pairs: got .*, wanted (int|a value from 1 to 10000)"):
        get_task("color_shape", max_pairs=value)
