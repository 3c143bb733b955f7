"""Tokenizers whose ids are those of the rows: four special tokens, then the tasks' words in order."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as Chain
from tokenizers.pre_tokenizers import Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

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
            if (unknown := next((word for word in words if word not in known), None)) is None:
                raise
            some = ", ".join(sorted(known, key=known.get)[FIRST_CONTENT : FIRST_CONTENT + 8])
            raise ValueError(
                f"got the word {unknown!r}, which the tokenizer does not know; wanted words of the task, such as "
                f"{some}, separated by spaces"
            ) from error


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
    position = np.arange(tokens.shape[1], dtype=np.int32)
    ids = tokens[(position >= start[:, None]) & (position < stop[:, None])]
    offsets = np.concatenate([[0], np.cumsum(stop - start)])
    ids[offsets[:-1][stop > start]] += len(words)  # the first of each row, before which no space stands
    pieces = pa.array([*(f" {word}" for word in words), *(lead + word for word in words)]).take(pa.array(ids))
    _, ends, letters = pieces.buffers()
    begins = np.frombuffer(ends, np.int32)[offsets]
    texts = pa.StringArray.from_buffers(len(tokens), pa.py_buffer(begins), letters)
    return pc.if_else(stop > start, texts, lead) if lead else texts
