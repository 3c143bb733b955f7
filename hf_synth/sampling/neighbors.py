"""The nearest neighbours of points among themselves: exact, or approximate with a recall that is measured.

    candidates of an index, more than wanted  ->  their distances in float64  ->  the k nearest, in order

Points may be a file mapped into memory: they are read in blocks, and only an approximate index copies all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from hf_synth.errors import MissingPackageError, check_choices, install_hint
from hf_synth.kernels import kernel
from hf_synth.sampling.hashing import threads

logger = logging.getLogger(__name__)

EXACT = ("sklearn", "faiss", "torch")
BACKENDS = (*EXACT, "ivf")
LEAST_RECALL = 0.95
_FAISS_FROM = 2_000  # points from which "auto" takes faiss
_EXACT_UP_TO = 50_000  # points to which "auto" searches all of them, and the same times 40 on a GPU
_SPARE = 8  # candidates beyond k: float32 search may swap neighbours that differ in the seventh digit
_SMALLEST = 1e-6  # distances below this fraction of the data's spread are rounding, not geometry
_BLURRED = 0.01  # of a point's distance from the mean: nearer ones, float32 squares may put in the wrong order
_QUERIES = 16_384  # rows searched for at a time
_SAMPLE = 1_000  # points that recall is measured on
_CANDIDATES_EACH = 4  # for each neighbour wanted, where widening begins
_CHUNK = 65_536  # points that an exact search looks at together
_BLOCK = 8_192  # points in float64 at a time; queries that a thread compares with list after list
_TRAINED_ON, _ROUNDS = 20_000, 4  # points and rounds of k-means for an index; 20 points a list at least
_DIRECTIONS = 192  # that candidates are compared in
_WIDTH, _CANDIDATES = 32, 40  # lists opened and points measured exactly, where widening begins
_MOST_CANDIDATES = 2_000
_ARRAYS = ("directions", "centres", "ids", "bounds", "points", "squares")
_FACTS = ("lists", "width", "candidates")
_NOTHING, _PLACE = np.uint64(2**64 - 1), np.uint64(2**32 - 1)  # no key, and the bits of one that are a place


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """distances [P, k] float64, ascending, all above 0; ids [P, k]; how they were found, and the recall at k."""

    distances: np.ndarray
    ids: np.ndarray
    backend: str
    recall: float


def choose_backend(backend: str, points: int) -> str:
    """The backend that `auto` means for so many points: exact for few, lists for many; others as they are."""
    check_choices("backend", [backend], (*BACKENDS, "auto"))
    if backend == "faiss" and _exact() != "faiss":
        hint = install_hint("faiss-cpu", "embeddings")
        raise MissingPackageError(f"backend='faiss': {hint}; or use backend='sklearn'")
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
    """The k nearest others of each of P distinct points [P, D], by Euclidean distance; 0 < k < P."""
    backend, exponent = choose_backend(backend, len(points)), 0
    if points.dtype == np.float64:  # whose squares can leave float64; times a power of two all digits stay
        exponent = int(np.frexp(max(points.max(), -points.min()))[1])
        points = np.ldexp(points, -exponent)
    frame = Frame.of(points)
    index, recall = make_index(frame, backend, k)
    distances, ids = nearest(frame, index, np.arange(len(points)), k)
    limits = np.finfo(np.float64)
    return Neighbors(np.clip(np.ldexp(distances, exponent), limits.tiny, limits.max), ids, backend, recall)


def make_index(frame: Frame, backend: str, k: int) -> tuple[ExactIndex | ApproximateIndex, float]:
    """The index of a backend over all points, and the recall at k."""
    if backend in EXACT:
        return ExactIndex(frame, backend), 1.0
    index = ApproximateIndex(frame)
    return index, widen_to_recall(frame, index, k)


def nearest(
    frame: Frame, index: ExactIndex | ApproximateIndex, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
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


def _closest(points: np.ndarray, rows: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the candidates [R, C] of each row, by distances in float64."""
    squares = np.empty(candidates.shape)
    with ThreadPoolExecutor(threads()) as pool:
        parts = blocks(len(rows), 1024)
        list(pool.map(lambda part: _squares(points, rows[part], candidates[part], squares[part]), parts))
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squares, order, axis=1)), np.take_along_axis(candidates, order, axis=1)


