"""How crowded each point is, from its nearest neighbours. Larger = more crowded, always."""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import ArrayLike

_CHOICES = {
    "metric": ("cosine", "euclidean"),
    "estimator": ("volume", "mean_distance"),
    "backend": ("auto", "sklearn", "faiss"),
}
_FAISS_FROM = 2_000  # distinct points from which "auto" takes faiss
_SPARE = 8  # candidates beyond k: float32 search may swap neighbours that differ in the seventh digit
_SMALLEST = 1e-6  # distances below this share of the data's spread are rounding, not geometry
_LOG_LIMIT = 690.0  # exp(690) is still a float64


def knn_density(
    embeddings: ArrayLike,
    *,
    k: int = 10,
    metric: str = "cosine",
    estimator: str = "volume",
    backend: str = "auto",
) -> np.ndarray:
    """Density of each point from its k nearest DISTINCT points: [N, D] -> [N], LARGER = MORE CROWDED.

    With r_k the distance to the k-th neighbour among distinct points, d the intrinsic dimension and m how many copies
    of the point there are:

        volume          m * k / r_k**d             points per volume: twice the points, twice the density
        mean_distance   m / mean(r_1 ... r_k)      far weaker in many dimensions: a cluster 20 times as crowded
                                                   comes out only 1.4 to 3 times as dense

    Args:
        embeddings: [N, D] finite numbers.
        k: neighbours; fewer than there are distinct points. `volume` needs at least 2, to find d.
        metric: "cosine" (rows are normalised first; r is 1 - cosine in `mean_distance` and the chord in `volume`,
            where only their ratios matter) or "euclidean".
        backend: "sklearn", "faiss" (both exact and equal up to rounding), or "auto": faiss for many points where it
            is installed.

    Returns:
        [N] float64, finite and above 0, in points per unit**d or in 1 / unit; where float64 could not hold that, up
        to a constant factor. All points equal: all 1.

    Raises:
        ValueError: NaN, infinite or (cosine) zero rows, named; k too large or too small; a wrong shape; an unknown
            metric, estimator or backend.
        ImportError: backend="faiss" and faiss is not installed.

    Source: the k-nearest-neighbour density estimate of Loftsgaarden and Quesenberry (1965).
    """
    _check_choice("metric", metric)
    _check_choice("estimator", estimator)
    points, inverse, copies = _distinct(embeddings, metric)
    if len(points) == 1:
        return np.ones(len(inverse))
    distances = _neighbour_distances(points, _check_k(k, len(points), estimator), backend)
    if estimator == "volume":
        dimension = _levina_bickel(distances, points.shape[1])
        log_density = np.log(copies) + np.log(k) - dimension * np.log(distances[:, -1])
    else:
        lengths = np.square(distances) / 2 if metric == "cosine" else distances
        log_density = np.log(copies) - np.log(lengths.mean(axis=1))
    return _exp(log_density)[inverse]


def intrinsic_dimension(embeddings: ArrayLike, *, k: int = 10, metric: str = "cosine", backend: str = "auto") -> float:
    """Levina and Bickel's maximum-likelihood dimension of the data among its distinct points (chords for cosine).

    Args: as `knn_density`; k at least 2.

    Returns:
        A number between 0 and D: (k - 1) * N / sum of log(r_k / r_j). All points equal: 0.

    Raises:
        ValueError: as `knn_density`.

    Source: Levina and Bickel (2004), with the average over points of MacKay and Ghahramani (2005).
    """
    _check_choice("metric", metric)
    points, _, _ = _distinct(embeddings, metric)
    if len(points) == 1:
        return 0.0
    distances = _neighbour_distances(points, _check_k(k, len(points), "volume"), backend)
    return _levina_bickel(distances, points.shape[1])


def _levina_bickel(distances: np.ndarray, ambient: int) -> float:
    """[P, k] ascending distances -> dimension; at most the ambient one, which equidistant points would exceed."""
    log_ratios = np.log(distances[:, -1:] / distances[:, :-1]).mean()
    return float(min(1 / log_ratios, ambient)) if log_ratios > 0 else float(ambient)


