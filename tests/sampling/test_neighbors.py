"""Neighbors against all distances sorted; what is approximate says how much it finds, and looks further if little."""

import importlib.util

import numpy as np
import pytest

from hf_synth.sampling import neighbors
from hf_synth.sampling.neighbors import (
    ApproximateIndex,
    ExactIndex,
    Frame,
    choose_backend,
    find_neighbors,
    nearest,
)


def clusters(count=3000, dim=32):
    rng = np.random.default_rng(11)
    return (rng.normal(size=(30, dim))[rng.integers(30, size=count)] + 0.3 * rng.normal(size=(count, dim))).astype(
        "f4"
    )


def sorted_distances(points, k):
    """[P, k] the slow way: every distance, sorted."""
    wide = points.astype(np.float64)
    distances = np.stack([np.sqrt(((wide - point) ** 2).sum(axis=1)) for point in wide])
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize("backend", ["sklearn", "faiss", "torch"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_exact_backends_equal_all_distances_sorted(backend, dtype, monkeypatch):
    monkeypatch.setattr(neighbors, "_CHUNK", 100)  # several chunks to merge, the last one small
    monkeypatch.setattr(neighbors, "_QUERIES", 64)
    points = (np.random.default_rng(2).normal(size=(307, 9)) + 5).astype(dtype)
    result = find_neighbors(points, 6, backend)
    distances, ids = sorted_distances(points, 6)
    np.testing.assert_allclose(result.distances, distances, rtol=1e-12)
    np.testing.assert_array_equal(result.ids, ids)
    assert (result.backend, result.recall) == (backend, 1.0)


@pytest.mark.parametrize("backend", ["sklearn", "faiss", "torch"])
@pytest.mark.parametrize("width", [3e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_neighbours_in_a_clump_that_float32_squares_cannot_tell_apart(backend, width, dtype):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=16) + width * rng.normal(size=(120, 16)), rng.normal(size=(120, 16))])
    points = points.astype(dtype)
    result = find_neighbors(points, 10, backend)
    np.testing.assert_allclose(result.distances, sorted_distances(points, 10)[0], rtol=1e-9)


def test_as_many_neighbours_as_there_are_others():
    points = np.random.default_rng(2).normal(size=(5, 3))
    np.testing.assert_allclose(find_neighbors(points, 4, "faiss").distances, sorted_distances(points, 4)[0])


def test_far_from_the_origin_distances_keep_their_digits():
    points = np.random.default_rng(2).normal(size=(200, 4))
    near, far = (find_neighbors(points + shift, 5, "faiss").ids for shift in (0.0, 1e6))
    np.testing.assert_array_equal(near, far)


def test_the_recall_that_is_said_is_the_recall_there_is():
    points = clusters()
    result, truth = find_neighbors(points, 10, "ivf"), sorted_distances(points, 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(result.ids, truth, strict=True)])
    assert recall == pytest.approx(result.recall, abs=0.02)
    assert result.recall >= 0.95


def test_too_narrow_a_search_is_widened_until_it_finds_enough(monkeypatch):
    monkeypatch.setattr(neighbors, "_WIDTH", 1)
    monkeypatch.setattr(neighbors, "_CANDIDATES", 12)
    frame = Frame.of(np.random.default_rng(0).normal(size=(2000, 16)).astype("f4"))  # no clusters: hard for lists
    index = ApproximateIndex(frame)
    rows = np.arange(300)
    truth = nearest(frame, ExactIndex(frame, "faiss"), rows, 10)[0]
    before = neighbors._recall(truth, nearest(frame, index, rows, 10)[0])
    assert before < 0.6
    assert neighbors.widen_to_recall(frame, index, 10) >= 0.95
    assert index.width > 1
    assert neighbors._recall(truth, nearest(frame, index, rows, 10)[0]) > 0.9


def test_lists_with_fewer_than_k_points_are_no_end(monkeypatch):
    monkeypatch.setattr(ApproximateIndex, "widen", lambda self: False)
    monkeypatch.setattr(neighbors, "_WIDTH", 1)
    result = find_neighbors(clusters(2000, 16), 60, "ivf")
    assert np.isfinite(result.distances).all()
    assert (result.ids >= 0).all()
    assert all(len(set(row)) == 60 for row in result.ids)


