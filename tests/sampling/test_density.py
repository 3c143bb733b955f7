"""Density against a scalar k-nearest-neighbour oracle; larger is more crowded; no input gives inf or NaN."""

import math
import tempfile
import time

import numpy as np
import pandas
import pyarrow
import pytest
import scipy
import torch

from hf_synth.sampling import (
    Curriculum,
    DensityWeightedSampler,
    FixedWeights,
    ScheduledRarity,
    check_weights,
    combined_weights,
    curriculum_weights,
    effective_sample_size,
    intrinsic_dimension,
    knn_density,
    measure_knn_density,
    pass_rate_weights,
    permuted,
    rarity_weights,
)

POINTS = np.random.default_rng(7).normal(size=(40, 6)) + 0.5


def scalar_distances(points, metric, k):
    """For each distinct point (in order of first appearance): sorted distances to its k nearest others."""
    if metric == "cosine":
        points = [[x / math.sqrt(sum(y * y for y in p)) for x in p] for p in points]
    out = []
    for i, p in enumerate(points):
        distances = sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)
        out.append(distances[:k])
    return out


def scalar_dimension(distances, ambient):
    logs = [math.log(d[-1] / t) for d in distances for t in d[:-1]]
    return min(1 / (sum(logs) / len(logs)), ambient)


def scalar_density(points, copies, metric, estimator, k):
    distances = scalar_distances(points, metric, k)
    if estimator == "volume":
        dimension = scalar_dimension(distances, len(points[0]))
        return [m * k / d[-1] ** dimension for m, d in zip(copies, distances, strict=True)]
    if metric == "cosine":
        distances = [[t * t / 2 for t in d] for d in distances]
    return [m / (sum(d) / k) for m, d in zip(copies, distances, strict=True)]


