"""Weights by group, pass rate and difficulty, their product, and pass rates against plain counting."""

import numpy as np
import pytest

from hf_synth.sampling import (
    PassRates,
    balanced_weights,
    combined_weights,
    curriculum_weights,
    effective_sample_size,
    pass_rate_weights,
    permuted,
    rarity_weights,
    scheduled_strength,
)

GROUPS = ["a"] * 6 + ["b"] * 3 + ["c"]


def masses(weights, groups=GROUPS):
    return {name: sum(w for w, g in zip(weights, groups, strict=True) if g == name) for name in dict.fromkeys(groups)}


def test_balance_gives_each_group_the_same_mass():
    weights = balanced_weights(GROUPS)
    assert weights.mean() == pytest.approx(1)
    assert masses(weights) == pytest.approx({"a": 10 / 3, "b": 10 / 3, "c": 10 / 3})
    assert len(set(weights[:6])) == len(set(weights[6:9])) == 1


def test_shares_say_what_each_group_gets():
    weights = balanced_weights(GROUPS, {"b": 1, "a": 3, "c": 0})
    assert masses(weights) == pytest.approx({"a": 7.5, "b": 2.5, "c": 0})


def test_permuted_weights_are_the_same_ones_elsewhere():
    weights = rarity_weights(np.arange(1.0, 200))
    moved = permuted(weights, seed=3)
    np.testing.assert_array_equal(np.sort(moved), np.sort(weights))
    assert effective_sample_size(moved) == pytest.approx(effective_sample_size(weights))
    assert abs(np.corrcoef(moved, weights)[0, 1]) < 0.25
    np.testing.assert_array_equal(moved, permuted(weights, seed=3))
    assert (moved != permuted(weights, seed=4)).any()
    density = np.arange(1.0, 200)
    np.testing.assert_allclose(rarity_weights(permuted(density, seed=3)), moved, rtol=1e-12)


def test_pass_rates_of_one_half_weigh_most():
    weights = pass_rate_weights([0.0, 0.25, 0.5, 1.0], floor=0.1)
    np.testing.assert_allclose(weights / weights[0], [1, 1 + 9 * 0.75, 10, 1])
    assert weights.mean() == pytest.approx(1)
    assert pass_rate_weights([0.0, 0.5, 1.0], floor=1.0).tolist() == [1, 1, 1]


def test_a_curriculum_opens_from_the_easy_end():
    difficulty = np.array([5.0, 1, 4, 2, 3, 2, 9, 8, 7, 6])
    before = np.zeros(10, dtype=bool)
    for progress in (0.0, 0.2, 0.5, 1.0):
        weights = curriculum_weights(difficulty, progress, begin=0.2, floor=0.1)
        assert weights.mean() == pytest.approx(1)
        entered = weights == weights.max()
        assert entered[np.argmin(difficulty)]
        assert difficulty[entered].max() < difficulty[~entered].min(initial=np.inf)
        assert (entered | ~before).all(), "what was open stays open"
        before = entered
    assert before.all()
    begun = curriculum_weights(difficulty, 0.0, begin=0.2, floor=0.1)
    assert (begun == begun.max()).sum() == 3, "the easiest two of ten, and what is as hard as they are"
    assert begun.max() / begun.min() == pytest.approx(10)


