"""Third pass: Parquet shards of pairs, prompts and the map of ids, with density and weight as columns."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value

from hf_synth.hub.shards import FORMAT, SHARD_ROWS
from hf_synth.io import json_lines
from hf_synth.preferences import FEATURES
from preference_pairs.collecting import Collected

SPLIT = "train"
_WEIGHED = {"density": Value("float64"), "sampling_weight": Value("float64")}
FEATURES_OF = {
    "pairs": Features({**FEATURES, **_WEIGHED}),
    "prompts": Features(
        {"prompt": FEATURES["prompt"], "prompt_id": Value("string"), "src": Value("string"), "count": Value("int64")}
        | _WEIGHED
    ),
    "id_to_prompt": Features(dict.fromkeys(("prompt_id", "repeats", "text"), Value("string"))),
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the passes found of the P distinct prompts.

    repeats: [P] the row of the first prompt that each nearly repeats, or its own. kept: [P] whether it stays.
    count: [P] how many different pairs each has. density, weight: [P] of the prompts; 0 where they do not stay.
    pair_density, pair_weight: [P], of each pair of a prompt.
    """

    repeats: np.ndarray
    kept: np.ndarray
    count: np.ndarray
    density: np.ndarray
    weight: np.ndarray
    pair_density: np.ndarray
    pair_weight: np.ndarray


def write_all(found: Collected, columns: Columns, folder: Path, *, jsonl: bool) -> dict[str, dict[str, Any]]:
    """Write CONFIG/train-*.parquet of each config (CONFIG.jsonl besides, where asked for); their splits by config."""
    kept_pairs = int(columns.count[columns.kept].sum())
    tables = {
        "pairs": (kept_pairs, _pairs(found, columns)),
        "prompts": (int(columns.kept.sum()), _prompts(found, columns)),
        "id_to_prompt": (len(found.first), _map(found, columns)),
    }
    splits = {}
    for name, (rows, batches) in tables.items():
        if jsonl and name != "id_to_prompt":
            batches = _copied(batches, folder / f"{name}.jsonl")
        splits[name] = {SPLIT: write_shards(folder, name, rows, batches)}
    return splits


def write_shards(folder: Path, name: str, rows: int, tables: Iterator[pa.Table]) -> dict[str, Any]:
    """Write tables of `rows` rows in all as shards of 50,000; returns rows, bytes in memory, and shards' hashes."""
    of = max(1, -(-rows // SHARD_ROWS))
    shards, num_bytes, left = [], 0, pa.table({})
    (folder / name).mkdir()
    for number in range(of):
        path = f"{name}/{SPLIT}-{number:05d}-of-{of:05d}.parquet"
        wanted = min(SHARD_ROWS, rows - number * SHARD_ROWS)
        with pq.ParquetWriter(folder / path, FEATURES_OF[name].arrow_schema, **FORMAT) as parquet:
            while wanted:
                table = left if left.num_rows else next(tables)
                part, left = table.slice(0, wanted), table.slice(wanted)
                parquet.write_table(part)
                wanted, num_bytes = wanted - part.num_rows, num_bytes + part.nbytes
        shards.append(_shard(folder, path))
    return {"rows": rows, "num_bytes": num_bytes, "shards": shards}


def _shard(folder: Path, path: str) -> dict[str, Any]:
    with (folder / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": path, "size": (folder / path).stat().st_size, "sha256": sha256}


def _pairs(found: Collected, columns: Columns) -> Iterator[pa.Table]:
    for batch, numbers in found.batches():
        kept = found.distinct[numbers] & columns.kept[found.prompt[numbers]]
        rows = found.prompt[numbers[kept]]
        weighed = {"density": columns.pair_density[rows], "sampling_weight": columns.pair_weight[rows]}
        yield _table("pairs", batch, kept, weighed)


def _prompts(found: Collected, columns: Columns) -> Iterator[pa.Table]:
    for batch, rows in found.prompts():
        kept = columns.kept[rows]
        rows = rows[kept]
        weighed = {"density": columns.density[rows], "sampling_weight": columns.weight[rows]}
        yield _table("prompts", batch, kept, {"count": columns.count[rows], **weighed})


def _map(found: Collected, columns: Columns) -> Iterator[pa.Table]:
    ids = pa.concat_arrays([batch.column("prompt_id") for batch, _ in found.prompts()])
    for batch, rows in found.prompts():
        yield _table("id_to_prompt", batch, np.ones(len(rows), bool), {"repeats": ids.take(columns.repeats[rows])})


def _table(name: str, batch: pa.RecordBatch, kept: np.ndarray, more: dict[str, Any]) -> pa.Table:
    """The kept rows of a batch with further columns, in a config's order."""
    schema = FEATURES_OF[name].arrow_schema
    rows = batch.filter(pa.array(kept))
    columns = [pa.array(more[field.name]) if field.name in more else rows.column(field.name) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _copied(tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    """The same tables, each row also as a line of JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for table in tables:
            lines.write(json_lines(table))
            yield table
