"""Where neighbours are looked for: all points chunk by chunk, or faiss's lists, of which a search opens some."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_CHUNK = 65_536  # points searched in at a time
_TRAINED_ON, _ROUNDS = 20_000, 6  # points and rounds of k-means for an index; 40 points a list at least
_CODED_FROM = 640  # points: 40 for each of the 16 values that a code of 4 bits takes
_WIDTH, _CANDIDATES = 24, 64  # lists opened and points measured exactly, where widening begins
_MOST_CANDIDATES = 2_000


class Index(Protocol):
    """What finds candidates: `search` takes [n, D] rows of a Frame, gives ids [n, wanted], -1 where there are none."""

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """The ids of about the `wanted` nearest points, in any order, the point itself among them."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Points, and how they are seen by an index: centred and scaled, so that float32 keeps most of their digits."""

    points: np.ndarray
    mean: np.ndarray
    spread: float
    dtype: type[np.floating[Any]] = np.float32

    @classmethod
    def of(cls, points: np.ndarray) -> Frame:
        """Two passes over the points, in blocks."""
        points = np.asarray(points)  # a file mapped into memory as a plain array, which kernels take
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(points)) / len(points)
        return cls(points, mean, max(float(np.abs(block - mean).max()) for block in _blocks(points)))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.ascontiguousarray((self.points[rows] - self.mean) / self.spread, dtype=self.dtype)

    def __len__(self) -> int:
        return len(self.points)


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
        """Trained on a fixed sample; points are added in blocks, D / 2 bytes each (4 D where D is odd, or P small)."""
        points, dim = frame.points.shape
        self.lists = max(1, min(points // 40, round(2 * points**0.5)))
        self.width, self.candidates = min(_WIDTH, self.lists), min(_CANDIDATES, points)
        codes = f"PQ{dim // 2}x4fs" if dim % 2 == 0 and points >= _CODED_FROM else "Flat"
        self.index = _faiss().index_factory(dim, f"IVF{self.lists},{codes}")
        self.index.cp.niter = _ROUNDS
        self.index.cp.min_points_per_centroid = 1  # fewer than 40 a list are so few that there is one list
        self.index.train(frame[sample_rows(points, max(_TRAINED_ON, 40 * self.lists))])
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


def sample_rows(points: int, size: int) -> np.ndarray:
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
