"""Shuffled Dyck against the definition in plain Python, and every word of it up to a length of eight."""

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

# k, length, max_depth, balanced
SHORT = [
    *itertools.product((1, 2), (2, 4, 8), (1, 2, 3), (True,)),
    *itertools.product((1, 2), (2, 3, 5, 6), (1, 2, 3), (False,)),
    (3, 6, 16, True),
    (3, 5, 16, False),
]


def share(p_open: float) -> float:
    """P(open) as the task counts it, in steps of 2**-32."""
    return round(p_open * 2**32) / 2**32


def steps(depth: int, left: int, p_open: float, max_depth: int, balanced: bool):
    """The walk with `left` brackets to come: (does it open?, probability)."""
    if depth == 0:
        yield True, 1.0
    elif depth == max_depth or (balanced and depth == left):
        yield False, 1.0
    else:
        yield True, share(p_open)
        yield False, 1 - share(p_open)


def strings(k, length, max_depth, balanced, p_open=0.5, before=(), still_open=(), chance=1.0):
    """Every word with its probability."""
    if len(before) == length:
        yield before, chance
        return
    for opens, step in steps(len(still_open), length - len(before), p_open, max_depth, balanced):
        kinds = [str(kind) for kind in range(k)] if opens else sorted(set(still_open))
        for kind in kinds if step else ():
            after = list(still_open)
            if opens:
                after.append(kind)
            else:
                after.remove(kind)
            word = ("(" if opens else ")") + kind
            further = chance * step / len(kinds)
            yield from strings(k, length, max_depth, balanced, p_open, (*before, word), tuple(after), further)


def valid(words, max_depth: int = 16, balanced: bool = True, length: int | None = None) -> bool:
    still_open: Counter[str] = Counter()
    for word in words:
        still_open[word[1:]] += 1 if word[0] == "(" else -1
        if min(still_open.values()) < 0 or sum(still_open.values()) > max_depth:
            return False
    if balanced:
        return len(words) > 0 and not any(still_open.values())
    return len(words) == length


def depths(length: int, p_open: float, max_depth: int, balanced: bool) -> list[dict[int, float]]:
    """P(so many are open) after each number of brackets."""
    chances = [{0: 1.0}]
    for at in range(length):
        after = defaultdict(float)
        for depth, chance in chances[-1].items():
            for opens, step in steps(depth, length - at, p_open, max_depth, balanced):
                after[depth + (1 if opens else -1)] += chance * step
        chances.append(dict(after))
    return chances


def task_of(k, length, max_depth, balanced, **config):
    return get_task("dyck_shuffle", k=k, length=length, max_depth=max_depth, balanced=balanced, **config)


# The generator


@pytest.mark.parametrize("preset", ["k8-l64", "k64-l2048", "k64-l2048-truncated", "k4-l32-truncated"])
def test_rows_are_valid(preset, texts):
    task = get_task("dyck_shuffle", preset)
    length, balanced = task.config.length, task.config.balanced
    for prompt, word in texts(task, task.rows(0, 100)):
        assert prompt == ""
        assert len(word.split()) == length
        assert valid(word.split(), 16, balanced, length)


@pytest.mark.parametrize(
    ("config", "p_open"),
    [((2, 4, 16, True), 0.5), ((2, 6, 2, True), 0.3), ((1, 8, 3, True), 0.8), ((2, 5, 2, False), 0.6)],
)
def test_rows_of_a_small_language_have_the_enumerated_probabilities(config, p_open, language, texts, goodness):
    task, enumerated = task_of(*config, p_open=p_open), language(strings(*config, p_open))
    counts = Counter(tuple(text.split()) for _, text in texts(task, task.rows(0, 20_000)))
    assert goodness(counts, enumerated.strings) > 1e-4


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("max_depth", [3, 16])
def test_depth_has_the_exact_distribution(max_depth, balanced, goodness):
    rows = task_of(8, 64, max_depth, balanced).rows(0, 20_000).tokens[:, 1:-1]
    depth = np.cumsum(np.where(rows < 4 + 8, 1, -1), axis=1)
    exact = depths(64, 0.5, max_depth, balanced)
    for at in (1, 2, 5, 16, 33, 52, 61, 64):
        assert goodness(Counter(depth[:, at - 1].tolist()), exact[at]) > 1e-4