def test_a_search_that_cannot_be_widened_says_so(monkeypatch, caplog):
    monkeypatch.setattr(ApproximateIndex, "widen", lambda self: False)
    monkeypatch.setattr(neighbors, "_WIDTH", 1)
    frame = Frame.of(np.random.default_rng(0).normal(size=(2000, 16)).astype("f4"))
    assert neighbors.widen_to_recall(frame, ApproximateIndex(frame), 10) < 0.95
    assert "use backend='faiss'" in caplog.text


@pytest.mark.parametrize("wanted", [1, 7, 300])
@pytest.mark.parametrize("shape", [(3000, 24), (500, 200), (9000, 3)])
def test_with_all_lists_open_the_candidates_are_the_nearest_in_the_directions_of_the_index(shape, wanted):
    frame = Frame.of(np.random.default_rng(2).normal(size=shape).astype("f4"))
    index = ApproximateIndex(frame)
    index.width = index.lists
    seen = frame[:] @ index.directions
    queries = np.arange(0, shape[0], 7)
    result = index.search(frame[queries], wanted)
    squares = np.square(seen[queries][:, None].astype("f8") - seen[None]).sum(axis=2)
    nearest_squares = np.sort(squares, axis=1)[:, :wanted]
    np.testing.assert_allclose(
        np.sort(np.take_along_axis(squares, result, axis=1), axis=1), nearest_squares, rtol=1e-3, atol=1e-5
    )
    assert all(len(set(row)) == wanted for row in result)


def test_fewer_points_in_the_open_lists_than_wanted():
    frame = Frame.of(clusters(2000, 16))
    index = ApproximateIndex(frame)
    index.width = 1
    result = index.search(frame[:40], 1500)
    assert (result == -1).any(axis=1).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in result)


def test_a_saved_index_finds_the_same(tmp_path):
    frame = Frame.of(clusters())
    index = ApproximateIndex(frame)
    assert index.widen()
    loaded = ApproximateIndex.load(tmp_path / "index", index.save(tmp_path / "index"))
    rows = np.arange(50)
    for before, after in zip(nearest(frame, index, rows, 5), nearest(frame, loaded, rows, 5), strict=True):
        np.testing.assert_array_equal(before, after)


def test_clumps_with_fewer_places_than_lists(recwarn):
    clumps = np.concatenate([np.random.default_rng(0).normal(size=(1500, 300)) * 1e-4 + side for side in (-1, 1)])
    assert find_neighbors(clumps, 5, "ivf").recall >= 0.95
    assert not [warning for warning in recwarn if "clusters" in str(warning.message)]


@pytest.mark.parametrize("shape", [(60, 7), (45, 32), (2000, 3)])
def test_small_and_odd_shapes(shape):
    points = np.random.default_rng(1).normal(size=shape).astype("f4")
    assert find_neighbors(points, 3, "ivf").recall >= 0.95


@pytest.mark.parametrize("shape", [(3, 2), (14, 2), (240, 4), (639, 2)])
def test_the_approximate_search_of_few_points_is_quiet_and_exact(shape, capfd):
    points = np.random.default_rng(1).normal(size=shape)
    np.testing.assert_allclose(find_neighbors(points, 2, "ivf").distances, sorted_distances(points, 2)[0], rtol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_auto_is_exact_below_a_size_and_approximate_above(monkeypatch):
    monkeypatch.setattr(neighbors, "_cuda", lambda: False)
    assert [choose_backend("auto", n) for n in (10, 1999, 2000, 50_000, 50_001)] == [
        "sklearn",
        "sklearn",
        "faiss",
        "faiss",
        "ivf",
    ]
    monkeypatch.setattr(neighbors, "_cuda", lambda: True)
    assert [choose_backend("auto", n) for n in (10, 2000, 2_000_000, 2_000_001)] == [
        "sklearn",
        "torch",
        "torch",
        "ivf",
    ]
    monkeypatch.setattr(neighbors, "_cuda", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [choose_backend("auto", n) for n in (50_000, 50_001)] == ["sklearn", "ivf"], "without faiss"
    assert find_neighbors(clusters(2000, 16), 5, "ivf").recall >= 0.95, "without faiss"


def test_an_unknown_backend():
    with pytest.raises(ValueError, match="Known: auto, faiss, ivf, sklearn, torch"):
        find_neighbors(clusters(50), 3, "annoy")
