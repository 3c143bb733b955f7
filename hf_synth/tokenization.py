"""Tokenizers whose ids are those of the rows: four special tokens, then the tasks' words in order."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as Chain
from tokenizers.pre_tokenizers import Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from hf_synth.kernels import kernel
from hf_synth.tasks.base import BOS, FIRST_CONTENT, SPECIAL_TOKENS, Task


def all_words(task: Task) -> tuple[str, ...]:
    """Return the special tokens and the task's vocabulary, in id order."""
    return (*SPECIAL_TOKENS, *task.vocabulary())


def build_tokenizer(*tasks: Task) -> PreTrainedTokenizerFast:
    """Build a tokenizer over the union of the tasks' vocabularies; for one task its ids equal `task.rows().tokens`.

    It puts `<bos>` before every text, and never adds `<eos>`: TRL's trainers append it to completions.
    A word outside the vocabulary is a ValueError that names it, not a silent unknown token.
    """
    if not tasks:
        raise ValueError("build_tokenizer: got no task, wanted at least one")
    return word_tokenizer(word for task in tasks for word in all_words(task))


class _WordTokenizer(PreTrainedTokenizerFast):
    """The library's own, but for the error of an unknown word: there it neither names the word nor is a ValueError."""

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        try:
            return super()._encode_plus(text, text_pair, **kwargs)
        except Exception as error:
            known, texts = self.get_vocab(), [*_flat(text), *_flat(text_pair)]
            words = (word for one in texts for word, _ in self.backend_tokenizer.pre_tokenizer.pre_tokenize_str(one))
            for word in words:
                if word not in known:
                    some = ", ".join(sorted(known, key=known.get)[FIRST_CONTENT : FIRST_CONTENT + 8])
                    raise ValueError(
                        f"got the word {word!r}, which the tokenizer does not know; wanted words of the task, such as "
                        f"{some}, separated by spaces"
                    ) from error
            raise


# Saved under the name of the library's class, which loads it everywhere.
_WordTokenizer.__name__ = PreTrainedTokenizerFast.__name__


def _flat(texts: Any) -> Iterable[str]:
    return [texts] if isinstance(texts, str) else [word for text in texts or () for word in _flat(text)]


def word_tokenizer(all_words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer of these words, in id order and the special tokens first; what comes twice counts once."""
    words = dict.fromkeys(all_words)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}))
    # Tags are split off even where no space stands, as between a prompt and the completion glued to it.
    tags = Split(Regex(r"<[^<>\s]+>"), behavior="isolated")
    tokenizer.pre_tokenizer = Chain([WhitespaceSplit(), tags])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    pad, bos, eos, sep = SPECIAL_TOKENS
    return _WordTokenizer(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        sep_token=sep,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def render(tokens: np.ndarray, start: np.ndarray, stop: np.ndarray, words: Sequence[str], lead: str = "") -> pa.Array:
    """Render tokens start .. stop - 1 of each row as text, joined by spaces, `lead` put before each text.

    tokens: int32 [rows, width]; start, stop: int [rows]; words: all words in id order. Returns strings [rows].
    """
    encoded = [f"{word} ".encode() for word in words]
    sizes = np.array([len(word) for word in encoded], np.int64)
    blob = np.frombuffer(b"".join(encoded), np.uint8)
    prefix = np.frombuffer(lead.encode(), np.uint8)
    offsets = _text_offsets(tokens, start, stop, sizes, prefix.size)
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    text = _fill_text(tokens, start, stop, begins, sizes, blob, prefix, offsets)
    return pa.LargeStringArray.from_buffers(len(tokens), pa.py_buffer(offsets), pa.py_buffer(text)).cast(pa.string())


@kernel
def _text_offsets(tokens, start, stop, sizes, lead):  # type: ignore[no-untyped-def]
    offsets = np.zeros(tokens.shape[0] + 1, np.int64)
    for row in range(tokens.shape[0]):
        length = lead
        for at in range(start[row], stop[row]):
            length += sizes[tokens[row, at]]
        offsets[row + 1] = offsets[row] + length - (stop[row] > start[row])
    return offsets


@kernel
def _fill_text(tokens, start, stop, begins, sizes, blob, prefix, offsets):  # type: ignore[no-untyped-def]
    text = np.empty(offsets[-1], np.uint8)
    for row in range(tokens.shape[0]):
        cursor, end = offsets[row], offsets[row + 1]
        for byte in prefix:
            text[cursor] = byte
            cursor += 1
        for at in range(start[row], stop[row]):
            word = tokens[row, at]
            for byte_at in range(begins[word], begins[word] + sizes[word]):
                if cursor < end:
                    text[cursor] = blob[byte_at]
                    cursor += 1
    return text