@pytest.mark.parametrize(("p_open", "balanced"), [(0.5, True), (0.2, True), (0.5, False), (0.8, False)])
def test_bracket_opens_with_p_open_where_it_may_do_either(p_open, balanced):
    opens = task_of(8, 64, 5, balanced, p_open=p_open).rows(0, 3_000).tokens[:, 1:-1] < 4 + 8
    depth = np.pad(np.cumsum(np.where(opens, 1, -1), axis=1), ((0, 0), (1, 0)))[:, :-1]
    free = (depth > 0) & (depth < 5)
    if balanced:
        free &= depth < 64 - np.arange(64)
    assert stats.binomtest(int(opens[free].sum()), int(free.sum()), p_open).pvalue > 1e-4


def test_types_that_open_are_uniform():
    brackets = get_task("dyck_shuffle", "k64-l2048").rows(0, 200).tokens[:, 1:-1] - 4
    assert stats.chisquare(np.bincount(brackets[brackets < 64], minlength=64)).pvalue > 1e-4


@pytest.mark.parametrize("balanced", [True, False])
def test_type_that_closes_is_uniform_among_the_open_types_however_often_each_is_open(balanced):
    """By the place of the type in the order of numbers, and by whether it is the one that is open most often."""
    rows = task_of(4, 64, 16, balanced, p_open=0.6).rows(0, 1_500).tokens[:, 1:-1] - 4
    places = defaultdict(Counter)
    most_often = Counter()
    for row in rows.tolist():
        still_open: Counter[int] = Counter()
        for bracket in row:
            if bracket < 4:
                still_open[bracket] += 1
                continue
            kinds = sorted(still_open)
            places[len(kinds)][kinds.index(bracket - 4)] += 1
            ranked = [count for _, count in still_open.most_common(2)]
            if len(kinds) == 2 and ranked[0] > ranked[1]:
                most_often[still_open[bracket - 4] == ranked[0]] += 1
            still_open[bracket - 4] -= 1
            still_open = +still_open
    assert set(places) == {1, 2, 3, 4}
    for kinds in (2, 3, 4):
        assert stats.chisquare([places[kinds][place] for place in range(kinds)]).pvalue > 1e-4
    assert most_often.total() > 1_000
    assert stats.binomtest(most_often[True], most_often.total()).pvalue > 1e-4


def test_extreme_probabilities_leave_one_shape(texts):
    cases = ((0, 4, True, "()()()()"), (1, 4, True, "(((())))"), (1, 2, True, "(()()())"), (1, 3, False, "((()()()"))
    for p_open, max_depth, balanced, shape in cases:
        task = task_of(3, 8, max_depth, balanced, p_open=p_open)
        words = [text.split() for _, text in texts(task, task.rows(0, 50))]
        assert {"".join(word[0] for word in row) for row in words} == {shape}
        assert len(set(map(tuple, words))) > 10
        assert np.isfinite(task.optimal_log_probs(task.rows(0, 50))).all()


def test_paper_s_walk_mostly_ends_with_brackets_open(texts):
    task = get_task("dyck_shuffle", "k64-l2048-truncated")
    closed = sum(valid(text.split()) for _, text in texts(task, task.rows(0, 300)))
    exact = depths(2048, 0.5, 16, False)[-1][0]
    assert 0.05 < exact < 0.1
    assert stats.binomtest(closed, 300, exact).pvalue > 1e-4


# The verifier


@pytest.mark.parametrize("max_depth", [1, 2, 3])
def test_verify_equals_the_definition_on_every_short_text(max_depth):
    balanced, truncated = task_of(2, 4, max_depth, True), task_of(2, 4, max_depth, False)
    for length in range(7):
        for words in itertools.product(balanced.vocabulary(), repeat=length):
            cut = length // 2
            pair = " ".join(words[:cut]), " ".join(words[cut:])
            assert balanced.verify(*pair) == float(valid(words, max_depth))
            assert truncated.verify(*pair) == float(valid(words, max_depth, balanced=False, length=4))
            assert balanced.verify(" ".join(words), "") == truncated.verify(" ".join(words), "") == 0.0


