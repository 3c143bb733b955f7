"""A corpus as blocks of token ids: made once, kept in the cache of `datasets`, read from there at any place.

A stream would have to be tokenised again up to the place where a run resumes, on one rank for all. Blocks on disk are
read by their numbers: resuming costs nothing, any number of ranks sees the same batches, and arms share the cache.
"""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets.builder import Key
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from hf_synth.builder import TaskDataset, prepared
from hf_synth.corpora import Stream, arm_stream, interleave, token_counter
from hf_synth.corpora.packing import joined
from hf_synth.corpora.splits import CorpusArguments, held_out_text, source_files, training_text
from hf_synth.tasks import Task

KINDS = ("canonical", "example", "explanation")
BLOCK_FORMAT = 1  # raise it whenever blocks of the same arguments change: it is part of every cache key
_DOCUMENTS = 100  # that are tokenised together
_UNUSED = ("canonical_eval_tokens", "corpus_tokens")  # of the arguments, for what is in a block


class Blocks(Dataset):
    """Rows {"input_ids", "labels"}, both int64 [block_size] and equal: models shift the labels themselves.

    For `Trainer` with train_sampling_strategy="sequential", which keeps the documents' order.
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        """`dataset`: input_ids, and for each of KINDS how many tokens and ends of documents a block has."""
        self.dataset = dataset
        self._ids = dataset.select_columns("input_ids").with_format("arrow")

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """One block."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[dict[str, torch.Tensor]]:
        """Several blocks at once, as loaders ask for them."""
        return [{"input_ids": ids, "labels": ids} for ids in torch.from_numpy(self.ids(numbers).astype(np.int64))]

    def ids(self, numbers: Any = slice(None)) -> np.ndarray:
        """The ids of some blocks or all, int32 [blocks, block_size]."""
        column = self._ids[numbers]["input_ids"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(column), -1)

    def counts(self, blocks: int | None = None) -> dict[str, float]:
        """Tokens and ended documents of each kind, and the share of tokens that are not canonical.

        `blocks`: only of so many from the first on, such as those that were read.
        """
        table = self.dataset.remove_columns("input_ids").with_format("arrow")[:blocks]
        found = {name.replace(".", "/"): float(pc.sum(table[name]).as_py() or 0) for name in table.column_names}
        synthetic = found["tokens/example"] + found["tokens/explanation"]
        return {**found, "tokens/synthetic_share": synthetic / (synthetic + found["tokens/canonical"])}


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
    """The corpus of one arm, documents end to end with an end token after each. Without a task: canonical text alone.

    blocks: how many the run needs; where `corpus_tokens` is given, the corpus is as long as that says, and a longer
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
    text = json.dumps(spec, sort_keys=True)
    builder = _BlocksBuilder(
        cache_dir=cache_dir,
        dataset_name=f"hf_synth_{task.name if task else 'text'}",
        config_name="blocks",
        hash=hashlib.sha256(text.encode()).hexdigest()[:16],
        spec=text,
    )
    builder.tables = lambda: block_tables(stream, tokenizer, arguments.block_size, blocks)
    return Blocks(prepared(builder, split, streaming=False, num_proc=None))


def held_out_blocks(arguments: CorpusArguments, tokenizer: PreTrainedTokenizerBase) -> Blocks:
    """Natural text that no arm of the experiment trains on: the same blocks for every arm and seed.

    At most `canonical_eval_tokens` tokens. Raises ValueError where there is less than one block.
    """
    most = arguments.canonical_eval_tokens // arguments.block_size
    tables = list(block_tables(held_out_text(arguments), tokenizer, arguments.block_size, most))
    if not tables:
        raise ValueError(
            f"canonical_eval: got {arguments.canonical_eval}, which is less than one block of {arguments.block_size} "
            "tokens; give a larger share, another text, or a smaller block_size"
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
    """The documents of an arm among canonical ones, without end."""
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
    """The first blocks of a stream, fewer where it ends before; what fills no block at the end is left out."""
    rest, made = np.empty((3, 0), np.int64), 0
    while made < blocks and (table := stream.read(_DOCUMENTS)).num_rows:
        ids, lengths = joined(table["text"].to_pylist(), tokenizer)
        kinds = pc.index_in(table["kind"].combine_chunks(), pa.array(KINDS)).to_numpy()
        ends = np.zeros(ids.size, np.int64)
        ends[np.cumsum(lengths) - 1] = 1
        rest = np.concatenate([rest, [ids, np.repeat(kinds, lengths), ends]], axis=1)
        count = min(rest.shape[1] // block_size, blocks - made)
        whole, rest = rest[:, : count * block_size], rest[:, count * block_size :]
        made += count
        if count:
            yield _block_table(*whole.reshape(3, count, block_size))


def _block_table(ids: np.ndarray, kinds: np.ndarray, ends: np.ndarray) -> pa.Table:
    """Blocks [blocks, block_size] of ids, of the documents' kinds and of their ends, as columns."""
    flat = pa.array(ids.astype(np.int32).ravel())
    columns = {"input_ids": pa.FixedSizeListArray.from_arrays(flat, ids.shape[1])}
    for number, kind in enumerate(KINDS):
        columns[f"tokens.{kind}"] = pa.array((kinds == number).sum(axis=1))
        columns[f"documents.{kind}"] = pa.array((ends * (kinds == number)).sum(axis=1))
    return pa.table(columns, schema=_features(ids.shape[1]).arrow_schema)


def _features(block_size: int) -> datasets.Features:
    names = [f"{unit}.{kind}" for kind in KINDS for unit in ("tokens", "documents")]
    ids = datasets.List(datasets.Value("int32"), length=block_size)
    return datasets.Features({"input_ids": ids, **{name: datasets.Value("int64") for name in names}})


class _BlocksBuilder(TaskDataset):
    """Blocks under the name of their spec. `tables` makes them; it is asked where the cache does not hold them."""

    tables: Callable[[], Iterable[pa.Table]]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=_features(json.loads(self.config.spec)["corpus"]["block_size"]))

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        yield from ((Key(0, number), table) for number, table in enumerate(self.tables()))


def _spec(
    task: Task | None, arguments: CorpusArguments, tokenizer: PreTrainedTokenizerBase, **chosen: Any
) -> dict[str, Any]:
    """All that the blocks depend on."""
    corpus = {name: value for name, value in dataclasses.asdict(arguments).items() if name not in _UNUSED}
    return {
        "format": BLOCK_FORMAT,
        "task": _task_spec(task) if task else None,
        "corpus": corpus,
        "files": source_files(arguments),
        "tokenizer": tokenizer_digest(tokenizer),
        **chosen,
    }


def _task_spec(task: Task) -> list[Any]:
    """A task, and the source of one that lies outside the package: it changes without a release."""
    spec = [task.name, task.version, dataclasses.asdict(task.config)]
    if type(task).__module__.startswith("hf_synth."):
        return spec
    return [*spec, _digest(Path(inspect.getfile(type(task))).read_text(encoding="utf-8"))]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that a tokenizer's ids depend on; of one that is not fast at least its class and its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return _digest(f"{type(tokenizer).__name__} {tokenizer.eos_token_id} {words}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
