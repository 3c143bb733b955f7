"""The tokenizer of a corpus: a checkpoint's, or one made for it."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from hf_synth.corpora import arm_stream
from hf_synth.corpora.splits import CorpusArguments, training_text
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.tasks import Task

_CANONICAL_DOCUMENTS = 10_000
_EXAMPLES = 1_000
_SPELLED, _SPELLED_CHARACTERS = 100, 10_000  # documents, and characters of them, that show whether text can be spelt


def corpus_tokenizer(
    task: Task | None,
    arguments: CorpusArguments,
    *,
    pretrained: PreTrainedTokenizerBase | None = None,
    vocab_size: int = 4096,
) -> PreTrainedTokenizerBase:
    """Return `pretrained`, able to end and pad documents; without one, train a byte-level BPE on the corpus' text.

    A trained one is the same for every arm and seed of a language, the baseline included. It has at most `vocab_size`
    tokens, and sees nothing that is held out.
    """
    if tokenizer := pretrained:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer: {tokenizer.name_or_path!r} has no end token, wanted one to end documents with"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if arguments.canonical is not None:
            check_spelling(tokenizer, "\n".join(_canonical_texts(arguments, _SPELLED))[:_SPELLED_CHARACTERS])
        return tokenizer
    return train_bpe_tokenizer(_tokenizer_texts(task, arguments), vocab_size=vocab_size, chat=False)


def check_spelling(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Raise ValueError where a tokenizer has no tokens for most of a text, as a task's own has none for prose."""
    try:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    except Exception as error:  # the tokenizers library raises nothing more special
        ids, reason = [], str(error)
    else:
        reason = f"{ids.count(tokenizer.unk_token_id)} of {len(ids)} tokens are unknown"
    if 2 * ids.count(tokenizer.unk_token_id) >= len(ids):
        raise ValueError(
            f"tokenizer: got one that cannot spell {text[:40]!r} ({reason}), wanted that of a model of text; leave "
            "model_name_or_path out to train a new one, or transfer the model's weights with init_from"
        )


def _tokenizer_texts(task: Task | None, arguments: CorpusArguments) -> Iterator[str]:
    if arguments.canonical is not None:
        yield from _canonical_texts(arguments, _CANONICAL_DOCUMENTS)
    if task is None:
        return
    yield from arm_stream(task).read(_EXAMPLES)["text"].to_pylist()
    yield from {**dict.fromkeys(task.explanations()), **dict.fromkeys(task.statements())}


def _canonical_texts(arguments: CorpusArguments, most: int) -> list[str]:
    texts = training_text(arguments, seed=0, repeat=False).read(most)["text"].to_pylist()
    if not texts:
        raise ValueError(
            f"canonical: got {arguments.canonical!r}, which has no text to train on: it is blank, or all of it is "
            "held out by canonical_eval"
        )
    return texts
