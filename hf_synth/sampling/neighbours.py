"""The nearest neighbours of points among themselves: exact, or approximate with a recall that is measured.

    candidates of an index, more than wanted  ->  their distances in float64  ->  the k nearest, in order

Points may be a file mapped into memory: they are read in blocks, and only an approximate index copies all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numba import njit

from hf_synth.sampling.hashing import threads

logger = logging.getLogger(__name__)

EXACT = ("sklearn", "faiss", "torch")
BACKENDS = (*EXACT, "ivf")
LEAST_RECALL = 0.95
_FAISS_FROM = 2_000  # points from which "auto" takes faiss
_EXACT_UP_TO = 50_000  # points to which "auto" searches all of them, and the same times 40 on a GPU
_SPARE = 8  # candidates beyond k: float32 search may swap neighbours that differ in the seventh digit
_SMALLEST = 1e-6  # distances below this share of the data's spread are rounding, not geometry
_QUERIES, _CHUNK = 16_384, 65_536  # rows searched for, and searched in, at a time
_SAMPLE = 1_000  # points that recall is measured on
_TRAINED_ON, _ROUNDS = 20_000, 6  # points and rounds of k-means for an index; 40 points a list at least
_WIDTH, _CANDIDATES = 16, 40  # lists opened and points measured exactly, where widening begins
_MOST_CANDIDATES = 2_000


class Index(Protocol):
    """What finds candidates: `search` takes [n, D] float32 rows and gives ids [n, wanted], -1 where there are none."""

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """The ids of about the `wanted` nearest points, in any order, the point itself among them."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Points, and how they are seen by an index: centred and scaled, so that float32 keeps their digits."""

    points: np.ndarray
    mean: np.ndarray
    spread: float

    @classmethod
    def of(cls, points: np.ndarray) -> Frame:
        """Two passes over the points, in blocks."""
        points = np.asarray(points)  # a file mapped into memory as a plain array, which kernels take
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(points)) / len(points)
        return cls(points, mean, max(float(np.abs(block - mean).max()) for block in _blocks(points)))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.ascontiguousarray((self.points[rows] - self.mean) / self.spread, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.points)


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """distances [P, k] float64, ascending, all above 0; ids [P, k]; how they were found, and the recall at k."""

    distances: np.ndarray
    ids: np.ndarray
    backend: str
    recall: float


def choose_backend(backend: str, points: int) -> str:
    """The backend that `auto` means for so many points: exact for few, faiss's IVF for many; others as they are."""
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"backend={backend!r}: wanted one of auto, {', '.join(BACKENDS)}.")
    if backend != "auto":
        return backend
    if points < _FAISS_FROM:
        return "sklearn"
    if _cuda() and points <= 40 * _EXACT_UP_TO:
        return "torch"
    if importlib.util.find_spec("faiss") is None:
        return "sklearn"
    return "faiss" if points <= _EXACT_UP_TO else "ivf"


def find_neighbours(points: np.ndarray, k: int, backend: str = "auto") -> Neighbours:
    """The k nearest others of each of P distinct points [P, D], by Euclidean distance; 0 < k < P.

    Raises:
        ValueError: an unknown backend.
        ImportError: a backend of faiss, and faiss is not installed.
    """
    frame, backend = Frame.of(points), choose_backend(backend, len(points))
    index, recall = build_index(frame, k, backend)
    distances, ids = nearest(frame, index, np.arange(len(points)), k)
    return Neighbours(distances, ids, backend, recall)


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
    for start in range(0, len(rows), _QUERIES):
        part = slice(start, start + _QUERIES)
        found = index.search(frame[rows[part]], wanted)
        distances[part], ids[part] = _closest(frame.points, rows[part], found, k)
    missed = np.isinf(distances[:, -1])  # the lists that were opened held fewer than k
    if missed.any():
        distances[missed], ids[missed] = nearest(frame, ExactIndex(frame, "faiss"), rows[missed], k)
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


class ExactIndex:
    """All points, chunk by chunk: in memory at any time are one chunk and the best so far."""

    def __init__(self, frame: Frame, backend: str) -> None:
        """`backend`: sklearn, faiss or torch, on a GPU where there is one."""
        self.frame = frame
        self.search_chunk = {"sklearn": _search_sklearn, "faiss": _search_faiss, "torch": _search_torch}[backend]

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """As `Index`."""
        best = np.full((len(queries), wanted), np.inf, np.float32)
        ids = np.full((len(queries), wanted), -1, np.int64)
        for start in range(0, len(self.frame), _CHUNK):
            chunk = self.frame[start : start + _CHUNK]
            squares, places = self.search_chunk(queries, chunk, min(wanted, len(chunk)))
            squares, places = np.concatenate([best, squares], axis=1), np.concatenate([ids, places + start], axis=1)
            order = np.argsort(squares, axis=1, kind="stable")[:, :wanted]
            best, ids = np.take_along_axis(squares, order, axis=1), np.take_along_axis(places, order, axis=1)
        return ids


