"""Pass@k against all choices of k, and a policy that is never right on a part of the prompts."""

import itertools

import numpy as np
import pytest

from hf_synth.metrics.pass_at_k import pass_at_k

RIGHT = [1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1]
PROMPTS = ["a"] * 4 + ["b"] * 4 + ["c"] * 5


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_against_all_choices(k):
    members = [RIGHT[:4], RIGHT[4:8], RIGHT[8:]]
    wanted = np.mean([np.mean([any(chosen) for chosen in itertools.combinations(own, k)]) for own in members])
    assert pass_at_k(RIGHT, PROMPTS, ks=[k])[f"pass_at_{k}"] == pytest.approx(wanted)


def test_unbiased_where_the_share_of_prompts_with_a_right_one_is_not():
    rng = np.random.default_rng(0)
    chances = rng.random(4000)
    right = rng.random((4000, 8)) < chances[:, None]
    result = pass_at_k(right.ravel(), np.repeat(np.arange(4000), 8).tolist(), ks=[4])
    assert result["pass_at_4/low"] < np.mean(1 - (1 - chances) ** 4) < result["pass_at_4/high"]
    assert right.any(axis=1).mean() > result["pass_at_4/high"]


def test_prompts_that_are_never_right_show_at_any_k(planted):
    """Right half of the time everywhere, and always on half of the prompts: alike at k = 1, apart at k = 4."""
    everywhere = [float(number % 2) for number in range(240)]
    lost = [float(number // 6 % 2) for number in range(240)]
    good, bad = (pass_at_k(right, planted.PROMPTS) for right in (everywhere, lost))
    assert good["pass_at_1"] == bad["pass_at_1"] == 0.5
    assert planted.apart(good, bad, "pass_at_4")
    assert not planted.apart(bad, good, "pass_at_4")


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match=r"got ks=\[5\], wanted 1 to 4, the fewest completions"):
        pass_at_k(RIGHT, PROMPTS, ks=[5])
    with pytest.raises(ValueError, match="other than 0 and 1"):
        pass_at_k([0.5], ["a"], ks=[1])


def test_many_completions_do_not_overflow():
    result = pass_at_k([1, *[0] * 2000], ["a"] * 2001, ks=(500, 2001))
    assert result["pass_at_500"] == pytest.approx(500 / 2001)
    assert result["pass_at_2001"] == 1.0
