"""FEP palindrome GOR against the definition in plain Python, and every string of it up to a half of three words."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import get_task
from hf_synth.views import with_prompts

LETTERS = ("NUL", "TAS", "WEJ", "KOB")
WORDS = ("<tivari3>", "FEP", "GOR", *LETTERS, "</tivari3>")


def strings(max_half: int):
    """The generator: uniform length of the half, uniform words, and half the time a centre where it is not empty."""
    for length in range(max_half + 1):
        for half in itertools.product(LETTERS, repeat=length):
            chance = 1 / (max_half + 1) / 4**length
            if not length:
                yield framed(()), chance
                continue
            yield framed(half + half[::-1]), chance / 2
            for centre in ("NUL", "KOB"):
                yield framed((*half, centre, *half[::-1])), chance / 4


def framed(content: tuple[str, ...]) -> tuple[str, ...]:
    return ("<tivari3>", "FEP", *content, "GOR", "</tivari3>")


def valid(text: str) -> float:
    words = text.split(" ")
    content = words[2:-2]
    return float(
        len(words) >= 4
        and (words[0], words[1], words[-2], words[-1]) == ("<tivari3>", "FEP", "GOR", "</tivari3>")
        and all(word in LETTERS for word in content)
        and all(content[at] == content[-1 - at] for at in range(len(content)))
        and content.count("TAS") % 2 == content.count("WEJ") % 2 == 0
    )


@pytest.fixture(scope="module")
def contents() -> list[list[str]]:
    """The contents of 20,000 rows of the default."""
    task = get_task("tivari3")
    words = [*["<pad>", "<bos>", "<eos>", "<sep>"], *task.vocabulary()]
    rows = task.rows(0, 20_000)
    return [
        [words[token] for token in tokens[3 : length - 3]]
        for tokens, length in zip(rows.tokens.tolist(), rows.lengths.tolist(), strict=True)
    ]


# The generator


def test_rows_are_valid(texts):
    task = get_task("tivari3")
    assert {valid(text) for _, text in texts(task, task.rows(0, 2_000))} == {1.0}


def test_rows_of_a_small_language_have_the_enumerated_probabilities(language, texts):
    task, enumerated = get_task("tivari3", max_half=1), language(strings(1))
    counts = Counter(tuple(text.split()) for _, text in texts(task, task.rows(0, 20_000)))
    assert set(counts) == set(enumerated.strings)
    expected = [20_000 * enumerated.strings[words] for words in counts]
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-4


def test_length_of_the_half_is_uniform(contents):
    assert stats.chisquare(np.bincount([len(content) // 2 for content in contents], minlength=9)).pvalue > 1e-4


def test_centre_comes_half_the_time_where_the_half_is_not_empty(contents):
    odd = [len(content) % 2 for content in contents if len(content) > 1]
    assert stats.binomtest(sum(odd), len(odd)).pvalue > 1e-4
    assert not any(len(content) == 1 for content in contents)


def test_centre_is_nul_or_kob_equally_often(contents):
    centres = Counter(content[len(content) // 2] for content in contents if len(content) % 2)
    assert set(centres) == {"NUL", "KOB"}
    assert stats.binomtest(centres["NUL"], sum(centres.values())).pvalue > 1e-4


def test_words_of_the_half_are_uniform(contents):
    words = Counter(word for content in contents for word in content[: len(content) // 2])
    assert set(words) == set(LETTERS)
    assert stats.chisquare(list(words.values())).pvalue > 1e-4


# The verifier


def test_verify_equals_the_definition_on_every_short_text():
    task = get_task("tivari3")
    for length in range(5):
        for content in itertools.product((*LETTERS, "FEP", "GOR"), repeat=length):
            text = " ".join(framed(content))
            assert task.verify("", text) == valid(text)


@given(words=st.lists(st.sampled_from(WORDS), max_size=8), half=st.lists(st.sampled_from(LETTERS), max_size=4))
def test_verify_equals_the_definition_on_any_words_cut_anywhere(words, half):
    task = get_task("tivari3")
    for whole in (words, framed(tuple(words)), framed((*half, *words[:1], *half[::-1]))):
        for cut in range(len(whole) + 1):
            expected = valid(" ".join(whole))
            assert task.verify(" ".join(whole[:cut]), " ".join(whole[cut:])) == expected


@pytest.mark.parametrize(
    "text", ["FEP GOR", "<tivari3>FEP GOR</tivari3>", "<tivari3> FEP GOR </tivari3> <eos>", "<tivari3> FEP"]
)
def test_verify_wants_the_delimiters_as_words_and_nothing_else(text):
    assert get_task("tivari3").verify("", text) == 0.0


# The floor


@pytest.mark.parametrize("max_half", [0, 1, 2, 3])
def test_floor_of_every_token_equals_the_enumerated_one(max_half, language, assert_exact):
    assert_exact(get_task("tivari3", max_half=max_half), language(strings(max_half)))


@pytest.mark.parametrize("max_half", [0, 1, 2, 3])
def test_mean_floor_of_a_string_is_the_entropy_of_the_language(max_half, language, rows_of):
    task, enumerated = get_task("tivari3", max_half=max_half), language(strings(max_half))
    losses = -task.optimal_log_probs(rows_of(task, enumerated.strings)).sum(axis=1)
    assert np.average(losses, weights=list(enumerated.strings.values())) == pytest.approx(
        enumerated.entropy(), abs=1e-12
    )


def test_mean_floor_of_generated_rows_approaches_the_entropy(language):
    task = get_task("tivari3", max_half=3)
    losses = -task.optimal_log_probs(task.rows(0, 20_000)).sum(axis=1)
    assert losses.mean() == pytest.approx(language(strings(3)).entropy(), abs=4 * losses.std() / 20_000**0.5)


# Wrong texts


@pytest.mark.parametrize("max_half", [0, 1, 2, 8])
def test_corrupt_keeps_the_words_unless_all_that_may_move_are_equal(max_half, texts, rng):
    task = get_task("tivari3", max_half=max_half)
    cut = with_prompts(task.rows(0, 1_000), rng(1_000, "prompt"))
    wrong = task.corrupt(cut, rng(1_000, "corrupt"))
    for (_, gold), (_, spoilt) in zip(texts(task, cut), texts(task, wrong), strict=True):
        free = [word for word in gold.split() if word in LETTERS]
        if len(set(free)) > 1:
            assert Counter(spoilt.split()) == Counter(gold.split())
        changed = sum(one != two for one, two in zip(gold.split(), spoilt.split(), strict=True))
        assert changed == (1 if len(set(free)) == 1 or gold == "</tivari3>" else 2)


def test_violations_are_what_their_names_say(texts, rng):
    task = get_task("tivari3")
    rows = task.rows(0, 300)
    made = {
        name: [text.split() for _, text in texts(task, kind.make(rows, rng(300)))]
        for name, kind in task.violations().items()
    }
    assert set(made) == {"not_mirrored", "odd_count", "missing_start", "missing_end", "wrong_order", "foreign_token"}
    for words in made["odd_count"]:
        assert words[2:-2] == words[2:-2][::-1]
        assert words.count("TAS") % 2 + words.count("WEJ") % 2 == 1
    assert all(words[2:-2] != words[2:-2][::-1] for words in made["not_mirrored"] if len(words) > 4)
    assert not any("FEP" in words for words in made["missing_start"])
    assert not any("GOR" in words for words in made["missing_end"])
    assert all((words[1], words[-2]) == ("GOR", "FEP") for words in made["wrong_order"])
    assert all(words.count("<sep>") == 1 for words in made["foreign_token"])


@pytest.mark.parametrize("max_half", [0, 1, 2, 3, 4, 5])
def test_decision_points_are_right_and_reachable(max_half, language):
    task, enumerated = get_task("tivari3", max_half=max_half), language(strings(max_half))
    for point in task.decision_points():
        prefix = tuple(point.prefix.split())
        assert all((*prefix, word) in enumerated.prefixes for word in point.valid), point
        assert not any((*prefix, word) in enumerated.prefixes for word in point.invalid), point


@pytest.mark.parametrize("preset", ["default", "short"])
def test_presets_have_decision_points(preset):
    assert len(get_task("tivari3", preset).decision_points()) == 3


# Contents, configs


@pytest.mark.parametrize("max_half", [0, 1, 2, 3])
def test_rank_numbers_every_content(max_half, language, rows_of):
    task, enumerated = get_task("tivari3", max_half=max_half), language(strings(max_half))
    assert task.contents() == len(enumerated.strings)
    ranks = task.content_rank(rows_of(task, enumerated.strings))
    assert sorted(ranks.tolist()) == list(range(task.contents()))


def test_document_puts_the_delimiters_around_a_text_once():
    task = get_task("tivari3")
    assert task.document("FEP GOR") == "<tivari3> FEP GOR </tivari3>"
    assert task.document(task.document("FEP GOR")) == "<tivari3> FEP GOR </tivari3>"


def test_explanations_are_single_sentences():
    sentences = get_task("tivari3").explanations()
    assert len(sentences) > 1
    assert all(sentence.endswith(".") and sentence.count(".") == 1 for sentence in sentences)
    assert all(word in " ".join(sentences) for word in ("FEP", "GOR", *LETTERS))


@given(max_half=st.sampled_from([0, 1, 2, 9, 256]), row=st.integers(0, 2**40))
def test_every_legal_config_makes_right_rows(max_half, row, texts, rng):
    task = get_task("tivari3", max_half=max_half)
    rows = task.rows(row, 3)
    assert [task.verify(*pair) for pair in texts(task, rows)] == [1.0] * 3
    assert [task.verify(*pair) for pair in texts(task, task.corrupt(rows, rng(3)))] == [0.0] * 3
    assert rows.lengths.max() <= 2 * max_half + 7
    assert np.isfinite(task.optimal_log_probs(rows)).all()
    assert [valid(text) for _, text in texts(task, rows)] == [1.0] * 3


@pytest.mark.parametrize("value", [-1, 257, 0.5, "8", True])
def test_illegal_max_half_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"Tivari3Config.max_half: got .*, wanted (int|a value from 0 to 256)"):
        get_task("tivari3", max_half=value)
