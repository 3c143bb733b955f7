"""Brackets around palindromes against the definition in plain Python, and every string of small configs."""

import functools
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import Rows, get_task
from hf_synth.views import with_prompts

LETTERS = ("A", "B", "C", "D")
WORDS = ("[", "]", *LETTERS)
SMALL = [(0, 1), (0, 3), (1, 1), (1, 2), (2, 1), (3, 1)]  # (max_depth, max_half)


def strings(max_depth: int, max_half: int):
    """The generator: simple or nested, equally likely, and simple at max_depth."""
    nested = 0.5 if max_depth else 0.0
    for length in range(max_half + 1):
        for half in itertools.product(LETTERS, repeat=length):
            chance = (1 - nested) / (max_half + 1) / 4**length
            back = half[::-1]
            if not length:
                yield ("[", "]"), chance
                continue
            yield ("[", *half, *back, "]"), chance / 2
            for centre in LETTERS:
                yield ("[", *half, centre, *back, "]"), chance / 8
    for length in range(1, max_half + 1) if max_depth else ():
        for half in itertools.product(LETTERS, repeat=length):
            for inner, chance in strings(max_depth - 1, max_half):
                yield ("[", *half, *inner, *half[::-1], "]"), nested / max_half / 4**length * chance


@functools.cache
def shortened(text: str) -> bool:
    """The definition: replace innermost brackets, each a palindrome, by one sign for its content; one sign is left."""
    signs: dict[str, str] = {}
    text = text.replace(" ", "")
    while inner := re.search(r"\[([^\[\]]*)\]", text):
        content = inner[1]
        if content != content[::-1]:
            return False
        sign = signs.setdefault(content, chr(0x4E00 + len(signs)))
        text = text[: inner.start()] + sign + text[inner.end() :]
    return text in signs.values()


def valid(text: str) -> float:
    return float(set(text.split()) <= set(WORDS) and shortened(text))


@pytest.fixture(scope="module")
def enumerated(language):
    """The language of a small config, made once."""
    return functools.cache(lambda *config: language(strings(*config)))


def task_of(max_depth: int, max_half: int):
    return get_task("palindrome", max_depth=max_depth, max_half=max_half)


# The generator


def test_rows_are_valid(texts):
    task = get_task("palindrome")
    assert {valid(text) for _, text in texts(task, task.rows(0, 3_000))} == {1.0}


@pytest.mark.parametrize("config", [(0, 1), (1, 1), (0, 2)])
def test_rows_of_a_small_language_have_the_enumerated_probabilities(config, enumerated, texts):
    task, known = task_of(*config), enumerated(*config).strings
    counts = Counter(tuple(text.split()) for _, text in texts(task, task.rows(0, 40_000)))
    assert set(counts) <= set(known)
    assert (
        stats.chisquare([counts[words] for words in known], [40_000 * known[words] for words in known]).pvalue > 1e-4
    )


@pytest.fixture(scope="module")
def levels() -> list[list[str]]:
    """For each of 20,000 default rows the words before each bracket that opens, the last level's before it closes."""
    task = get_task("palindrome")
    rows = task.rows(0, 20_000)
    words = [*["<pad>", "<bos>", "<eos>", "<sep>"], *task.vocabulary()]
    texts = ["".join(words[token] for token in tokens[1:]) for tokens in rows.tokens.tolist()]
    return [re.match(r"[^\]]*", text)[0].split("[")[1:] for text in texts]


def test_depth_doubles_its_rarity_up_to_the_deepest(levels):
    counts = np.bincount([len(level) for level in levels], minlength=5)[1:]
    assert stats.chisquare(counts, 20_000 * np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])).pvalue > 1e-4


def test_halves_are_uniform_in_length_and_centres_come_half_the_time(levels):
    around = Counter(len(half) for level in levels for half in level[:-1])
    assert set(around) == {1, 2, 3}
    assert stats.chisquare(list(around.values())).pvalue > 1e-4
    counts = Counter(len(level[-1]) for level in levels)
    assert set(counts) == {0, 2, 3, 4, 5, 6, 7}
    expected = [20_000 / 4 if length == 0 else 20_000 / 8 for length in sorted(counts)]
    assert stats.chisquare([counts[length] for length in sorted(counts)], expected).pvalue > 1e-4


