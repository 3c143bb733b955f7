"""Corpora: explanations among a language's examples, synthetic documents among canonical text, packed into blocks.

The public names load on first use, so that a corpus is written without the libraries that train on it.
"""

from typing import TYPE_CHECKING

from hf_synth import lazy_names

if TYPE_CHECKING:
    from hf_synth.corpora.arms import Arm, arm_stream, load_corpus
    from hf_synth.corpora.blocks import Packed
    from hf_synth.corpora.interleaving import interleave
    from hf_synth.corpora.streams import Numbered, Stream, Streamed, count_words, token_counter
    from hf_synth.corpora.text import StandIn, Texts, canonical_text
    from hf_synth.corpora.writing import write_corpus

__getattr__, _HOMES = lazy_names(__name__, __file__)
__all__ = sorted(_HOMES)