@kernel(fastmath={"reassoc"})  # lets the sum run in the lanes of a register
def _squares(points, rows, candidates, out):  # type: ignore[no-untyped-def]
    """Squared distances [R, C] in float64; infinite to the point itself and where there is no candidate."""
    for row in range(len(rows)):
        here = points[rows[row]]
        for choice in range(candidates.shape[1]):
            other, total = candidates[row, choice], 0.0
            if other < 0 or other == rows[row]:
                out[row, choice] = np.inf
                continue
            there = points[other]
            for column in range(points.shape[1]):
                offset = np.float64(here[column]) - np.float64(there[column])
                total += offset * offset
            out[row, choice] = total


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


def _recall(truth: np.ndarray, distances: np.ndarray) -> float:
    """The fraction of the k nearest that was returned; by distance, since points at one distance are as good."""
    return float((distances <= truth[:, -1:] * (1 + 1e-6)).mean())


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


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
        parts = [points[part] for part in blocks(len(points))]
        mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(points)
        return cls(points, mean, max(float(np.abs(part - mean).max()) for part in parts))

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = self.points[rows]
        seen = np.empty(chosen.shape, self.dtype)
        for part in blocks(len(chosen)):
            seen[part] = (chosen[part] - self.mean) / self.spread
        return seen

    def __len__(self) -> int:
        return len(self.points)


class ExactIndex:
    """All points, chunk by chunk: in memory at any time are one chunk and the best so far."""

    def __init__(self, frame: Frame, backend: str) -> None:
        """`backend`: sklearn, faiss or torch, on a GPU where there is one."""
        self.frame, self.backend = frame, backend

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """[n, D] rows of a Frame -> [n, wanted] ids of the nearest points, themselves among them; -1 for none."""
        best = np.full((len(queries), wanted), np.inf, np.float32)
        ids = np.full((len(queries), wanted), -1, np.int64)
        for start in range(0, len(self.frame), _CHUNK):
            chunk = self.frame[start : start + _CHUNK]
            squares, near = _search_chunk(self.backend, queries, chunk, min(wanted, len(chunk)))
            squares, near = np.concatenate([best, squares], axis=1), np.concatenate([ids, near + start], axis=1)
            order = np.argsort(squares, axis=1, kind="stable")[:, :wanted]
            best, ids = np.take_along_axis(squares, order, axis=1), np.take_along_axis(near, order, axis=1)
        return ids