def test_words_of_halves_and_centres_are_uniform_and_independent(levels):
    simple = [level[-1] for level in levels]
    for words in (
        Counter("".join(half for level in levels for half in level[:-1])),
        Counter(content[len(content) // 2] for content in simple if len(content) % 2),
        Counter(content[:2] for content in simple if len(content) > 3),
        Counter(level[0][:1] + level[1][:1] for level in levels if len(level) > 1 and level[1]),
    ):
        assert stats.chisquare(list(words.values())).pvalue > 1e-4
    assert len(Counter(content[:2] for content in simple if len(content) > 3)) == 16


# The verifier


def test_verify_equals_the_definition_on_every_short_text():
    task = get_task("palindrome")
    words = ("[", "]", "A", "B")
    for length in range(8):
        for text in map(" ".join, itertools.product(words, repeat=length)):
            assert task.verify("", text) == valid(text)


@st.composite
def sentences(draw, depth: int = 3) -> str:
    """Right texts, with brackets at any place."""
    item = st.sampled_from(LETTERS) if not depth else st.one_of(st.sampled_from(LETTERS), sentences(depth - 1))
    half = draw(st.lists(item, max_size=3))
    centre = draw(st.lists(item, max_size=1))
    return " ".join(["[", *half, *centre, *half[::-1], "]"])


@given(text=sentences(), data=st.data())
def test_verify_equals_the_definition_on_brackets_at_any_place_and_with_one_word_changed(text, data):
    task, words = get_task("palindrome"), text.split()
    assert valid(text) == 1.0
    at = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:at], data.draw(st.sampled_from((*WORDS, "E"))), *words[at + 1 :]]
    for whole in (words, changed):
        for cut in {0, at, len(whole)}:
            assert task.verify(" ".join(whole[:cut]), " ".join(whole[cut:])) == valid(" ".join(whole))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("[ ]", 1.0),
        ("[ A ]", 1.0),
        ("[ [ A ] B [ A ] ]", 1.0),
        ("[ [ A ] [ A ] ]", 1.0),
        ("[ [ A ] A ]", 0.0),
        ("[ [ A A ] B [ A ] ]", 0.0),
        ("[ [ A B ] [ B A ] ]", 0.0),
        ("[ A [ B C ] A ]", 0.0),
        ("[ A [ B B ] A ]", 1.0),
        ("[ ] [ ]", 0.0),
        ("A", 0.0),
        ("A A", 0.0),
        ("[A]", 0.0),
        ("[ A ] <eos>", 0.0),
        ("[ <sep> ]", 0.0),
        ("[ a ]", 0.0),
    ],
)
def test_verify_compares_brackets_as_wholes_and_knows_no_other_word(text, right):
    assert get_task("palindrome").verify("", text) == valid(text) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("[ " * 50_000 + "] " * 50_000, 1.0),
        ("[ A " * 50_000 + "A ] " * 50_000, 1.0),
        ("[ A " * 50_000 + "A ] " * 49_999 + "B ]", 0.0),
        ("[ " * 100_000, 0.0),
        ("] " * 100_000, 0.0),
        ("[ " + "[ ] " * 50_000 + "]", 1.0),
    ],
)
def test_verify_knows_no_depth_that_is_too_deep(text, right):
    assert get_task("palindrome", max_depth=0).verify("", text) == right


# The floor


@pytest.mark.parametrize("config", [*SMALL, (2, 2)])
def test_floor_of_every_token_equals_the_enumerated_one(config, enumerated, assert_exact):
    task, known = task_of(*config), enumerated(*config)
    assert_exact(task, known, list(known.strings)[:: 1 + len(known.strings) // 4_000])


@pytest.mark.parametrize("config", [*SMALL, (2, 2)])
def test_mean_floor_of_a_string_is_the_entropy_of_the_language(config, enumerated, rows_of):
    task, known = task_of(*config), enumerated(*config)
    losses = -task.optimal_log_probs(rows_of(task, known.strings)).sum(axis=1)
    mean = np.average(losses, weights=list(known.strings.values()))
    assert mean == pytest.approx(known.entropy(), abs=1e-11)
    assert mean == pytest.approx(entropy(*config), abs=1e-11)


def entropy(max_depth: int, max_half: int) -> float:
    """Of what the generator draws, in nats; no two draws make one string."""
    full = max_half / (max_half + 1)  # P(the half is not empty)
    simple = math.log(max_half + 1) + full * math.log(2) + (max_half + full) / 2 * math.log(4)
    if not max_depth:
        return simple
    around = math.log(max_half) + (max_half + 1) / 2 * math.log(4)
    return math.log(2) + (simple + around + entropy(max_depth - 1, max_half)) / 2


@pytest.mark.parametrize("config", [(3, 3), (5, 9), (64, 256)])
def test_mean_floor_of_generated_rows_approaches_the_entropy(config):
    task = task_of(*config)
    losses = -task.optimal_log_probs(task.rows(0, 4_000)).sum(axis=1)
    assert losses.mean() == pytest.approx(entropy(*config), abs=4 * losses.std() / 4_000**0.5)


def test_chances_of_all_next_words_of_the_default_sum_to_one():
    task = get_task("palindrome")
    for tokens in task.rows(0, 100).tokens.tolist():
        for stop in range(2, tokens.index(5)):
            branches = np.array([[*tokens[:stop], word, 2] for word in range(4, 10)], np.int32)
            full = np.full(6, stop + 2, np.int32)
            chances = np.exp(task.optimal_log_probs(Rows(branches, full, np.ones_like(full), full))[:, stop])
            assert chances.sum() == pytest.approx(1.0, abs=1e-12)


# Wrong texts


@pytest.mark.parametrize("config", [(0, 1), (1, 1), (3, 3)])
def test_corrupt_keeps_the_words_unless_all_that_may_move_are_equal(config, texts, rng):
    task = task_of(*config)
    cut = with_prompts(task.rows(0, 1_000), rng(1_000, "prompt"))
    wrong = task.corrupt(cut, rng(1_000, "corrupt"))
    for (_, gold), (_, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
        free = [word for word in gold.split() if word in LETTERS]
        if len(set(free)) > 1:
            assert Counter(spoilt.split()) == Counter(gold.split())
        changed = sum(one != two for one, two in zip(gold.split(), spoilt.split(), strict=True))
        assert changed == (1 if len(set(free)) == 1 or gold == "]" else 2)


def test_violations_are_what_their_names_say(texts, rng):
    task = get_task("palindrome")
    rows = task.rows(0, 500)
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(500)))]
        for name, kind in task.violations().items()
    }
    gold = [text.split() for _, text in texts(task, rows)]
    assert set(made) == {"not_palindrome", "unmatched_open", "unmatched_close", "foreign_token"}
    for before, after in zip(gold, made["not_palindrome"], strict=True):
        if len(before) == 2:
            assert after == ["]", "["]
        else:
            assert [word for word in after if word not in LETTERS] == [word for word in before if word not in LETTERS]
    for kind, missing, kept in (("unmatched_open", "]", "["), ("unmatched_close", "[", "]")):
        for before, after in zip(gold, made[kind], strict=True):
            assert after.count(missing) == before.count(missing) - 1
            assert after.count(kept) == before.count(kept)
    assert all(words.count("<sep>") == 1 for words in made["foreign_token"])


