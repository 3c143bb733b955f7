"""A finished density on disk: what recipes/density.py leaves behind, and training takes up again.

density.parquet      a row a prompt, in order: prompt, key (of its text), density, sampling_weight, x, y
density.json         how it came about; the fingerprint of the prompts
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_synth.sampling.cache import text_key
from hf_synth.sampling.shards import fingerprint
from hf_synth.training.checkpoints import write_json

TABLE, FACTS = "density.parquet", "density.json"
_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("key", pa.binary(16)),
        ("density", pa.float64()),
        ("sampling_weight", pa.float64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
    ]
)


def write_density(
    folder: Path,
    batches: Iterable[list[str]],
    keys: np.ndarray,
    density: np.ndarray,
    weights: np.ndarray,
    place: np.ndarray,
    facts: dict[str, Any],
) -> None:
    """Write both files, the table a batch of prompts at a time.

    keys: [N, 16] uint8; density, weights: [N]; place: [N, 2], on a map. facts: with a `fingerprint`.
    """
    draft, start = folder / f".{TABLE}", 0
    with pq.ParquetWriter(draft, _SCHEMA, compression="zstd") as table:
        for batch in batches:
            rows = slice(start, start + len(batch))
            x, y = np.ascontiguousarray(place[rows].T, dtype=np.float32)
            key = pa.array([key.tobytes() for key in keys[rows]], pa.binary(16))
            columns = [
                pa.array(batch),
                key,
                density[rows],
                weights[rows],
                np.ascontiguousarray(x),
                np.ascontiguousarray(y),
            ]
            table.write_table(pa.table(columns, schema=_SCHEMA))
            start += len(batch)
    draft.replace(folder / TABLE)
    write_json(folder / FACTS, facts)


def read_density(folder: Path, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Density [N], place [N, 2], intrinsic dimension and recall for prompts in any order, found by their text.

    Raises ValueError where the folder is none of these, or was made of other prompts: all must be in it.
    """
    if not (folder / FACTS).is_file():
        raise ValueError(f"density_from: got {str(folder)!r}, which holds no {FACTS}; make it by recipes/density.py")
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    table = pq.read_table(folder / TABLE, columns=["key", "density", "x", "y"])
    row_of = {key: row for row, key in enumerate(table["key"].to_pylist())}
    wanted = [text_key(text) for text in texts]
    if missing := len({key for key in wanted if key not in row_of}):
        here = fingerprint(np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, 16))
        raise ValueError(
            f"density_from: {str(folder)!r} was made of other prompts: {missing} of {len(set(wanted))} are not in it "
            f"(fingerprint {facts['fingerprint']} there, {here} here); run recipes/density.py on these prompts"
        )
    rows = np.array([row_of[key] for key in wanted])
    density, x, y = (table[name].to_numpy()[rows] for name in ("density", "x", "y"))
    return density, np.stack([x, y], axis=1), facts["dimension"], facts["recall"]
