"""Parquet shards: the same bytes wherever they are made, whole or not there, and never taken for another's.

A config's manifest says what was measured on them.
"""

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_synth.errors import changes
from hf_synth.io import whole_file
from hf_synth.rng import hash_rows

if TYPE_CHECKING:
    from hf_synth.hub.publication import Published

SHARD_ROWS = 50_000  # the number of shards follows from a split's size alone
_GROUP_ROWS = 5_000
_SPEC = b"hf_synth"
# Nothing that depends on time or host; a checksum for each page, so that a torn one is noticed.
FORMAT: dict[str, Any] = {"version": "2.6", "compression": "zstd", "compression_level": 3, "write_page_checksum": True}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Rows start .. start + rows - 1 of a split; `path` is where they lie, in a folder and on the Hub."""

    config: "Published"
    split: str
    start: int
    rows: int
    path: str

    @property
    def spec(self) -> dict[str, Any]:
        """All that its bytes depend on, but for the version of pyarrow; kept in the file's footer."""
        spec = {**self.config.spec(self.split), "start": self.start, "rows": self.rows}
        return json.loads(json.dumps(spec))  # as it will be read back: tuples are lists


@dataclasses.dataclass(frozen=True)
class Measured:
    """A finished shard, as read back. `num_bytes` in memory, `size` on disk; `hashes` uint64 [rows] of contents."""

    rows: int
    num_bytes: int
    size: int
    sha256: str
    hashes: np.ndarray = dataclasses.field(repr=False, compare=False)


def plan(configs: Iterable["Published"]) -> list[Shard]:
    """Every shard of the configs, in an order that all processes agree on."""
    return [
        Shard(config, split, start, min(SHARD_ROWS, size - start), f"{config.name}/{split}-{number:05d}-{of}.parquet")
        for config in configs
        for split, size in config.splits.items()
        for of in [f"of-{-(-size // SHARD_ROWS):05d}"]
        for number, start in enumerate(range(0, size, SHARD_ROWS))
    ]


def ensure(shard: Shard, folder: Path, advance: Callable[[int], object] = lambda count: None) -> Measured:
    """The shard as it lies in the folder; made where it is missing, torn or no file of ours.

    `advance` is called with the number of rows whenever some more are there.
    """
    path = folder / shard.path
    there = measure(path, shard.config.content) if read_spec(path) == shard.spec else None
    if there is not None and there.rows == shard.rows:
        advance(there.rows)
        return there
    write(shard, path, advance)
    made = measure(path, shard.config.content)
    if made is None:
        raise ValueError(f"output_dir: {path} cannot be read back after it was written; check the disk")
    return made


def write(shard: Shard, path: Path, advance: Callable[[int], object] = lambda count: None) -> None:
    """Write the shard, whole or not at all, and remove what a killed process left of it. `advance`: see `ensure`."""
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        leftover.unlink(missing_ok=True)
    schema = shard.config.features.arrow_schema
    with whole_file(path) as part, pq.ParquetWriter(part, schema, **FORMAT) as parquet:
        stop = shard.start + shard.rows
        for start in range(shard.start, stop, _GROUP_ROWS):
            count = min(_GROUP_ROWS, stop - start)
            parquet.write_table(shard.config.table(shard.split, start, count))
            advance(count)
        parquet.add_key_value_metadata({_SPEC: json.dumps(shard.spec, sort_keys=True)})


def read_spec(path: Path) -> dict[str, Any] | None:
    """What the footer says the rows depend on; None where there is no file, no footer, or not one of ours."""
    try:
        return json.loads((pq.read_metadata(path).metadata or {})[_SPEC])
    except (OSError, KeyError, ValueError):  # pyarrow's errors are OSErrors and ValueErrors
        return None


def measure(path: Path, content: str) -> Measured | None:
    """Read a whole shard and check it page by page; None where it cannot be read."""
    rows = num_bytes = 0
    hashes = [np.empty(0, np.uint64)]
    try:
        data = path.read_bytes()
        parquet = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        for number in range(parquet.num_row_groups):
            group = parquet.read_row_group(number)
            rows, num_bytes = rows + group.num_rows, num_bytes + group.nbytes
            parts = [content_hashes(group[name]) for name in content.split("+")]
            hashes.append(functools.reduce(lambda one, other: one * np.uint64(3) + other, parts))
    except (OSError, KeyError, ValueError):
        return None
    return Measured(rows, num_bytes, len(data), hashlib.sha256(data).hexdigest(), np.concatenate(hashes))


def content_hashes(column: pa.ChunkedArray) -> np.ndarray:
    """A 64-bit hash of each entry, uint64 [rows]: of the ids of a list, or of the bytes of a text."""
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        array = array.cast(pa.binary())
        flat = np.frombuffer(array.buffers()[2] or b"", np.uint8)
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    else:
        flat, offsets = array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy()
    lengths = np.diff(offsets)
    present = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.zeros(present.shape, np.int32)
    padded[present] = flat[offsets[0] : offsets[-1]]
    return hash_rows(padded, lengths)


def refuse_others(shards: Iterable[Shard], folder: Path) -> None:
    """Raise ValueError where the folder holds shards of these configs that were made by other arguments."""
    wanted = {shard.path: shard.spec for shard in shards}
    for name in sorted({path.split("/")[0] for path in wanted}):
        for path in sorted((folder / name).glob("*.parquet")):
            there, now = read_spec(path), wanted.get(f"{name}/{path.name}")
            if there is None or there == now:
                continue
            same_split = (spec for file, spec in wanted.items() if file.startswith(f"{name}/{there.get('split')}-"))
            differing = changes(there, now or next(same_split, {}))
            raise ValueError(
                f"output_dir: {path} was made by other arguments ({differing}); give another "
                f"--output_dir, or remove {path.parent}"
            )


def overlap(hashes: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How many distinct contents each split has, and how many rows of a later split hold one of an earlier split."""
    splits = list(hashes)
    distinct = {split: np.unique(values) for split, values in hashes.items()}
    shared = {
        f"{later} in {earlier}": int(np.isin(hashes[later], distinct[earlier]).sum())
        for number, later in enumerate(splits)
        for earlier in splits[:number]
    }
    return {"distinct": {split: values.size for split, values in distinct.items()}, "shared": shared}


def manifest(config: "Published", shards: Mapping[str, Measured], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a config from its measured shards by path, and its facts."""
    splits: dict[str, list[tuple[Shard, Measured]]] = {}
    for shard in plan([config]):
        splits.setdefault(shard.split, []).append((shard, shards[shard.path]))
    hashes = {split: np.concatenate([measured.hashes for _, measured in parts]) for split, parts in splits.items()}
    return {
        "name": config.name,
        "group": config.group,
        "features": config.features.to_dict(),
        "splits": {
            split: {
                "rows": sum(measured.rows for _, measured in parts),
                "num_bytes": sum(measured.num_bytes for _, measured in parts),
                "shards": [{"path": shard.path, "size": m.size, "sha256": m.sha256} for shard, m in parts],
            }
            for split, parts in splits.items()
        },
        "overlap": overlap(hashes),
        "facts": dict(facts),
    }
