"""START MID{n} END against the definition in plain Python, and every string of it."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.views import with_prompts

WORDS = ("START", "MID", "END")


def strings(max_middle: int):
    """The generator: the number of middles is uniform on 1 .. max_middle."""
    for middles in range(1, max_middle + 1):
        yield ("START", *["MID"] * middles, "END"), 1 / max_middle


def valid(text: str) -> float:
    return float(re.fullmatch(r"START( MID)+ END", text) is not None)


def test_rows_are_the_strings_of_the_language(texts):
    task = get_task("start_mid_end")
    sampled = {completion for _, completion in texts(task, task.rows(0, 500))}
    assert sampled == {" ".join(words) for words, _ in strings(10)}


def test_number_of_middles_is_uniform():
    rows = get_task("start_mid_end").rows(0, 20_000)
    assert stats.chisquare(np.bincount(rows.lengths - 4, minlength=11)[1:]).pvalue > 1e-4


def test_default_has_ten_strings_shared_out_8_1_1(texts):
    held = get_task("start_mid_end", holdout="content")
    by_split = [
        {completion for _, completion in texts(held, held.rows(0, 500, split=split))}
        for split in ("train", "validation", "test")
    ]
    assert [len(split) for split in by_split] == [8, 1, 1]
    assert len(set.union(*by_split)) == 10


def test_rows_under_holdout_are_uniform_over_the_contents_of_their_split():
    rows = get_task("start_mid_end", holdout="content").rows(0, 16_000)
    counts = np.bincount(rows.lengths)
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-4


def test_verify_equals_the_definition_on_every_short_text_cut_anywhere():
    task = get_task("start_mid_end")
    for length in range(7):
        for words in itertools.product(WORDS, repeat=length):
            expected = valid(" ".join(words))
            for cut in {0, length // 2, length}:
                assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == expected


def test_verify_sets_no_limit_on_the_middles():
    assert get_task("start_mid_end", max_middle=1).verify("START", "MID " * 5000 + "END") == 1.0


@pytest.mark.parametrize(
    "text", ["start mid end", "START MID END <eos>", "<bos> START MID END", "STARTMIDEND", "START MID, END"]
)
def test_verify_refuses_foreign_words(text):
    assert get_task("start_mid_end").verify("", text) == 0.0


@pytest.mark.parametrize("max_middle", [1, 2, 3, 10])
def test_floor_of_every_token_equals_the_enumerated_one(max_middle, language, assert_exact):
    assert_exact(get_task("start_mid_end", max_middle=max_middle), language(strings(max_middle)))


def test_mean_floor_of_a_string_is_the_entropy_of_the_language(language, rows_of):
    task, enumerated = get_task("start_mid_end"), language(strings(10))
    losses = -task.optimal_log_probs(rows_of(task, enumerated.strings)).sum(axis=1)
    mean = np.average(losses, weights=list(enumerated.strings.values()))
    assert mean == pytest.approx(enumerated.entropy(), abs=1e-12)
    assert mean == pytest.approx(np.log(10), abs=1e-12)


def test_corrupt_keeps_the_words_unless_one_alone_may_change(texts, rng):
    task = get_task("start_mid_end")
    cut = with_prompts(task.rows(0, 500), rng(500, "prompt"))
    wrong = task.corrupt(cut, rng(500, "corrupt"))
    for (_, gold), (_, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
        if len(gold.split()) > 1:
            assert Counter(spoilt.split()) == Counter(gold.split())
        else:
            assert (gold, spoilt) == ("END", "MID")


@pytest.mark.parametrize("max_middle", [1, 2, 3, 4, 10])
def test_decision_points_are_right_and_reachable(max_middle, language):
    task, enumerated = get_task("start_mid_end", max_middle=max_middle), language(strings(max_middle))
    wider = language(strings(max_middle + 5))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in wider.prefixes for word in point.invalid), point


def test_default_decision_points_follow_the_start_and_one_and_three_middles():
    points = get_task("start_mid_end").decision_points()
    assert [(point.prefix, set(point.valid), set(point.invalid)) for point in points] == [
        ("START", {"MID"}, {"END", "START"}),
        ("START MID", {"MID", "END"}, {"START"}),
        ("START MID MID MID", {"MID", "END"}, {"START"}),
    ]


def test_violations_are_what_their_names_say(texts, rng):
    task = get_task("start_mid_end")
    rows = task.rows(0, 60)
    patterns = {
        "missing_middle": r"START END",
        "missing_start": r"(MID )+END",
        "missing_end": r"START( MID)+",
        "wrong_order": r"(?!START( MID)+ END$)(?=(MID |END )*START)(?=(MID |START )*END)(?=.*MID)(\w+ ?)+",
        "doubled_start": r"START( MID)* START( MID)* END",
        "doubled_end": r"START( MID)* END( MID)* END",
    }
    texts_of_kind = {name: texts(task, violation.make(rows, rng(60))) for name, violation in task.violations().items()}
    assert set(texts_of_kind) == set(patterns)
    for name, made in texts_of_kind.items():
        assert all(re.fullmatch(patterns[name], text) for _, text in made), name


@pytest.mark.parametrize("name", ["start_mid_end", "agreement"])
def test_explanation_is_one_block_of_the_statements(name):
    task = get_task(name)
    assert task.explanations() == (" ".join(task.statements()),)
    assert len(task.statements()) > 1
    assert all(task.vocabulary()[0] in statement for statement in task.statements())


def test_document_leaves_the_text_as_it_is():
    assert get_task("start_mid_end").document("START MID END") == "START MID END"


@given(max_middle=st.sampled_from([1, 2, 3, 1000, 10_000]), row=st.integers(0, 2**40))
def test_every_legal_config_makes_right_rows(max_middle, row, texts, rng):
    task = get_task("start_mid_end", max_middle=max_middle)
    rows = task.rows(row, 3)
    assert [valid(text) for _, text in texts(task, rows)] == [1.0] * 3
    assert [valid(text) for _, text in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert rows.lengths.max() <= max_middle + 4
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize("value", [0, -1, 10_001, 1.5, "10", True])
def test_illegal_max_middle_is_an_error_that_names_the_field(value):
    with pytest.raises(
        ValueError, match=r"StartMidEndConfig.max_middle: got .*, wanted (int|a value from 1 to 10000)"
    ):
        get_task("start_mid_end", max_middle=value)


@pytest.mark.parametrize("value", ["Content", 0])
def test_illegal_holdout_is_an_error_that_names_the_choices(value):
    with pytest.raises(ValueError, match=r"StartMidEndConfig.holdout: got .*; .*Known: content, none"):
        get_task("start_mid_end", holdout=value)


@pytest.mark.parametrize("name", ["start_mid_end", "tivari"])
def test_long_preset_has_ten_contents_in_each_split_of_tests(name):
    task = get_task(name, "long", holdout="content")
    for split in ("validation", "test"):
        assert len(set(task.rows(0, 500, split=split).lengths.tolist())) == 10
