"""From sources to a finished folder: three passes, and the manifests that the card is made of."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_synth.hub.manifests import MANIFEST, to_text
from hf_synth.io import write_text
from hf_synth.preferences import RejectedRow, Source
from hf_synth.preferences.pairs import shortened
from hf_synth.sampling import effective_sample_size, rarity_weights
from preference_pairs.collecting import Collected, DroppedRows, collect
from preference_pairs.stages import stage
from preference_pairs.weighing import Weighing, prompt_density, repeated
from preference_pairs.writing import FEATURES_OF, Columns, write_all

COUNTS = "counts.json"
DROPPED = "dropped_rows.jsonl"
_SPEC = "build.json"  # stays on this machine: it names places on it
_PARTS = ".building"
_BEGUN = "begun"  # in .building: what lies there, and what was moved from there, is ours
_CACHE = "embeddings"
_SAME, _NEAR = "duplicate pair", "near-duplicate prompt"
_SHOWN = ("id", "prompt_id", "prompt", "chosen", "rejected")
_VERSION = 1  # raise it whenever the same sources would give other files


def build(sources: Sequence[Source], folder: Path, weighing: Weighing, *, jsonl: bool) -> dict[str, Any]:
    """Make the folder's data files, unless they are there; returns what counts.json has.

    All is written beside what the folder has, and takes its place when it is whole: a killed run leaves `.building`,
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
            found = collect(sources, parts, dropped)
        columns, density = _columns(found, weighing, parts / _CACHE)
        _count(found, columns, dropped)
    with stage("write the files"):
        splits = write_all(found, columns, parts / "data", jsonl=jsonl)
    for name, split in splits.items():
        manifest = {"name": name, "features": FEATURES_OF[name].to_dict(), "splits": split}
        write_text(parts / "data" / name / MANIFEST, to_text(manifest))
    return {
        "sources": {src: dataclasses.asdict(counts) for src, counts in found.counts.items()},
        "density": density,
        "weights": _weight_facts(columns),
    }


def _columns(found: Collected, weighing: Weighing, cache: Path) -> tuple[Columns, dict[str, Any]]:
    """The columns of all prompts, and how density was found."""
    with stage(f"find near duplicates of {len(found.first):,} prompts"):
        repeats = repeated(found, weighing)
    kept = repeats == np.arange(len(repeats)) if weighing.near_duplicates == "drop" else np.ones(len(repeats), bool)
    count = np.bincount(found.prompt[found.distinct], minlength=len(kept))
    density, weight, pair_density, pair_weight = np.zeros((4, len(kept)))
    measured = prompt_density(found, kept, weighing, cache)
    density[kept] = measured.density
    pair_density[kept] = density[kept] * count[kept]
    options = {"strength": weighing.sampling_strength, "max_ratio": weighing.max_ratio}
    weight[kept] = rarity_weights(density[kept], **options)
    each_pair = np.repeat(np.flatnonzero(kept), count[kept])
    pair_weight[each_pair] = rarity_weights(pair_density[each_pair], **options)
    facts = {name: value for name, value in vars(measured).items() if name != "density"}
    return Columns(repeats, kept, count, density, weight, pair_density, pair_weight), facts


def _count(found: Collected, columns: Columns, dropped: DroppedRows) -> None:
    """Count what repeats take away and what stays, and keep each pair that goes in the file of dropped rows."""
    labels = list(found.counts)
    near = found.distinct & ~columns.kept[found.prompt]
    for reason, gone in ((_SAME, ~found.distinct), (_NEAR, near)):
        for label, number in zip(labels, np.bincount(found.source[gone], minlength=len(labels)), strict=True):
            found.counts[label].pairs_dropped |= {reason: int(number)} if number else {}
    by_source = (found.source[found.distinct & ~near], found.source[found.first])
    numbers = [np.bincount(source, minlength=len(labels)) for source in (*by_source, by_source[1][columns.kept])]
    for label, (pairs, prompts, prompts_kept) in zip(labels, zip(*numbers, strict=True), strict=True):
        of = found.counts[label]
        of.pairs_kept, of.prompts, of.prompts_kept = int(pairs), int(prompts), int(prompts_kept)
    _keep_dropped(found, columns, near, dropped)


def _keep_dropped(found: Collected, columns: Columns, near: np.ndarray, dropped: DroppedRows) -> None:
    labels = list(found.counts)
    ids = pa.concat_arrays([batch.column("prompt_id") for batch, _ in found.prompts()])
    for batch, numbers in found.batches():
        gone = near[numbers] | ~found.distinct[numbers]
        for number, row in zip(numbers[gone], batch.filter(pa.array(gone)).to_pylist(), strict=True):
            text = shortened({name: row[name] for name in _SHOWN})
            reason = _NEAR if near[number] else _SAME
            repeats = ids[int(columns.repeats[found.prompt[number]])].as_py()
            rejected = RejectedRow(row["file"], row["line"], reason, text)
            dropped.add(labels[found.source[number]], rejected, repeats=repeats)


def _weight_facts(columns: Columns) -> dict[str, Any]:
    each_pair = np.repeat(np.flatnonzero(columns.kept), columns.count[columns.kept])
    facts = {}
    for name, weights in (("prompts", columns.weight[columns.kept]), ("pairs", columns.pair_weight[each_pair])):
        facts[name] = {
            "rows": len(weights),
            "effective_sample_size": effective_sample_size(weights),
            "smallest": float(weights.min()),
            "largest": float(weights.max()),
        }
    return facts


def _spec(sources: Sequence[Source], weighing: Weighing, jsonl: bool) -> dict[str, Any]:
    """All that the files depend on; local files by name, size and time of change."""
    spec = {
        "version": _VERSION,
        "sources": [{**dataclasses.asdict(source), "files": _stamps(Path(source.place))} for source in sources],
        **dataclasses.asdict(weighing),
        "jsonl": jsonl,
    }
    return json.loads(json.dumps(spec, default=str))


def _stamps(place: Path) -> list[tuple[str, int, int]]:
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
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
    """ValueError for files that would be deleted, and that no killed run of ours can have left."""
    if (parts / _BEGUN).exists():
        return
    names = [COUNTS, DROPPED, *FEATURES_OF, *(f"{name}.jsonl" for name in FEATURES_OF)]
    found = [name for name in names if (folder / name).exists()]
    found += [_PARTS] if parts.exists() and any(parts.iterdir()) else []
    if found:
        raise ValueError(
            f"output_dir: {folder} has {', '.join(found)}, not made here and in the way; give another --output_dir"
        )


def _clear(parts: Path) -> None:
    """Nothing but the vectors of a run before, and an empty folder for data."""
    parts.mkdir(parents=True, exist_ok=True)
    (parts / _BEGUN).touch()
    for path in parts.iterdir():
        if path.is_dir() and path.name != _CACHE:
            shutil.rmtree(path)
        elif not path.is_dir() and path.name != _BEGUN:
            path.unlink()
    (parts / "data").mkdir(parents=True)


def _move(parts: Path, folder: Path) -> None:
    """Everything that was made into the folder, in place of what has its name."""
    for path in sorted(parts.iterdir()):
        target = folder / path.name
        shutil.rmtree(target, ignore_errors=True)
        path.replace(target)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
