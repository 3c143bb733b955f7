"""Elementary cellular automata against the definition in plain Python, and every row of small rings."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.tasks.base import SPLITS
from hf_synth.views import with_prompts

EXTREMES = [0, 255, 110, 30, 90, 54, 204, 170, 51]


def successor(state: list[int], rule: int) -> list[int]:
    width = len(state)
    return [
        int(f"{rule:08b}"[::-1][4 * state[at - 1] + 2 * state[at] + state[(at + 1) % width]]) for at in range(width)
    ]


def history(state: list[int], rule: int, steps: int) -> list[int]:
    cells = list(state)
    for _ in range(steps):
        state = successor(state, rule)
        cells += state
    return cells


def valid(words: list[str], rule: int, width: int, steps: int) -> bool:
    if len(words) != width * (steps + 1) or not set(words) <= {"0", "1"}:
        return False
    cells = [int(word) for word in words]
    return cells == history(cells[:width], rule, steps)


def strings(rule: int, width: int, steps: int):
    """Every row with its probability."""
    for state in itertools.product((0, 1), repeat=width):
        yield tuple(map(str, history(list(state), rule, steps))), 0.5**width


# The generator


@pytest.mark.parametrize("rule", EXTREMES)
@pytest.mark.parametrize(("width", "steps"), [(3, 1), (5, 4), (16, 15)])
def test_rows_are_what_the_rule_makes_of_their_first_states(rule, width, steps, texts):
    task = get_task("eca", rule=rule, width=width, steps=steps)
    for prompt, text in texts(task, task.rows(0, 60)):
        assert prompt == ""
        assert valid(text.split(), rule, width, steps)


def test_every_rule_makes_the_right_states(texts):
    for rule in range(256):
        task = get_task("eca", rule=rule, width=8, steps=2)
        assert all(valid(text.split(), rule, 8, 2) for _, text in texts(task, task.rows(0, 5)))


def test_rules_known_from_the_literature():
    """Rule 90 draws Sierpinski's triangle; 110 grows to the left; 204 keeps and 170 shifts a state."""
    one = [0, 0, 0, 1, 0, 0, 0]
    known = {90: [0, 0, 1, 0, 1, 0, 0], 110: [0, 0, 1, 1, 0, 0, 0], 204: one, 170: [0, 0, 1, 0, 0, 0, 0]}
    for rule, after in known.items():
        task = get_task("eca", rule=rule, width=7, steps=1)
        assert task.verify(" ".join(map(str, one)), " ".join(map(str, after))) == 1.0


def test_first_states_are_uniform():
    task = get_task("eca", width=8)
    first = task.rows(0, 20_000).tokens[:, 1:9] - 4
    assert stats.chisquare(np.bincount(first @ 2 ** np.arange(8), minlength=256)).pvalue > 1e-4


# The verifier


