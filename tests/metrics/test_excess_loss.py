"""Excess loss: by hand, on a task's exact floor, and how often its interval holds the truth."""

import numpy as np
import pytest

from hf_synth import get_task
from hf_synth.metrics.excess_loss import excess_loss

FLOOR = np.array([[-1.0, -1.0], [-2.0, 9.0]])  # the 9 carries no loss
MODEL = np.array([[-2.0, -1.0], [-4.0, np.nan]])
MASK = np.array([[True, True], [True, False]])


def test_hand_computed():
    """Losses 7 and 4 over 3 tokens; excess 1, row residuals 1 - 2 and 2 - 1, so SE = sqrt(2 / 1 * 2) / 3 = 2 / 3."""
    result = excess_loss(MODEL, FLOOR, MASK)
    reach = 12.7062047 * 2 / 3  # Student's 97.5 % quantile, one degree of freedom
    wanted = {"loss": 7 / 3, "floor": 4 / 3, "excess": 1.0, "excess_share": 3 / 4}
    sureness = {"standard_error": 2 / 3, "low": 1 - reach, "high": 1 + reach}
    assert result == pytest.approx({**wanted, **{f"excess/rows_{name}": value for name, value in sureness.items()}})


def test_a_floor_of_zero_has_no_share_and_one_row_no_interval():
    result = excess_loss(np.array([[-1.0]]), np.zeros((1, 1)), np.ones((1, 1), bool))
    assert "excess_share" not in result
    assert str(result["floor"]) == "0.0"
    assert np.isnan(
        [result["excess/rows_standard_error"], result["excess/rows_low"], result["excess/rows_high"]]
    ).all()


def test_rows_without_loss_do_not_count():
    more = [np.concatenate([values, np.zeros((3, 2), values.dtype)]) for values in (MODEL, FLOOR, MASK)]
    assert excess_loss(*more) == excess_loss(MODEL, FLOOR, MASK)


def test_the_best_predictor_has_no_excess_and_a_guess_has_what_it_costs():
    task = get_task("dyck", k=2, length=12)
    rows = task.rows(0, 300, split="test")
    floor, mask = task.optimal_log_probs(rows), rows.loss_mask
    best = excess_loss(floor, floor, mask)
    assert best["excess"] == best["excess/rows_standard_error"] == 0.0
    assert best["loss"] == pytest.approx(-floor[mask].mean())
    guess = np.full(floor.shape, -np.log(5))
    worse = excess_loss(guess, floor, mask)
    assert worse["excess"] == pytest.approx(np.log(5) - best["loss"])
    assert worse["excess/rows_low"] > 0.5


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Rows of unlike lengths, tokens of a row alike: what an interval over tokens would get wrong."""
    rng, truth, held, naive = np.random.default_rng(0), 0.3, 0, 0
    for _ in range(1000):
        lengths = rng.integers(1, 20, 30)
        mask = np.arange(20) < lengths[:, None]
        extra = truth + 0.2 * rng.standard_normal((30, 1)) + 0.1 * rng.standard_normal((30, 20))
        result = excess_loss(-5.0 - extra, np.full((30, 20), -5.0), mask)
        held += result["excess/rows_low"] < truth < result["excess/rows_high"]
        error = extra[mask].std() / mask.sum() ** 0.5
        naive += abs(extra[mask].mean() - truth) < 1.96 * error
    assert 0.92 < held / 1000 < 0.97
    assert naive / 1000 < 0.7


def test_other_confidences():
    narrow, wide = (excess_loss(MODEL, FLOOR, MASK, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide["excess/rows_low"] < narrow["excess/rows_low"] < 1 < narrow["excess/rows_high"]
    with pytest.raises(ValueError, match="confidence=95"):
        excess_loss(MODEL, FLOOR, MASK, confidence=95)


def test_losses_for_log_probabilities_are_an_error():
    with pytest.raises(ValueError, match="wanted log probabilities"):
        excess_loss(-MODEL, FLOOR, MASK)
    with pytest.raises(ValueError, match="excess_loss: got nan, wanted log probabilities"):
        excess_loss(MODEL, FLOOR, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="wanted one shape"):
        excess_loss(MODEL, FLOOR[:1], MASK)
    with pytest.raises(ValueError, match="a token with loss"):
        excess_loss(MODEL, FLOOR, np.zeros((2, 2), bool))
