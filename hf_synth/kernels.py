"""Numba's decorator for all kernels, with a cache on disk that is never stale and can always be written."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function with numba, cached on disk and without the GIL; `options` are numba's own."""
    prepare_cache(Path(__file__).parent)
    decorate = numba.njit(cache=True, nogil=True, **options)
    return decorate(function) if function else decorate


@functools.lru_cache
def prepare_cache(package: Path) -> None:
    """Let numba keep compiled kernels where it can, and none of before an edit.

    Numba checks a kernel's own file alone, though kernels of other files are compiled into it.
    """
    shared = [package / "rng.py", package / "tasks/base.py", *sorted(package.glob("tasks/families/*.py"))]
    state = str(zlib.crc32(b"".join(path.read_bytes() for path in shared)))
    cache, stamp = package / "__pycache__", package / "__pycache__/kernels.txt"
    with contextlib.suppress(OSError):
        cache.mkdir(exist_ok=True)
        if not stamp.exists() or stamp.read_text() != state:
            for index in package.rglob("__pycache__/*.nbi"):
                index.unlink(missing_ok=True)
            stamp.write_text(state)
    if os.access(cache, os.W_OK):
        return
    # An installed package, which nobody edits: numba takes the user's cache, if that can be written.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "numba")
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK) and "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="hf_synth-kernels-")
        atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