@given(
    words=st.lists(st.sampled_from(["(0", ")0", "(1", ")1", "(3", ")3", "(4", "<sep>", "<eos>", "("]), max_size=9),
    cut=st.integers(0, 8),
)
def test_verify_equals_the_definition_on_any_words(words, cut):
    for task in (task_of(4, 6, 3, True), task_of(4, 6, 3, False)):
        expected = set(words) <= set(task.vocabulary()) and len(words) > cut
        expected = expected and valid(words, 3, task.config.balanced, 6)
        assert task.verify(" ".join(words[:cut]), " ".join(words[cut:])) == float(expected)


def test_pairs_may_cross_and_depth_is_part_of_the_language():
    task = get_task("dyck_shuffle", max_depth=3)
    assert task.verify("(0 (1", ")0 )1") == 1.0
    assert task.verify("(0 (1 (2", ")1 )2 )0") == 1.0
    assert task.verify("(0 (0 (0", "(0 )0 )0 )0 )0") == 0.0


# The floor


@pytest.mark.parametrize("p_open", [0.5, 0.05, 1 / 3, 0.999])
@pytest.mark.parametrize("config", SHORT, ids=str)
def test_floor_of_every_token_equals_the_enumerated_one(config, p_open, language, rows_of, assert_exact):
    task, enumerated = task_of(*config, p_open=p_open), language(strings(*config, p_open))
    assert_exact(task, enumerated)
    log_probs = task.optimal_log_probs(rows_of(task, enumerated.strings))
    assert math.fsum(np.exp(log_probs.sum(axis=1))) == pytest.approx(1.0, abs=1e-12)
    mean = np.average(-log_probs.sum(axis=1), weights=list(enumerated.strings.values()))
    assert mean == pytest.approx(enumerated.entropy(), abs=1e-12)


@pytest.mark.parametrize("preset", ["k8-l64", "k4-l32-truncated"])
def test_floor_of_a_long_row_equals_the_definition_along_it(preset, texts):
    task = get_task("dyck_shuffle", preset)
    config, rows = task.config, task.rows(0, 200)
    for (_, text), log_probs in zip(texts(task, rows), task.optimal_log_probs(rows), strict=True):
        still_open: Counter[str] = Counter()
        for at, word in enumerate(text.split()):
            chances = dict(steps(still_open.total(), config.length - at, 0.5, 16, config.balanced))
            opens = word[0] == "("
            kinds = config.k if opens else len(+still_open)
            assert log_probs[at + 1] == pytest.approx(math.log(chances[opens] / kinds), abs=1e-12)
            still_open[word[1:]] += 1 if opens else -1
        assert log_probs[0] == log_probs[-1] == 0


# Wrong texts


def cut_rows(task, rows_of, words) -> Rows:
    """A word cut after each of its proper prefixes, the empty one too."""
    rows = rows_of(task, [words] * len(words))
    rows.loss_start = np.arange(1, len(words) + 1, dtype=np.int32)
    return rows


