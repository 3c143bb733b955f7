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

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".arrow")
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
    finally:
        lock.release()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside `path`: it takes that name once all is written and on disk, or vanishes."""
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


def load_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a JSON file, None where there is no file; ValueError naming the file if it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):  # neither JSON nor perhaps UTF-8
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON mapping; remove it, then give the same command again")
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


def _umask() -> int:
    """The process's mask; there is no way to read it but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
