"""Intervals and tests against SciPy and statsmodels, and how often they hold the truth."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from hf_synth.metrics.intervals import (
    clustered_mean,
    holm,
    mean_interval,
    paired_interval,
    paired_test,
    share_interval,
    smallest_detectable,
    units_needed,
    wilson_interval,
)

FEW = [0.2, 0.5, 0.9, 0.4, 0.7]
OTHERS = [0.1, 0.6, 0.5, 0.3, 0.2]


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_against_students_tests(confidence):
    one, two = stats.ttest_1samp(FEW, 0), stats.ttest_rel(FEW, OTHERS)
    assert mean_interval(FEW, confidence)[1:] == pytest.approx(tuple(one.confidence_interval(confidence)))
    assert paired_interval(FEW, OTHERS, confidence)[1:] == pytest.approx(tuple(two.confidence_interval(confidence)))
    assert mean_interval(FEW, confidence)[1:] == pytest.approx(DescrStatsW(FEW).tconfint_mean(1 - confidence))
    assert mean_interval(FEW).mean == pytest.approx(0.54)
    assert paired_interval(FEW, OTHERS).mean == pytest.approx(0.2)


def test_one_unit_has_a_mean_and_no_bounds():
    for result in (mean_interval([0.7]), clustered_mean([0.6, 0.8], ["a", "a"]), paired_interval([1.0], [0.3])):
        assert result.mean == pytest.approx(0.7)
        assert np.isnan([result.low, result.high]).all()


def test_clusters_weigh_alike_and_are_the_units():
    """Means 0.5, 0.5 and 0.8 of clusters of 2, 1 and 4."""
    result = clustered_mean([0, 1, 0.5, 1, 1, 1, 0.2], ["a", "a", "b", "c", "c", "c", "c"])
    assert result == pytest.approx(mean_interval([0.5, 0.5, 0.8]))


def coverage(interval, draw, truth, times=2000):
    """How often the interval of what `draw` gives holds the truth."""
    result = [interval(*draw()) for _ in range(times)]
    return np.mean([one.low <= truth <= one.high for one in result])


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Five units: with a normal quantile in place of Student's it would be 0.88."""
    rng = np.random.default_rng(0)
    assert coverage(mean_interval, lambda: (rng.normal(3, 2, 5),), 3) == pytest.approx(0.95, abs=0.015)
    assert coverage(lambda x: mean_interval(x, 0.8), lambda: (rng.normal(3, 2, 5),), 3) == pytest.approx(0.8, abs=0.03)

    def paired():
        shared = rng.normal(0, 10, 8)
        return shared + rng.normal(1, 1, 8), shared

    assert coverage(paired_interval, paired, 1) == pytest.approx(0.95, abs=0.015)


def test_values_of_one_cluster_taken_for_units_make_an_interval_too_narrow():
    rng = np.random.default_rng(1)

    def facts():
        graphs = np.repeat(np.arange(6), 10)
        return rng.normal(0, 1, 6)[graphs] + rng.normal(0, 1, 60), graphs

    assert coverage(clustered_mean, facts, 0) == pytest.approx(0.95, abs=0.015)
    assert coverage(lambda values, graphs: mean_interval(values), facts, 0) < 0.7


@pytest.mark.parametrize(("hits", "trials"), [(0, 8), (3, 8), (8, 8), (50, 1000), (1, 1)])
def test_wilson_against_statsmodels(hits, trials):
    bounds = proportion_confint(hits, trials, alpha=0.1, method="wilson")
    assert wilson_interval(hits, trials, 0.9) == pytest.approx((hits / trials, *bounds), abs=1e-12)
    assert wilson_interval(0, trials).low == 0.0
    assert wilson_interval(trials, trials).high == 1.0


def test_wilson_holds_the_truth_on_average_over_shares():
    """Summed over all outcomes: within 2 % of what it says, where the interval from the normal share has 0.8."""
    trials, shares = 20, np.linspace(0.05, 0.95, 19)
    bounds = np.array([wilson_interval(hits, trials)[1:] for hits in range(trials + 1)])
    chance = stats.binom.pmf(np.arange(trials + 1)[:, None], trials, shares)
    held = chance * ((bounds[:, :1] <= shares) & (shares <= bounds[:, 1:]))
    assert held.sum(axis=0).mean() == pytest.approx(0.95, abs=0.02)


def test_holm_is_closed_testing_with_bonferroni():
    """A test's corrected p is the largest of `size * smallest p` over all sets of tests that it is in."""
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    sets = [chosen for size in range(1, 6) for chosen in itertools.combinations(range(5), size)]
    worst = [
        max(min(1.0, len(chosen) * min(p_values[test] for test in chosen)) for chosen in sets if test in chosen)
        for test in range(5)
    ]
    assert holm(p_values) == pytest.approx(worst)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([0.5]) == pytest.approx([0.5])
    assert holm([]).size == 0


# Tests of paired differences, and what they can find