def test_factors_multiply():
    first, second = np.array([1.0, 2, 3]), np.array([30.0, 10, 20])
    np.testing.assert_allclose(combined_weights(first, second), np.array([30, 20, 60]) / (110 / 3))
    assert combined_weights(np.ones(3)).tolist() == [1, 1, 1]
    assert np.isfinite(combined_weights([1e300, 1e299], [1e300, 1e300])).all()


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("constant", [2, 2, 2]), ("rising", [0, 1, 2]), ("falling", [2, 1, 0])]
)
def test_schedules(schedule, wanted):
    assert [scheduled_strength(2.0, schedule, progress) for progress in (0, 0.5, 1)] == wanted
    assert scheduled_strength(0.0, schedule, 0.5) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_weights([]), "groups: got none"),
        (lambda: balanced_weights(["a", "b"], {"a": 1}), "shares: got a, wanted one for each of a, b"),
        (lambda: balanced_weights(["a"], {"a": -1}), "shares: .*row 0: -1"),
        (lambda: pass_rate_weights([0.5, 1.2]), "rates: .*row 1: 1.2"),
        (lambda: pass_rate_weights([0.5, np.nan]), "rates: .*row 1: nan"),
        (lambda: pass_rate_weights([0.5], floor=0), "floor=0: wanted above 0"),
        (lambda: curriculum_weights([np.inf], 0.5), "difficulty: .*row 0: inf"),
        (lambda: curriculum_weights([1.0], 1.5), "progress=1.5"),
        (lambda: combined_weights(), "got none"),
        (lambda: combined_weights([1.0], [1.0, 2.0]), r"got \[1, 2\] rows"),
        (lambda: combined_weights([1.0, -1.0]), "weights 1: .*row 1: -1"),
        (lambda: combined_weights([1.0, 0.0], [0.0, 1.0]), "the product of the weights: all 2 are 0"),
        (lambda: scheduled_strength(1.0, "up", 0.5), "schedule: got 'up'; Known: constant, falling, rising."),
        (lambda: scheduled_strength(1.0, "rising", 1.5), "progress=1.5"),
        (lambda: PassRates([]), "got none"),
        (lambda: PassRates(["a"], prior=0), "prior=0"),
        (lambda: PassRates(["a"], decay=0), "decay=0"),
        (lambda: PassRates(["a"], floor=2), "floor=2"),
        (lambda: PassRates(["a"]).record([0], [-0.1]), "got a reward of -0.1"),
        (lambda: PassRates(["a"]).record([0], [np.nan]), "got a reward of nan"),
        (lambda: PassRates(["a"]).load({"passed": np.ones(2), "tried": np.ones(2)}), "of 2 rows, this one of 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pass_rates_against_plain_counting():
    """Copies of a prompt share what is learnt; prompts that were never tried are at the mean of all."""
    rng = np.random.default_rng(0)
    prompts = ["p", "q", "p", "r", "s"]
    rates = PassRates(prompts, prior=3.0, decay=0.5)
    assert rates.rates().tolist() == [0.5] * 5
    assert rates.weights(0, 1).tolist() == [1.0] * 5
    seen = []  # (prompt, reward, rounds ago)
    for _ in range(3):
        rows, rewards = rng.integers(4, size=6), rng.integers(2, size=6).astype(float)
        rates.record(rows, rewards)
        seen += [(prompts[row], reward, 0) for row, reward in zip(rows, rewards, strict=True)]
        counted = {
            name: [sum(r**power * 0.5**age for p, r, age in seen if p == name) for power in (1, 0)] for name in prompts
        }
        passed, tried = (sum(pair[part] for pair in counted.values()) for part in (0, 1))
        wanted = [(counted[name][0] + 3 * passed / tried) / (counted[name][1] + 3) for name in prompts]
        np.testing.assert_allclose(rates.rates(), wanted)
        assert rates.rates()[0] == rates.rates()[2]
        assert rates.rates()[4] == pytest.approx(passed / tried)
        np.testing.assert_allclose(rates.weights(1, 9), pass_rate_weights(wanted))
        seen = [(p, r, age + 1) for p, r, age in seen]


def test_a_saved_state_goes_on_as_if_never_stopped():
    running, resumed = PassRates("abc"), PassRates("abc")
    running.record([0, 1, 1], [1.0, 0.0, 0.5])
    running.weights(0, 1)
    resumed.load(running.state())
    for rates in (running, resumed):
        rates.record([2, 2], [0.25, 1.0])
    np.testing.assert_array_equal(running.weights(1, 2), resumed.weights(1, 2))
    np.testing.assert_array_equal(running.rates(), resumed.rates())
