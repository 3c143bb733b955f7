"""Separation: counted pair by pair, and what length alone gives away taken out of it."""

import itertools

import numpy as np
import pytest

from hf_synth.metrics.separation import separation


def won(scores, valid, pairs):
    """The share of pairs (a valid string, an invalid one) in which the valid one scores higher; ties count half."""
    points = [1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0 for a, b in pairs]
    return sum(points) / len(points)


def test_against_all_pairs():
    rng = np.random.default_rng(0)
    lengths, valid = rng.integers(2, 7, 60), rng.random(60) < 0.4
    scores = np.round(valid + rng.normal(size=60), 1)
    pairs = list(itertools.product(np.flatnonzero(valid), np.flatnonzero(~valid)))
    alike = [(a, b) for a, b in pairs if lengths[a] == lengths[b]]
    share = {size: valid[lengths == size].mean() for size in lengths}
    by_length = won(lengths, valid, pairs)
    assert separation(scores, valid, lengths) == pytest.approx(
        {
            "auroc": won(scores, valid, pairs),
            "auroc/same_length": won(scores, valid, alike),
            "pairs/same_length": len(alike),
            "auroc/length": max(by_length, 1 - by_length),
            "auroc/length_table": won([share[size] for size in lengths], valid, pairs),
        }
    )


def test_a_model_that_only_knows_lengths_is_told_from_one_that_knows_the_language():
    """Valid strings have 4 to 8 tokens, invalid ones 2 to 6; the planted bad model scores by length."""
    rng = np.random.default_rng(1)
    valid = np.arange(400) < 200
    lengths = rng.integers(2, 7, 400) + 2 * valid
    bad, good = separation(lengths.astype(float), valid, lengths), separation(valid * 1.0, valid, lengths)
    assert bad["auroc"] == bad["auroc/length"] > 0.75
    assert bad["auroc/same_length"] == 0.5
    assert good["auroc"] == good["auroc/same_length"] == 1.0
    assert separation(valid * 1.0, valid, -lengths)["auroc/length"] == pytest.approx(bad["auroc/length"])
    assert separation(-1.0 * valid, valid, lengths)["auroc/same_length"] == 0.0


def test_length_that_gives_validity_away_at_both_ends():
    """Invalid strings are the shortest and the longest: no order of lengths tells them apart, a table does."""
    result = separation([0.0] * 4, [False, True, True, False], [1, 2, 3, 4])
    assert result["auroc/length"] == 0.5
    assert result["auroc/length_table"] == 1.0
    assert "auroc/same_length" not in result


def test_an_impossible_string_comes_last():
    assert separation([-np.inf, -9.0, -np.inf], [False, True, False], [1, 1, 2])["auroc"] == 1.0


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(ValueError, match="separation: got 2 valid strings of 2"):
        separation([0.1, 0.2], [True, True], [1, 1])
    with pytest.raises(ValueError, match="2 scores, 2 valid, 1 lengths"):
        separation([0.1, 0.2], [True, False], [1])
    with pytest.raises(ValueError, match="separation: got nan, wanted a score"):
        separation([0.1, np.nan], [True, False], [1, 1])
