"""The nearest neighbours of points among themselves: exact, or approximate with a recall that is measured.

    candidates of an index, more than wanted  ->  their distances in float64  ->  the k nearest, in order

Points may be a file mapped into memory: they are read in blocks, and only an approximate index copies all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from hf_synth.sampling.hashing import threads
from hf_synth.sampling.indexes import ApproximateIndex, ExactIndex, Frame, Index, sample_rows

logger = logging.getLogger(__name__)

EXACT = ("sklearn", "faiss", "torch")
BACKENDS = (*EXACT, "ivf")
LEAST_RECALL = 0.95
_FAISS_FROM = 2_000  # points from which "auto" takes faiss
_EXACT_UP_TO = 50_000  # points to which "auto" searches all of them, and the same times 40 on a GPU
_SPARE = 8  # candidates beyond k: float32 search may swap neighbours that differ in the seventh digit
_SMALLEST = 1e-6  # distances below this share of the data's spread are rounding, not geometry
_BLURRED = 0.01  # of a point's distance from the mean: nearer ones, float32 squares may put in the wrong order
_QUERIES = 16_384  # rows searched for at a time
_SAMPLE = 1_000  # points that recall is measured on
_CANDIDATES_EACH = 4  # for each neighbour wanted, where widening begins


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """distances [P, k] float64, ascending, all above 0; ids [P, k]; how they were found, and the recall at k."""

    distances: np.ndarray
    ids: np.ndarray
    backend: str
    recall: float


def choose_backend(backend: str, points: int) -> str:
    """The backend that `auto` means for so many points: exact for few, lists for many; others as they are."""
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"backend={backend!r}: wanted one of auto, {', '.join(BACKENDS)}.")
    if backend != "auto":
        return backend
    if points < _FAISS_FROM:
        return "sklearn"
    if _cuda() and points <= 40 * _EXACT_UP_TO:
        return "torch"
    return "ivf" if points > _EXACT_UP_TO else _exact()


def _exact() -> str:
    """The faster exact backend of those that are installed."""
    return "sklearn" if importlib.util.find_spec("faiss") is None else "faiss"


def find_neighbors(points: np.ndarray, k: int, backend: str = "auto") -> Neighbors:
    """The k nearest others of each of P distinct points [P, D], by Euclidean distance; 0 < k < P.

    Raises:
        ValueError: an unknown backend.
        ImportError: backend faiss, and faiss is not installed.
    """
    backend, exponent = choose_backend(backend, len(points)), 0
    if points.dtype == np.float64:  # whose squares can leave float64; times a power of two all digits stay
        exponent = int(np.frexp(max(points.max(), -points.min()))[1])
        points = np.ldexp(points, -exponent)
    frame = Frame.of(points)
    index, recall = build_index(frame, k, backend)
    distances, ids = nearest(frame, index, np.arange(len(points)), k)
    limits = np.finfo(np.float64)
    return Neighbors(np.clip(np.ldexp(distances, exponent), limits.tiny, limits.max), ids, backend, recall)


def build_index(frame: Frame, k: int, backend: str) -> tuple[Index, float]:
    """An index over the points, and its recall at k: 1 if exact, else measured, and the search widened below 0.95."""
    if backend in EXACT:
        return ExactIndex(frame, backend), 1.0
    index = ApproximateIndex(frame)
    return index, widen_to_recall(frame, index, k)


def nearest(frame: Frame, index: Index, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances [R, k] float64, ascending and above 0, and ids [R, k] of the nearest others of some rows."""
    distances, ids = np.empty((len(rows), k)), np.empty((len(rows), k), dtype=np.int64)
    wanted = min(len(frame), max(k + 1 + _SPARE, getattr(index, "candidates", 0)))
    sure = np.zeros(len(rows))
    for start in range(0, len(rows), _QUERIES):
        part = slice(start, start + _QUERIES)
        queries = frame[rows[part]]
        distances[part], ids[part] = _closest(frame.points, rows[part], index.search(queries, wanted), k)
        sure[part] = _BLURRED * frame.spread * np.linalg.norm(queries, axis=1)
    missed = np.isinf(distances[:, -1])  # the lists that were opened held fewer than k
    if missed.any():
        distances[missed], ids[missed] = nearest(frame, ExactIndex(frame, _exact()), rows[missed], k)
    blurred = distances[:, -1] < sure
    if blurred.any() and frame.dtype != np.float64:
        wide = dataclasses.replace(frame, dtype=np.float64)
        distances[blurred], ids[blurred] = nearest(wide, ExactIndex(wide, "sklearn"), rows[blurred], k)
    return np.maximum(distances, _SMALLEST * frame.spread), ids


def _closest(points: np.ndarray, rows: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the candidates [R, C] of each row, by distances in float64."""
    squares = np.empty(found.shape)
    with ThreadPoolExecutor(threads()) as pool:
        parts = [slice(start, start + 1024) for start in range(0, len(rows), 1024)]
        list(pool.map(lambda part: _squares(points, rows[part], found[part], squares[part]), parts))
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squares, order, axis=1)), np.take_along_axis(found, order, axis=1)


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # lets the sum run in the lanes of a register
def _squares(points, rows, found, out):  # type: ignore[no-untyped-def]
    """Squared distances [R, C] in float64; infinite to the point itself and where there is no candidate."""
    for row in range(len(rows)):
        here = points[rows[row]]
        for place in range(found.shape[1]):
            other, total = found[row, place], 0.0
            if other < 0 or other == rows[row]:
                out[row, place] = np.inf
                continue
            there = points[other]
            for column in range(points.shape[1]):
                offset = np.float64(here[column]) - np.float64(there[column])
                total += offset * offset
            out[row, place] = total


def widen_to_recall(frame: Frame, index: ApproximateIndex, k: int) -> float:
    """Widens the search until it finds 0.95 of the k nearest of a fixed sample of points; returns what it found."""
    rows = sample_rows(len(frame), _SAMPLE)
    index.candidates = min(max(index.candidates, _CANDIDATES_EACH * k), len(frame))
    truth = nearest(frame, ExactIndex(frame, _exact()), rows, k)[0]
    while (recall := _recall(truth, nearest(frame, index, rows, k)[0])) < LEAST_RECALL and index.widen():
        logger.info("Recall %.3f at k=%d, so the search is widened to %d lists", recall, k, index.width)
    if recall < LEAST_RECALL:
        logger.warning("Recall %.3f at k=%d is all that the approximate search gives; use backend='faiss'", recall, k)
    return recall


def _recall(truth: np.ndarray, found: np.ndarray) -> float:
    """The share of the k nearest that were found; by distance, since points at one distance are as good."""
    return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