@pytest.mark.parametrize("backend", ["sklearn", "faiss", "torch"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("estimator", ["volume", "mean_distance"])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_equals_the_scalar_definition(metric, estimator, k, backend):
    copies = [1 + (i % 7 == 0) * (i % 3) for i in range(len(POINTS))]
    rows = [i for i, m in enumerate(copies) for _ in range(m)]
    order = np.random.default_rng(0).permutation(len(rows))
    got = knn_density(POINTS[rows][order], k=k, metric=metric, estimator=estimator, backend=backend)
    expected = np.array(scalar_density(POINTS.tolist(), copies, metric, estimator, k))[rows][order]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["volume", "mean_distance"])
def test_backends_agree(estimator):
    points = np.random.default_rng(1).normal(size=(500, 48)).astype(np.float32)
    slow, fast = (knn_density(points, estimator=estimator, backend=b) for b in ("sklearn", "faiss"))
    np.testing.assert_allclose(fast, slow, rtol=1e-9)
    np.testing.assert_array_equal(knn_density(points, estimator=estimator), slow)


def test_what_was_measured_and_how_is_said():
    points = np.random.default_rng(1).normal(size=(2500, 8))
    measured = measure_knn_density(np.concatenate([points, points[:7]]), k=4)
    assert (measured.backend, measured.recall, measured.k, measured.distinct) == ("faiss", 1.0, 4, 2500)
    assert measured.dimension == intrinsic_dimension(points, k=4)
    np.testing.assert_array_equal(measured.density[2500:], measured.density[:7])


def test_approximate_density_is_near_the_exact_one():
    points = clusters(3000, 32)
    exact, near = measure_knn_density(points, backend="faiss"), measure_knn_density(points, backend="ivf")
    assert near.backend == "ivf"
    assert near.recall >= 0.95
    assert np.corrcoef(np.log(exact.density), np.log(near.density))[0, 1] > 0.99


def clusters(count, dim):
    rng = np.random.default_rng(11)
    return (rng.normal(size=(30, dim))[rng.integers(30, size=count)] + 0.3 * rng.normal(size=(count, dim))).astype(
        "f4"
    )


def test_smoothing_is_the_mean_of_logarithms_over_the_neighbourhood():
    rows = np.concatenate([POINTS, POINTS[:3]])  # the first three twice
    expected = np.log(knn_density(rows, k=4))[: len(POINTS)]
    units = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    near = np.argsort(-(units @ units.T), axis=1)[:, :5]  # the point itself first
    for rounds in (1, 2, 3):
        expected = np.array([np.mean([expected[other] for other in near[row]]) for row in range(len(POINTS))])
        got = np.log(knn_density(rows, k=4, smoothing=rounds))
        np.testing.assert_allclose(got[: len(POINTS)], expected, rtol=1e-6)
        np.testing.assert_array_equal(got[len(POINTS) :], got[:3])


def test_k_is_reduced_where_asked():
    few = POINTS[:5]
    with pytest.raises(ValueError, match="Take k of at most 4, or give more points"):
        knn_density(few)
    measured = measure_knn_density(few, reduce_k=True)
    assert measured.k == 4
    np.testing.assert_array_equal(measured.density, knn_density(few, k=4))
    with pytest.raises(ValueError, match=r"got 2\. Give more points"):
        knn_density(few[:2], reduce_k=True)


def crowd_and_loner():
    """Two blobs of 200 and 20 points, the first 20 times as dense, and one point far off (the last row)."""
    rng = np.random.default_rng(3)
    crowd = rng.normal(scale=0.1, size=(200, 3)) + np.array([3, 0, 0])
    few = rng.normal(scale=0.1 * 2 ** (1 / 3), size=(20, 3)) + np.array([0, 3, 0])
    return np.concatenate([crowd, few, [[-9.0, -9.0, 9.0]]])


def sign_is_right(weights):
    return weights[-1] > 1 > weights[:200].mean() and weights[-1] == weights.max()


@pytest.mark.parametrize("estimator", ["volume", "mean_distance"])
def test_larger_means_more_crowded_and_rare_weighs_more(estimator):
    density = knn_density(crowd_and_loner(), metric="euclidean", estimator=estimator)
    assert density[-1] == density.min()
    assert sign_is_right(rarity_weights(density))
    assert not sign_is_right(rarity_weights(1 / density)), "a reversed density must not pass"


def test_volume_sees_a_twentyfold_crowd_and_mean_distance_does_not():
    rng = np.random.default_rng(5)
    crowded, sparse = rng.random((2000, 6)), rng.random((100, 6)) + 10.0
    points = np.concatenate([crowded, sparse])
    ratio = {}
    for estimator in ("volume", "mean_distance"):
        density = knn_density(points, metric="euclidean", estimator=estimator)
        ratio[estimator] = np.median(density[:2000]) / np.median(density[2000:])
    assert 10 < ratio["volume"] < 40
    assert ratio["mean_distance"] < 3


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_a_flat_sheet(dimension):
    rng = np.random.default_rng(dimension)
    sheet = rng.normal(size=(1500, dimension)) @ rng.normal(size=(dimension, 30))
    assert intrinsic_dimension(sheet, metric="euclidean") == pytest.approx(dimension, rel=0.12)


def test_intrinsic_dimension_equals_the_scalar_definition():
    for metric in ("cosine", "euclidean"):
        expected = scalar_dimension(scalar_distances(POINTS.tolist(), metric, 6), 6)
        assert intrinsic_dimension(POINTS, k=6, metric=metric) == pytest.approx(expected, rel=1e-4)
    assert intrinsic_dimension(np.eye(20), k=5) == 20, "equidistant points: at most the ambient dimension"
    assert intrinsic_dimension(np.ones((5, 3))) == 0


def test_all_points_equal_is_uniform():
    assert (knn_density(np.ones((20, 4))) == 1).all()
    assert (knn_density(np.ones((20, 4)), estimator="mean_distance") == 1).all()
    lengths = np.arange(1, 21)[:, None] * np.ones((20, 4))
    assert (knn_density(lengths) == 1).all(), "one direction, many lengths, are one point for cosine"


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("estimator", ["volume", "mean_distance"])
@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_points_that_differ_in_bytes_alone_stay_finite(metric, estimator, k):
    rng = np.random.default_rng(0)
    last_bit = np.repeat(rng.normal(size=(1, 8)), 30, axis=0)
    last_bit[:, 0] = np.nextafter(last_bit[:, 0], np.arange(30))  # some differ in their last bit
    swallowed = np.full((30, 8), 1e-3)
    swallowed[:, 0] = 1e-25 * np.arange(30)  # no two equal, but equal once the mean is taken off
    points = np.concatenate([last_bit, swallowed, rng.normal(size=(30, 8)) + 5])
    density = knn_density(points, k=k, metric=metric, estimator=estimator)
    assert np.isfinite(density).all()
    assert (density > 0).all()
    assert density[30:60].min() > density[60:].max()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_zero_and_minus_zero_are_one_point(metric):
    points = np.concatenate([POINTS, [[1.0, 0, 0, 0, 0, 0], [1.0, -0.0, 0, 0, 0, 0]]])
    np.testing.assert_array_equal(knn_density(points, metric=metric), knn_density(points + 0.0, metric=metric))


@pytest.mark.parametrize("backend", ["sklearn", "faiss", "ivf"])
@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-600, 2.0**530, 2.0**1020])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_scales_whose_squares_leave_float64(scale, backend):
    points = np.random.default_rng(0).normal(size=(60, 5))
    log = [np.log(knn_density(array, metric="euclidean", backend=backend)) for array in (points, points * scale)]
    np.testing.assert_allclose(*(values - np.median(values) for values in log), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale):
    points = np.random.default_rng(0).normal(size=(50, 30))
    for metric in ("cosine", "euclidean"):
        density = knn_density(points * scale, metric=metric)
        plain = knn_density(points, metric=metric)
        assert np.isfinite(density).all()
        np.testing.assert_array_equal(np.argsort(density), np.argsort(plain))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (POINTS, {"k": 40}, "k=40 neighbours need more than 40 distinct points, got 40.*at most 39"),
        (np.repeat(POINTS[:3], 9, axis=0), {}, "got 3"),
        (POINTS, {"k": 0, "estimator": "mean_distance"}, "k=0: wanted at least 1"),
        (POINTS, {"k": 1}, "k=1: wanted at least 2"),
        (np.where(np.arange(40)[:, None] == 4, np.nan, POINTS), {}, "1 of 40 rows are NaN or infinite: rows 4"),
        (np.where(np.arange(40)[:, None] == 9, np.inf, POINTS), {}, "rows 9"),
        (np.where(np.arange(40)[:, None] % 2 == 0, 0, POINTS), {}, r"20 of 40 rows are zero .*rows 0, 2.*\.\.\."),
        (POINTS[0], {}, r"got \[6\]"),
        (np.empty((0, 6)), {}, r"got \[0, 6\]"),
        (POINTS, {"metric": "l1"}, "metric: got 'l1'; Known: cosine, euclidean"),
        (POINTS, {"estimator": "x"}, "estimator: got 'x'; Known: mean_distance, volume"),
        (POINTS, {"backend": "x"}, "backend: got 'x'; Known: auto, faiss, ivf, sklearn, torch"),
    ],
)
def test_errors(points, options, message):
    with pytest.raises(ValueError, match=message):
        knn_density(points, **options)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match=r"in a clone of hf_synth pip install .\.\[embeddings\]"):
        knn_density(POINTS, backend="faiss")


