"""Controlled experiments with synthetic data on the Hugging Face stack.

The public names load on first use, so that `import hf_synth` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.builder import load_dataset
    from hf_synth.corpora import load_corpus
    from hf_synth.sampling import weighted_stream
    from hf_synth.tasks import get_task, list_tasks
    from hf_synth.tokenization import build_tokenizer

__version__ = "0.1.0.dev0"

_HOMES = {
    "build_tokenizer": "hf_synth.tokenization",
    "get_task": "hf_synth.tasks",
    "list_tasks": "hf_synth.tasks",
    "load_corpus": "hf_synth.corpora",
    "load_dataset": "hf_synth.builder",
    "weighted_stream": "hf_synth.sampling",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_synth' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
