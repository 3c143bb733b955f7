"""A corpus as blocks of token ids: in the cache of `datasets`, read in any order, or as the stream `Packed`.

A stream would have to be tokenised again up to the point where a run resumes, on one rank for all. Blocks on disk are
read by their numbers: resuming costs nothing, any number of ranks sees the same batches, and arms share the cache.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets.builder import Key
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from hf_synth.builder import TaskDataset, prepared
from hf_synth.corpora import Stream, arm_stream, interleave, token_counter
from hf_synth.corpora.splits import CorpusArguments, held_out_text, source_files, training_text
from hf_synth.errors import whole_number
from hf_synth.tasks import Task, source_digest

KINDS = ("canonical", "example", "explanation")
BLOCK_FORMAT = 2  # raise it whenever blocks of the same arguments change: it is part of every cache key
_BATCH = 256  # documents that Packed tokenises together, and once more where it is resumed within them
_DOCUMENTS = 100  # that are tokenised together
_UNUSED = ("canonical_eval_tokens", "corpus_tokens")  # of the arguments, for what is in a block


class Blocks(Dataset):
    """Rows {"input_ids", "labels"}, both int64 [rows, block_size] and equal: models shift the labels themselves.

    `Trainer` takes them as it takes the datasets of `hf_synth.online`, in the documents' order.
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        """`dataset`: input_ids, and for each of KINDS how many tokens and ends of documents a block has."""
        self.dataset = dataset
        self._ids = dataset.select_columns("input_ids").with_format("arrow")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([index])[0].items()}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        ids = torch.from_numpy(self.ids(indices).astype(np.int64))
        return [{"input_ids": ids, "labels": ids.clone()}]

    def ids(self, numbers: Any = slice(None)) -> np.ndarray:
        """Return the ids of some blocks or all, int32 [blocks, block_size]."""
        column = self._ids[numbers]["input_ids"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(column), -1)

    def counts(self, numbers: Sequence[int] | None = None) -> dict[str, float]:
        """Count tokens and ended documents of each kind, and the fraction of tokens that are not canonical.

        `numbers`: only of these blocks, such as those that were read.
        """
        chosen = slice(None) if numbers is None else numbers
        table = self.dataset.remove_columns("input_ids").with_format("arrow")[chosen]
        counts = {name.replace(".", "/"): float(pc.sum(table[name]).as_py() or 0) for name in table.column_names}
        synthetic = counts["tokens/example"] + counts["tokens/explanation"]
        return {**counts, "tokens/synthetic_share": synthetic / (synthetic + counts["tokens/canonical"])}


def corpus_blocks(
    task: Task | None,
    arguments: CorpusArguments,
    tokenizer: PreTrainedTokenizerBase,
    *,
    blocks: int | None = None,
    split: str = "train",
    seed: int = 0,
    cache_dir: str | None = None,
) -> Blocks:
    """Make the corpus of one arm, documents end to end, an end token after each. Without a task: canonical text alone.

    blocks: how many the run needs; with `corpus_tokens` the corpus is as long as that says, and a longer
    run goes through it in epochs. split: whose rows the examples are. seed: of rows, of the mixture, and of the order
    of canonical text, which is read again and again. cache_dir: that of `datasets` by default. Ranks may call this
    together: one makes the blocks and the others wait.

    Raises ValueError where text cannot be had, or the tokenizer has no end token.
    """
    if arguments.corpus_tokens is not None:
        blocks = arguments.corpus_tokens // arguments.block_size
    if blocks is None or blocks < 1:
        raise ValueError(f"blocks: got {blocks}, wanted how many the run needs, or corpus_tokens in the arguments")
    stream = corpus_stream(task, arguments, tokenizer, split=split, seed=seed)
    spec = _spec(task, arguments, tokenizer, size=blocks, split=split, seed=seed)
    builder = _BlocksBuilder.of(spec, task.name if task else "text", "blocks", cache_dir)
    builder.tables = lambda: block_tables(stream, tokenizer, arguments.block_size, blocks)
    return Blocks(prepared(builder, split, streaming=False, num_proc=None))