def _search_chunk(backend: str, queries: np.ndarray, chunk: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and rows of the nearest of a chunk, [n, wanted] each."""
    if backend == "sklearn":
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=wanted, algorithm="brute", metric="sqeuclidean").fit(chunk)
        return index.kneighbors(queries)
    if backend == "faiss":
        import faiss

        return faiss.knn(queries, chunk, wanted)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    from_, among = (torch.from_numpy(array).to(device) for array in (queries, chunk))
    squares = torch.addmm(among.square().sum(dim=1), from_, among.T, alpha=-2)  # minus the query's own length
    best, rows = squares.topk(wanted, dim=1, largest=False)
    return best.cpu().numpy(), rows.cpu().numpy()


class ApproximateIndex:
    """Lists of neighbouring points, of which a search opens some; `widen` opens more of them.

    Candidates are compared in the directions in which the points spread most, list by list: one product of matrices
    compares a list with all queries that open it. The distances that count are taken by the caller, in all directions.
    """

    def __init__(self, frame: Frame) -> None:
        """Directions and lists are those of a fixed sample; holds the points in 192 directions: 768 bytes each."""
        points = len(frame)
        self.lists = max(1, min(points // 40, round(4 * points**0.5)))
        self.width, self.candidates = min(_WIDTH, self.lists), min(_CANDIDATES, points)
        sample = frame[sample_rows(points, max(_TRAINED_ON, 20 * self.lists))]
        self.directions = _directions(sample)
        self.centres = _centres(sample @ self.directions, self.lists)
        list_of = _in_blocks(lambda part: _scores(frame[part] @ self.directions, self.centres).argmin(axis=1), points)
        self.ids = np.argsort(list_of, kind="stable")  # the lists one after the other
        self.bounds = _bounds(list_of, self.lists)
        self.points = _in_blocks(lambda part: frame[self.ids[part]] @ self.directions, points)
        self.squares = np.square(self.points).sum(axis=1)

    def save(self, path: Path) -> dict[str, Any]:
        """Write the arrays to a file; returns what `load` needs besides."""
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}, path)
        return {name: getattr(self, name) for name in _FACTS}

    @classmethod
    def load(cls, path: Path, facts: Mapping[str, Any]) -> ApproximateIndex:
        """The index as it was saved, as wide as it was."""
        loaded = cls.__new__(cls)
        vars(loaded).update(load_file(path), **{name: facts[name] for name in _FACTS})
        return loaded

    def search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """As `ExactIndex`, in the lists that are nearest to a query, in any order."""
        return _in_blocks(lambda part: self._search(queries[part] @ self.directions, wanted), len(queries))

    def _search(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        opens = np.empty((len(queries), self.lists), bool)
        for part in blocks(len(queries), 1024):
            scores = _scores(queries[part], self.centres)
            opens[part] = scores <= np.partition(scores, self.width - 1, axis=1)[:, self.width - 1 : self.width]
        opened, rows = np.nonzero(opens.T)  # list by list, the queries that open it
        bounds = _bounds(opened, self.lists)
        kept = np.full((len(queries), 2 * wanted), _NOTHING)
        counts, limits = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf, np.float32)
        own = np.square(queries).sum(axis=1)
        for number in np.flatnonzero(np.diff(bounds)):
            these, among = (slice(*where[number : number + 2]) for where in (bounds, self.bounds))
            products = queries[rows[these]] @ self.points[among].T
            _keep_nearest(products, self.squares[among], rows[these], own, among.start, kept, counts, limits)
        keys = np.partition(kept, wanted - 1, axis=1)[:, :wanted]
        return np.where(keys == _NOTHING, -1, self.ids[(keys & _PLACE).astype(np.int64) % len(self.ids)])

    def widen(self) -> bool:
        """Open a quarter more lists, measure a quarter more points exactly; False where that changes nothing."""
        before = self.width, self.candidates
        self.width = min(self.width + -(-self.width // 4), self.lists)
        self.candidates = min(self.candidates + -(-self.candidates // 4), len(self.ids), _MOST_CANDIDATES)
        return before != (self.width, self.candidates)


def _in_blocks(work: Callable[[slice], np.ndarray], rows: int) -> np.ndarray:
    """What `work` makes of each block of rows, together; each thread multiplies its matrices for itself."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads()) as pool:
        return np.concatenate(list(pool.map(work, blocks(rows))))


def _directions(sample: np.ndarray) -> np.ndarray:
    """[S, D] -> [D, d] principal directions, d at most 192; all of them where there are no more."""
    from sklearn.decomposition import PCA

    if sample.shape[1] <= _DIRECTIONS:
        return np.eye(sample.shape[1], dtype=np.float32)
    few = min(_DIRECTIONS, len(sample))
    return np.ascontiguousarray(PCA(few, random_state=0).fit(sample).components_.T)


def _centres(sample: np.ndarray, lists: int) -> np.ndarray:
    """[S, d] -> [lists, d] by k-means."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    search = KMeans(lists, init="random", n_init=1, max_iter=_ROUNDS, tol=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of clumps with fewer places than lists: some stay empty
        return search.fit(sample).cluster_centers_


def _scores(queries: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[n, lists] squared distances, less each query's own square."""
    return np.square(centres).sum(axis=1) - 2 * (queries @ centres.T)


def _bounds(numbers: np.ndarray, count: int) -> np.ndarray:
    """[count + 1]: where each number begins once they are sorted, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])


@kernel
def _keep_nearest(products, squares, rows, own, start, kept, counts, limits):  # type: ignore[no-untyped-def]
    """Put the points of a list, by their products with queries [n, m], among what is kept of these queries [N, 2 C].

    Kept are keys that sort by squared distance: its bits as float32, then the point's place in 32 bits more. Where
    twice the wanted ones are there, the nearer half stays, and its farthest is the limit for what comes.
    """
    wanted = kept.shape[1] // 2
    distance = np.empty(1, np.float32)
    bits = distance.view(np.uint32)
    squared = np.empty(products.shape[1], np.float32)
    for number in range(len(rows)):
        row = rows[number]
        keys, count, limit = kept[row], counts[row], limits[row]
        for column in range(products.shape[1]):
            squared[column] = own[row] + squares[column] - 2 * products[number, column]
        for column in range(products.shape[1]):
            if squared[column] >= limit:
                continue
            distance[0] = max(squared[column], np.float32(0))
            keys[count] = np.uint64(bits[0]) << np.uint64(32) | np.uint64(start + column)
            count += 1
            if count == len(keys):
                keys[:] = np.partition(keys, wanted - 1)
                bits[0] = np.uint32(keys[wanted - 1] >> np.uint64(32))
                count, limit = wanted, distance[0]
        counts[row], limits[row] = count, limit


def sample_rows(points: int, size: int) -> np.ndarray:
    """Rows, ascending, always the same ones."""
    return np.sort(np.random.default_rng(0).choice(points, min(size, points), replace=False))


def blocks(rows: int, size: int = _BLOCK) -> list[slice]:
    """Slices of so many rows each, the last one shorter."""
    return [slice(start, start + size) for start in range(0, rows, size)]
