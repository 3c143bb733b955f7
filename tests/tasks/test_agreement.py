"""Agreement against its definition in plain Python, and every string of small configs."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.views import with_prompts


def strings(kinds: int, max_pairs: int):
    """The generator: the number of pairs is uniform on 1 .. max_pairs, and so is the kind of each."""
    for pairs in range(1, max_pairs + 1):
        for chosen in itertools.product(range(kinds), repeat=pairs):
            words = [word for kind in chosen for word in (f"d1n{kind}", f"d1v{kind}")]
            yield ("<d1>", *words, "</d1>"), 1 / max_pairs / kinds**pairs


def valid(text: str, kinds: int = 6, dialect: int = 1) -> float:
    """The definition: between the delimiters nothing but pairs, the number of the verb that of the noun."""
    match = re.fullmatch(rf"<d{dialect}>((?: d{dialect}n\d+ d{dialect}v\d+)+) </d{dialect}>", text)
    numbers = [int(number) for number in re.findall(r"[nv](\d+)", match[1])] if match else []
    return float(bool(match) and numbers[::2] == numbers[1::2] and max(numbers) < kinds)


def test_small_language_is_enumerated_by_its_rows(texts):
    task = get_task("agreement", kinds=2, max_pairs=3)
    sampled = {completion for _, completion in texts(task, task.rows(0, 2_000))}
    assert sampled == {" ".join(words) for words, _ in strings(2, 3)}


def test_pairs_and_kinds_are_uniform():
    rows = get_task("agreement").rows(0, 20_000)
    pairs = (rows.lengths - 4) // 2
    assert stats.chisquare(np.bincount(pairs, minlength=5)[1:]).pvalue > 1e-4
    nouns = rows.tokens[(rows.tokens >= 6) & (rows.tokens < 12)]
    assert stats.chisquare(np.bincount(nouns - 6)).pvalue > 1e-4


def test_floor_equals_enumeration(language, assert_exact):
    assert_exact(get_task("agreement", kinds=3, max_pairs=3), language(strings(3, 3)))


def test_verify_equals_the_definition_on_every_short_text_cut_anywhere():
    task = get_task("agreement", kinds=2)
    for length in range(6):
        for words in itertools.product(task.vocabulary(), repeat=length):
            for cut in {0, length // 2, length}:
                prompt, completion = " ".join(words[:cut]), " ".join(words[cut:])
                assert task.verify(prompt, completion) == valid(" ".join(words), kinds=2)


def test_more_pairs_than_are_drawn_are_right():
    task = get_task("agreement", max_pairs=1)
    assert task.verify("<d1> d1n0 d1v0", "d1n1 d1v1 d1n2 d1v2 </d1>") == 1.0


@pytest.mark.parametrize("max_pairs", [1, 2, 4])
def test_rank_numbers_every_content(max_pairs, language, rows_of):
    task, enumerated = get_task("agreement", kinds=3, max_pairs=max_pairs), language(strings(3, max_pairs))
    assert task.contents() == len(enumerated.strings)
    assert sorted(task.content_rank(rows_of(task, enumerated.strings)).tolist()) == list(range(task.contents()))


def test_dialects_share_the_rows_and_the_rule_but_no_word(texts):
    one, other = get_task("agreement", dialect=1), get_task("agreement", dialect=7)
    assert np.array_equal(one.rows(0, 50).tokens, other.rows(0, 50).tokens)
    assert not set(one.vocabulary()) & set(other.vocabulary())
    text = texts(other, other.rows(0, 1))[0][1]
    assert (other.verify("", text), one.verify("", text)) == (1.0, 0.0)


def test_corrupt_changes_one_word_or_two_after_the_prompt(rng):
    task = get_task("agreement")
    cut = with_prompts(task.rows(0, 1_000), rng(1_000, "prompt"))
    wrong = task.corrupt(cut, rng(1_000, "corrupt"))
    changed = wrong.tokens != cut.tokens
    assert set(changed.sum(axis=1).tolist()) == {1, 2}
    assert (changed.argmax(axis=1) >= cut.loss_start).all()


@given(
    kinds=st.sampled_from([2, 3, 10_000]),
    max_pairs=st.sampled_from([1, 2, 60]),
    dialect=st.sampled_from([1, 2, 10_000]),
    row=st.integers(0, 2**40),
)
def test_every_legal_config_makes_right_rows(kinds, max_pairs, dialect, row, texts, rng):
    task = get_task("agreement", kinds=kinds, max_pairs=max_pairs, dialect=dialect)
    rows = task.rows(row, 3)
    assert [valid(text, kinds, dialect) for _, text in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("kinds", 1), ("kinds", 10_001), ("max_pairs", 0), ("max_pairs", 2.0), ("dialect", 0), ("dialect", "1")],
)
def test_illegal_values_are_errors_that_name_the_field(field, value):
    with pytest.raises(ValueError, match=rf"AgreementConfig.{field}: got .*, wanted (int|a value from)"):
        get_task("agreement", **{field: value})


def test_corrupt_keeps_the_words_wherever_two_verbs_differ(texts, rng):
    task = get_task("agreement")
    cut = with_prompts(task.rows(0, 500), rng(500, "prompt"))
    kept = 0
    for (_, gold), (_, spoilt) in zip(
        texts(task, cut), texts(task, task.corrupt(cut, rng(500, "corrupt"))), strict=True
    ):
        verbs = {word for word in gold.split() if "v" in word}
        assert (sorted(gold.split()) == sorted(spoilt.split())) == (len(verbs) > 1)
        kept += len(verbs) > 1
    assert kept > 100
