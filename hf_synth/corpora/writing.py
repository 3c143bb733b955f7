"""A corpus into a file or a folder: whole in the end, and after a kill the same call goes on where it stood."""

import contextlib
import gzip
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_synth.corpora.streams import SCHEMA, Stream
from hf_synth.files import json_lines, whole_file

SHARD_DOCUMENTS = 50_000
_BLOCK = 10_000
_MARK_SECONDS = 1.0
_NO_FOLDER = (".json", ".csv", ".txt", ".parquet", ".arrow", ".gz", ".zst")


def write_corpus(
    stream: Stream,
    output: Path,
    *,
    size: int,
    spec: Mapping[str, Any],
    split: str = "train",
    columns: Sequence[str] = ("text",),
    progress: Callable[[int], None] = lambda documents: None,
) -> None:
    """The next `size` documents of the stream into a .jsonl or .jsonl.gz file, or a folder of Parquet shards.

    A file has one {"text": ...} a line; it takes its name when all is written. A folder holds
    SPLIT-00000-of-00003.parquet and so on, 50,000 documents each: `datasets.load_dataset(folder, split=SPLIT)`.

    spec: all that the documents depend on, in values that JSON holds. What an interrupted call left is gone on with
    where its spec is the same, byte by byte as without the interruption; that of another spec is a ValueError.
    columns: "text", "kind". progress: is told how many documents have been written further.
    """
    unknown = [name for name in columns if name not in SCHEMA.names]
    if unknown or not columns:
        raise ValueError(f"columns: got {list(columns)}, wanted some of {', '.join(SCHEMA.names)}")
    if size < 1:
        raise ValueError(f"size: got {size}, wanted at least 1 document")
    whole = {**json.loads(json.dumps(spec)), "size": size, "columns": list(columns)}
    if output.name.endswith((".jsonl", ".jsonl.gz")):
        _write_lines(stream, output, whole, progress)
        return
    if output.name.endswith(_NO_FOLDER) or output.is_file():
        raise ValueError(f"output: got {str(output)!r}, wanted a name that ends in .jsonl or .jsonl.gz, or a folder")
    _write_shards(stream, output, split, whole, progress)


def _write_lines(stream: Stream, path: Path, spec: Mapping[str, Any], progress: Callable[[int], None]) -> None:
    """Lines go into a part beside the file; a mark says up to which byte they are good, and what comes next."""
    if path.is_dir():
        raise ValueError(f"output: {path} is a folder, wanted a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, marked = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.state.json")
    mark = _read_mark(marked, spec) if part.exists() else None
    if mark and part.stat().st_size < mark["bytes"]:  # somebody else cut it: nothing in it can be trusted
        mark = None
    written = mark["documents"] if mark else 0
    if mark:
        stream.load_state_dict(mark["stream"])
    progress(written)
    with part.open("r+b" if mark else "wb") as file:
        file.truncate(mark["bytes"] if mark else 0)
        file.seek(0, os.SEEK_END)
        due = time.monotonic() + _MARK_SECONDS
        while written < spec["size"]:
            table = _read(stream, min(_BLOCK, spec["size"] - written), written, spec)
            lines = json_lines(table).encode()
            file.write(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
            written += table.num_rows
            progress(table.num_rows)
            if time.monotonic() >= due:
                _sync(file)
                _write_mark(marked, spec, documents=written, bytes=file.tell(), stream=stream.state_dict())
                due = time.monotonic() + _MARK_SECONDS
        _sync(file)
    os.replace(part, path)
    marked.unlink(missing_ok=True)


def _write_shards(
    stream: Stream, folder: Path, split: str, spec: Mapping[str, Any], progress: Callable[[int], None]
) -> None:
    """Each shard whole or not there; a mark says how many there are, and what comes next."""
    folder.mkdir(parents=True, exist_ok=True)
    number = -(-spec["size"] // SHARD_DOCUMENTS)
    shards = [folder / f"{split}-{shard:05d}-of-{number:05d}.parquet" for shard in range(number)]
    marked = folder / f".{split}.corpus.json"
    mark = _read_mark(marked, spec)
    if mark is None and (others := sorted(folder.glob(f"{split}-*.parquet"))):
        raise ValueError(f"output: {folder} holds {others[0].name}, which this command did not write; remove it")
    done = mark["shards"] if mark else 0
    if not all(shard.exists() for shard in shards[:done]):
        mark, done = None, 0
    if mark:
        stream.load_state_dict(mark["stream"])
    else:
        _write_mark(marked, spec, shards=0, stream=stream.state_dict())
    progress(min(done * SHARD_DOCUMENTS, spec["size"]))
    for shard in range(done, number):
        _write_shard(stream, shards[shard], shard * SHARD_DOCUMENTS, spec, progress)
        _write_mark(marked, spec, shards=shard + 1, stream=stream.state_dict())


def _write_shard(
    stream: Stream, path: Path, written: int, spec: Mapping[str, Any], progress: Callable[[int], None]
) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        leftover.unlink(missing_ok=True)
    stop = min(written + SHARD_DOCUMENTS, spec["size"])
    schema = pa.schema([SCHEMA.field(name) for name in spec["columns"]])
    with whole_file(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as parquet:
        while written < stop:
            table = _read(stream, min(_BLOCK, stop - written), written, spec)
            parquet.write_table(table.combine_chunks())
            written += table.num_rows
            progress(table.num_rows)


def _read(stream: Stream, count: int, written: int, spec: Mapping[str, Any]) -> pa.Table:
    table = stream.read(count)
    if table.num_rows < count:
        raise ValueError(
            f"size: got {spec['size']:,}, but there are no more than {written + table.num_rows:,} documents; "
            "wanted a smaller size, more text, or to have it repeated"
        )
    return table.select(spec["columns"])


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _write_mark(path: Path, spec: Mapping[str, Any], **state: Any) -> None:
    fresh = path.with_name(f"{path.name}.part")
    with fresh.open("wb") as file:
        file.write(json.dumps({"spec": spec, **state}).encode())
        _sync(file)
    os.replace(fresh, path)


def _read_mark(path: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an interrupted call noted; None where there was none. A ValueError if it wrote another corpus."""
    with contextlib.suppress(FileNotFoundError):
        mark = json.loads(path.read_text())
        there = mark["spec"]
        names = [name for name in sorted(there.keys() | spec.keys()) if there.get(name) != spec.get(name)]
        if names:
            changed = "; ".join(f"{name}: {there.get(name)!r} there, {spec.get(name)!r} now" for name in names[:4])
            raise ValueError(
                f"output: {path.parent} holds another corpus ({changed}); give another output, or remove {path.name}"
            )
        return mark
    return None
