"""A corpus into a file or a folder: whole in the end, and after a kill the same call goes on where it stood."""

import gzip
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_synth.corpora.streams import SCHEMA, STATE_FORMAT, Stream
from hf_synth.errors import changes
from hf_synth.io import json_lines, load_json, refuse_existing, replace_file, write_json, write_tables

SHARD_DOCUMENTS = 50_000
_BLOCK = 10_000
_MARK_SECONDS = 1.0
_LINES = (".jsonl", ".jsonl.gz")
_NO_FOLDER = (".json", ".csv", ".txt", ".parquet", ".arrow", ".gz", ".zst")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.parquet$")
_BY_VERSION = {"row_format", "version", "format", "explanations", "state"}  # of a spec: hf_synth decides them


def write_corpus(
    stream: Stream,
    output: Path,
    *,
    size: int,
    spec: Mapping[str, Any],
    split: str = "train",
    columns: Sequence[str] = ("text",),
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda documents: None,
) -> None:
    """Write the next `size` documents of the stream into a .jsonl or .jsonl.gz file, or a folder of Parquet shards.

    A file has one {"text": ...} a line; it takes its name when all is written. A folder holds
    SPLIT-00000-of-00003.parquet and so on, 50,000 documents each: `datasets.load_dataset(folder, split=SPLIT)`.

    spec: all that the documents depend on, in values that JSON holds. What an interrupted call left is gone on with
    where its spec is the same, byte by byte as without the interruption. A finished corpus, and what a call of
    another spec left, is a ValueError, or with `overwrite` replaced; in a folder that of this split alone.
    columns: "text", "kind". progress: called with the number of documents that were written since.
    """
    unknown = [name for name in columns if name not in SCHEMA.names]
    if unknown or not columns:
        raise ValueError(f"columns: got {list(columns)}, wanted some of {', '.join(SCHEMA.names)}")
    if size < 1:
        raise ValueError(f"size: got {size}, wanted at least 1 document")
    check_output(output)
    whole = {**json.loads(json.dumps(spec)), "size": size, "columns": list(columns), "state": STATE_FORMAT}
    if output.name.endswith(_LINES):
        _write_lines(stream, output, whole, overwrite, progress)
    else:
        _write_shards(stream, output, split, whole, overwrite, progress)


def check_output(output: Path) -> None:
    """Raise ValueError where a name is neither that of a file of lines nor of a folder."""
    if output.name.endswith(_LINES):
        return
    if output.name.endswith(_NO_FOLDER) or output.is_file():
        raise ValueError(f"output: got {str(output)!r}, wanted a name that ends in .jsonl or .jsonl.gz, or a folder")