def test_zero_rows_are_fine_for_euclidean():
    assert np.isfinite(knn_density(np.concatenate([POINTS, np.zeros((1, 6))]), metric="euclidean")).all()


def test_2312_points_in_five_seconds():
    points = np.random.default_rng(0).normal(size=(2312, 384)).astype(np.float32)
    start = time.perf_counter()
    knn_density(points)
    assert time.perf_counter() - start < 5


def as_given(kind: str) -> object:
    """The points as another library has them."""
    points = POINTS.astype(np.float32)
    if kind == "memory map":
        with tempfile.NamedTemporaryFile() as file:
            mapped = np.memmap(file, np.float32, "w+", shape=points.shape)
            mapped[:] = points
            return mapped
    makers = {
        "column-major": lambda: np.asfortranarray(points),
        "transposed": lambda: np.ascontiguousarray(points.T).T,
        "strided": lambda: np.repeat(points, 2, axis=1)[:, ::2],
        "big-endian": lambda: points.astype(">f4"),
        "DataFrame": lambda: pandas.DataFrame(points),
        "lists": points.tolist,
        "objects": lambda: points.astype(object),
        "tensor": lambda: torch.from_numpy(points),
        "tensor with a gradient": lambda: torch.from_numpy(points).requires_grad_(),
        "list of rows": lambda: list(points),
    }
    return makers[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "column-major",
        "transposed",
        "strided",
        "big-endian",
        "DataFrame",
        "lists",
        "objects",
        "tensor",
        "tensor with a gradient",
        "list of rows",
        "memory map",
    ],
)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_whatever_numpy_can_take_gives_the_same(kind, metric):
    wanted = knn_density(POINTS.astype(np.float32), k=3, metric=metric)
    np.testing.assert_allclose(knn_density(as_given(kind), k=3, metric=metric), wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint64, np.longdouble, torch.bfloat16, torch.float16])
