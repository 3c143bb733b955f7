"""Tables into one file, whole or not at all; the file's ending says in which format."""

import contextlib
import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".arrow")
_encoded = json.JSONEncoder(ensure_ascii=False).encode


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`: takes that name once all is written and on disk, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ValueError where a file is there already, unless it is to be replaced; where a folder is, in any case."""
    if path.is_dir():
        raise ValueError(f"output: {path} is a folder, wanted a file")
    if path.exists() and not overwrite:
        raise ValueError(
            f"output: {path} is there already; give another name, or replace it (overwrite=True; on the command line "
            "--overwrite)"
        )


def json_lines(table: pa.Table) -> str:
    """Each row as one JSON object a line, its text as it stands."""
    line = "{" + ", ".join(f"{_encoded(name)}: %s" for name in table.column_names) + "}\n"
    columns = [map(_encoded, column.to_pylist()) for column in table.columns]
    return "".join(map(line.__mod__, zip(*columns, strict=True)))


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Tables of one schema into a .jsonl, .jsonl.gz, .parquet or .arrow file; the same tables give the same bytes."""
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"got output {str(path)!r}, wanted a file name that ends in one of {', '.join(ENDINGS)}")
    with whole_file(path) as part:
        if ending == ".jsonl":
            with part.open("wb") as lines:
                lines.writelines(json_lines(table).encode() for table in tables)
        elif ending == ".jsonl.gz":
            with part.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                packed.writelines(json_lines(table).encode() for table in tables)
        else:
            _write_columns(part, ending, schema, tables)


def _write_columns(part: Path, ending: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    if ending == ".parquet":
        with pq.ParquetWriter(part, schema, compression="zstd") as parquet:
            for table in tables:
                parquet.write_table(table)
        return
    with pa.OSFile(str(part), "wb") as raw, pa.ipc.new_file(raw, schema) as arrow:
        for table in tables:
            arrow.write_table(table)


def _umask() -> int:
    """The process's mask; there is no way to read it but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_main_process() -> bool:
    """Whether this is the one process of a run that writes what all of them share."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def alone_in(output_dir: str) -> Iterator[None]:
    """Keep other commands out of an output directory; ValueError where one is in. The lock ends with the process.

    Of several processes of one run the main one holds it.
    """
    if not is_main_process():
        yield
        return
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"got output_dir={output_dir!r}, which is a file; wanted a directory")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        busy = f"output_dir: another command is at work in {output_dir!r}; wait for it, or give another"
        raise ValueError(busy) from None
    except OSError as error:
        raise ValueError(f"got output_dir={output_dir!r}, which cannot be made: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
