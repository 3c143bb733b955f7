"""Measures that depend on the amount of text: by hand, on equal amounts, and with planted repetition."""

import itertools
import zlib

import numpy as np
import pytest

from hf_synth.metrics.compression import compression
from hf_synth.metrics.distinct_n import distinct_n
from hf_synth.metrics.repetition import _repeated, repetition
from hf_synth.metrics.token_gini import gini, token_gini

SIGNS = {"token_gini": 1, "compression": 1, "distinct_1": -1, "distinct_2": -1, "distinct_3": -1}


def every_measure(texts, prompts, size=300):
    return {
        **token_gini(texts, prompts, size=size),
        **compression(texts, prompts, size=size),
        **distinct_n(texts, prompts, size=size),
    }


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("fault", ["few words", "one answer a prompt"])
def test_planted_collapse_is_told_from_good_text_both_ways(planted, name, fault):
    spoilt = planted.sentences(4) if fault == "few words" else planted.one_a_prompt()
    good, bad = (every_measure(texts, planted.PROMPTS) for texts in (planted.sentences(125), spoilt))
    first, second = (bad, good) if SIGNS[name] > 0 else (good, bad)
    assert planted.apart(first, second, name)
    assert not planted.apart(second, first, name)


@pytest.mark.parametrize("name", SIGNS)
def test_longer_completions_of_the_same_policy_measure_the_same(planted, name):
    """Over all text at once, four times as much of it has a share of different words a quarter as large."""
    short, long = (every_measure(planted.sentences(125, length), planted.PROMPTS) for length in (15, 60))
    assert long[name] == pytest.approx(short[name], rel=0.06)


@pytest.mark.parametrize("name", SIGNS)
def test_twenty_long_answers_to_everything_are_told_from_good_text(planted, name):
    """A block of whole answers would hold one or two of them, and no repetition."""
    texts = planted.sentences(125, 400)
    good, bad = (every_measure(some, range(240), size=1000) for some in (texts, texts[:20] * 12))
    first, second = (bad, good) if SIGNS[name] > 0 else (good, bad)
    assert planted.apart(first, second, name)


def test_gini_against_the_mean_difference():
    """Half the mean difference of two random kinds, over the mean, kinds that never come included."""
    for counts, kinds in (([3, 1, 4, 1, 5], 5), ([3, 1, 4], 9), ([7], 1), ([2, 2], 2)):
        full = counts + [0] * (kinds - len(counts))
        apart = np.mean([abs(one - two) for one, two in itertools.product(full, full)])
        assert gini(counts, kinds) == pytest.approx(apart / (2 * np.mean(full)))


def test_one_word_over_and_over_is_the_most_uneven_text():
    """Over the words that it has, it would be as even as can be."""
    assert token_gini(["same"] * 100, range(100), size=100)["token_gini"] == pytest.approx(1 - 1 / 100)
    all_different = [f"w{number}x" for number in range(100)]
    assert token_gini(all_different, range(100), size=100)["token_gini"] == pytest.approx(0)
    assert token_gini(["a b"] * 50, range(50), size=100, vocabulary=2)["token_gini"] == pytest.approx(0)
    with pytest.raises(ValueError, match="got 2 different tokens, wanted at most 1"):
        token_gini(["a b"] * 50, range(50), size=100, vocabulary=1)


def test_distinct_by_hand():
    """Of a b a, a b: 5 words of 2 kinds, 3 pairs of 2 kinds; no pair reaches over the end of a text."""
    texts, prompts = ["a b a", "a b"], ["p", "p"]
    assert distinct_n(texts, prompts, orders=[1], size=5)["distinct_1"] == 2 / 5
    assert distinct_n(texts, prompts, orders=[2], size=3)["distinct_2"] == 2 / 3
    with pytest.raises(ValueError, match="distinct_3: got 1 items in all, wanted 2 or more"):
        distinct_n(texts, prompts, orders=[3], size=2)


def test_compression_by_hand():
    texts = ["one two two two", "two two two two"]
    raw = b"one two two two\ntwo two two two"
    wanted = len(raw) / len(zlib.compress(raw, 9))
    assert compression(texts, ["p", "p"], size=8)["compression"] == wanted


def slow(grams, window):
    return sum(gram in grams[max(0, position - window) : position] for position, gram in enumerate(grams))


@pytest.mark.parametrize("window", [1, 3, 64])
def test_repetition_against_looking_back(window):
    grams = np.random.default_rng(0).integers(0, 8, 300).tolist()
    assert _repeated(grams, window) == slow(grams, window)


def test_repetition_by_hand():
    """The pairs ab bc ca ab bc, and none: 2 of 5 were there before, within three pairs and not within two."""
    texts, prompts = ["a b c a b c", "x"], ["p", "q"]
    assert repetition(texts, prompts, order=2)["repetition"] == 2 / 5
    assert repetition(texts, prompts, order=2, window=2)["repetition"] == 0


def test_texts_that_run_in_circles_are_told_from_good_ones_both_ways(planted):
    looping = [" ".join(text.split()[:5] * 3) for text in planted.sentences(125)]
    good, bad = (repetition(texts, planted.PROMPTS) for texts in (planted.sentences(125), looping))
    assert planted.apart(bad, good, "repetition")
    assert not planted.apart(good, bad, "repetition")
    assert bad["repetition"] > 0.5


def test_long_texts_are_not_repetitive_for_their_length(planted):
    """Within a window; among all n-grams before them, ever more would be."""
    short, long = (planted.sentences(8, length)[:60] for length in (200, 800))
    near, far = (
        [repetition(texts, planted.PROMPTS[:60], order=2, window=window) for texts in (short, long)]
        for window in (16, 800)
    )
    assert near[1]["repetition"] == pytest.approx(near[0]["repetition"], rel=0.1)
    assert far[1]["repetition"] > 1.2 * far[0]["repetition"]