def held_out_blocks(arguments: CorpusArguments, tokenizer: PreTrainedTokenizerBase) -> Blocks:
    """Return natural text that no arm of the experiment trains on: the same blocks for every arm and seed.

    At most `canonical_eval_tokens` tokens. Raises ValueError where there is less than one block.
    """
    most = arguments.canonical_eval_tokens // arguments.block_size
    tables = list(block_tables(held_out_text(arguments), tokenizer, arguments.block_size, most))
    if not tables:
        raise ValueError(
            f"canonical_eval: got {arguments.canonical_eval}, which is less than one block of {arguments.block_size} "
            "tokens; give a larger fraction, another text, or a smaller block_size"
        )
    return Blocks(datasets.Dataset(pa.concat_tables(tables)))


def corpus_stream(
    task: Task | None,
    arguments: CorpusArguments,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "train",
    seed: int = 0,
) -> Stream:
    """Return the endless documents of an arm among canonical ones."""
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer: got one without an end token; set tokenizer.eos_token")
    if arguments.canonical is None and arguments.mix_ratio != 1:
        raise ValueError(f"canonical: got none and mix_ratio={arguments.mix_ratio}, wanted canonical text to mix with")
    if task is None:
        if arguments.mix_ratio:
            raise ValueError(f"task: got none and mix_ratio={arguments.mix_ratio}, wanted a language, or mix_ratio=0")
        return training_text(arguments, seed=seed)
    count = token_counter(tokenizer)
    arm = arm_stream(
        task,
        arguments.explanation_ratio,
        explanation_form=arguments.explanation_form,  # type: ignore[arg-type]
        explanation_unit=arguments.explanation_unit,  # type: ignore[arg-type]
        seed=seed,
        split=split,
        count_tokens=count,
    )
    if arguments.canonical is None:
        return arm
    mixed: dict[str, Any] = {"unit": arguments.mix_unit, "seed": seed, "count_tokens": count}
    return interleave(training_text(arguments, seed=seed), arm, ratio=arguments.mix_ratio, **mixed)


def block_tables(
    stream: Stream, tokenizer: PreTrainedTokenizerBase, block_size: int, blocks: int
) -> Iterator[pa.Table]:
    """Yield the first blocks of a stream, fewer where it ends before; what fills no block at the end is left out."""
    rest, made = np.empty((3, 0), np.int64), 0
    while made < blocks and (table := stream.read(_DOCUMENTS)).num_rows:
        ids, lengths = joined(table, tokenizer)
        kinds = pc.index_in(table["kind"].combine_chunks(), pa.array(KINDS)).to_numpy()
        ends = np.zeros(ids.size, np.int64)
        ends[np.cumsum(lengths) - 1] = 1
        rest = np.concatenate([rest, [ids, np.repeat(kinds, lengths), ends]], axis=1)
        count = min(rest.shape[1] // block_size, blocks - made)
        whole, rest = rest[:, : count * block_size], rest[:, count * block_size :]
        made += count
        if count:
            of_blocks = whole.reshape(3, count, block_size)
            flat = pa.array(of_blocks[0].astype(np.int32).ravel())
            columns = {"input_ids": pa.FixedSizeListArray.from_arrays(flat, block_size)}
            for number, kind in enumerate(KINDS):
                own = of_blocks[1] == number
                columns[f"tokens.{kind}"] = pa.array(own.sum(axis=1))
                columns[f"documents.{kind}"] = pa.array((of_blocks[2] * own).sum(axis=1))
            yield pa.table(columns, schema=_features(block_size).arrow_schema)


def _features(block_size: int) -> datasets.Features:
    names = [f"{unit}.{kind}" for kind in KINDS for unit in ("tokens", "documents")]
    ids = datasets.List(datasets.Value("int32"), length=block_size)
    return datasets.Features({"input_ids": ids, **{name: datasets.Value("int64") for name in names}})


class _BlocksBuilder(TaskDataset):
    """Blocks under the name of their spec. `tables` makes them where the cache does not hold them."""

    tables: Callable[[], Iterable[pa.Table]]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=_features(json.loads(self.config.spec)["corpus"]["block_size"]))

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        yield from ((Key(0, number), table) for number, table in enumerate(self.tables()))


