"""Densities of more prompts than fit in memory, by any number of processes, from stage to stage on disk.

    plan     one process reads the prompts once: each distinct text goes into a part of 50,000, each row to its text
    embed    every process embeds every n-th part                      -> vectors.f32 [T, D]
    points   one process leaves out equal vectors                      -> points.f32 [P, D]
    search   every process searches for every n-th part of the points  -> neighbours/
    finish   one process makes densities of distances

Parts are the same whatever the number of processes, and so are exact results. A part is written whole or not at all:
a run that was killed begins with the first part that is missing. Arrays are files mapped into memory; what each
process holds is one part, and an approximate index where there is one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save

from hf_synth.errors import changes
from hf_synth.io import load_json, open_matrix, reading, write_bytes, write_json, write_tables
from hf_synth.sampling.density import check_k, density_of, distinct_points, levina_bickel
from hf_synth.sampling.embeddings import AGAIN, Embedder, text_key
from hf_synth.sampling.neighbors import (
    EXACT,
    ApproximateIndex,
    ExactIndex,
    Frame,
    Neighbors,
    choose_backend,
    make_index,
    nearest,
)

PART = 50_000  # texts or points


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and how it waits for the others."""

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class DensitySettings:
    """What a density depends on besides the prompts and the embedder; as in `knn_density`, by cosine."""

    k: int = 10
    estimator: str = "volume"
    backend: str = "auto"
    smoothing: int = 0
    reduce_k: bool = False


@dataclasses.dataclass(frozen=True)
class ShardedDensity:
    """density [N] of each prompt, and how it came about.

    keys: [N, 16] uint8, which stand for the texts. points: [P, D], mapped into memory; point: [N], of each prompt.
    facts: flat, for JSON.
    """

    density: np.ndarray
    keys: np.ndarray
    points: np.ndarray
    point: np.ndarray
    facts: dict[str, Any]


def sharded_density(
    folder: Path,
    texts: Callable[[], Iterable[list[str]]],
    embedder: Embedder,
    settings: DensitySettings,
    ranks: Ranks | None = None,
) -> ShardedDensity | None:
    """The density of every prompt, with all intermediate results in `folder`; None on processes other than the first.

    texts: called by the first process: all prompts, in batches.

    Raises ValueError as `knn_density` does, for no prompts, for a folder with work on other prompts or on the same in
    another order, on another embedder or with other settings, and for a damaged file in it.
    """
    work = DensityStages(folder, embedder, settings, ranks or Ranks())
    work.first_only(lambda: work.plan(texts))
    work.embed()
    work.first_only(work.find_points)
    work.search()
    return work.finish() if work.ranks.rank == 0 else None


