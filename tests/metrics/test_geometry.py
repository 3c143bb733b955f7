"""Geometry: cases with known answers, and plain loops over pairs as the oracle."""

import itertools

import numpy as np
import pytest

from hf_synth.metrics.geometry import geometry


def laid_out(first, second, functor):
    """The measures of tables in which E1, E2 and the functor stand in this order."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    pairs = np.arange(2 * len(first)).reshape(2, -1).T
    return geometry(np.concatenate([first, second, [functor]]), pairs, 2 * len(first))


@pytest.fixture
def first():
    return np.random.default_rng(0).normal(size=(6, 8))


def test_the_functor_as_one_step(first):
    step = np.zeros(8)
    step[0] = 50.0
    result = laid_out(first, first + step, step)
    assert result["parallelogram"] == pytest.approx(1)
    assert result["translation_consistency"] == pytest.approx(1)
    assert result["isometry"] == pytest.approx(1)
    assert result["distortion"] == pytest.approx(0, abs=1e-12)
    assert result["separation"] > 0.9
    assert laid_out(first, first + step, -step)["parallelogram"] == pytest.approx(-1)


def test_random_embeddings_have_none_of_it():
    rng = np.random.default_rng(1)
    result = geometry(rng.normal(size=(60, 256)), np.arange(40).reshape(20, 2), 50)
    assert result["dirichlet_energy"] == pytest.approx(2, abs=0.1)
    for name in ("parallelogram", "translation_consistency", "isometry", "separation"):
        assert abs(result[name]) < 0.25, name


def test_dirichlet_energy_is_of_directions():
    east, north = [1.0, 0.0], [0.0, 1.0]
    assert laid_out([east, north], [[5.0, 0.0], [0.0, 0.1]], north)["dirichlet_energy"] == pytest.approx(0)
    assert laid_out([east, north], [north, east], north)["dirichlet_energy"] == pytest.approx(2)
    assert laid_out([east, north], [[-3.0, 0.0], [0.0, -1.0]], north)["dirichlet_energy"] == pytest.approx(4)
    assert laid_out([east, north], [east, [-1.0, 0.0]], north)["dirichlet_energy"] == pytest.approx(1)


def test_a_rotation_keeps_distances_but_is_no_translation(first):
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    result = laid_out(first, first @ turn, first[0])
    assert result["isometry"] == pytest.approx(1)
    assert result["distortion"] == pytest.approx(0, abs=1e-12)
    assert result["translation_consistency"] < 0.5


def test_a_larger_copy_is_isometric_up_to_size(first):
    """Distances d and 2 d: they differ by d, and their mean is 1.5 d."""
    result = laid_out(first, 2 * first, first[0])
    assert result["isometry"] == pytest.approx(1)
    assert result["distortion"] == pytest.approx(2 / 3)


def test_separation_of_four_points_on_a_line():
    """0 and 1 against 10 and 11: silhouettes 9.5 / 10.5 at the ends and 8.5 / 9.5 inside."""
    result = laid_out([[0.0], [1.0]], [[10.0], [11.0]], [1.0])
    assert result["separation"] == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)
    assert laid_out([[0.0], [10.0]], [[1.0], [11.0]], [1.0])["separation"] < 0


def test_plain_loops_give_the_same():
    rng = np.random.default_rng(3)
    table = rng.normal(size=(30, 5))
    pairs, functor = rng.permutation(30)[:14].reshape(7, 2), 29
    unit = [row / np.linalg.norm(row) for row in table]
    steps = [table[b] - table[a] for a, b in pairs]
    steps = [step / np.linalg.norm(step) for step in steps]
    both = list(itertools.combinations(range(7), 2))
    inside = [[np.linalg.norm(table[pairs[i, side]] - table[pairs[j, side]]) for i, j in both] for side in (0, 1)]
    result = geometry(table, pairs.tolist(), functor)
    assert result["dirichlet_energy"] == pytest.approx(np.mean([np.sum((unit[a] - unit[b]) ** 2) for a, b in pairs]))
    assert result["parallelogram"] == pytest.approx(np.mean([step @ unit[functor] for step in steps]))
    assert result["translation_consistency"] == pytest.approx(np.mean([steps[i] @ steps[j] for i, j in both]))
    assert result["isometry"] == pytest.approx(np.corrcoef(*inside)[0, 1])
    assert result["distortion"] == pytest.approx(np.mean(np.abs(np.subtract(*inside))) / np.mean(inside))


def test_two_pairs_have_no_isometry():
    assert np.isnan(laid_out([[0.0, 1.0], [1.0, 0.0]], [[5.0, 1.0], [6.0, 0.0]], [5.0, 0.0])["isometry"])


def test_what_is_no_table_is_an_error(first):
    with pytest.raises(ValueError, match="two pairs or more"):
        geometry(first, [[0, 1]], 2)
    with pytest.raises(ValueError, match="a row for every id"):
        geometry(first, [[0, 1], [2, 6]], 3)
    with pytest.raises(ValueError, match="a row for every id"):
        geometry(first, [[0, 1], [2, 3]], -1)