@pytest.mark.parametrize("rule", [110, 0, 90])
def test_verify_equals_the_definition_on_every_short_text_cut_anywhere(rule):
    task = get_task("eca", rule=rule, width=3, steps=2)
    for length in (0, 3, 6, 8, 9, 10):
        for words in itertools.product("01", repeat=length):
            expected = float(valid(list(words), rule, 3, 2))
            for cut in (0, length // 2, length):
                assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == expected


@given(
    state=st.lists(st.integers(0, 1), min_size=3, max_size=3),
    steps=st.integers(0, 3),
    change=st.none() | st.tuples(st.integers(0, 11), st.sampled_from(["0", "1", "2", "<sep>", "³", "01"])),
    cut=st.integers(0, 12),
)
def test_verify_equals_the_definition_on_right_rows_with_a_word_changed(state, steps, change, cut):
    words = list(map(str, history(state, 110, steps)))
    if change is not None:
        words[change[0] % len(words)] = change[1]
    task = get_task("eca", width=3, steps=2)
    assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == float(valid(words, 110, 3, 2))


# The floor


@pytest.mark.parametrize("rule", [0, 30, 110, 204])
@pytest.mark.parametrize(("width", "steps"), [(3, 1), (3, 4), (5, 2)])
def test_floor_of_every_token_equals_the_enumerated_one(rule, width, steps, language, rows_of, assert_exact):
    task, enumerated = get_task("eca", rule=rule, width=width, steps=steps), language(strings(rule, width, steps))
    assert_exact(task, enumerated)
    log_probs = task.optimal_log_probs(rows_of(task, enumerated.strings))
    assert math.fsum(np.exp(log_probs.sum(axis=1))) == pytest.approx(1.0, abs=1e-12)
    assert -log_probs.sum(axis=1).mean() == pytest.approx(enumerated.entropy(), abs=1e-12)


# Wrong texts


@pytest.mark.parametrize("rule", EXTREMES)
def test_corrupt_is_invalid_at_every_cut_and_swaps_neighbours_that_follow_where_two_differ(rule, texts, rows_of, rng):
    task = get_task("eca", rule=rule, width=4, steps=2)
    for number, (words, _) in enumerate(strings(rule, 4, 2)):
        cut = rows_of(task, [words] * 12)
        cut.loss_start = np.arange(1, 13, dtype=np.int32)
        wrong = task.corrupt(cut, rng(12, start=12 * number))
        for (prompt, gold), (same, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
            assert prompt == same
            assert not valid(f"{same} {spoilt}".split(), rule, 4, 2)
            gold, spoilt = gold.split(), spoilt.split()
            follows = gold[-8:]
            assert gold[: -len(follows)] == spoilt[: -len(follows)]
            differing = [at for at in range(len(gold)) if gold[at] != spoilt[at]]
            if len(set(follows)) > 1:
                assert Counter(gold) == Counter(spoilt)
                assert differing == [differing[0], differing[0] + 1]
            else:
                assert len(differing) == 1
                assert set(spoilt) <= {"0", "1"}


def test_corrupt_touches_every_place_after_the_first_state(rng):
    task = get_task("eca", rule=30, width=4, steps=2)
    rows = task.rows(0, 3_000)
    touched = (task.corrupt(rows, rng(3_000)).tokens != rows.tokens).any(axis=0)
    assert touched.tolist() == [False] * 5 + [True] * 8 + [False]


@pytest.mark.parametrize("rule", EXTREMES)
def test_violations_are_what_their_names_say(rule, texts, rng):
    task = get_task("eca", rule=rule, width=5, steps=3)
    rows = task.rows(0, 100)
    gold = [text.split() for _, text in texts(task, rows)]
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(100)))]
        for name, kind in task.violations().items()
    }
    assert set(made) == {"wrong_cells", "opposite_rule", "missing_cell"}
    assert made["missing_cell"] == [words[:-1] for words in gold]
    for words, right in zip(made["opposite_rule"], gold, strict=True):
        assert words == list(map(str, history([int(word) for word in right[:5]], 255 - rule, 3)))
        assert not valid(words, rule, 5, 3)
    for words, right in zip(made["wrong_cells"], gold, strict=True):
        assert words[:5] == right[:5]
        assert not valid(words, rule, 5, 3)


@pytest.mark.parametrize("width", [3, 4, 6])
@pytest.mark.parametrize("rule", EXTREMES)
def test_decision_points_are_right_and_tell_the_whole_rule(rule, width, language):
    task, enumerated = get_task("eca", rule=rule, width=width, steps=1), language(strings(rule, width, 1))
    points = task.decision_points()
    for point in points:
        prefix = tuple(point.prefix.split())
        assert [(*prefix, word) in enumerated.prefixes for word in (*point.valid, *point.invalid)] == [True, False]
    assert int("".join(point.valid[0] for point in points), 2) == rule
    around = [f"{words[-1]}{words[0]}{words[1]}" for words in (point.prefix.split() for point in points)]
    assert around == ["111", "110", "101", "100", "011", "010", "001", "000"]


def test_explanation_is_one_block_with_the_rule_as_a_table():
    (block,) = get_task("eca", rule=110, width=12, steps=7).explanations()
    for triple, result in zip(itertools.product("10", repeat=3), "01101110", strict=True):
        assert f"{' '.join(triple)} give {result}" in block
    assert "12 cells" in block
    assert block.endswith(" come 7 more.")
    (block,) = get_task("eca", "110-w16-s7-to-s31").explanations()
    assert block.endswith(" come 7 more, 31 in tests.")


