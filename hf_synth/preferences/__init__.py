"""Preference pairs in TRL's conversational format: read them, identify prompts, split them, train a tokenizer."""

from hf_synth.preferences.pairs import FEATURES, PairStream, RejectedRow, read_preferences, shortened
from hf_synth.preferences.prompts import distinct_prompts, message_texts, prompt_id, split_by_prompt
from hf_synth.preferences.readers import UNREAD, Message, Pair, RowError, read_prompt, reader
from hf_synth.preferences.sources import KNOWN_SOURCES, Source, is_published
from hf_synth.preferences.tokenizer import read_plain_text, ready_for_chat, train_bpe_tokenizer

__all__ = [
    "FEATURES",
    "KNOWN_SOURCES",
    "UNREAD",
    "Message",
    "Pair",
    "PairStream",
    "RejectedRow",
    "RowError",
    "Source",
    "distinct_prompts",
    "is_published",
    "message_texts",
    "prompt_id",
    "read_plain_text",
    "read_preferences",
    "read_prompt",
    "reader",
    "ready_for_chat",
    "shortened",
    "split_by_prompt",
    "train_bpe_tokenizer",
]