def test_numbers_of_any_type(dtype):
    whole = np.round(4 * np.abs(POINTS)) + 1
    values = torch.from_numpy(whole).to(dtype) if isinstance(dtype, torch.dtype) else whole.astype(dtype)
    np.testing.assert_allclose(
        knn_density(values, k=3, reduce_k=True), knn_density(whole, k=3, reduce_k=True), rtol=1e-5
    )


@pytest.mark.parametrize(
    "wrong",
    [
        POINTS * 1j,
        POINTS.astype(str),
        [["1.5", "2.5"], ["3.5", "4.5"]],
        [[1.0, 2.0], [3.0]],
        [[1.0, None], [3.0, 4.0]],
        scipy.sparse.csr_matrix(POINTS),
        np.ma.masked_less(POINTS, 0),
        {"a": 1},
        torch.ones(3, 3).to_sparse(),
        POINTS[:, :, None],
        POINTS.astype("datetime64[s]"),
        [[10**400, 1], [2, 3]],
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_array_of_numbers_is_one_line(wrong):
    with pytest.raises(ValueError, match=r"^embeddings: ") as raised:
        knn_density(wrong, k=2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "weigh",
    [
        rarity_weights,
        check_weights,
        effective_sample_size,
        combined_weights,
        lambda values: curriculum_weights(values, 0.5),
        pass_rate_weights,
        lambda values: permuted(values, seed=1),
        lambda values: DensityWeightedSampler(values).weights,
        lambda values: FixedWeights(values).weights(0, 1),
        lambda values: ScheduledRarity(values).weights(0, 1),
        lambda values: Curriculum(values).weights(1, 2),
    ],
)
def test_weights_take_tensors_and_tables_and_refuse_text(weigh):
    values = np.array([0.25, 0.5, 1.0, 0.125])
    for arguments in (
        torch.from_numpy(values).to(torch.bfloat16),
        torch.from_numpy(values).requires_grad_(),
        pandas.Series(values, index=[3, 1, 2, 0]),
        pyarrow.array(values),
        values[::-1][::-1],
    ):
        np.testing.assert_array_equal(weigh(arguments), weigh(values))
    for wrong in (["0.25", "0.5"], values * 1j, values[:, None], ["a"]):
        with pytest.raises(ValueError, match=r"^[a-z_ 0-9]+: wanted"):
            weigh(wrong)
