"""Preference pairs in TRL's conversational format: read them, identify prompts, split them, train a tokenizer."""

from hf_synth.preferences.prompts import (
    distinct_prompts,
    message_texts,
    normalise,
    prompt_id,
    split_by_prompt,
)
from hf_synth.preferences.schemas import Message, Pair, RowError, list_schemas, parse_dialogue, reader
from hf_synth.preferences.sources import PreferenceData, RejectedRow, counts_table, read_preferences
from hf_synth.preferences.tokenizer import ready_for_chat, train_bpe_tokenizer

__all__ = [
    "Message",
    "Pair",
    "PreferenceData",
    "RejectedRow",
    "RowError",
    "counts_table",
    "distinct_prompts",
    "list_schemas",
    "message_texts",
    "normalise",
    "parse_dialogue",
    "prompt_id",
    "read_preferences",
    "reader",
    "ready_for_chat",
    "split_by_prompt",
    "train_bpe_tokenizer",
]
