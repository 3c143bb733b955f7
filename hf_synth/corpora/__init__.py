"""Corpora: explanations among a language's examples, synthetic documents among canonical text, packed into blocks."""

from hf_synth.corpora.arms import Arm, arm_stream
from hf_synth.corpora.dataset import Corpus, load_corpus, published_corpora
from hf_synth.corpora.interleaving import interleave
from hf_synth.corpora.packing import Packed
from hf_synth.corpora.streams import Numbered, Stream, Streamed, count_words, token_counter
from hf_synth.corpora.text import StandIn, Texts, canonical_text
from hf_synth.corpora.writing import write_corpus

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