def _distinct(embeddings: ArrayLike, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[N, D] -> distinct points [P, D] (unit rows for cosine), the point of each row [N], copies of each point [P]."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"embeddings: wanted shape [N, D] with N and D above 0, got {list(array.shape)}.")
    array = array.astype(np.float64)
    _refuse_rows(~np.isfinite(array).all(axis=1), "NaN or infinite")
    if metric == "cosine":
        # Scaled by the largest entry first: the squares of very large or small entries would leave float64.
        largest = np.abs(array).max(axis=1, keepdims=True)
        _refuse_rows(largest[:, 0] == 0, "zero (a zero vector has no direction)")
        array /= largest
        array /= np.sqrt(np.square(array).sum(axis=1, keepdims=True))
        array = array.astype(np.float32)  # drops the rounding by which equal directions of other lengths differ
    array = np.ascontiguousarray(array + 0.0)  # -0.0 becomes 0.0
    as_bytes = array.view(np.dtype((np.void, array.itemsize * array.shape[1])))[:, 0]
    _, first, inverse, copies = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
    return array[first], inverse, copies


def _refuse_rows(bad: np.ndarray, what: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        raise ValueError(f"embeddings: {len(rows)} of {len(bad)} rows are {what}: rows {shown}. Drop or mend them.")


def _neighbour_distances(points: np.ndarray, k: int, backend: str) -> np.ndarray:
    """Euclidean distances [P, k], ascending, from each of P distinct points to its nearest others; all above 0."""
    _check_choice("backend", backend)
    if backend == "auto":
        installed = importlib.util.find_spec("faiss") is not None
        backend = "faiss" if installed and len(points) >= _FAISS_FROM else "sklearn"
    centred = points - points.mean(axis=0, dtype=np.float64)  # keeps digits in float32; distances stay
    spread = np.abs(centred).max()
    wanted = min(len(points), k + 1 + _SPARE)
    search = _search_faiss if backend == "faiss" else _search_sklearn
    neighbours = search((centred / spread).astype(np.float32), wanted)  # [P, wanted], the point itself among them
    out = np.empty((len(points), k))
    block = max(1, 2**18 // (wanted * points.shape[1]))  # small enough for the processor's cache
    for start in range(0, len(points), block):
        rows = np.arange(start, min(start + block, len(points)))
        offsets = centred[neighbours[rows]] - centred[rows, None]
        squares = np.einsum("rnd,rnd->rn", offsets, offsets)
        squares[neighbours[rows] == rows[:, None]] = np.inf
        out[rows] = np.sqrt(np.sort(squares, axis=1)[:, :k])
    return np.maximum(out, _SMALLEST * spread)


def _search_sklearn(points: np.ndarray, wanted: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=wanted, algorithm="brute", metric="euclidean").fit(points)
    return index.kneighbors(points, return_distance=False)


def _search_faiss(points: np.ndarray, wanted: int) -> np.ndarray:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "backend='faiss' and faiss is not installed. Install it with pip install 'hf_synth[embeddings]', or use "
            "backend='sklearn'."
        ) from error
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return index.search(points, wanted)[1]


def _exp(log_density: np.ndarray) -> np.ndarray:
    """exp, with the median moved to 1 where the numbers would not fit, and the far tails held inside float64."""
    if np.abs(log_density).max() > _LOG_LIMIT:
        log_density = log_density - np.median(log_density)
    return np.exp(np.clip(log_density, -_LOG_LIMIT, _LOG_LIMIT))


def _check_choice(name: str, value: str) -> None:
    if value not in _CHOICES[name]:
        raise ValueError(f"{name}={value!r}: wanted one of {', '.join(_CHOICES[name])}.")


def _check_k(k: int, distinct: int, estimator: str) -> int:
    least = 2 if estimator == "volume" else 1
    if k < least:
        raise ValueError(f"k={k}: wanted at least {least} for estimator={estimator!r}.")
    if k >= distinct:
        raise ValueError(
            f"k={k} neighbours need more than {k} distinct points, got {distinct}. Take k of at most {distinct - 1}, "
            "or give more points."
        )
    return k
