"""The sampler: exact expectations, TRL's structure, an order that depends on seed, round and weights alone."""

import collections
import itertools
import random
import time

import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from trl.trainer.utils import RepeatSampler

from hf_synth.sampling import DensityWeightedSampler
from hf_synth.sampling.samplers import systematic_counts

WEIGHTS = np.array([1.0, 0.0, 4.0, 1.0, 0.3, 9.5, 1.0, 0.0])
SHAPES = [(1, 1, 1), (3, 2, 2), (1, 4, 3), (2, 8, 1), (4, 3, 2)]


def expected_counts(weights, draws):
    total = sum(weights)
    return [draws * w / total for w in weights]


@pytest.mark.parametrize(("group", "batch", "repeat"), SHAPES)
@pytest.mark.parametrize("weights", [WEIGHTS, np.ones(8), np.full(8, 0.1)])
def test_structure_length_and_counts(weights, group, batch, repeat, broken_structure):
    sampler = DensityWeightedSampler(weights, group_size=group, batch_size=batch, repeat_count=repeat, seed=3)
    draws = len(weights) // batch * batch
    for epoch in range(20):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert len(indices) == len(sampler) == draws * group * repeat
        assert broken_structure(indices, group, batch, repeat) is None
        counts = collections.Counter(indices)
        for row, expected in enumerate(expected_counts(weights, draws)):
            assert abs(counts[row] / (group * repeat) - expected) < 1
            assert expected or not counts[row]


def test_broken_structures_are_noticed(broken_structure):
    """The checker above must see what it is there to see."""
    good = list(DensityWeightedSampler(np.ones(12), group_size=3, batch_size=4, repeat_count=2))
    assert broken_structure(good, 3, 4, 2) is None
    torch_draws = list(WeightedRandomSampler(np.ones(12), len(good), generator=torch.Generator().manual_seed(0)))
    assert "group" in broken_structure(torch_draws, 3, 4, 2)
    shuffled = good.copy()
    random.Random(0).shuffle(shuffled)
    assert broken_structure(shuffled, 3, 4, 2) is not None
    one_index = good.copy()
    one_index[4] = good[0]
    assert "group" in broken_structure(one_index, 3, 4, 2)
    second_repeat = good.copy()
    second_repeat[12:15] = good[15:18]
    assert "repeat 1" in broken_structure(second_repeat, 3, 4, 2)
    assert "whole number" in broken_structure(good[:-3], 3, 4, 2)


@pytest.mark.parametrize(("group", "batch", "repeat"), SHAPES)
@pytest.mark.parametrize("rows", [8, 11, 49])
def test_equal_weights_give_the_structure_of_trl(rows, group, batch, repeat, broken_structure):
    ours = list(DensityWeightedSampler(np.full(rows, 0.1), group_size=group, batch_size=batch, repeat_count=repeat))
    theirs = list(RepeatSampler(range(rows), group, batch, repeat, seed=0))
    assert len(ours) == len(theirs)
    for indices in (ours, theirs):
        assert broken_structure(indices, group, batch, repeat) is None
        assert set(collections.Counter(indices).values()) == {group * repeat}, "no row twice in a round"
    if rows % batch == 0:
        assert set(ours) == set(theirs) == set(range(rows))


def test_means_over_many_rounds_are_the_expectation():
    sampler, rounds = DensityWeightedSampler(WEIGHTS, batch_size=3, seed=1), 4000
    totals = np.zeros(len(WEIGHTS))
    for epoch in range(rounds):
        sampler.set_epoch(epoch)
        totals += np.bincount(sampler.round_rows(), minlength=len(WEIGHTS))
    expected = np.array(expected_counts(WEIGHTS, 6))
    share = expected % 1  # n_i is floor(E) or floor(E) + 1: a coin of this bias
    deviations = (totals - rounds * expected) / np.sqrt(rounds * np.maximum(share * (1 - share), 1e-12))
    drawn = share > 0
    assert np.abs(deviations[drawn]).max() < 4.5
    np.testing.assert_array_equal(totals[~drawn], rounds * expected[~drawn])


def test_every_place_of_a_round_is_equally_likely():
    sampler, rounds = DensityWeightedSampler(np.ones(6), seed=2), 6000
    positions = np.zeros((6, 6))
    for epoch in range(rounds):
        sampler.set_epoch(epoch)
        positions[sampler.round_rows(), np.arange(6)] += 1
    chi_square = np.square(positions - rounds / 6).sum() / (rounds / 6)
    assert chi_square < 60, "25 degrees of freedom: 52.6 is exceeded once in a thousand"