def blocks(stream: Stream, start: int, stop: int, *, size: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield documents start .. stop - 1 of `size`, which the stream has next; a ValueError where it ends before."""
    for at in range(start, stop, _BLOCK):
        count = min(_BLOCK, stop - at)
        table = stream.read(count)
        if table.num_rows < count:
            raise ValueError(
                f"size: got {size:,}, but there are no more than {at + table.num_rows:,} documents; "
                "wanted a smaller size, more text, or to have it again (repeat=True; on the command line --repeat)"
            )
        yield table.select(columns)


def _write_lines(
    stream: Stream, path: Path, spec: Mapping[str, Any], overwrite: bool, progress: Callable[[int], None]
) -> None:
    """Write lines to a part beside the file; a mark says up to which byte they are good, and what comes next."""
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, marked = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.state.json")
    mark = _mark(path, marked, spec, overwrite) if part.exists() else None
    if mark and mark["spec"] == spec and mark["bytes"] <= part.stat().st_size:  # else somebody cut it
        stream.load_state_dict(mark["stream"])
    else:
        marked.unlink(missing_ok=True)
        part.write_bytes(b"")
        mark = {"documents": 0, "bytes": 0}
    written, size = mark["documents"], spec["size"]
    try:
        progress(written)
        with part.open("r+b") as file:
            file.truncate(mark["bytes"])
            file.seek(0, os.SEEK_END)
            due = time.monotonic() + _MARK_SECONDS
            for table in blocks(stream, written, size, size=size, columns=spec["columns"]):
                lines = json_lines(table).encode()
                file.write(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
                written += table.num_rows
                progress(table.num_rows)
                if time.monotonic() >= due:
                    file.flush()
                    os.fsync(file.fileno())
                    state = {"documents": written, "bytes": file.tell(), "stream": stream.state_dict()}
                    write_json(marked, {"spec": spec, **state})
                    due = time.monotonic() + _MARK_SECONDS
        replace_file(part, path)
        marked.unlink(missing_ok=True)
    except ValueError:  # the same call would end here again
        marked.unlink(missing_ok=True)
        raise
    finally:
        if not marked.exists():
            part.unlink(missing_ok=True)


def _write_shards(
    stream: Stream, folder: Path, split: str, spec: Mapping[str, Any], overwrite: bool, progress: Callable[[int], None]
) -> None:
    """Write each shard whole or not at all; a mark says how many there are, and what comes next."""
    size = spec["size"]
    number = -(-size // SHARD_DOCUMENTS)
    shards = [folder / f"{split}-{shard:05d}-of-{number:05d}.parquet" for shard in range(number)]
    marked = folder / f".{split}.corpus.json"
    mark = _unfinished(marked, split, shards, spec, overwrite)
    done = mark["shards"] if mark else 0
    folder.mkdir(parents=True, exist_ok=True)
    if mark:
        stream.load_state_dict(mark["stream"])
    else:
        write_json(marked, {"spec": spec, "shards": 0, "stream": stream.state_dict()})
    schema = pa.schema([SCHEMA.field(name) for name in spec["columns"]])

    def counted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            yield table.combine_chunks()
            progress(table.num_rows)

    try:
        progress(min(done * SHARD_DOCUMENTS, size))
        for shard in range(done, number):
            for leftover in folder.glob(f".{shards[shard].name}.*.part"):
                leftover.unlink(missing_ok=True)
            start, stop = shard * SHARD_DOCUMENTS, min((shard + 1) * SHARD_DOCUMENTS, size)
            tables = blocks(stream, start, stop, size=size, columns=spec["columns"])
            write_tables(shards[shard], schema, counted(tables))
            write_json(marked, {"spec": spec, "shards": shard + 1, "stream": stream.state_dict()})
    finally:
        if not shards[0].exists():
            marked.unlink(missing_ok=True)


def _unfinished(
    marked: Path, split: str, shards: Sequence[Path], spec: Mapping[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """Return the mark of an interrupted call to continue; None where all is to be written, old shards gone."""
    folder = marked.parent
    there = sorted(folder.glob(f"{split}-*.parquet"))
    mark = _mark(folder, marked, spec, overwrite) if there else None
    if mark and mark["spec"] == spec and not set(shards) <= set(there):
        return mark if set(shards[: mark["shards"]]) <= set(there) else None
    if mark:
        refuse_existing(shards[0], overwrite)
    strange = [path for path in there if not (mark or overwrite) or not _SHARD.search(path.name)]
    if strange:
        raise ValueError(f"output: {folder} holds {strange[0].name}, which this command did not write; remove it")
    marked.unlink(missing_ok=True)
    for path in there:
        path.unlink()
    return None


def _mark(output: Path, marked: Path, spec: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Return what an interrupted call noted; ValueError where that is another corpus, unless it is to be replaced."""
    mark = load_json(marked)
    if mark and mark["spec"] != spec and not overwrite:
        same = all(mark["spec"].get(name) == spec.get(name) for name in {**mark["spec"], **spec}.keys() - _BY_VERSION)
        held = "this corpus as another version of hf_synth wrote it" if same else "another corpus"
        raise ValueError(
            f"output: {output} holds {held} ({changes(mark['spec'], spec)}), as {marked.resolve()} says; "
            "give another output, or replace it (overwrite=True; on the command line --overwrite)"
        )
    return mark
