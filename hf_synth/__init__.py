"""Controlled experiments with synthetic data on the Hugging Face stack.

The public names load on first use, so that `import hf_synth` costs nothing.
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.builder import load_dataset
    from hf_synth.corpora import load_corpus
    from hf_synth.sampling import weighted_stream
    from hf_synth.tasks import get_task, list_tasks
    from hf_synth.tokenization import build_tokenizer

__version__ = "0.1.0.dev0"


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], dict[str, str]]:
    """Return a package's `__getattr__`, and name -> module: what its file imports below `if TYPE_CHECKING`."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    blocks = [node.body for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return load, homes


__getattr__, _HOMES = lazy_names(__name__, __file__)
__all__ = ["__version__", *_HOMES]