def _spec(
    task: Task | None, arguments: CorpusArguments, tokenizer: PreTrainedTokenizerBase, **chosen: Any
) -> dict[str, Any]:
    """Return all that the blocks depend on; of a task outside the package its source, too."""
    described = None
    if task is not None:
        source = source_digest(type(task))
        described = [task.name, task.version, dataclasses.asdict(task.config), *([] if source is None else [source])]
    return {
        "format": BLOCK_FORMAT,
        "task": described,
        "corpus": {name: value for name, value in dataclasses.asdict(arguments).items() if name not in _UNUSED},
        "files": source_files(arguments),
        "tokenizer": tokenizer_digest(tokenizer),
        **chosen,
    }


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of all that a tokenizer's ids depend on; of a slow one, of its class and vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    description = f"{type(tokenizer).__name__} {tokenizer.eos_token_id} {vocabulary}"
    return hashlib.sha256(description.encode()).hexdigest()


class Packed(IterableDataset):
    """Blocks of exactly `block_size` ids: the documents' ids one after another, an end token after each.

    Yields {"input_ids", "labels"}, both int64 [block_size] and equal: models shift the labels themselves. A document
    may begin in one block and end in the next; what fills no block at the end is left out.

    `Trainer` takes it as `train_dataset`. Loader workers take shards of their own; ranks do so only by `shard`, which
    Trainer must not be given, as accelerate deals blocks to ranks itself. `iter` begins where `load_state_dict` said,
    else at the beginning, and `state_dict` is where the last iteration stands: the protocol of
    `datasets.IterableDataset` and `StatefulDataLoader`.
    """

    def __init__(self, stream: Stream, tokenizer: Any, block_size: int) -> None:
        """`tokenizer`: one of transformers, with an end token; special tokens that it would add are left out."""
        if whole_number("block_size", block_size) < 1:
            raise ValueError(f"block_size: got {block_size}, wanted at least 1")
        if tokenizer.eos_token_id is None:
            raise ValueError("tokenizer: got one without an end token; set tokenizer.eos_token")
        self.stream, self.tokenizer, self.block_size = stream, tokenizer, block_size
        self._begin = stream.state_dict(), np.empty(0, np.int64), 0
        self._at = self._begin

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield blocks from the beginning, or from the state that was loaded."""
        worker, (state, rest, made) = get_worker_info(), self._begin
        parts = 1 if worker is None else worker.num_workers  # each loader worker reads its part
        stream = self.stream if worker is None or parts == 1 else self.stream.shard(parts, worker.id)
        stream.load_state_dict(state)
        while True:
            before = stream.state_dict()
            table = stream.read(_BATCH)
            if not table.num_rows:
                return
            ids = np.concatenate([rest, joined(table, self.tokenizer)[0]])
            blocks = ids[: ids.size // self.block_size * self.block_size].reshape(-1, self.block_size)
            for number in range(made, len(blocks)):
                self._at = (before, rest, number + 1)
                block = torch.from_numpy(blocks[number])
                yield {"input_ids": block, "labels": block.clone()}
            rest, made = ids[blocks.size :], 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the latest iteration stands, in values that JSON holds."""
        before, rest, made = self._at
        return {"stream": before, "rest": rest.tolist(), "blocks": made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let iterations begin where another one stood; at most 256 documents are tokenised again."""
        self._begin = self._at = state["stream"], np.array(state["rest"], np.int64), state["blocks"]

    def shard(self, num_shards: int, index: int) -> "Packed":
        """Return the blocks of one part of the documents, from its beginning."""
        return Packed(self.stream.shard(num_shards, index), self.tokenizer, self.block_size)


def joined(table: pa.Table, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of documents one after another, an end token after each, and how many each has; both int64.

    A special token is one in a task's documents. Canonical text has none: one that it spells out is split.
    """
    end, options = [tokenizer.eos_token_id], {"add_special_tokens": False, "verbose": False}
    texts, special = table["text"].to_pylist(), getattr(tokenizer, "all_special_tokens", ())
    encoded = tokenizer(texts, **options)["input_ids"]
    for number, (text, kind) in enumerate(zip(texts, table["kind"].to_pylist(), strict=True)):
        if kind == "canonical" and any(token in text for token in special):
            encoded[number] = tokenizer(text, split_special_tokens=True, **options)["input_ids"]
    parts = [np.array([*ids, *end], np.int64) for ids in encoded]
    return np.concatenate(parts), np.array([part.size for part in parts], np.int64)
