"""What a hyperdata run trains on: canonical text, a language's documents among it, and explanations among those."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from hf_synth.corpora.arms import FORMS, arm_stream
from hf_synth.corpora.streams import BLOCK, UNITS, Stream, share_of
from hf_synth.corpora.text import CUTS, STAND_IN, canonical_text, file_digests, local_files
from hf_synth.errors import check_fields, option, whole_number
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.tasks import Task

_UNIT_HELP = "a fraction of the documents, or of their tokens"


@dataclasses.dataclass
class CorpusArguments:
    """The corpus of one arm, a baseline by mix_ratio=0; none of it is read without `canonical`."""

    canonical: str | None = option(None, 'Natural text: a file, a folder, an id on the Hub, or "stand_in".')
    canonical_config: str | None = option(None, "A config of the Hub dataset.")
    canonical_split: str = option("train", "A split of the Hub dataset.")
    canonical_revision: str | None = option(None, "A revision of the Hub dataset.")
    canonical_document: str = option(
        "paragraph", "What a document of .txt files is: paragraph, article, line or file.", choices=CUTS
    )
    canonical_text_column: str = option("text", "The column that holds the text, of all other sources.")
    canonical_eval: str = option(
        "0.05",
        "Held-out natural text: a fraction of the canonical documents, a file or folder of its own, or the "
        "name of another split of the Hub dataset.",
    )
    canonical_eval_tokens: int = option(
        65_536, "The most tokens of held-out natural text that a model is evaluated on."
    )
    mix_ratio: float = option(0.1, "The fraction of the language among canonical text; 0 is the baseline.")
    mix_unit: str = option("documents", f"What mix_ratio is: documents or tokens, {_UNIT_HELP}.", choices=UNITS)
    explanation_ratio: float = option(0.0, "The fraction of explanations among the language's documents, 0 to 1.")
    explanation_form: str = option(
        "source", "statements, one block of all, or as in the source that the language is from.", choices=FORMS
    )
    explanation_unit: str = option(
        "documents", f"What explanation_ratio is: documents or tokens, {_UNIT_HELP}.", choices=UNITS
    )
    block_size: int = option(1024, "Tokens in a block, which is a training row.", at_least=2)
    corpus_tokens: int | None = option(
        None, "Tokens of the whole corpus, gone through in epochs; none: as many as the steps need."
    )

    def __post_init__(self) -> None:
        self.canonical = self.canonical or None
        self.canonical_eval = str(self.canonical_eval)
        check_fields(self)
        for name in ("mix_ratio", "explanation_ratio"):
            share_of(name, getattr(self, name))
        for name in ("block_size", "canonical_eval_tokens", "corpus_tokens"):
            if (value := getattr(self, name)) is not None and whole_number(name, value) < self.block_size:
                raise ValueError(f"{name}: got {value}, wanted at least one block of {self.block_size} tokens")
        if (share := self.held_out_share) is not None and not 0 < share < 1:
            raise ValueError(f"canonical_eval: got the fraction {self.canonical_eval}, wanted one above 0 and below 1")

    @property
    def held_out_share(self) -> float | None:
        """Return the fraction of the canonical documents that is held out; None for other held-out text."""
        try:
            return float(self.canonical_eval)
        except ValueError:
            return None


_MOST_EMPTY_BLOCKS = 100


class Part(Stream):
    """The documents of a stream whose hash lies within bounds: the same whatever their order, equal texts together."""

    position = ("stream",)

    def __init__(self, stream: Stream, low: float, high: float) -> None:
        """`low` and `high`: fractions from 0 to 1, the upper one excluded."""
        super().__init__()
        self.stream, self.low, self.high = stream, low, high

    def _next(self) -> pa.Table:
        for _ in range(_MOST_EMPTY_BLOCKS):
            table = self.stream.read(BLOCK)
            texts = (text.strip().encode() for text in table["text"].to_pylist())
            digests = [hashlib.blake2b(text, digest_size=8, person=b"held out").digest() for text in texts]
            hashes = np.frombuffer(b"".join(digests), "<u8") / 2.0**64
            chosen = (hashes >= self.low) & (hashes < self.high)
            if chosen.any() or not table.num_rows:
                return table.filter(pa.array(chosen))
        raise ValueError(
            f"canonical_eval: none of {_MOST_EMPTY_BLOCKS * BLOCK:,} documents in a row lies in the fraction of "
            f"{self.high - self.low:g}; give another fraction or more text"
        )

    def shard(self, num_shards: int, index: int) -> "Part":
        """Return the same bounds on a part of the documents."""
        return Part(self.stream.shard(num_shards, index), self.low, self.high)


def training_text(arguments: CorpusArguments, *, seed: int, repeat: bool = True) -> Stream:
    """Return the canonical documents to train on; with `repeat` again and again, in another order each time."""
    text = _source(arguments, arguments.canonical, arguments.canonical_split, seed=seed, repeat=repeat)
    share = arguments.held_out_share
    return text if share is None else Part(text, share, 1.0)


def held_out_text(arguments: CorpusArguments) -> Stream:
    """Return the canonical documents that are never trained on, each once, in one order for all runs."""
    if (share := arguments.held_out_share) is not None:
        return Part(_source(arguments, arguments.canonical, arguments.canonical_split), 0.0, share)
    on_hub = arguments.canonical not in (None, STAND_IN) and not Path(arguments.canonical or "").exists()
    if on_hub and not Path(arguments.canonical_eval).exists() and "/" not in arguments.canonical_eval:
        if arguments.canonical_eval == arguments.canonical_split:
            raise ValueError(f"canonical_eval: got {arguments.canonical_eval!r}, the split that is trained on")
        return _source(arguments, arguments.canonical, arguments.canonical_eval)
    if shared := _files(arguments.canonical) & _files(arguments.canonical_eval):
        raise ValueError(
            f"canonical_eval: got {arguments.canonical_eval!r}, which has {min(shared)} in common with canonical; "
            "wanted other text, or a fraction such as 0.05"
        )
    return _source(arguments, arguments.canonical_eval, "train")


def _files(source: str | None) -> set[str]:
    if source in (None, STAND_IN) or not Path(source or "").exists():
        return set()
    return {str(path.resolve()) for path in local_files(Path(source or ""))[1]}


def source_files(arguments: CorpusArguments) -> dict[str, str]:
    """Return digests of local canonical files, so that a change of them is noticed."""
    return file_digests(Path(arguments.canonical or "")) if _files(arguments.canonical) else {}


def _source(
    arguments: CorpusArguments, source: str | None, split: str, *, seed: int = 0, repeat: bool = False
) -> Stream:
    if source is None:
        raise ValueError("canonical: got none, wanted canonical text; for the language alone set mix_ratio to 1")
    return canonical_text(
        source,
        document=arguments.canonical_document,  # type: ignore[arg-type]
        text_column=arguments.canonical_text_column,
        config=arguments.canonical_config if source == arguments.canonical else None,
        split=split,
        revision=arguments.canonical_revision if source == arguments.canonical else None,
        seed=seed,
        repeat=repeat,
    )


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
    texts = [] if arguments.canonical is None else _canonical_texts(arguments, _CANONICAL_DOCUMENTS)
    if task is not None:
        texts += arm_stream(task).read(_EXAMPLES)["text"].to_pylist()
        texts += dict.fromkeys([*task.explanations(), *task.statements()])
    return train_bpe_tokenizer(texts, vocab_size=vocab_size, chat=False)


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


def _canonical_texts(arguments: CorpusArguments, most: int) -> list[str]:
    texts = training_text(arguments, seed=0, repeat=False).read(most)["text"].to_pylist()
    if not texts:
        raise ValueError(
            f"canonical: got {arguments.canonical!r}, which has no text to train on: it is blank, or all of it is "
            "held out by canonical_eval"
        )
    return texts