def test_copies_of_a_row_fall_anywhere_in_a_round():
    sampler, positions = DensityWeightedSampler([3.0, 1.0, 1.0, 1.0]), set()
    for epoch in range(300):
        sampler.set_epoch(epoch)
        positions.add(tuple(np.flatnonzero(sampler.round_rows() == 0).tolist()))
    assert positions == set(itertools.combinations(range(4), 2))


def test_rows_are_permuted_before_the_comb_so_that_all_pairs_may_fall_out_together():
    sampler, dropped = DensityWeightedSampler(np.ones(5), batch_size=3), set()
    for epoch in range(300):
        sampler.set_epoch(epoch)
        dropped.add(frozenset(range(5)) - frozenset(sampler.round_rows().tolist()))
    assert dropped == {frozenset(pair) for pair in itertools.combinations(range(5), 2)}


def test_systematic_counts_equal_a_walk_along_the_comb():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.random(9) * (rng.random(9) < 0.7)
        weights[rng.integers(9)] += 0.1
        draws, offset = int(rng.integers(1, 30)), float(rng.random())
        edges = list(itertools.accumulate(draws * w / weights.sum() for w in weights))
        expected = [
            sum(low <= tooth + offset < high for tooth in range(draws))
            for low, high in itertools.pairwise([0, *edges[:-1], draws + 1])
        ]
        counts = systematic_counts(weights, draws, offset)
        assert counts.sum() == draws
        assert (counts[weights == 0] == 0).all()
        if not np.isclose(edges, draws).sum() > 1:  # trailing zeros share the last edge: the walk cannot tell them
            assert counts.tolist() == expected


@pytest.mark.parametrize("offset", [0.0, 1 - 2**-53])
def test_systematic_counts_lose_no_draw_to_rounding(offset):
    for rows in (7, 49, 10**6 + 3):
        assert (systematic_counts(np.full(rows, 0.1), rows, offset) == 1).all()
        weights = np.random.default_rng(0).random(rows)
        weights[-3:] = 0
        counts = systematic_counts(weights, rows, offset)
        assert counts.sum() == rows
        assert (counts[-3:] == 0).all()


@pytest.mark.parametrize("weights", [[1e308, 1e308, 0], [5e-324, 5e-324, 0], [1, 1e-300, 0]])
def test_extreme_weights(weights):
    rows = DensityWeightedSampler(weights).round_rows()
    assert len(rows) == 3
    assert 2 not in rows


def test_order_depends_on_seed_round_and_weights_alone():
    order = {}
    for seed, epoch, weights in itertools.product((0, 1, 2**40), (0, 1, 2), (WEIGHTS, np.ones(8))):
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(epoch)
        sampler = DensityWeightedSampler(np.tile(weights, 20), seed=seed)
        sampler.set_epoch(5)
        list(sampler)
        sampler.set_epoch(epoch)
        again = DensityWeightedSampler(np.tile(weights, 20), seed=seed)
        again.set_epoch(epoch)
        assert list(sampler) == list(again) == list(again)
        order[seed, epoch, weights[1]] = tuple(again)
    assert len(set(order.values())) == len(order), "no two addresses share an order"


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    list(DensityWeightedSampler(WEIGHTS))
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_new_weights_count_from_the_next_round():
    sampler = DensityWeightedSampler(np.ones(8))
    assert not sampler.changed
    first = list(sampler)
    sampler.set_weights(WEIGHTS)
    assert sampler.changed
    assert list(sampler) == first
    sampler.set_epoch(0)
    assert list(sampler) == first, "naming the same round starts no new one"
    sampler.set_epoch(1)
    fresh = DensityWeightedSampler(WEIGHTS)
    fresh.set_epoch(1)
    assert list(sampler) == list(fresh)
    np.testing.assert_array_equal(sampler.weights, WEIGHTS)


def test_new_weights_count_at_once_before_the_first_draw_of_a_round():
    sampler = DensityWeightedSampler(np.ones(8))
    sampler.set_weights(WEIGHTS)
    assert list(sampler) == list(DensityWeightedSampler(WEIGHTS))