@pytest.mark.parametrize("config", [*SMALL, (1, 3), (2, 4), (0, 5)])
def test_decision_points_are_reachable_and_preferred_by_the_best_predictor(config):
    task = task_of(*config)
    assert task.decision_points()
    for point in task.decision_points():
        chances = {word: chance_after(task, point.prefix, word) for word in (*point.valid, *point.invalid)}
        assert all(chances[word] > 0 for word in point.valid), point
        assert sum(chances[word] for word in point.valid) > sum(chances[word] for word in point.invalid), point


def chance_after(task, prefix: str, word: str) -> float:
    """P(word | prefix) of the best predictor; where all that stood is being mirrored, 1 for the mirror's next word."""
    words = [*prefix.split(), word]
    if "]" in words[:-1]:
        opened = words[: words.index("]")]
        done = words[words.index("]") :]
        inner = len(opened) - opened[::-1].index("[")
        image = [{"[": "]"}.get(each, each) for each in opened[: inner - 1][::-1]]
        return float(["]", *image][: len(done)] == done)
    ids = [1, *(4 + task.vocabulary().index(each) for each in words), 2]
    full = np.array([len(ids)], np.int32)
    rows = Rows(np.array([ids], np.int32), full, np.ones_like(full), full)
    return float(np.exp(task.optimal_log_probs(rows)[0, -2]))


def test_default_has_every_decision_point():
    prefixes = {point.prefix for point in get_task("palindrome").decision_points()}
    assert prefixes == {"[ A", "[ A A", "[ A B", "[ A B B", "[ A [ B B ]"}


# Contents, explanations, configs


@pytest.mark.parametrize("config", [*SMALL, (2, 2)])
def test_rank_numbers_every_content(config, enumerated, rows_of):
    task, known = task_of(*config), enumerated(*config)
    assert task.contents() == len(known.strings)
    ranks = task.content_rank(rows_of(task, known.strings))
    assert sorted(ranks.tolist()) == list(range(task.contents()))


def test_explanation_is_one_block_of_the_statements():
    task = get_task("palindrome")
    assert task.explanations() == (" ".join(task.statements()),)
    assert len(task.statements()) > 1


def test_examples_of_the_explanation_are_right_and_wrong_as_it_says():
    *_, examples = get_task("palindrome").statements()
    right, wrong = (re.findall(r"\[.*?\](?=,| and| are)", part) for part in examples.split(";"))
    assert [valid(text) for text in right] == [1.0] * 3
    assert [valid(text) for text in wrong] == [0.0] * 2


@given(max_depth=st.sampled_from([0, 1, 64]), max_half=st.sampled_from([1, 2, 33, 256]), row=st.integers(0, 2**40))
def test_every_legal_config_makes_right_rows(max_depth, max_half, row, texts, rng):
    task = task_of(max_depth, max_half)
    rows = task.rows(row, 3)
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert rows.lengths.max() <= (max_depth + 1) * (2 * max_half + 2) + 3
    assert np.isfinite(task.optimal_log_probs(rows)).all()


@pytest.mark.parametrize(
    ("field", "value", "bounds"),
    [
        ("max_depth", -1, "0 to 64"),
        ("max_depth", 65, "0 to 64"),
        ("max_half", 0, "1 to 256"),
        ("max_half", 257, "1 to 256"),
    ],
)
def test_value_out_of_range_is_an_error_that_names_field_and_range(field, value, bounds):
    with pytest.raises(ValueError, match=f"PalindromeConfig.{field}: got {value}, wanted a value from {bounds}"):
        get_task("palindrome", **{field: value})
