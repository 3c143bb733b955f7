"""Corpora: explanations among a language's examples, synthetic documents among canonical text, packed into blocks.

The public names load on first use, so that a corpus is written without the libraries that train on it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.corpora.arms import Arm, arm_stream, load_corpus
    from hf_synth.corpora.blocks import Packed
    from hf_synth.corpora.interleaving import interleave
    from hf_synth.corpora.streams import Numbered, Stream, Streamed, count_words, token_counter
    from hf_synth.corpora.text import StandIn, Texts, canonical_text
    from hf_synth.corpora.writing import write_corpus

_HOMES = {
    "arms": "Arm arm_stream load_corpus",
    "blocks": "Packed",
    "interleaving": "interleave",
    "streams": "Numbered Stream Streamed count_words token_counter",
    "text": "StandIn Texts canonical_text",
    "writing": "write_corpus",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