@pytest.mark.parametrize("config", [(1, 4, 16, True), (1, 8, 2, True), (2, 6, 16, True), (3, 4, 1, True)], ids=str)
def test_corrupt_is_invalid_at_every_cut_of_every_word_and_keeps_the_words_where_it_can(config, texts, rows_of, rng):
    """It can where a bracket after the cut opens: closings that change places leave a word a word."""
    task = task_of(*config)
    for number, (words, _) in enumerate(strings(*config)):
        cut = cut_rows(task, rows_of, words)
        wrong = task.corrupt(cut, rng(len(cut), start=number * len(cut)))
        for (prompt, gold), (same, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
            assert prompt == same
            assert not valid(f"{same} {spoilt}".split(), config[2])
            assert set(spoilt.split()) <= set(task.vocabulary())
            changed = sum(one != two for one, two in zip(gold.split(), spoilt.split(), strict=True))
            if "(" in gold:
                assert Counter(spoilt.split()) == Counter(gold.split())
                assert changed == 2
            else:
                assert changed == 1


@pytest.mark.parametrize("config", [(1, 4, 3, False), (1, 5, 16, False), (2, 5, 3, False)], ids=str)
def test_corrupt_of_the_truncated_walk_is_invalid_at_every_cut_of_every_word(config, texts, rows_of, rng):
    """`<sep>` comes where every bracket of the alphabet would be right in every free place, and seldom elsewhere."""
    _, length, max_depth, _ = config
    task, seps, needed = task_of(*config), 0, 0
    for number, (words, _) in enumerate(strings(*config)):
        cut = cut_rows(task, rows_of, words)
        wrong = task.corrupt(cut, rng(len(cut), start=number * len(cut)))
        for (prompt, gold), (same, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
            assert prompt == same
            assert len(spoilt.split()) == len(gold.split())
            given, free = prompt.split(), gold.split()
            assert "<sep>" in spoilt or not valid([*given, *spoilt.split()], max_depth, False, length)
            others = (
                [*given, *free[:at], word, *free[at + 1 :]] for at in range(len(free)) for word in task.vocabulary()
            )
            must = all(valid(other, max_depth, False, length) for other in others)
            assert not must or Counter(spoilt.split()) - Counter(gold.split()) in ({"<sep>": 1}, {})
            seps += "<sep>" in spoilt
            needed += must
    assert needed > 0
    assert seps < 1.1 * needed + 5


def test_corrupt_of_the_paper_s_walk_swaps_brackets(texts, rng):
    task = get_task("dyck_shuffle", "k64-l2048-truncated")
    rows = task.rows(0, 100)
    for (_, gold), (_, spoilt) in zip(texts(task, rows), texts(task, task.corrupt(rows, rng(100))), strict=True):
        assert Counter(gold.split()) == Counter(spoilt.split())
        assert not valid(spoilt.split(), 16, False, 2048)


@pytest.mark.parametrize(
    "config",
    [(1, 2, 1, True), (1, 8, 2, True), (2, 6, 16, True), (8, 64, 16, True), (1, 2, 1, False), (2, 9, 3, False)],
)
def test_violations_are_what_their_names_say(config, texts, rng):
    k, length, max_depth, balanced = config
    task = task_of(*config)
    rows = task.rows(0, 300)
    gold = [text.split() for _, text in texts(task, rows)]
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(300)))]
        for name, kind in task.violations().items()
    }
    kinds = {"corrupted", "unmatched_close"}
    kinds |= {"odd_length", "unmatched_open", "wrong_order"} if balanced else {"wrong_length"}
    kinds |= {"wrong_type"} if balanced and k > 1 else set()
    assert set(made) == kinds | ({"too_deep"} if length // 2 > max_depth else set())
    for name, texts_of_kind in made.items():
        for words, right in zip(texts_of_kind, gold, strict=True):
            assert "<sep>" in words or not valid(words, max_depth, balanced, length)
            if name in ("too_deep", "wrong_order"):
                assert Counter(words) == Counter(right)
            if name == "too_deep":
                assert valid(words, length, balanced, length)
            if name in ("odd_length", "wrong_length"):
                assert len(words) == length + 1
            if name == "wrong_order":
                early = next(at for at, (one, two) in enumerate(zip(words, right, strict=True)) if one != two)
                assert words[early][0] == ")"
                assert sum(1 if word[0] == "(" else -1 for word in words[:early]) == 0


@pytest.mark.parametrize("config", [*SHORT, (3, 6, 3, True), (3, 7, 3, False)], ids=str)
def test_decision_points_are_right_and_reachable(config, language):
    task, enumerated = task_of(*config), language(strings(*config))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in enumerated.prefixes for word in point.invalid), point


def test_decision_points_of_the_presets():
    names = [point.name for point in get_task("dyck_shuffle").decision_points()]
    assert names == ["a pair closed", "one open", "two open", "most open", "one left"]
    names = [point.name for point in get_task("dyck_shuffle", "k64-l2048-truncated").decision_points()]
    assert names == ["a pair closed", "one open", "two open", "most open"]


# Splits, configs


