"""Counting predictors against dictionaries of counts."""

import collections
import math

import numpy as np
import pytest
from replication.rlm import ngram_log_probs


def by_counting(train, test, order, vocabulary, smoothing):
    counts, totals = collections.Counter(), collections.Counter()
    for row in train.tolist():
        for at in range(1, len(row)):
            context = tuple(row[max(0, at - order + 1) : at])
            counts[context, row[at]] += 1
            totals[context] += 1
    out = np.zeros(test.shape)
    for number, row in enumerate(test.tolist()):
        for at in range(1, len(row)):
            context = tuple(row[max(0, at - order + 1) : at])
            share = (counts[context, row[at]] + smoothing) / (totals[context] + smoothing * vocabulary)
            out[number, at] = math.log(share)
    return out


@pytest.mark.parametrize("order", [1, 2, 3])
def test_counts(order):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 5, (200, 6)), rng.integers(0, 7, (50, 6))
    result = ngram_log_probs(train, test, order, 7, smoothing=0.5)
    np.testing.assert_allclose(result, by_counting(train, test, order, 7, 0.5), atol=1e-12)


def test_a_bigram_foretells_what_a_unigram_cannot():
    train = np.array([[1, 2, 3], [1, 3, 2]] * 500)
    unigram, bigram = (-ngram_log_probs(train, train, order, 4).mean() for order in (1, 2))
    assert bigram < 0.6 * unigram


def test_probabilities_of_a_context_sum_to_one():
    train = np.random.default_rng(1).integers(0, 4, (30, 3))
    every = np.array([[1, 2, token] for token in range(4)])
    assert np.exp(ngram_log_probs(train, every, 3, 4)[:, 2]).sum() == pytest.approx(1)


@pytest.mark.parametrize("order", [0, 4])
def test_orders_that_do_not_fit_are_errors(order):
    with pytest.raises(ValueError, match=f"got order {order}, wanted 1, 2 or 3"):
        ngram_log_probs(np.ones((2, 2), int), np.ones((2, 2), int), order, 4)
