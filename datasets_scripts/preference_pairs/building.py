"""From sources to a finished folder: three passes, Parquet shards, and the manifests that the card is made of."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value

from hf_synth.hub.repository import MANIFEST, manifest_text
from hf_synth.hub.shards import FORMAT, SHARD_ROWS
from hf_synth.io import json_lines, write_text
from hf_synth.preferences import FEATURES, RejectedRow, Source
from hf_synth.preferences.pairs import shortened
from hf_synth.sampling import effective_sample_size, rarity_weights
from preference_pairs.collecting import Collected, DroppedRows, collect
from preference_pairs.weighing import Weighing, prompt_density, repeated, stage

COUNTS = "counts.json"
DROPPED = "dropped_rows.jsonl"
_SPEC = "build.json"  # stays on this machine: it names paths on it
_PARTS = ".building"
_BEGUN = "begun"  # in .building: what lies there, and what was moved from there, is ours
_CACHE = "embeddings"
_SAME, _NEAR = "duplicate pair", "near-duplicate prompt"
_SHOWN = ("id", "prompt_id", "prompt", "chosen", "rejected")
_VERSION = 4  # raise it whenever the same sources would give other files
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
    """Values for each of the P distinct prompts.

    repeats: [P] the row of the first prompt that each nearly repeats, or its own; similarity: how similar those are
    that repeat one, by row. kept: [P] whether it stays.
    count: [P] how many different pairs each has. density, weight: [P] of the prompts; 0 where they do not stay.
    pair_density, pair_weight: [P], of each pair of a prompt.
    """

    repeats: np.ndarray
    similarity: dict[int, float]
    kept: np.ndarray
    count: np.ndarray
    density: np.ndarray
    weight: np.ndarray
    pair_density: np.ndarray
    pair_weight: np.ndarray


def build(sources: Sequence[Source], folder: Path, weighing: Weighing, *, jsonl: bool) -> dict[str, Any]:
    """Make the folder's data files, unless they are there; returns what counts.json has.

    All is written beside what the folder has, and replaces it when it is whole: a killed run leaves `.building`,
    which the next one clears away before it starts over; but a model's vectors are kept, and not made again.

    Raises:
        ValueError: a folder with the data of other arguments or with files of others where ours would go, or a source
            that cannot be read.
    """
    spec = _spec(sources, weighing, jsonl)
    if (folder / _SPEC).exists():
        return _as_before(folder, spec)
    parts = folder / _PARTS
    _refuse_files_of_others(folder, parts)
    _clear(parts)
    built = _build(sources, parts, weighing, jsonl)
    write_text(parts / "data" / COUNTS, _json(built))
    _move(parts / "data", folder)
    write_text(folder / _SPEC, _json(spec))
    shutil.rmtree(parts)
    return built


def _build(sources: Sequence[Source], parts: Path, weighing: Weighing, jsonl: bool) -> dict[str, Any]:
    with DroppedRows(parts / "data" / DROPPED) as dropped:
        with stage("read the sources"):
            collected = collect(sources, parts, dropped)
        columns, density = _columns(collected, weighing, parts / _CACHE)
        _count(collected, columns, dropped)
    with stage("write the files"):
        splits = write_all(collected, columns, parts / "data", jsonl=jsonl)
    for name, split in splits.items():
        manifest = {"name": name, "features": FEATURES_OF[name].to_dict(), "splits": split}
        write_text(parts / "data" / name / MANIFEST, manifest_text(manifest))
    return {
        "sources": {src: dataclasses.asdict(counts) for src, counts in collected.counts.items()},
        "density": density,
        "weights": _weight_facts(columns),
    }


def _columns(collected: Collected, weighing: Weighing, cache: Path) -> tuple[Columns, dict[str, Any]]:
    """Return the columns of all prompts, and how density was measured."""
    with stage(f"find near duplicates of {len(collected.first):,} prompts"):
        repeats, similarity = repeated(collected, weighing)
    kept = repeats == np.arange(len(repeats)) if weighing.near_duplicates == "drop" else np.ones(len(repeats), bool)
    count = np.bincount(collected.prompt[collected.distinct], minlength=len(kept))
    density, weight, pair_density, pair_weight = np.zeros((4, len(kept)))
    measured = prompt_density(collected, kept, weighing, cache)
    density[kept] = measured.density
    pair_density[kept] = density[kept] * count[kept]
    options = {"strength": weighing.sampling_strength, "max_ratio": weighing.max_ratio}
    weight[kept] = rarity_weights(density[kept], **options)
    each_pair = np.repeat(np.flatnonzero(kept), count[kept])
    pair_weight[each_pair] = rarity_weights(pair_density[each_pair], **options)
    facts = {name: value for name, value in vars(measured).items() if name != "density"}
    return Columns(repeats, similarity, kept, count, density, weight, pair_density, pair_weight), facts


def _count(collected: Collected, columns: Columns, dropped: DroppedRows) -> None:
    """Count what repeats take away and what stays, and keep each pair that goes in the file of dropped rows."""
    labels = list(collected.counts)
    near = collected.distinct & ~columns.kept[collected.prompt]
    for reason, gone in ((_SAME, ~collected.distinct), (_NEAR, near)):
        for label, number in zip(labels, np.bincount(collected.source[gone], minlength=len(labels)), strict=True):
            collected.counts[label].pairs_dropped |= {reason: int(number)} if number else {}
    by_source = (collected.source[collected.distinct & ~near], collected.source[collected.first])
    numbers = [np.bincount(source, minlength=len(labels)) for source in (*by_source, by_source[1][columns.kept])]
    for label, (pairs, prompts, prompts_kept) in zip(labels, zip(*numbers, strict=True), strict=True):
        of = collected.counts[label]
        of.pairs_kept, of.prompts, of.prompts_kept = int(pairs), int(prompts), int(prompts_kept)
    _keep_dropped(collected, columns, near, dropped)


def _keep_dropped(collected: Collected, columns: Columns, near: np.ndarray, dropped: DroppedRows) -> None:
    labels = list(collected.counts)
    ids = pa.concat_arrays([batch.column("prompt_id") for batch, _ in collected.prompts()])
    for batch, numbers in collected.batches():
        gone = near[numbers] | ~collected.distinct[numbers]
        for number, row in zip(numbers[gone], batch.filter(pa.array(gone)).to_pylist(), strict=True):
            text = shortened({name: row[name] for name in _SHOWN})
            reason = _NEAR if near[number] else _SAME
            prompt = int(collected.prompt[number])
            more = {"repeats": ids[int(columns.repeats[prompt])].as_py()}
            more |= {"similarity": round(columns.similarity[prompt], 4)} if reason == _NEAR else {}
            rejected = RejectedRow(row["file"], row["line"], reason, text)
            dropped.add(labels[collected.source[number]], rejected, **more)


def _weight_facts(columns: Columns) -> dict[str, Any]:
    each_pair = np.repeat(np.flatnonzero(columns.kept), columns.count[columns.kept])
    facts = {}
    for name, rows in (("prompts", np.flatnonzero(columns.kept)), ("pairs", each_pair)):
        weights = columns.weight[rows] if name == "prompts" else columns.pair_weight[rows]
        facts[name] = {
            "rows": len(weights),
            "effective_sample_size": effective_sample_size(weights),
            "smallest": float(weights.min()),
            "median": float(np.median(weights)),
            "largest": float(weights.max()),
            "most_pairs": int(columns.count[rows].max()),  # of one prompt
            "repeated_share": float(weights[columns.count[rows] > 1].sum() / weights.sum()),
        }
    return facts


def _spec(sources: Sequence[Source], weighing: Weighing, jsonl: bool) -> dict[str, Any]:
    """Return all that the files depend on; local files by name, size and time of change."""
    spec = {
        "version": _VERSION,
        "sources": [{**dataclasses.asdict(source), "files": _stamps(Path(source.path))} for source in sources],
        **dataclasses.asdict(weighing),
        "jsonl": jsonl,
    }
    return json.loads(json.dumps(spec, default=str))


def _stamps(source: Path) -> list[tuple[str, int, int]]:
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _as_before(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    there = json.loads((folder / _SPEC).read_text("utf-8"))
    if there == spec:
        return json.loads((folder / COUNTS).read_text("utf-8"))
    names = [name for name in spec if spec[name] != there.get(name)]
    raise ValueError(
        f"output_dir: {folder} holds pairs that were made of other arguments ({', '.join(names)}); give another "
        "--output_dir, or remove it"
    )


def _refuse_files_of_others(folder: Path, parts: Path) -> None:
    """Raise ValueError for files that would be deleted, and that no killed run of ours can have left."""
    if (parts / _BEGUN).exists():
        return
    names = [COUNTS, DROPPED, *FEATURES_OF, *(f"{name}.jsonl" for name in FEATURES_OF)]
    present = [name for name in names if (folder / name).exists()]
    present += [_PARTS] if parts.exists() and any(parts.iterdir()) else []
    if present:
        raise ValueError(
            f"output_dir: {folder} has {', '.join(present)}, not made here and in the way; give another --output_dir"
        )


def _clear(parts: Path) -> None:
    """Delete all but the vectors of an earlier run, and make an empty folder for data."""
    parts.mkdir(parents=True, exist_ok=True)
    (parts / _BEGUN).touch()
    for path in parts.iterdir():
        if path.is_dir() and path.name != _CACHE:
            shutil.rmtree(path)
        elif not path.is_dir() and path.name != _BEGUN:
            path.unlink()
    (parts / "data").mkdir(parents=True)


def _move(parts: Path, folder: Path) -> None:
    """Move everything that was made into the folder, replacing what has its name."""
    for path in sorted(parts.iterdir()):
        target = folder / path.name
        shutil.rmtree(target, ignore_errors=True)
        path.replace(target)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def write_all(collected: Collected, columns: Columns, folder: Path, *, jsonl: bool) -> dict[str, dict[str, Any]]:
    """Write CONFIG/train-*.parquet of each config (and CONFIG.jsonl with `jsonl`); return their splits by config."""
    kept_pairs = int(columns.count[columns.kept].sum())
    tables = {
        "pairs": (kept_pairs, _pairs(collected, columns)),
        "prompts": (int(columns.kept.sum()), _prompts(collected, columns)),
        "id_to_prompt": (len(collected.first), _map(collected, columns)),
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
        with (folder / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append({"path": path, "size": (folder / path).stat().st_size, "sha256": sha256})
    return {"rows": rows, "num_bytes": num_bytes, "shards": shards}


def _pairs(collected: Collected, columns: Columns) -> Iterator[pa.Table]:
    for batch, numbers in collected.batches():
        kept = collected.distinct[numbers] & columns.kept[collected.prompt[numbers]]
        rows = collected.prompt[numbers[kept]]
        weighed = {"density": columns.pair_density[rows], "sampling_weight": columns.pair_weight[rows]}
        yield _table("pairs", batch, kept, weighed)


def _prompts(collected: Collected, columns: Columns) -> Iterator[pa.Table]:
    for batch, rows in collected.prompts():
        kept = columns.kept[rows]
        rows = rows[kept]
        weighed = {"density": columns.density[rows], "sampling_weight": columns.weight[rows]}
        yield _table("prompts", batch, kept, {"count": columns.count[rows], **weighed})


def _map(collected: Collected, columns: Columns) -> Iterator[pa.Table]:
    ids = pa.concat_arrays([batch.column("prompt_id") for batch, _ in collected.prompts()])
    for batch, rows in collected.prompts():
        yield _table("id_to_prompt", batch, np.ones(len(rows), bool), {"repeats": ids.take(columns.repeats[rows])})


def _table(name: str, batch: pa.RecordBatch, kept: np.ndarray, more: dict[str, Any]) -> pa.Table:
    """Return the kept rows of a batch with further columns, in a config's order."""
    schema = FEATURES_OF[name].arrow_schema
    rows = batch.filter(pa.array(kept))
    columns = [pa.array(more[field.name]) if field.name in more else rows.column(field.name) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _copied(tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    """Yield the same tables, writing each row also as a line of JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for table in tables:
            lines.write(json_lines(table))
            yield table
