"""Sort against the definition in plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.views import with_prompts

NUMBERS = st.integers(-1, 12)


def right(prompt: str, completion: str) -> float:
    """The definition: numbers of the vocabulary 1 .. 9, then `<sep>`; the completion holds them in order."""
    *given_words, separator = prompt.split()
    numbers = sorted(int(word) for word in given_words)
    fine = separator == "<sep>" and numbers and all(1 <= number <= 9 for number in numbers)
    return float(bool(fine) and completion == " ".join(map(str, numbers)))


def test_target_is_the_sorted_input(texts):
    task = get_task("sort", "16")
    for prompt, completion in texts(task, task.rows(0, 300)):
        *numbers, separator = prompt.split()
        assert separator == "<sep>"
        assert len(numbers) == 16
        assert completion.split() == sorted(numbers, key=int)


@pytest.mark.parametrize("vocab_size", [2, 3, 10, 100])
def test_numbers_are_uniform_and_never_zero(vocab_size):
    task = get_task("sort", length=20, vocab_size=vocab_size)
    drawn = task.rows(0, 3_000).tokens[:, 1:21] - 4
    counts = np.bincount(drawn.ravel(), minlength=vocab_size)
    assert counts.size == vocab_size
    assert counts[0] == 0
    assert vocab_size == 2 or stats.chisquare(counts[1:]).pvalue > 1e-4


def test_places_of_a_row_are_independent():
    drawn = get_task("sort", length=2, vocab_size=6).rows(0, 20_000).tokens[:, 1:3] - 5
    assert stats.chisquare(np.bincount(5 * drawn[:, 0] + drawn[:, 1], minlength=25)).pvalue > 1e-4


@given(
    numbers=st.lists(NUMBERS, max_size=5), answer=st.lists(NUMBERS, max_size=5), separator=st.sampled_from("<sep>|")
)
def test_verify_equals_the_definition(numbers, answer, separator):
    prompt = f"{' '.join(map(str, numbers))} {'<sep>' if separator != '|' else '|'}"
    task = get_task("sort", length=3, vocab_size=10)
    for completion in (answer, sorted(answer), sorted(numbers), numbers, sorted(numbers)[:-1]):
        text = " ".join(map(str, completion))
        assert task.verify(prompt, text) == right(prompt, text)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("3 1 2 <sep>", "1 2 03"),
        ("3 1 2 <sep>", "1, 2, 3"),
        ("3 1 2 <sep>", "1 2 3 <eos>"),
        ("3 1 2", "1 2 3"),
        ("3 1 2 <sep> <sep>", "1 2 3"),
        ("<bos> 3 1 2 <sep>", "1 2 3"),
        ("<sep>", ""),
        ("0 1 <sep>", "0 1"),
        ("10 9 <sep>", "9 10"),
        ("²  1 <sep>", "1 ²"),
        ("٣ 1 <sep>", "1 ٣"),
    ],
)
def test_verify_is_strict(prompt, completion):
    assert get_task("sort", length=3, vocab_size=10).verify(prompt, completion) == 0.0


def test_numbers_are_compared_by_value_not_as_text():
    task = get_task("sort")
    assert task.verify("10 9 <sep>", "9 10") == 1.0
    assert task.verify("10 9 <sep>", "10 9") == 0.0


@pytest.mark.parametrize(("length", "vocab_size"), [(1, 2), (1, 10), (2, 2), (2, 3), (5, 3), (16, 100)])
def test_corrupt_swaps_two_neighbours_or_changes_one_number_where_all_are_equal(length, vocab_size, texts, rng):
    task = get_task("sort", length=length, vocab_size=vocab_size)
    rows = task.rows(0, 400)
    wrong = task.corrupt(with_prompts(rows, rng(400, "prompt")), rng(400, "corrupt"))
    for (prompt, gold), (same_prompt, spoilt) in zip(texts(task, rows), texts(task, wrong), strict=True):
        gold, spoilt = gold.split(), spoilt.split()
        differing = [at for at in range(length) if gold[at] != spoilt[at]]
        assert prompt == same_prompt
        if len(set(gold)) == 1:
            assert len(differing) == 1
            assert set(spoilt) <= set(task.vocabulary())
        else:
            assert Counter(spoilt) == Counter(gold)
            assert differing == [differing[0], differing[0] + 1]


def test_corrupt_picks_every_pair_of_neighbours_equally_often(rng):
    task = get_task("sort", length=5, vocab_size=1_000_000)
    rows = task.rows(0, 8_000)
    wrong = task.corrupt(rows, rng(8_000, "corrupt"))
    left = np.argmax((wrong.tokens != rows.tokens)[:, -6:-1], axis=1)
    assert stats.chisquare(np.bincount(left, minlength=4)).pvalue > 1e-4


def test_rank_numbers_every_content():
    task = get_task("sort", length=3, vocab_size=4)
    assert task.contents() == 27
    rows = task.rows(0, 2_000)
    ranked = dict(zip(map(tuple, rows.tokens[:, 1:4].tolist()), task.content_rank(rows).tolist(), strict=True))
    assert sorted(ranked.values()) == list(range(27))


def test_floor_is_zero():
    task = get_task("sort", "8")
    assert (task.optimal_log_probs(task.rows(0, 10)) == 0).all()


@given(length=st.sampled_from([1, 2, 3, 64, 65_536]), vocab_size=st.sampled_from([2, 3, 100, 1_000_000]))
def test_every_legal_config_makes_right_rows(length, vocab_size):
    rows = get_task("sort", length=length, vocab_size=vocab_size).rows(0, 2)
    target = rows.tokens[:, -1 - length : -1]
    assert rows.tokens.shape == (2, 2 * length + 3)
    assert np.array_equal(np.sort(rows.tokens[:, 1 : 1 + length], axis=1), target)
    assert rows.tokens[:, 1 : 1 + length].min() >= 5
    assert rows.tokens.max() < 4 + vocab_size


@pytest.mark.parametrize("extreme", [{"length": 65_536}, {"length": 1, "vocab_size": 1_000_000}])
def test_extreme_config_verifies_and_corrupts(extreme, texts, rng):
    task = get_task("sort", **extreme)
    rows = task.rows(0, 1)
    assert task.verify(*texts(task, rows)[0]) == 1.0
    assert task.verify(*texts(task, task.corrupt(rows, rng(1)))[0]) == 0.0


@pytest.mark.parametrize("length", [16, 65_536])
def test_holdout_with_more_contents_than_can_be_ranked_shares_them_out_by_hash(length):
    count = 400 if length == 16 else 3
    task = get_task("sort", length=length, holdout="content")
    for number, split in enumerate(("train", "validation", "test")):
        assert (task.split_of(task.rows(0, count, split=split)) == number).all()
    if length == 16:
        shares = np.bincount(task.split_of(get_task("sort", length=length).rows(0, 20_000))) / 20_000
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


@pytest.mark.parametrize("value", [0, -1, 65_537, 2.0, True, "8", None])
def test_illegal_length_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"SequenceConfig.length: got .*, wanted (int|a value from 1 to 65536)"):
        get_task("sort", length=value)


@pytest.mark.parametrize("value", [1, 0, -3, 1_000_001, 10.5, False])
def test_illegal_vocab_size_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"SequenceConfig.vocab_size: got .*, wanted (int|a value from 2 to 1000000)"):
        get_task("sort", vocab_size=value)


@pytest.mark.parametrize("value", ["contents", "", None, True])
def test_illegal_holdout_is_an_error_that_names_the_choices(value):
    with pytest.raises(ValueError, match=r"SequenceConfig.holdout: got .*; .*Known: content, none"):
        get_task("sort", holdout=value)