def test_paired_test_against_scipy():
    for first, second in ((FEW, OTHERS), (OTHERS, FEW), (FEW[:2], OTHERS[:2])):
        assert paired_test(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert (paired_interval(FEW, OTHERS).low > 0) == (paired_test(FEW, OTHERS) < 0.05)


def test_of_true_nulls_one_in_twenty_is_rejected_and_true_differences_are_detected():
    rng = np.random.default_rng(4)
    shared = rng.normal(0, 10, (2000, 8))
    nothing, something = shared + rng.normal(0, 1, (2000, 8)), shared + rng.normal(2, 1, (2000, 8))
    level = np.mean([paired_test(*pair) < 0.05 for pair in zip(nothing, shared, strict=True)])
    assert level == pytest.approx(0.05, abs=0.015)
    assert np.mean([paired_test(*pair) < 0.05 for pair in zip(something, shared, strict=True)]) > 0.95


def test_nothing_is_concluded_from_one_unit_or_from_no_difference():
    assert paired_test([3.0], [1.0]) == 1.0
    assert paired_test(FEW, FEW) == 1.0
    with pytest.raises(ValueError, match="got 2 first, 1 second"):
        paired_test([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="got NaN or infinity"):
        paired_test([1.0, np.nan], [1.0, 2.0])


def test_units_that_all_differ_by_the_same_are_certain_for_student():
    assert paired_test(np.array([1.5, 2.5, 3.5]), np.array([1.0, 2.0, 3.0])) == 0.0


@pytest.mark.parametrize(
    ("units", "power", "alpha"), [(2, 0.8, 0.05), (8, 0.8, 0.05), (8, 0.9, 0.01), (30, 0.5, 0.05)]
)
def test_the_smallest_detectable_difference_is_found_as_often_as_it_says(units, power, alpha):
    rng = np.random.default_rng(5)
    true = smallest_detectable(3.0, units, power, alpha)
    drawn = rng.normal(true, 3, (10_000, units))
    assert np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < alpha) == pytest.approx(power, abs=0.015)


@pytest.mark.parametrize(("units", "power", "alpha"), [(8, 0.8, 0.05), (8, 0.9, 0.01), (30, 0.8, 0.05)])
def test_power_against_statsmodels(units, power, alpha):
    effect = TTestPower().solve_power(nobs=units, alpha=alpha, power=power)
    assert smallest_detectable(1.0, units, power, alpha) == pytest.approx(effect, rel=1e-4)
    nobs = TTestPower().solve_power(effect_size=0.45, alpha=alpha, power=power)
    assert units_needed(0.45, 1.0, power, alpha) == np.ceil(nobs)


def test_the_smallest_detectable_difference_of_eight_seeds():
    """1.156 standard deviations: what tables of the paired t-test give for 8 pairs, power 0.8, two-sided 5 %."""
    assert smallest_detectable(1.0, 8) == pytest.approx(1.156, abs=0.001)
    assert smallest_detectable(2.0, 8) == pytest.approx(2 * smallest_detectable(1.0, 8))
    assert smallest_detectable(1.0, 1) == float("inf")
    assert smallest_detectable(0.0, 8) == 0.0


@pytest.mark.parametrize(("difference", "sd"), [(1.0, 1.0), (-0.3, 1.0), (5.0, 1.0), (0.01, 1.0), (1.0, 0.0)])
def test_units_needed_are_the_fewest(difference, sd):
    units = units_needed(difference, sd)
    assert smallest_detectable(sd, units) <= abs(difference)
    assert units == 2 or smallest_detectable(sd, units - 1) > abs(difference)


def test_units_needed_against_tables():
    """Differences of 0.8, 0.5 and 0.2 standard deviations need 15, 34 and 199 pairs (Cohen)."""
    assert [units_needed(size, 1.0) for size in (0.8, 0.5, 0.2)] == [15, 34, 199]
    assert units_needed(0.0, 1.0) is None
    assert units_needed(1e-9, 1.0) is None


def test_what_has_no_power_is_an_error():
    for wrong in ({"units": 0}, {"differences_sd": -1.0}, {"power": 0.01}, {"alpha": 0.0}, {"differences_sd": np.nan}):
        with pytest.raises(ValueError, match="0 < alpha < power < 1"):
            smallest_detectable(**{"differences_sd": 1.0, "units": 8, **wrong})
    with pytest.raises(ValueError, match="difference=nan"):
        units_needed(np.nan, 1.0)


def test_illegal_input_is_an_error():
    for wrong in ([], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="wanted a list of at least one number"):
            mean_interval(wrong)
    with pytest.raises(ValueError, match="got 2 first, 1 second"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="got 2 values, 1 groups"):
        clustered_mean([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="got confidence=95"):
        mean_interval(FEW, 95)
    for hits, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="wilson_interval"):
            wilson_interval(hits, trials)
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        holm([0.1, 1.2])


def test_rounding_is_no_evidence():
    """0.1 + 0.2 is not 0.3 in binary; the same difference eight times over would be certain."""
    assert paired_test([0.1 + 0.2] * 8, [0.3] * 8) == 1.0


@pytest.mark.parametrize(("share", "trials", "hits"), [(0.5, 8, 4), (0.53, 8, 4), (1.0, 3, 3), (0.001, 4, 0)])
def test_a_share_of_no_whole_number_of_trials_lies_in_its_interval(share, trials, hits):
    result, nearest = share_interval(share, trials), wilson_interval(hits, trials)
    assert result.mean == share
    assert result.low <= share <= result.high
    assert result[1:] == nearest[1:]
