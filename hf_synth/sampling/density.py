"""The density of each point, from its nearest neighbours. Larger = denser, always."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_synth.errors import check_choices
from hf_synth.sampling.neighbors import Neighbors, blocks, find_neighbors
from hf_synth.sampling.weights import as_numbers

logger = logging.getLogger(__name__)

_CHOICES = {"metric": ("cosine", "euclidean"), "estimator": ("volume", "mean_distance")}
_LOG_LIMIT = 690.0  # exp(690) is still a float64


@dataclasses.dataclass(frozen=True)
class MeasuredDensity:
    """Densities, and how they came about.

    density: [N] float64, larger = denser. dimension: the intrinsic dimension (0 where all points are one).
    distinct: how many points are. k: the neighbours used. backend: what found them; recall: the fraction of the true k
    nearest that it found, 1 if exact, otherwise measured on a sample.
    """

    density: np.ndarray
    dimension: float
    distinct: int
    k: int
    backend: str
    recall: float


def knn_density(embeddings: ArrayLike, **options: Any) -> np.ndarray:
    """Density of each point, [N, D] -> [N] float64, LARGER = DENSER: of `measure_knn_density`, the density alone."""
    return measure_knn_density(embeddings, **options).density


def measure_knn_density(
    embeddings: ArrayLike,
    *,
    k: int = 10,
    metric: str = "cosine",
    estimator: str = "volume",
    backend: str = "auto",
    smoothing: int = 0,
    reduce_k: bool = False,
) -> MeasuredDensity:
    """Measure the density of each point by its k nearest DISTINCT points: [N, D] -> [N], LARGER = DENSER.

    With r_k the distance to the k-th neighbour among distinct points, d the intrinsic dimension and m how many copies
    of the point there are:

        volume          m * k / r_k**d             points per volume: twice the points, twice the density
        mean_distance   m / mean(r_1 ... r_k)      far weaker in many dimensions: a cluster 20 times as dense
                                                   comes out only 1.4 to 3 times so

    embeddings: [N, D] finite numbers, as whatever NumPy can take: lists, tables, tensors, memory maps.
    k: neighbours; fewer than there are distinct points. `volume` needs at least 2, to find d.
    metric: "cosine" (rows are normalised first; r is 1 - cosine in `mean_distance` and the chord in `volume`, where
    only their ratios matter) or "euclidean".
    backend: "sklearn", "faiss", "torch" (all exact and equal up to rounding; torch on a GPU where there is one), "ivf"
    (approximate: lists of which a search opens some, more of them until it finds at least 0.95 of the true neighbours
    of a sample), or "auto": exact for up to 50,000 points, then ivf.
    smoothing: rounds in which the logarithm of each density becomes its mean over the point and its k neighbours. One
    estimate from k neighbours scatters by 1 / sqrt(k); with rounds the density is that of a cluster more than of a
    point, and copies add to the density of their neighbourhood.
    reduce_k: take the largest possible k where there are too few distinct points, instead of refusing.

    Densities are finite and above 0, in points per unit**d or in 1 / unit; where float64 could not hold that, up to a
    constant factor. All points equal: all 1.

    Raises ValueError for NaN, infinite or (cosine) zero rows, naming them, a wrong shape, or a k too large or small.
    Source: the k-nearest-neighbour density estimate of Loftsgaarden and Quesenberry (1965).
    """
    for name, value in {"metric": metric, "estimator": estimator}.items():
        check_choices(name, [value], _CHOICES[name])
    if smoothing < 0:
        raise ValueError(f"smoothing={smoothing}: wanted a number of rounds of at least 0.")
    points, inverse, copies = distinct_points(embeddings, metric)
    del embeddings  # a caller that keeps none needs the room
    if len(points) == 1:
        return MeasuredDensity(np.ones(len(inverse)), 0.0, 1, 0, "none", 1.0)
    k = check_k(k, len(points), estimator, reduce_k)
    neighbors = find_neighbors(points, k, backend)
    logger.info("Neighbors of %d distinct points by %s, recall %.3f", len(points), neighbors.backend, neighbors.recall)
    density = density_of(neighbors, copies, metric, estimator, smoothing, points.shape[1])
    dimension = levina_bickel(neighbors.distances, points.shape[1])
    return MeasuredDensity(density[inverse], dimension, len(points), k, neighbors.backend, neighbors.recall)


def intrinsic_dimension(embeddings: ArrayLike, *, k: int = 10, metric: str = "cosine", backend: str = "auto") -> float:
    """Levina and Bickel's maximum-likelihood dimension of the data among its distinct points (chords for cosine).

    A number between 0 and D: (k - 1) * N / sum of log(r_k / r_j). All points equal: 0. Arguments and errors are those
    of `measure_knn_density`; k is at least 2.

    Source: Levina and Bickel (2004), with the average over points of MacKay and Ghahramani (2005).
    """
    return measure_knn_density(embeddings, k=k, metric=metric, backend=backend).dimension


def density_of(
    neighbors: Neighbors, copies: np.ndarray, metric: str, estimator: str, smoothing: int, ambient: int
) -> np.ndarray:
    """[P] densities of distinct points from their neighbours [P, k] and copies [P]; arguments as `knn_density`."""
    if estimator == "volume":
        dimension = levina_bickel(neighbors.distances, ambient)
        log_density = (
            np.log(copies) + np.log(neighbors.distances.shape[1]) - dimension * np.log(neighbors.distances[:, -1])
        )
    else:
        lengths = np.square(neighbors.distances) / 2 if metric == "cosine" else neighbors.distances
        log_density = np.log(copies) - np.log(lengths.mean(axis=1))
    for _ in range(smoothing):
        log_density = (log_density + log_density[neighbors.ids].sum(axis=1)) / (neighbors.ids.shape[1] + 1)
    if np.abs(log_density).max() > _LOG_LIMIT:  # the median becomes 1 where the numbers would not fit
        log_density = log_density - np.median(log_density)
    return np.exp(np.clip(log_density, -_LOG_LIMIT, _LOG_LIMIT))


def levina_bickel(distances: np.ndarray, ambient: int) -> float:
    """[P, k] ascending distances -> dimension, 0 for k = 1; at most D, which equidistant points would exceed."""
    log_ratios = np.log(distances[:, -1:] / distances[:, :-1]).mean() if distances.shape[1] > 1 else np.inf
    return float(min(1 / log_ratios, ambient)) if log_ratios > 0 else float(ambient)


def distinct_points(
    embeddings: ArrayLike, metric: str, room: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[N, D] -> distinct points [P, D], the point of each row [N], copies of each point [P]; first come, first listed.

    Points are unit rows in float32 for cosine; for euclidean they keep float32 or become float64. They are written to
    the front of `room` [N, D], such as a file mapped into memory, where it is given.
    """
    array = as_numbers(embeddings, "embeddings")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"embeddings: wanted shape [N, D] with N and D above 0, got {list(array.shape)}.")
    checks = {"NaN or infinite": lambda block: ~np.isfinite(block.astype(np.float64)).all(axis=1)}
    if metric == "cosine":
        checks["zero (a zero vector has no direction)"] = lambda block: ~block.any(axis=1)
    for what, check in checks.items():
        if bad := [row for part in blocks(len(array)) for row in part.start + np.flatnonzero(check(array[part]))]:
            shown = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
            raise ValueError(
                f"embeddings: {len(bad)} of {len(array)} rows are {what}: rows {shown}. Drop or mend them."
            )
    kept = np.float32 if metric == "cosine" or array.dtype == np.float32 else np.float64
    points = np.empty(array.shape, kept) if room is None else room
    inverse = np.empty(len(array), np.int64)
    number_of: dict[bytes, int] = {}
    for part in blocks(len(array)):
        wide = array[part].astype(np.float64, order="C")  # row by row in memory
        if metric == "cosine":
            # Scaled by the largest entry first: the squares of very large or small entries would leave float64.
            wide /= np.abs(wide).max(axis=1, keepdims=True)
            wide /= np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
        block = (wide + 0.0).astype(kept)  # no -0.0
        keys = [hashlib.blake2b(row, digest_size=16).digest() for row in block]
        inverse[part] = [number_of.setdefault(key, len(number_of)) for key in keys]
        points[inverse[part]] = block
    return points[: len(number_of)], inverse, np.bincount(inverse)


def check_k(k: int, distinct: int, estimator: str, reduce_k: bool = False) -> int:
    """k, or the largest possible one where that may be taken instead; ValueError for one out of range."""
    least = 2 if estimator == "volume" else 1
    if k < least:
        raise ValueError(f"k={k}: wanted at least {least} for estimator={estimator!r}.")
    if reduce_k and least < distinct <= k:
        logger.warning("k=%d neighbours of %d distinct points: k is reduced to %d", k, distinct, distinct - 1)
        return distinct - 1
    if k >= distinct:
        lower = f"Take k of at most {distinct - 1}, or give" if distinct > least else "Give"
        raise ValueError(f"k={k} neighbours need more than {k} distinct points, got {distinct}. {lower} more points.")
    return k
