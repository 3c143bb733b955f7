"""Coverage by hand, its jackknife against leaving prompts out, and a policy that knows one string of a language."""

import numpy as np
import pytest

from hf_synth.metrics.coverage import coverage
from hf_synth.metrics.intervals import jackknife_interval, mean_interval

TEXTS = ["a", "b", "a", "c", "x", "y", "wrong"]
RIGHT = [1, 1, 1, 1, 1, 1, 0]
PROMPTS = [1, 1, 2, 2, 3, 4, 5]
LANGUAGES = ["L"] * 4 + ["M"] * 3
SIZES = {"L": 4, "M": 10}


def test_by_hand():
    result = coverage(TEXTS, RIGHT, PROMPTS, LANGUAGES, sizes=SIZES)
    assert result["coverage/L"] == 3 / 4
    assert result["coverage/M"] == 2 / 10
    assert result["coverage"] == pytest.approx((3 / 4 + 2 / 10) / 2)


def test_intervals_against_leaving_each_prompt_out():
    result = coverage(TEXTS, RIGHT, PROMPTS, LANGUAGES, sizes=SIZES)
    for name, prompts in {"coverage/L": [1, 2], "coverage/M": [3, 4, 5], "coverage": [1, 2, 3, 4, 5]}.items():
        without = []
        for left_out in prompts:
            kept = [row for row, prompt in enumerate(PROMPTS) if prompt != left_out]
            columns = ([column[row] for row in kept] for column in (TEXTS, RIGHT, PROMPTS, LANGUAGES))
            without.append(coverage(*columns, sizes=SIZES)[name])
        if name == "coverage":  # languages differ in size, which is no error of sampling: each about its own mean
            without = [result[name] + value - np.mean(part) for part in (without[:2], without[2:]) for value in part]
        wanted = jackknife_interval(result[name], without)
        assert [result[f"{name}/low"], result[f"{name}/high"]] == pytest.approx([wanted.low, wanted.high])


def test_the_jackknife_of_a_mean_is_students():
    values = np.array([0.2, 0.5, 0.9, 0.4, 0.7])
    without = [np.delete(values, position).mean() for position in range(5)]
    assert jackknife_interval(values.mean(), without) == pytest.approx(mean_interval(values))


def test_a_policy_that_knows_few_strings_is_told_from_one_that_knows_many_both_ways(planted):
    rng, right, languages = np.random.default_rng(0), [1] * 240, ["L"] * 240
    samples = [[str(word) for word in rng.integers(0, kinds, 240)] for kinds in (300, 20)]
    good, bad = (coverage(texts, right, planted.PROMPTS, languages, sizes={"L": 300}) for texts in samples)
    assert planted.apart(good, bad, "coverage")
    assert not planted.apart(bad, good, "coverage")
    assert bad["coverage"] == 20 / 300


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match="got 3 different right strings of L, which has 2"):
        coverage(TEXTS, RIGHT, PROMPTS, LANGUAGES, sizes={"L": 2})
    with pytest.raises(ValueError, match="got no sample of N"):
        coverage(TEXTS, RIGHT, PROMPTS, LANGUAGES, sizes={"N": 2})
