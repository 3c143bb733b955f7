"""One command at a time in an output directory. Light to import: commands lock before they load what they need."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


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
