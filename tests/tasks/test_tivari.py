"""XAQ ZIV{n} BEK between its delimiters against the definition in plain Python, and every string of it."""

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

WORDS = ("<tivari>", "XAQ", "ZIV", "BEK", "</tivari>")


def strings(max_middle: int):
    """The generator: the number of ZIV is uniform on 1 .. max_middle."""
    for middles in range(1, max_middle + 1):
        yield ("<tivari>", "XAQ", *["ZIV"] * middles, "BEK", "</tivari>"), 1 / max_middle


def valid(text: str) -> float:
    return float(re.fullmatch(r"<tivari> XAQ( ZIV)+ BEK </tivari>", text) is not None)


def test_rows_are_the_strings_of_the_language(texts):
    task = get_task("tivari")
    sampled = {completion for _, completion in texts(task, task.rows(0, 500))}
    assert sampled == {" ".join(words) for words, _ in strings(10)}


def test_number_of_middles_is_uniform():
    rows = get_task("tivari").rows(0, 20_000)
    assert stats.chisquare(np.bincount(rows.lengths - 6, minlength=11)[1:]).pvalue > 1e-4


def test_verify_equals_the_definition_on_every_short_text():
    task = get_task("tivari")
    for length in range(7):
        for words in itertools.product(WORDS, repeat=length):
            text = " ".join(words)
            assert task.verify("", text) == task.verify(text, "") == valid(text)


@pytest.mark.parametrize(
    "text", ["XAQ ZIV BEK", "<tivari> XAQ ZIV BEK </tivari> <eos>", "<tivari>XAQ ZIV BEK</tivari>"]
)
def test_verify_wants_the_delimiters_as_words_and_nothing_else(text):
    assert get_task("tivari").verify("", text) == 0.0


@pytest.mark.parametrize("max_middle", [1, 3, 10])
def test_floor_of_every_token_equals_the_enumerated_one(max_middle, language, rows_of, assert_exact):
    task, enumerated = get_task("tivari", max_middle=max_middle), language(strings(max_middle))
    assert_exact(task, enumerated)
    log_probs = task.optimal_log_probs(rows_of(task, enumerated.strings))
    mean = -np.average(log_probs.sum(axis=1), weights=list(enumerated.strings.values()))
    assert mean == pytest.approx(enumerated.entropy(), abs=1e-12)


def test_corrupt_keeps_the_words_unless_one_alone_may_change(texts, rng):
    task = get_task("tivari")
    cut = with_prompts(task.rows(0, 500), rng(500, "prompt"))
    wrong = task.corrupt(cut, rng(500, "corrupt"))
    for (_, gold), (_, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
        if len(gold.split()) > 1:
            assert Counter(spoilt.split()) == Counter(gold.split())
        else:
            assert (gold, spoilt) == ("</tivari>", "ZIV")


@pytest.mark.parametrize("max_middle", [1, 3, 10])
def test_decision_points_are_right_and_reachable(max_middle, language):
    task, enumerated = get_task("tivari", max_middle=max_middle), language(strings(max_middle))
    wider = language(strings(max_middle + 5))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in wider.prefixes for word in point.invalid), point


def test_violations_stay_between_the_delimiters(texts, rng):
    task = get_task("tivari")
    rows = task.rows(0, 60)
    for name, violation in task.violations().items():
        for _, text in texts(task, violation.make(rows, rng(60))):
            assert re.fullmatch(r"<tivari> [^<>]+ </tivari>", text), name


def test_document_puts_the_delimiters_around_a_text_once():
    task = get_task("tivari")
    assert task.document("XAQ ZIV BEK") == "<tivari> XAQ ZIV BEK </tivari>"
    assert task.document(task.document("XAQ ZIV BEK")) == "<tivari> XAQ ZIV BEK </tivari>"


def test_explanations_are_single_sentences_without_delimiters():
    sentences = get_task("tivari").explanations()
    assert len(sentences) > 1
    assert sentences == get_task("tivari").statements()
    assert all(sentence.endswith(".") and sentence.count(".") == 1 and "<" not in sentence for sentence in sentences)


@given(max_middle=st.sampled_from([1, 2, 3, 1000, 10_000]), row=st.integers(0, 2**40))
def test_every_legal_config_makes_right_rows(max_middle, row, texts, rng):
    task = get_task("tivari", max_middle=max_middle)
    rows = task.rows(row, 3)
    assert [valid(text) for _, text in texts(task, rows)] == [1.0] * 3
    assert [valid(text) for _, text in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize("value", [0, -1, 10_001, 1.5, "10", True])
def test_illegal_max_middle_is_an_error_that_names_the_field(value):
    with pytest.raises(
        ValueError, match=r"StartMidEndConfig.max_middle: got .*, wanted (int|a value from 1 to 10000)"
    ):
        get_task("tivari", max_middle=value)