def _search_sklearn(queries: np.ndarray, chunk: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=wanted, algorithm="brute", metric="sqeuclidean").fit(chunk)
    return index.kneighbors(queries)


def _search_faiss(queries: np.ndarray, chunk: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    return _faiss().knn(queries, chunk, wanted)


def _search_torch(queries: np.ndarray, chunk: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    from_, among = (torch.from_numpy(array).to(device) for array in (queries, chunk))
    squares = torch.addmm(among.square().sum(dim=1), from_, among.T, alpha=-2)  # less the query's own length
    best, places = squares.topk(wanted, dim=1, largest=False)
    return best.cpu().numpy(), places.cpu().numpy()


class ApproximateIndex:
    """Faiss's lists of 4-bit codes over all points, of which a search looks into some; `widen` opens more of them."""

    def __init__(self, frame: Frame) -> None:
        """Trained on a fixed sample; points are added in blocks, D / 2 bytes each (4 D where D is odd)."""
        points, dim = frame.points.shape
        self.lists = max(1, min(points // 40, round(2 * points**0.5)))
        self.width, self.candidates = min(_WIDTH, self.lists), min(_CANDIDATES, points)
        codes = f"PQ{dim // 2}x4fs" if dim % 2 == 0 else "Flat"
        self.index = _faiss().index_factory(dim, f"IVF{self.lists},{codes}")
        self.index.cp.niter = _ROUNDS
        self.index.train(frame[_sample(points, max(_TRAINED_ON, 40 * self.lists))])
        for start in range(0, points, _CHUNK):
            self.index.add(frame[start : start + _CHUNK])

    def save(self, path: Path) -> dict[str, Any]:
        """Write the index to a file; returns what `load` needs besides."""
        _faiss().write_index(self.index, str(path))
        return {name: value for name, value in vars(self).items() if name != "index"}

    @classmethod
    def load(cls, path: Path, facts: Mapping[str, Any]) -> ApproximateIndex:
        """The index as it was saved, as wide as it was."""
        loaded = cls.__new__(cls)
        loaded.index = _faiss().read_index(str(path))
        for name in ("lists", "width", "candidates"):
            setattr(loaded, name, facts[name])
        return loaded

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """As `Index`, in the lists that are nearest to a query."""
        self.index.nprobe = self.width
        return self.index.search(queries, wanted)[1]

    def widen(self) -> bool:
        """Open half as many lists again, measure a quarter more points exactly; False where that changes nothing."""
        before = self.width, self.candidates
        self.width = min(self.width + -(-self.width // 2), self.lists)
        self.candidates = min(self.candidates + -(-self.candidates // 4), self.index.ntotal, _MOST_CANDIDATES)
        return before != (self.width, self.candidates)


def widen_to_recall(frame: Frame, index: ApproximateIndex, k: int) -> float:
    """Widens the search until it finds 0.95 of the k nearest of a fixed sample of points; returns what it found."""
    rows = _sample(len(frame), _SAMPLE)
    truth = nearest(frame, ExactIndex(frame, "faiss"), rows, k)[0]
    while (recall := _recall(truth, nearest(frame, index, rows, k)[0])) < LEAST_RECALL and index.widen():
        logger.info("Recall %.3f at k=%d, so the search is widened to %d lists", recall, k, index.width)
    if recall < LEAST_RECALL:
        logger.warning("Recall %.3f at k=%d is all that the approximate search gives; use backend='faiss'", recall, k)
    return recall


def _recall(truth: np.ndarray, found: np.ndarray) -> float:
    """The share of the k nearest that were found; by distance, since points at one distance are as good."""
    return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())


def _sample(points: int, size: int) -> np.ndarray:
    """Rows, ascending, always the same ones."""
    return np.sort(np.random.default_rng(0).choice(points, min(size, points), replace=False))


def _blocks(points: np.ndarray) -> Iterator[np.ndarray]:
    return (points[start : start + _CHUNK] for start in range(0, len(points), _CHUNK))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "backend='faiss' or 'ivf', and faiss is not installed. Install it with pip install "
            "'hf_synth[embeddings]', or use backend='sklearn'."
        ) from error
    return faiss


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