class DensityStages:
    """The stages, each of which leaves out what is done."""

    def __init__(self, folder: Path, embedder: Embedder, settings: DensitySettings, ranks: Ranks) -> None:
        self.folder, self.embedder, self.settings, self.ranks = folder, embedder, settings, ranks

    def first_only(self, stage: Callable[[], None]) -> None:
        if self.ranks.rank == 0:
            stage()
        self.ranks.wait()

    def mine(self, count: int) -> range:
        """The parts of this process."""
        return range(self.ranks.rank, -(-count // PART), self.ranks.count)

    def plan(self, texts: Callable[[], Iterable[list[str]]]) -> None:
        number_of: dict[bytes, int] = {}
        rows: list[int] = []

        def new_texts() -> Iterator[str]:
            for text in chain.from_iterable(texts()):
                if (key := text_key(text)) not in number_of:
                    number_of[key] = len(number_of)
                    yield text
                rows.append(number_of[key])

        planned, distinct = (self.folder / "rows.safetensors").exists(), new_texts()
        while part := list(islice(distinct, PART)):
            if not planned:
                table = pa.table({"text": part})
                write_tables(self.folder / f"texts/{(len(number_of) - 1) // PART:05}.parquet", table.schema, [table])
        if not number_of:
            raise ValueError("prompts: got none to measure the density of.")
        keys, row = np.frombuffer(b"".join(number_of), np.uint8).reshape(-1, 16), np.array(rows, np.int64)
        plan = {
            "prompts": len(row),
            "distinct_texts": len(number_of),
            "fingerprint": fingerprint(keys),
            "order": _digest(keys.tobytes() + row.tobytes()),
            "embedder": self.embedder.fingerprint(),
        }
        self._claim("plan", plan)
        # Parts count as done only while the file that holds them is there.
        if not (self.folder / "vectors.f32").exists():
            for done in self.folder.glob("embedded/*.json"):
                done.unlink()
        if not (self.folder / "points.f32").exists():
            (self.folder / "points.safetensors").unlink(missing_ok=True)
        if not planned:
            write_bytes(self.folder / "rows.safetensors", save({"row": row, "keys": keys}))

    def _claim(self, name: str, wanted: dict[str, Any]) -> None:
        """Write what the work in this folder depends on, or find the same."""
        path = self.folder / f"{name}.json"
        if path.exists() and (changed := changes(self._json(name), wanted, wanted)):
            raise ValueError(f"{self.folder}: holds work on another density ({changed}); give another folder.")
        write_json(path, wanted)

    def embed(self) -> None:
        count = self._json("plan")["distinct_texts"]
        for number in self.mine(count):
            if (done := self.folder / f"embedded/{number:05}.json").exists():
                continue
            with reading(path := self.folder / f"texts/{number:05}.parquet", AGAIN):
                texts = pq.read_table(path)["text"].to_pylist()
            vectors = self.embedder(texts)
            file = open_matrix(self.folder / "vectors.f32", count, vectors.shape[1])
            file[number * PART : number * PART + len(texts)] = vectors
            file.flush()
            write_json(done, {"dim": vectors.shape[1]})
        self.ranks.wait()

    def find_points(self) -> None:
        """Distinct points in points.f32, and an approximate index over them where the backend is one."""
        path = self.folder / "points.safetensors"
        if not path.exists():
            count = self._json("plan")["distinct_texts"]
            dim = self._json("embedded/00000")["dim"]
            room = open_matrix(self.folder / "points.f32", count, dim)
            points, inverse, _ = distinct_points(open_matrix(self.folder / "vectors.f32", count, dim), "cosine", room)
            room.flush()
            shape = np.array([len(points), dim])
            write_bytes(path, save({"shape": shape, "point": inverse}))
        points, wanted = self._points(), self.settings
        k = check_k(wanted.k, len(points), wanted.estimator, wanted.reduce_k) if len(points) > 1 else 0
        # Only now: settings that cannot be had must not stand in the way of others.
        self._claim("settings", dataclasses.asdict(wanted))
        done = self.folder / "index.json"
        if k and not done.exists():  # what all processes search, and what its neighbours will be worth
            facts: dict[str, Any] = {"backend": choose_backend(wanted.backend, len(points)), "k": k}
            index, facts["recall"] = make_index(Frame.of(points), facts["backend"], k)
            if isinstance(index, ApproximateIndex):
                facts |= index.save(self.folder / "index.safetensors")
            write_json(done, facts)

    def _points(self) -> np.ndarray:
        count, dim = self._arrays("points")["shape"]
        return open_matrix(self.folder / "points.f32", self._json("plan")["distinct_texts"], dim)[:count]

    def search(self) -> None:
        points = self._points()
        if len(points) == 1:
            return
        facts = self._json("index")
        frame = Frame.of(points)
        index: ExactIndex | ApproximateIndex
        if facts["backend"] in EXACT:
            index = ExactIndex(frame, facts["backend"])
        else:
            with reading(path := self.folder / "index.safetensors", AGAIN):
                index = ApproximateIndex.load(path, facts)
        for number in self.mine(len(points)):
            if not (done := self.folder / f"neighbours/{number:05}.safetensors").exists():
                rows = np.arange(number * PART, min((number + 1) * PART, len(points)))
                distances, ids = nearest(frame, index, rows, facts["k"])
                write_bytes(done, save({"distances": distances, "ids": ids}))
        self.ranks.wait()

    def finish(self) -> ShardedDensity:
        """From the distances of all points to the density of each prompt."""
        texts, points = self._arrays("rows"), self._points()
        point = self._arrays("points")["point"][texts["row"]]
        density, facts = self._densities(points, np.bincount(point, minlength=len(points)))
        facts = {**self._json("plan"), **self._json("settings"), **facts, "distinct": len(points)}
        return ShardedDensity(density[point], texts["keys"][texts["row"]], points, point, facts)

    def _densities(self, points: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """[P] densities, and the facts of the search."""
        if len(points) == 1:
            return np.ones(1), {"backend": "none", "recall": 1.0, "dimension": 0.0}
        index, settings = self._json("index"), self.settings
        names = sorted(path.stem for path in self.folder.glob("neighbours/*.safetensors"))
        parts = [self._arrays(f"neighbours/{name}") for name in names]
        distances, ids = (np.concatenate([part[name] for part in parts]) for name in ("distances", "ids"))
        neighbors = Neighbors(distances, ids, index["backend"], index["recall"])
        density = density_of(neighbors, copies, "cosine", settings.estimator, settings.smoothing, points.shape[1])
        return density, {**index, "dimension": levina_bickel(distances, points.shape[1])}

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        with reading(path := self.folder / f"{name}.safetensors", AGAIN):
            return load_file(path)

    def _json(self, name: str) -> dict[str, Any]:
        return load_json(self.folder / f"{name}.json") or {}


def fingerprint(keys: np.ndarray) -> str:
    """32 hex digits that stand for a set of texts, by their keys [T, 16]: in any order, with any number of copies."""
    return _digest(np.unique(np.ascontiguousarray(keys).view("V16").ravel()).tobytes())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
