"""Vectors kept by content: a text that an embedder has seen is never embedded again, by whatever run.

    cache/<fingerprint of the embedder>/part-<hash of its keys>.safetensors     keys [n, 16] uint8, vectors [n, D]

A part is written whole or not at all: a run that was killed goes on where it was, and processes can share a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

PART = 8192  # texts in a part: what a killed run may have to embed again
_KEY_BYTES = 16


class EmbeddingCache:
    """The vectors of one embedder in a folder; `fingerprint` changes with anything that changes its vectors."""

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        """Nothing is read or written before `embed`."""
        self.folder = Path(folder) / fingerprint

    def embed(self, texts: Sequence[str], embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        """[N] texts -> [N, D]: those known are read, the others embedded, in parts that are kept one by one."""
        keys = [text_key(text) for text in texts]
        known = self._places()
        unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for start in range(0, len(unknown), PART):
            part = list(unknown)[start : start + PART]
            self._write(part, embed([unknown[key] for key in part]))
        return self._read(keys, self._places() if unknown else known)

    def _places(self) -> dict[bytes, tuple[Path, int]]:
        """Key -> its part and its row there."""
        places = {}
        for path in sorted(self.folder.glob("part-*.safetensors")):
            with safe_open(path, framework="numpy") as part:
                keys = part.get_tensor("keys")
            places.update({key.tobytes(): (path, row) for row, key in enumerate(keys)})
        return places

    def _read(self, keys: list[bytes], places: Mapping[bytes, tuple[Path, int]]) -> np.ndarray:
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            path, place = places[key]
            wanted.setdefault(path, []).append((row, place))
        out = None
        for path, rows in wanted.items():
            with safe_open(path, framework="numpy") as part:
                vectors = part.get_tensor("vectors")
            out = np.empty((len(keys), vectors.shape[1]), vectors.dtype) if out is None else out
            to, at = np.array(rows).T
            out[to] = vectors[at]
        return np.empty((0, 0), np.float32) if out is None else out

    def _write(self, keys: list[bytes], vectors: np.ndarray) -> None:
        joined = b"".join(keys)
        path = self.folder / f"part-{hashlib.blake2b(joined, digest_size=_KEY_BYTES).hexdigest()}.safetensors"
        table = np.frombuffer(joined, dtype=np.uint8).reshape(-1, _KEY_BYTES)
        write_whole(path, save({"keys": table, "vectors": np.ascontiguousarray(vectors)}))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it finds all of it, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def text_key(text: str) -> bytes:
    """16 bytes that stand for a text: the same on any machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
