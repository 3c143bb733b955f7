"""Files that are whole or not there: the one atomic writer, and the one lock of an output directory.

Light to import: commands lock before they load what they need, so pyarrow is loaded by the writer of tables alone.
"""

import contextlib
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from hf_synth.errors import disk_full_error

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".arrow")
# Libraries whose errors are of no common kind.
_READERS = ("pyarrow", "safetensors", "safetensors_rust", "yaml", "zlib", "huggingface_hub", "httpx", "httpx2")
_encoded = json.JSONEncoder(ensure_ascii=False).encode


def is_main_process() -> bool:
    """Return whether this is the one process of a run that writes what all of them share."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def directory_lock(output_dir: str) -> Iterator[None]:
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
        raise ValueError(
            f"output_dir: {output_dir!r} is locked by another process; wait for it, or give another directory"
        ) from None
    except OSError as error:
        raise ValueError(f"got output_dir={output_dir!r}, which cannot be made: {error.strerror}") from error
    try:
        yield
        if not Path(lock.lock_file).exists():
            raise ValueError(f"output_dir: {output_dir!r} was removed while it was written to; give the command again")
    finally:
        lock.release()


@contextlib.contextmanager
def reading(path: Path | str, advice: str = "") -> Iterator[None]:
    """Name the file, ValueError, where a library cannot read it: torn, of another kind, or nested too deep.

    Only the library's reading belongs inside. What a full disk says stays: readers write caches.
    """
    try:
        yield
    except Exception as error:
        library = type(error).__module__.partition(".")[0]  # whose own errors are; pyarrow and others are not loaded
        known = isinstance(error, OSError | EOFError | ValueError | RecursionError | MemoryError | KeyError)
        if disk_full_error(error) or not (known or library in _READERS):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300] or type(error).__name__
        reason = f"it has no {reason}" if isinstance(error, KeyError) else reason
        raise ValueError(f"{path} cannot be read: {reason}" + (f"; {advice}" if advice else "")) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside `path`: it takes that name once all is written and on disk, or vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = path.name.encode()[:100].decode(errors="ignore")  # a name may have 255 bytes, the draft's too
    handle, name = tempfile.mkstemp(prefix=f".{start}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        os.umask(mask := os.umask(0))  # there is no way to read it but to set it
        part.chmod(0o666 & ~mask)
        replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


def replace_file(part: Path, path: Path) -> None:
    """Give a finished file the name of another, which it replaces, once all of it is on disk."""
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the whole file or none."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def load_json(path: Path, advice: str = "remove it, then give the same command again") -> dict[str, Any] | None:
    """Return the mapping in a JSON file, None where there is no file; ValueError naming the file if it is damaged."""
    if not path.exists():
        return None
    with reading(path, advice):
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it holds no mapping")
    return value


def replace_folder(part: Path, folder: Path) -> None:
    """Give a finished folder the name of another, which it replaces."""
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old)
    else:
        os.replace(part, folder)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ValueError where a file is there already, unless it is to be replaced; where a folder is, in any case."""
    if path.is_dir():
        raise ValueError(f"output: {path} is a folder, wanted a file")
    if path.exists() and not overwrite:
        raise ValueError(
            f"output: {path} is there already; give another name, or replace it (overwrite=True; on the command line "
            "--overwrite)"
        )


def json_lines(table: "pa.Table") -> str:
    """Return each row as one JSON object a line, its text as it stands."""
    line = "{" + ", ".join(f"{_encoded(name)}: %s" for name in table.column_names) + "}\n"
    columns = [map(_encoded, column.to_pylist()) for column in table.columns]
    return "".join(map(line.__mod__, zip(*columns, strict=True)))


def open_matrix(path: Path, rows: int, columns: int) -> "np.memmap[Any, np.dtype[np.float32]]":
    """Map a file of float32 [rows, columns] into memory, made where it is not there: its room on disk is taken first.

    Else a full disk would end the process by a signal, at whatever access.
    """
    import numpy as np

    with path.open("ab") as file:
        os.truncate(file.fileno(), size := 4 * rows * columns)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, np.float32, "r+", shape=(rows, columns))


def write_tables(path: Path, schema: "pa.Schema", tables: "Iterable[pa.Table]") -> None:
    """Write tables of one schema to a .jsonl, .jsonl.gz, .parquet or .arrow file; same tables, same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

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
        elif ending == ".parquet":
            with pq.ParquetWriter(part, schema, compression="zstd") as parquet:
                for table in tables:
                    parquet.write_table(table)
        else:
            with pa.OSFile(str(part), "wb") as raw, pa.ipc.new_file(raw, schema) as arrow:
                for table in tables:
                    arrow.write_table(table)
