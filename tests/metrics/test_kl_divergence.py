"""KL(best predictor || model) against sums in plain Python, and against the excess loss that it is the mean of."""

import math

import numpy as np
import pytest

from hf_synth.metrics.kl_divergence import kl_divergence

MODEL = [np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.2, 0.8]])]
BEST = [[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75]]]
SUMS = [
    0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1) + math.log(1 / 0.5),
    0.25 * math.log(0.25 / 0.2) + 0.75 * math.log(0.75 / 0.8),
]


def test_mean_per_token_and_its_error_over_rows():
    result = kl_divergence(MODEL, BEST)
    assert result["kl"] == pytest.approx(sum(SUMS) / 3, abs=1e-12)
    residuals = [SUMS[0] - 2 * result["kl"], SUMS[1] - result["kl"]]
    error = math.sqrt(2 * sum(one**2 for one in residuals)) / 3
    assert result["kl/rows_standard_error"] == pytest.approx(error, abs=1e-12)
    assert result["kl/rows_low"] < result["kl"] < result["kl/rows_high"]


def test_the_best_predictor_itself_is_at_0_and_impossible_ids_count_nothing():
    own = [np.array([[-math.inf, 0.0], [math.log(0.5), math.log(0.5)]])]
    result = kl_divergence(own, [np.array([[0.0, 1.0], [0.5, 0.5]])])
    assert result["kl"] == 0.0


@pytest.mark.parametrize("log_probs", [[MODEL[0]], [MODEL[0][:1], MODEL[1]], [MODEL[0], np.array([[0.1, -3.0]])], []])
def test_what_does_not_go_together_is_refused(log_probs):
    with pytest.raises(ValueError, match="kl_divergence: got"):
        kl_divergence(log_probs, BEST if log_probs else [])


@pytest.mark.parametrize(
    ("log_probs", "optimal", "wanted"),
    [
        ([0 * MODEL[1]], [BEST[1]], "got 2, wanted ln P of a model, whose P sum to at most 1"),
        ([np.exp(MODEL[1])], [BEST[1]], "wanted log probabilities, which are at most 0"),
        ([MODEL[1]], [MODEL[1]], "got nan, wanted P of the best predictor, which sum to 1"),
        ([MODEL[1]], [np.multiply(BEST[1], 0.1)], "got 0.1, wanted P of the best predictor, which sum to 1"),
        ([MODEL[1]], [np.multiply(BEST[1], math.nan)], "got nan, wanted P of the best predictor"),
        ([MODEL[1] * math.nan], [[[1.0, 0.0]]], "got nan, wanted log probabilities"),
        ([np.zeros((0, 2))], [np.zeros((0, 2))], "got 1 and 1 rows, wanted as many of both, and a token"),
    ],
)
def test_what_is_no_distribution_is_refused(log_probs, optimal, wanted):
    with pytest.raises(ValueError, match=wanted):
        kl_divergence(log_probs, optimal)


def test_a_model_may_know_more_ids_than_are_given():
    """Those of a larger vocabulary are left out: what is given then sums to less than 1."""
    assert kl_divergence([np.log([[0.4, 0.4]])], [[[0.5, 0.5]]])["kl"] == pytest.approx(math.log(0.5 / 0.4))
