"""Weights: rare means more, the bound raises the smallest, strength 0 is exactly uniform."""

import math

import numpy as np
import pytest

from hf_synth.sampling import check_weights, combined_weights, effective_sample_size, knn_density, rarity_weights

DENSITY = np.array([0.5, 1.0, 2.0, 8.0])


def test_proportional_to_a_power_of_density_with_mean_one():
    for strength in (0.3, 1.0, 2.0):
        expected = [d**-strength for d in DENSITY]
        expected = np.array(expected) / (sum(expected) / len(expected))
        np.testing.assert_allclose(rarity_weights(DENSITY, strength=strength, max_ratio=np.inf), expected, rtol=1e-12)


def test_the_rare_get_more():
    weights = rarity_weights(DENSITY)
    assert weights[0] > 1 > weights[-1]
    assert (np.diff(weights) < 0).all()


def test_strength_zero_and_equal_densities_give_exactly_one():
    assert (rarity_weights(DENSITY, strength=0) == 1).all()
    assert (rarity_weights(np.full(7, 0.1)) == 1).all()
    assert (rarity_weights(DENSITY, max_ratio=1) == 1).all()


def test_the_bound_raises_the_smallest():
    free, bound = rarity_weights(DENSITY, max_ratio=np.inf), rarity_weights(DENSITY, max_ratio=4)
    assert bound.max() / bound.min() == pytest.approx(4)
    assert bound[2] == pytest.approx(bound[3]), "both densities beyond the bound share the smallest weight"
    assert bound[0] / bound[1] == pytest.approx(free[0] / free[1]), "the large ones keep their proportion"


def test_extreme_densities_stay_finite_and_drawable():
    weights = rarity_weights([1e-300, 1.0, 1e300], strength=3, max_ratio=np.inf)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


def test_copies_share_one_unit_of_weight():
    points = np.random.default_rng(0).normal(size=(60, 5))
    with_copies = np.concatenate([points, np.repeat(points[:1], 11, axis=0)])
    for estimator in ("volume", "mean_distance"):
        alone = rarity_weights(knn_density(points, estimator=estimator), max_ratio=np.inf)
        copied = rarity_weights(knn_density(with_copies, estimator=estimator), max_ratio=np.inf)
        twelve = copied[0] + copied[60:].sum()
        assert twelve / copied[1] == pytest.approx(alone[0] / alone[1], rel=1e-9)


@pytest.mark.parametrize(
    ("density", "options", "message"),
    [
        ([], {}, "got none"),
        ([1, np.nan], {}, "row 1: nan"),
        ([1, np.inf], {}, "row 1: inf"),
        ([0, 1], {}, "row 0: 0.0"),
        ([1, -2], {}, "row 1: -2.0"),
        ([[1, 2]], {}, r"shape \[1, 2\]"),
        (["a"], {}, "wanted numbers, got"),
        ([1], {"strength": -1}, "favour the dense"),
        ([1], {"strength": np.nan}, "strength=nan"),
        ([1], {"max_ratio": 0.5}, "at least 1"),
        ([1], {"max_ratio": np.nan}, "max_ratio=nan"),
    ],
)
def test_errors(density, options, message):
    with pytest.raises(ValueError, match=message):
        rarity_weights(density, **options)


def test_effective_sample_size():
    assert effective_sample_size([3, 3, 3, 3]) == 4
    assert effective_sample_size([0, 5, 0]) == 1
    assert effective_sample_size([1, 2, 3]) == pytest.approx(36 / 14)
    assert effective_sample_size([1e200, 1e200]) == 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [([], "got none"), ([0, 0], "all 2 are 0"), ([1, -1], "row 1: -1.0"), ([np.nan, 1], "row 0: nan")],
)
def test_check_weights_errors(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights)


def test_check_weights_copies():
    weights = np.ones(3)
    check_weights(weights)[0] = 5
    assert weights[0] == 1


def test_weights_at_the_ends_of_what_numbers_can_be():
    assert rarity_weights([0.1, 0.01], strength=1e308).tolist() == [pytest.approx(2 / 101), pytest.approx(200 / 101)]
    rare = rarity_weights([1e-300, 1e300, 1.0], max_ratio=math.inf)
    assert (combined_weights(rare, rare) > 0).all(), "no row becomes undrawable"
    assert combined_weights([0.0, 1.0], [1.0, 1.0]).tolist() == [0.0, 2.0]