@pytest.mark.parametrize("round_size", [7, 8, 30])
def test_a_round_may_be_shorter_or_longer_than_the_rows(round_size):
    sampler = DensityWeightedSampler(WEIGHTS, group_size=2, batch_size=4, repeat_count=3, round_size=round_size)
    draws = round_size // 4 * 4
    assert len(sampler) == len(list(sampler)) == draws * 6
    total = np.zeros(len(WEIGHTS))
    for epoch in range(200):
        sampler.set_epoch(epoch)
        counts = np.bincount(sampler.round_rows(), minlength=len(WEIGHTS))
        expected = draws * WEIGHTS / WEIGHTS.sum()
        assert (abs(counts - expected) < 1).all()
        total += counts
    np.testing.assert_allclose(total / 200, expected, atol=0.15)
    whole = DensityWeightedSampler(WEIGHTS, round_size=len(WEIGHTS))
    assert list(whole) == list(DensityWeightedSampler(WEIGHTS))
    with pytest.raises(ValueError, match=f"round_size={round_size}, this one"):
        DensityWeightedSampler(WEIGHTS, group_size=2, batch_size=4, repeat_count=3, round_size=12).load_state_dict(
            sampler.state_dict()
        )


def test_weights_are_copied():
    weights = np.ones(8)
    sampler = DensityWeightedSampler(weights)
    first = list(sampler)
    weights[:] = WEIGHTS
    sampler.weights[:] = 7
    assert list(sampler) == first


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_saved_state_goes_on_as_if_never_stopped(through_a_file, tmp_path):
    def fresh(weights=np.ones(8)):  # noqa: B008
        return DensityWeightedSampler(weights, group_size=2, batch_size=4, seed=9)

    running, resumed = fresh(), fresh()
    running.set_epoch(3)
    list(running)
    running.set_weights(WEIGHTS)
    if through_a_file:
        running.save(str(tmp_path / "state.safetensors"))
        resumed.load(str(tmp_path / "state.safetensors"))
        assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    else:
        resumed.load_state_dict(running.state_dict())
    assert resumed.round == 3
    expected = list(running)
    resumed.set_weights(np.arange(8))
    assert list(resumed) == expected, "the round had started: new weights wait"
    resumed.set_weights(WEIGHTS)
    assert resumed.fingerprint() == running.fingerprint() != fresh().fingerprint()
    assert list(resumed) == list(running)
    for epoch in (3, 4, 5):
        running.set_epoch(epoch)
        resumed.set_epoch(epoch)
        assert list(resumed) == list(running)


def test_a_state_of_another_run_is_refused():
    state = DensityWeightedSampler(np.ones(8), seed=1, batch_size=2).state_dict()
    with pytest.raises(ValueError, match="seed=1, this one 2"):
        DensityWeightedSampler(np.ones(8), seed=2, batch_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match="batch_size=2, this one 4"):
        DensityWeightedSampler(np.ones(8), seed=1, batch_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match="8 rows, this one 9"):
        DensityWeightedSampler(np.ones(9), seed=1, batch_size=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([], {}, "got none"),
        ([0.0, 0.0], {}, "all 2 are 0"),
        ([1, np.nan], {}, "row 1: nan"),
        ([1, np.inf], {}, "row 1: inf"),
        ([1, -1e-9], {}, "row 1: -1e-09"),
        ([1, 1], {"batch_size": 3}, "2 rows cannot fill one batch of 3. Give at least 3 rows"),
        ([1, 1], {"batch_size": 0}, "batch_size=0"),
        ([1, 1], {"group_size": 0}, "group_size=0"),
        ([1, 1], {"repeat_count": 0}, "repeat_count=0"),
        ([1, 1], {"seed": -1}, "seed=-1"),
        ([1, 1, 1], {"batch_size": 2, "round_size": 1}, "round_size=1: wanted at least one batch of 2"),
    ],
)
def test_errors(weights, options, message):
    with pytest.raises(ValueError, match=message):
        DensityWeightedSampler(weights, **options)


def test_errors_of_changes():
    sampler = DensityWeightedSampler(np.ones(4))
    with pytest.raises(ValueError, match="got 3, wanted 4"):
        sampler.set_weights(np.ones(3))
    with pytest.raises(ValueError, match="all 4 are 0"):
        sampler.set_weights(np.zeros(4))
    with pytest.raises(ValueError, match="epoch=-1"):
        sampler.set_epoch(-1)
    assert not sampler.changed


def test_ten_million_weights():
    weights = np.random.default_rng(0).random(10_000_000)
    start = time.perf_counter()
    rows = DensityWeightedSampler(weights, batch_size=64).round_rows()
    assert time.perf_counter() - start < 20
    assert len(rows) == 10_000_000
