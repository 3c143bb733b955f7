"""Reward by density decile: the rare end last, prompts alike, and a planted loss of the tail."""

import numpy as np
import pytest

from hf_synth.metrics.deciles import deciles
from hf_synth.metrics.intervals import mean_interval


def test_the_crowded_end_comes_first():
    densities = np.random.default_rng(0).permutation(100)
    result = deciles(densities / 100, densities, range(100))
    assert result["reward/decile_1"] == pytest.approx(np.mean(np.arange(90, 100) / 100))
    assert result["reward/decile_10"] == pytest.approx(np.mean(np.arange(10) / 100))
    assert result["reward/decile_1/low"] == pytest.approx(mean_interval(np.arange(90, 100) / 100).low)


def test_prompts_weigh_alike_and_copies_narrow_nothing():
    values, densities, prompts = [0.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    assert deciles(values, densities, prompts, parts=1, name="x")["x/decile_1"] == 0.5
    thrice = deciles(values * 3, densities * 3, prompts * 3, parts=1)
    assert thrice == pytest.approx(deciles(values, densities, prompts, parts=1))


def test_a_lost_tail_shows_in_the_last_tenths_alone(planted):
    rng = np.random.default_rng(1)
    densities = rng.permutation(200).astype(float)
    good = rng.normal(1, 0.2, 200)
    bad = np.where(densities < 40, good - 1, good)
    kept, lost = (deciles(values, densities, range(200)) for values in (good, bad))
    for number in range(1, 11):
        assert planted.apart(kept, lost, f"reward/decile_{number}") == (number > 8)
        assert not planted.apart(lost, kept, f"reward/decile_{number}")


def test_what_has_no_tenths_is_an_error():
    with pytest.raises(ValueError, match="got 9 prompts, wanted 10 or more"):
        deciles([1.0] * 9, [1.0] * 9, range(9))
    with pytest.raises(ValueError, match="each with a finite density"):
        deciles([1.0] * 10, [np.nan] * 10, range(10))
