"""Corpora: explanations among a language's examples, synthetic documents among canonical text, packed into blocks.

The public names load on first use, so that a corpus is written without the libraries that train on it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.corpora.arms import Arm, Corpus, arm_stream, load_corpus, published_corpora
    from hf_synth.corpora.blocks import Packed
    from hf_synth.corpora.interleaving import interleave
    from hf_synth.corpora.streams import Numbered, Stream, Streamed, count_words, token_counter
    from hf_synth.corpora.text import StandIn, Texts, canonical_text
    from hf_synth.corpora.writing import write_corpus

_HOMES = {
    "Arm": "arms",
    "Corpus": "arms",
    "Numbered": "streams",
    "Packed": "blocks",
    "StandIn": "text",
    "Stream": "streams",
    "Streamed": "streams",
    "Texts": "text",
    "arm_stream": "arms",
    "canonical_text": "text",
    "count_words": "streams",
    "interleave": "interleaving",
    "load_corpus": "arms",
    "published_corpora": "arms",
    "token_counter": "streams",
    "write_corpus": "writing",
}

__all__ = [
    "Arm",
    "Corpus",
    "Numbered",
    "Packed",
    "StandIn",
    "Stream",
    "Streamed",
    "Texts",
    "arm_stream",
    "canonical_text",
    "count_words",
    "interleave",
    "load_corpus",
    "published_corpora",
    "token_counter",
    "write_corpus",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_synth.corpora' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
