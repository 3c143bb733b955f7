"""Habits of style: counted by hand, found where they were planted, and intervals that more copies do not narrow."""

import pytest

from hf_synth.metrics.em_dash import em_dash
from hf_synth.metrics.grammar_errors import grammar_errors
from hf_synth.metrics.not_just import not_just


def at_signs(text: str) -> int:
    return text.count("@")


def dashed(text: str, number: int) -> str:
    return text.replace(" ", " \u2014 ", number % 3)


def figured(text: str, number: int) -> str:
    return f"{text}. It is not just {text}; it's {text}." if number % 2 else text


def misspelt(text: str, number: int) -> str:
    return text.replace("a", "@", 1 + number % 2)


MEASURES = {
    "em_dash": (em_dash, {}, dashed),
    "not_just": (not_just, {}, figured),
    "grammar_errors": (grammar_errors, {"check": at_signs}, misspelt),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_planted_habit_is_told_from_good_text_both_ways(planted, name):
    measure, options, spoil = MEASURES[name]
    texts = planted.sentences(125)
    spoilt = [spoil(text, number) for number, text in enumerate(texts)]
    good, bad = (measure(some, planted.PROMPTS, **options) for some in (texts, spoilt))
    assert planted.apart(bad, good, name)
    assert not planted.apart(good, bad, name)
    assert good[name] == 0


@pytest.mark.parametrize("name", MEASURES)
def test_copies_of_completions_do_not_narrow_the_interval(planted, name):
    measure, options, spoil = MEASURES[name]
    spoilt = [spoil(text, number) for number, text in enumerate(planted.sentences(125))]
    result = measure(spoilt, planted.PROMPTS, **options)
    assert measure(spoilt * 5, planted.PROMPTS * 5, **options) == pytest.approx(result)


def test_em_dashes_by_hand():
    """Three in ten words; hyphens and en dashes are none."""
    texts = ["one\u2014two \u2014 three four", "a \u2014 b, well-kept 3\u20134 --", "c"]
    assert em_dash(texts, ["p", "p", "q"])["em_dash"] == pytest.approx(1000 * 3 / 10)


@pytest.mark.parametrize(
    "text",
    [
        "It's not just fast, but free.",
        "It isn\u2019t just fast; it\u2019s free.",
        "Not only that, it's a revolution.",
        "This is NOT merely a tool \u2014 it's a movement.",
        "It's not just about speed: it is about trust.",
        "It is not simply a phone. It's a friend.",
        "They do not solely listen; they also act.",
        "You cannot just wait, but must act.",
        "It was not just a game, rather a way of life.",
    ],
)
def test_the_figure_in_its_forms(text):
    assert not_just([text], ["p"])["not_just"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "I cannot just go.",
        "He did not just leave. She was sad.",
        "It is just fast, but free.",
        "Not a tool, but a movement.",
        "It is not just. It has faults.",
        "Only you can do it, but not alone.",
        "It is not just fast." + " x" * 200 + " but free.",
    ],
)
def test_what_is_no_figure(text):
    assert not_just([text], ["p"])["not_just"] == 0


def test_figures_by_hand():
    texts = ["It is not just red but blue. It's not only old, it's cold.", "Two words"]
    assert not_just(texts, ["p", "q"])["not_just"] == pytest.approx(1000 * 2 / 15)


def test_grammar_errors_are_a_hundred_words_and_of_any_checker():
    result = grammar_errors(["@ne w@rd", "g@@d t@lk ok"], ["p", "q"], check=at_signs)
    assert result["grammar_errors"] > 0
    words_of_two = grammar_errors(["one two", "three"], ["p", "q"], check=lambda text: len(text.split()) - 1)
    assert words_of_two["grammar_errors"] == pytest.approx(100 / 3)
    with pytest.raises(ValueError, match="check returned -1"):
        grammar_errors(["a"], ["p"], check=lambda text: -1)
