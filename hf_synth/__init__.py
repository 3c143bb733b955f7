"""Controlled experiments with synthetic data on the Hugging Face stack.

The public names load on first use, so that `import hf_synth` costs nothing.
"""

import contextlib
import importlib
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.builder import load_dataset
    from hf_synth.corpora import load_corpus
    from hf_synth.tasks import get_task, list_tasks
    from hf_synth.tokenization import build_tokenizer

__version__ = "0.1.0.dev0"

_HOMES = {
    "build_tokenizer": "hf_synth.tokenization",
    "get_task": "hf_synth.tasks",
    "list_tasks": "hf_synth.tasks",
    "load_corpus": "hf_synth.corpora",
    "load_dataset": "hf_synth.builder",
}

__all__ = ["__version__", "build_tokenizer", "get_task", "list_tasks", "load_corpus", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_synth' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _prepare_kernel_cache() -> None:
    """Let numba keep compiled kernels where it can, and none of before an edit.

    Numba checks a kernel's own file alone, though kernels of other files are compiled into it.
    """
    folder = Path(__file__).parent
    shared = [folder / "rng.py", folder / "tasks/base.py", *sorted(folder.glob("tasks/families/*.py"))]
    state = str(zlib.crc32(b"".join(path.read_bytes() for path in shared)))
    cache, stamp = folder / "__pycache__", folder / "__pycache__/kernels.txt"
    with contextlib.suppress(OSError):
        cache.mkdir(exist_ok=True)
        if not stamp.exists() or stamp.read_text() != state:
            for index in folder.rglob("__pycache__/*.nbi"):
                index.unlink(missing_ok=True)
            stamp.write_text(state)
    if os.access(cache, os.W_OK):
        return
    # An installed package, which nobody edits: numba takes the user's cache, if that can be written.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "numba")
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK) and "NUMBA_CACHE_DIR" not in os.environ:
        import atexit
        import shutil
        import tempfile

        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="hf_synth-kernels-")
        atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)


_prepare_kernel_cache()
