"""Dyck against the definition in plain Python, and every word of it up to a length of eight."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import Rows, get_task
from hf_synth.tasks.base import SPLITS

SHORT = [(1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (2, 8), (3, 6)]  # k, length


def share(p_open: float) -> float:
    """P(open) as the task counts it, in steps of 2**-32."""
    return round(p_open * 2**32) / 2**32


def steps(depth: int, left: int, p_open: float):
    """The walk with `left` brackets to come: (does it open?, probability)."""
    if depth == 0:
        yield True, 1.0
    elif depth == left:
        yield False, 1.0
    else:
        yield True, share(p_open)
        yield False, 1 - share(p_open)


def strings(k: int, length: int, p_open: float, before=(), still_open=(), chance=1.0):
    """Every word with its probability."""
    if len(before) == length:
        yield before, chance
        return
    for opens, step in steps(len(still_open), length - len(before), p_open):
        if opens and step:
            for kind in map(str, range(k)):
                yield from strings(k, length, p_open, (*before, "(" + kind), (*still_open, kind), chance * step / k)
        elif step:
            yield from strings(k, length, p_open, (*before, ")" + still_open[-1]), still_open[:-1], chance * step)


def valid(words) -> bool:
    still_open = []
    for word in words:
        if word[0] == "(":
            still_open.append(word[1:])
        elif not still_open or still_open.pop() != word[1:]:
            return False
    return len(words) > 0 and not still_open


def depths(length: int, p_open: float) -> list[dict[int, float]]:
    """P(so many are open) after each number of brackets."""
    chances = [{0: 1.0}]
    for at in range(length):
        after = defaultdict(float)
        for depth, chance in chances[-1].items():
            for opens, step in steps(depth, length - at, p_open):
                after[depth + (1 if opens else -1)] += chance * step
        chances.append(dict(after))
    return chances


@pytest.fixture(scope="module")
def walks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """20,000 rows of the default: types, does it open?, and how many were open before, [rows, length] each."""
    brackets = get_task("dyck").rows(0, 20_000).tokens[:, 1:-1] - 4
    opens = brackets < 8
    after = np.cumsum(np.where(opens, 1, -1), axis=1)
    return brackets % 8, opens, np.pad(after, ((0, 0), (1, 0)))[:, :-1]


# The generator


@pytest.mark.parametrize("config", [{}, {"k": 64, "length": 2048}, {"k": 1, "length": 2}, {"p_open": 0.9}])
def test_rows_are_valid(config, texts):
    task = get_task("dyck", **config)
    for prompt, word in texts(task, task.rows(0, 200)):
        assert prompt == ""
        assert len(word.split()) == task.config.length
        assert valid(word.split())


@pytest.mark.parametrize(("k", "length", "p_open"), [(2, 4, 0.49), (2, 6, 0.3), (1, 8, 0.8), (3, 4, 0.5)])
def test_rows_of_a_small_language_have_the_enumerated_probabilities(k, length, p_open, language, texts, goodness):
    task = get_task("dyck", k=k, length=length, p_open=p_open)
    enumerated = language(strings(k, length, p_open))
    counts = Counter(tuple(text.split()) for _, text in texts(task, task.rows(0, 20_000)))
    assert goodness(counts, enumerated.strings) > 1e-4


@pytest.mark.parametrize("at", [1, 2, 3, 10, 32, 51, 60, 63])
def test_depth_has_the_exact_distribution(at, walks, goodness):
    assert goodness(Counter(walks[2][:, at].tolist()), depths(64, 0.49)[at]) > 1e-4


def test_depth_far_into_a_long_row_has_the_exact_distribution(goodness):
    rows = get_task("dyck", "k64-l2048").rows(0, 1_000).tokens[:, 1:-1]
    exact = depths(2048, 0.49)
    for at in (100, 1024, 1900):
        depth = np.where(rows[:, :at] < 4 + 64, 1, -1).sum(axis=1)
        assert goodness(Counter(depth.tolist()), exact[at]) > 1e-4


@pytest.mark.parametrize("p_open", [0.1, 0.49, 0.75])
def test_bracket_opens_with_p_open_where_it_may_do_either(p_open):
    opens = get_task("dyck", p_open=p_open).rows(0, 3_000).tokens[:, 1:-1] < 4 + 8
    depth = np.pad(np.cumsum(np.where(opens, 1, -1), axis=1), ((0, 0), (1, 0)))[:, :-1]
    free = (depth > 0) & (depth < 64 - np.arange(64))
    assert stats.binomtest(int(opens[free].sum()), int(free.sum()), p_open).pvalue > 1e-4


def test_types_that_open_are_uniform_and_independent(walks):
    kinds, opens, depth = walks
    assert stats.chisquare(np.bincount(kinds[opens], minlength=8)).pvalue > 1e-4
    twice = opens[:, :-1] & opens[:, 1:]
    pairs = 8 * kinds[:, :-1][twice] + kinds[:, 1:][twice]
    assert stats.chisquare(np.bincount(pairs, minlength=64)).pvalue > 1e-4
    free = depth > 0
    assert stats.chisquare(np.bincount(kinds[opens & free], minlength=8)).pvalue > 1e-4


def test_extreme_probabilities_leave_one_shape(texts):
    for p_open, shape in ((0, "()" * 4), (1, "((((" + "))))"), (1e-11, "()" * 4)):
        task = get_task("dyck", k=3, length=8, p_open=p_open)
        words = [text.split() for _, text in texts(task, task.rows(0, 50))]
        assert {"".join(word[0] for word in row) for row in words} == {shape}
        assert len(set(map(tuple, words))) > 10
        np.testing.assert_allclose(task.optimal_log_probs(task.rows(0, 5)).sum(axis=1), -4 * math.log(3))


# The verifier


def test_verify_equals_the_definition_on_every_short_text_cut_anywhere():
    task = get_task("dyck", k=2, length=4)
    for length in range(7):
        for words in itertools.product(task.vocabulary(), repeat=length):
            expected = float(valid(words))
            assert task.verify("", " ".join(words)) == expected
            cut = length // 2
            assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == expected
            assert task.verify(" ".join(words), "") == 0.0


@given(
    words=st.lists(st.sampled_from(["(0", ")0", "(1", ")1", "(7", ")7", "(8", "<sep>", "<eos>", "("]), max_size=9),
    cut=st.integers(0, 8),
)
def test_verify_equals_the_definition_on_any_words(words, cut):
    task = get_task("dyck")
    expected = set(words) <= set(task.vocabulary()) and valid(words) and len(words) > cut
    assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == float(expected)


@pytest.mark.parametrize("text", ["(0)0", "( 0 ) 0", "(0 )0 <eos>", "(0 )00", "(8 )8", "(-1 )-1", "(٣ )٣", "[0 ]0"])
def test_verify_wants_the_brackets_as_words_and_nothing_else(text):
    assert get_task("dyck").verify("", text) == 0.0


def test_words_of_any_length_are_of_the_language():
    task = get_task("dyck", length=4)
    for pairs in (1, 2, 3, 500):
        assert task.verify("(0", "(1 )1 " * pairs + ")0") == 1.0


# The floor


@pytest.mark.parametrize("p_open", [0.49, 0.05, 1 / 3, 0.999])
@pytest.mark.parametrize(("k", "length"), SHORT)
def test_floor_of_every_token_equals_the_enumerated_one(k, length, p_open, language, rows_of, assert_exact):
    task = get_task("dyck", k=k, length=length, p_open=p_open)
    enumerated = language(strings(k, length, p_open))
    assert_exact(task, enumerated)
    log_probs = task.optimal_log_probs(rows_of(task, enumerated.strings))
    assert math.fsum(np.exp(log_probs.sum(axis=1))) == pytest.approx(1.0, abs=1e-12)
    mean = np.average(-log_probs.sum(axis=1), weights=list(enumerated.strings.values()))
    assert mean == pytest.approx(enumerated.entropy(), abs=1e-12)


def test_mean_floor_of_long_rows_approaches_the_exact_one():
    """Half of the brackets open, ln k nats each; and each choice that is free costs the entropy of p_open."""
    task, p = get_task("dyck", "k64-l2048"), share(0.49)
    losses = -task.optimal_log_probs(task.rows(0, 1_000)).sum(axis=1)
    choices = sum(
        chance * (0 < depth < 2048 - at)
        for at, chances in enumerate(depths(2048, 0.49))
        for depth, chance in chances.items()
    )
    expected = 1024 * math.log(64) - choices * (p * math.log(p) + (1 - p) * math.log(1 - p))
    assert losses.mean() == pytest.approx(expected, abs=4 * losses.std() / 1_000**0.5)
    assert losses.std() < 0.05 * expected


def test_probability_to_open_is_a_multiple_of_2_to_the_minus_32():
    assert get_task("dyck", p_open=1 / 3).config.open_threshold == 1431655765
    assert get_task("dyck", p_open=1).config.open_threshold == 2**32
    same = [get_task("dyck", p_open=p).rows(0, 50).tokens for p in (0.3, 0.3 + 1e-11)]
    assert np.array_equal(*same)


# Wrong texts


def cut_rows(task, rows_of, words) -> Rows:
    """A word cut after each of its proper prefixes, the empty one too."""
    rows = rows_of(task, [words] * len(words))
    rows.loss_start = np.arange(1, len(words) + 1, dtype=np.int32)
    return rows


@pytest.mark.parametrize(("k", "length"), [(1, 2), (1, 4), (1, 8), (2, 4), (2, 6), (3, 4)])
def test_corrupt_is_invalid_at_every_cut_of_every_word_and_keeps_the_words_where_it_can(
    k, length, texts, rows_of, rng
):
    task = get_task("dyck", k=k, length=length)
    for number, (words, _) in enumerate(strings(k, length, 0.5)):
        cut = cut_rows(task, rows_of, words)
        wrong = task.corrupt(cut, rng(length, start=number * length))
        for (prompt, gold), (same, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
            assert prompt == same
            assert not valid(f"{same} {spoilt}".split())
            assert set(spoilt.split()) <= set(task.vocabulary())
            changed = sum(one != two for one, two in zip(gold.split(), spoilt.split(), strict=True))
            if len(set(gold.split())) > 1:
                assert Counter(spoilt.split()) == Counter(gold.split())
                assert changed == 2
            else:
                assert changed == 1


def test_corrupt_keeps_the_words_of_deep_rows_of_one_type(texts, rng):
    """Few swaps break `( ( ... ) )`: in one row of a hundred, random ones are not among them."""
    task = get_task("dyck", k=1, length=128, p_open=1)
    rows = task.rows(0, 1_500)
    for _, spoilt in texts(task, task.corrupt(rows, rng(1_500))):
        assert not valid(spoilt.split())
        assert Counter(spoilt.split()) == {"(0": 64, ")0": 64}


@pytest.mark.parametrize(("k", "length"), [(1, 2), (1, 6), (2, 2), (2, 6), (8, 64)])
def test_violations_are_what_their_names_say(k, length, texts, rng):
    task = get_task("dyck", k=k, length=length)
    rows = task.rows(0, 300)
    gold = [text.split() for _, text in texts(task, rows)]
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(300)))]
        for name, kind in task.violations().items()
    }
    kinds = {"corrupted", "unmatched_open", "unmatched_close", "wrong_order", "odd_length"}
    assert set(made) == kinds | ({"wrong_type"} if k > 1 else set())
    assert not any(valid(words) for texts_of_kind in made.values() for words in texts_of_kind)
    for name, texts_of_kind in made.items():
        for words, right in zip(texts_of_kind, gold, strict=True):
            differing = [(one, two) for one, two in zip(right, words, strict=False) if one != two]
            if name == "odd_length":
                (extra,) = (Counter(words) - Counter(right)).elements()
                assert len(words) == length + 1
                assert extra in right
            elif name == "unmatched_open":
                assert [(one[0], two[0], one[1:] == two[1:]) for one, two in differing] == [(")", "(", True)]
            elif name == "unmatched_close":
                assert [(one[0], two[0], one[1:] == two[1:]) for one, two in differing] == [("(", ")", True)]
            elif name == "wrong_type":
                assert [(one[0], two[0], one[1:] == two[1:]) for one, two in differing] == [(")", ")", False)]
            elif name == "wrong_order":
                (opening, closing), back = differing
                assert back == (closing, opening)
                assert (opening[0], closing[0], opening[1:] == closing[1:]) == ("(", ")", True)


def test_violations_pick_every_bracket_that_they_may(rng):
    task = get_task("dyck", k=3, length=4, p_open=0)
    rows = task.rows(0, 4_000)
    for name, places in (("unmatched_close", (1, 3)), ("wrong_type", (2, 4)), ("unmatched_open", (2, 4))):
        wrong = task.violations()[name].make(rows, rng(4_000))
        counts = np.bincount(np.argmax(wrong.tokens != rows.tokens, axis=1), minlength=6)
        assert counts.nonzero()[0].tolist() == list(places)
        assert stats.chisquare(counts[list(places)]).pvalue > 1e-4
    wrong = task.violations()["wrong_type"].make(rows, rng(4_000)).tokens
    shift = (wrong.sum(axis=1) - rows.tokens.sum(axis=1)) % 3
    assert stats.chisquare(np.bincount(shift, minlength=3)[1:]).pvalue > 1e-4


@pytest.mark.parametrize(("k", "length"), [*SHORT, (3, 4), (2, 6)])
def test_decision_points_are_right_and_reachable(k, length, language):
    task, enumerated = get_task("dyck", k=k, length=length), language(strings(k, length, 0.5))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in enumerated.prefixes for word in point.invalid), point
        assert {*point.valid, *point.invalid} <= set(task.vocabulary())


def test_decision_points_of_the_presets():
    names = [point.name for point in get_task("dyck").decision_points()]
    assert names == ["a pair closed", "one open", "two open", "one left"]
    names = [point.name for point in get_task("dyck", "k4-l16-to-l64").decision_points()]
    assert names == ["a pair closed", "one open", "two open"]


# Contents, splits, configs


@pytest.mark.parametrize(("k", "length"), SHORT)
def test_rank_numbers_every_content(k, length, language, rows_of):
    task, words = get_task("dyck", k=k, length=length), list(language(strings(k, length, 0.5)).strings)
    assert task.contents() == len(words)
    assert sorted(task.content_rank(rows_of(task, words)).tolist()) == list(range(len(words)))


def test_contents_are_not_counted_where_lengths_or_shapes_are_not_all_alike():
    assert get_task("dyck", "k4-l16-to-l64").contents() is None
    assert get_task("dyck", p_open=0).contents() is None
    assert get_task("dyck", p_open=1).contents() is None


def test_holdout_shares_few_words_out_8_to_1_to_1(texts):
    task = get_task("dyck", k=2, length=6, holdout="content")
    sampled = {split: {text for _, text in texts(task, task.rows(0, 3_000, split=split))} for split in SPLITS}
    assert {split: len(words) for split, words in sampled.items()} == {"train": 32, "validation": 4, "test": 4}
    assert len(set().union(*sampled.values())) == 40


def test_holdout_of_too_few_words_is_an_error_that_says_so():
    task = get_task("dyck", k=1, length=2, holdout="content")
    with pytest.raises(ValueError, match=r'holdout="content" leaves the test split empty: got 1 distinct contents'):
        task.rows(0, 1, split="test")


def test_rows_of_the_test_split_have_test_length(language, rows_of, texts):
    task = get_task("dyck", k=2, length=4, test_length=8, p_open=0.3)
    lengths = {split: set(task.rows(0, 50, split=split).lengths.tolist()) for split in SPLITS}
    assert lengths == {"train": {6}, "validation": {6}, "test": {10}}
    rows = task.rows(0, 20, split="test")
    assert {task.verify(*pair) for pair in texts(task, rows)} == {1.0}
    enumerated = language(strings(2, 8, 0.3))
    for (_, text), log_probs in zip(texts(task, rows), task.optimal_log_probs(rows), strict=True):
        np.testing.assert_allclose(log_probs[1:], enumerated.log_probs(tuple(text.split())), rtol=0, atol=1e-12)


@given(
    k=st.sampled_from([1, 2, 32_768]),
    length=st.sampled_from([2, 4, 30]),
    p_open=st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
    row=st.integers(0, 2**40),
)
def test_every_legal_config_makes_right_rows(k, length, p_open, row, texts, rng):
    task = get_task("dyck", k=k, length=length, p_open=p_open)
    rows = task.rows(row, 3)
    assert all(valid(text.split()) for _, text in texts(task, rows))
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize("p_open", [0.0, 0.49, 1.0])
def test_longest_rows_are_right(p_open, texts, rng):
    task = get_task("dyck", length=65_536, p_open=p_open)
    rows = task.rows(0, 1)
    assert valid(texts(task, rows)[0][1].split())
    assert task.verify(*texts(task, rows)[0]) == 1.0
    assert task.verify(*texts(task, task.corrupt(rows, rng(1)))[0]) == 0.0
    assert task.optimal_log_probs(rows).sum() <= -32_768 * math.log(8) + 1e-6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"length": 3}, "length: got 3, wanted an even number"),
        ({"length": 0}, "length: got 0, wanted a value from 2 to 65536"),
        ({"length": 65_538}, "length: got 65538, wanted a value from 2 to 65536"),
        ({"length": 8.0}, "length: got 8.0"),
        ({"test_length": 67}, "test_length: got 67, wanted an even number"),
        ({"test_length": 64}, r"test_length: got 64, wanted 0, or at least length \+ 2 = 66"),
        ({"test_length": 2}, r"test_length: got 2, wanted 0, or at least length \+ 2 = 66"),
        ({"test_length": -2}, "test_length: got -2, wanted a value from 0 to 65536"),
        ({"k": 0}, "k: got 0, wanted a value from 1 to 32768"),
        ({"k": 32_769}, "k: got 32769, wanted a value from 1 to 32768"),
        ({"k": True}, "k: got True"),
        ({"p_open": -0.01}, "p_open: got -0.01, wanted a value from 0.0 to 1.0"),
        ({"p_open": 1.5}, "p_open: got 1.5, wanted a value from 0.0 to 1.0"),
        ({"p_open": "half"}, "p_open: got 'half'"),
    ],
)
def test_illegal_value_is_an_error_that_names_the_field_and_the_range(config, message):
    with pytest.raises(ValueError, match=f"BracketConfig.{message}"):
        get_task("dyck", **config)


def test_explanation_is_one_block_that_names_brackets_and_length():
    for k, brackets in ((8, "(0 )0"), (1, "(0 )0")):
        (block,) = get_task("dyck", k=k).explanations()
        assert all(word in block for word in [*brackets.split(), "64", "last"])


def test_explanation_says_how_long_the_texts_of_tests_are():
    (block,) = get_task("dyck", "k4-l16-to-l64").explanations()
    assert block.endswith("A text has 16 brackets, 64 in tests, and at its end none is open.")