def test_holdout_shares_words_out_by_their_hash(texts):
    task = task_of(2, 6, 16, True, holdout="content")
    sampled = [{text for _, text in texts(task, task.rows(0, 1_000, split=split))} for split in SPLITS]
    assert sum(map(len, sampled)) == len(set().union(*sampled))
    assert set().union(*sampled) == {" ".join(words) for words, _ in strings(2, 6, 16, True)}


@pytest.mark.parametrize("balanced", [True, False])
def test_rows_of_the_test_split_have_test_length(balanced, texts):
    task = task_of(2, 4, 2, balanced, test_length=8)
    lengths = {split: set(task.rows(0, 50, split=split).lengths.tolist()) for split in SPLITS}
    assert lengths == {"train": {6}, "validation": {6}, "test": {10}}
    for split in SPLITS:
        assert {task.verify(*pair) for pair in texts(task, task.rows(0, 20, split=split))} == {1.0}
    (_, text), *_ = texts(task, task.rows(0, 1))
    assert task.verify("", f"{text} (0 )0") == float(balanced and valid(text.split()))


@given(
    k=st.sampled_from([1, 2, 32_768]),
    length=st.sampled_from([2, 4, 30, 31]),
    max_depth=st.sampled_from([1, 2, 65_536]),
    balanced=st.booleans(),
    p_open=st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
    row=st.integers(0, 2**40),
)
def test_every_legal_config_makes_right_rows(k, length, max_depth, balanced, p_open, row, texts, rng):
    if balanced and length % 2:
        with pytest.raises(ValueError, match=r"DyckShuffleConfig.length: got 31, wanted an even number"):
            task_of(k, length, max_depth, balanced)
        return
    task = task_of(k, length, max_depth, balanced, p_open=p_open)
    rows = task.rows(row, 3)
    assert all(valid(text.split(), max_depth, balanced, length) for _, text in texts(task, rows))
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize("length", [65_536, 65_535])
def test_longest_rows_are_right(length, texts, rng):
    task = task_of(8, length, 65_536, length % 2 == 0)
    rows = task.rows(0, 1)
    assert task.verify(*texts(task, rows)[0]) == 1.0
    assert task.verify(*texts(task, task.corrupt(rows, rng(1)))[0]) == 0.0
    assert task.optimal_log_probs(rows).sum() < -32_000 * math.log(8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"length": 7}, "length: got 7, wanted an even number"),
        ({"length": 1, "balanced": False}, "length: got 1, wanted a value from 2 to 65536"),
        ({"test_length": 65, "length": 63, "balanced": True}, "length: got 63, wanted an even number"),
        ({"test_length": 64, "length": 63, "balanced": False}, r"test_length: got 64, wanted 0, or at least .* = 65"),
        ({"max_depth": 0}, "max_depth: got 0, wanted a value from 1 to 65536"),
        ({"max_depth": 65_537}, "max_depth: got 65537, wanted a value from 1 to 65536"),
        ({"max_depth": 2.5}, "max_depth: got 2.5"),
        ({"balanced": 1}, "balanced: got 1"),
        ({"balanced": "no"}, "balanced: got 'no'"),
        ({"k": 0}, "k: got 0, wanted a value from 1 to 32768"),
        ({"p_open": 1.01}, "p_open: got 1.01, wanted a value from 0.0 to 1.0"),
    ],
)
def test_illegal_value_is_an_error_that_names_the_field_and_the_range(config, message):
    with pytest.raises(ValueError, match=f"DyckShuffleConfig.{message}"):
        get_task("dyck_shuffle", **config)


def test_explanation_is_one_block_that_says_how_a_text_ends():
    for preset, end in (("k4-l32", "at its end none is open"), ("k4-l32-truncated", "some may still be open")):
        (block,) = get_task("dyck_shuffle", preset).explanations()
        assert all(words in block for words in ("4 types", "(0", ")0", "16 brackets", "32 brackets", end))


def test_explanation_says_how_long_the_texts_of_tests_are():
    (block,) = get_task("dyck_shuffle", "k4-l16-to-l64").explanations()
    assert block.endswith("A text has 16 brackets, 64 in tests, and at its end none is open.")