# Contents, splits, configs


@pytest.mark.parametrize("width", [3, 7])
def test_rank_numbers_every_content(width, rows_of):
    task = get_task("eca", width=width, steps=2)
    words = [words for words, _ in strings(110, width, 2)]
    assert task.contents() == len(words)
    assert sorted(task.content_rank(rows_of(task, words)).tolist()) == list(range(len(words)))


def test_holdout_shares_first_states_out_8_to_1_to_1():
    task = get_task("eca", width=6, steps=1, test_steps=3, holdout="content")
    first = {
        split: {tuple(row) for row in task.rows(0, 4_000, split=split).tokens[:, 1:7].tolist()} for split in SPLITS
    }
    assert {split: len(states) for split, states in first.items()} == {"train": 51, "validation": 7, "test": 6}
    assert len(set().union(*first.values())) == 64


def test_rows_of_the_test_split_have_test_steps(texts, rng):
    task = get_task("eca", "110-w16-s7-to-s31")
    lengths = {split: set(task.rows(0, 20, split=split).lengths.tolist()) for split in SPLITS}
    assert lengths == {"train": {130}, "validation": {130}, "test": {514}}
    rows = with_prompts(task.rows(0, 20, split="test"), rng(20, "prompt"))
    pairs = texts(task, rows)
    assert [task.verify(*pair) for pair in pairs] == [1.0] * 20
    assert all(valid(f"{prompt} {completion}".split(), 110, 16, 31) for prompt, completion in pairs)
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(20)))] == [0.0] * 20
    words = " ".join(pairs[0]).split()
    assert [task.verify("", " ".join(words[: 16 * states])) for states in (7, 8, 9, 31, 32)] == [0, 1, 0, 0, 1]


@given(
    rule=st.integers(0, 255),
    width=st.sampled_from([3, 4, 63, 64, 65, 1024]),
    steps=st.sampled_from([1, 2, 9]),
    row=st.integers(0, 2**40),
)
def test_every_legal_config_makes_right_rows(rule, width, steps, row, texts, rng):
    task = get_task("eca", rule=rule, width=width, steps=steps)
    rows = task.rows(row, 2)
    assert all(valid(text.split(), rule, width, steps) for _, text in texts(task, rows))
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 2
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(2)))] == [0.0] * 2
    assert task.optimal_log_probs(rows).sum(axis=1) == pytest.approx(-width * math.log(2))


def test_largest_config_makes_a_row(texts):
    task = get_task("eca", width=1024, steps=1024)
    assert task.verify(*texts(task, task.rows(0, 1))[0]) == 1.0
    assert task.contents() == 2**1024


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rule": 256}, "rule: got 256, wanted a value from 0 to 255"),
        ({"rule": -1}, "rule: got -1, wanted a value from 0 to 255"),
        ({"rule": "110"}, "rule: got '110'"),
        ({"width": 2}, "width: got 2, wanted a value from 3 to 1024"),
        ({"width": 1025}, "width: got 1025, wanted a value from 3 to 1024"),
        ({"steps": 0}, "steps: got 0, wanted a value from 1 to 1024"),
        ({"steps": 1.0}, "steps: got 1.0"),
        ({"test_steps": 15}, "test_steps: got 15, wanted 0, or more than steps=15"),
        ({"test_steps": -1}, "test_steps: got -1, wanted a value from 0 to 1024"),
    ],
)
def test_illegal_value_is_an_error_that_names_the_field_and_the_range(config, message):
    with pytest.raises(ValueError, match=f"EcaConfig.{message}"):
        get_task("eca", **config)


@pytest.mark.parametrize("width", [8, 20, 21])
def test_first_state_is_in_one_split_however_many_steps_follow(width):
    task = get_task("eca", width=width, steps=1, test_steps=2, holdout="content")
    splits = [task.rows(0, 20_000, split=split).tokens[:, : 1 + width] for split in ("train", "validation", "test")]
    states = [set(map(bytes, np.ascontiguousarray(split))) for split in splits]
    assert not states[0] & states[1] | states[0] & states[2] | states[1] & states[2]
