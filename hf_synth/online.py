"""Rows for `Trainer`, a whole batch per call: made while training, or passes over rows that are there.

Every training set is a sequence without end, addressed by row number and read in order: a run that is resumed, that
is split over ranks or whose batches are made by loader workers reads the same rows. `Trainer` needs three settings,
`train_sampling_strategy="sequential"`, `remove_unused_columns=False` and `data_collator=only_batch`:

    rows = OnlineRows(hf_synth.get_task("sort", "16"))
    Trainer(model, args, train_dataset=rows, data_collator=only_batch).train()
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from hf_synth.tasks.base import PAD, Rows, Task, shuffled
from hf_synth.tokenization import all_words
from hf_synth.views import IGNORED

ENDLESS = 2**62
_MOST_STAGES = 4096
_COUNTED_TOGETHER = 10_000
_BATCHES_TOGETHER = 16  # a call costs more than the rows of a small batch

Batch = dict[str, torch.Tensor]


def only_batch(batches: Sequence[Batch]) -> Batch:
    """Return the one finished batch of a fetch: the collator of these datasets."""
    return batches[0]


def batch_of(rows: Rows) -> Batch:
    """Return rows as a model reads them: `input_ids`, `labels`, int64 [rows, width], -100 where no loss is.

    Padding is on the right, where a causal model sees it from nowhere: no mask is needed, and kernels for causal
    attention without one are faster.
    """
    width = int(rows.lengths.max(initial=0))
    tokens = rows.tokens[:, :width].astype(np.int64)
    labels = np.where(rows.loss_mask[:, :width], tokens, IGNORED)
    return {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}


class Stages:
    """From which row on each stage of a curriculum holds: a table that only grows.

    It lies in shared memory, so that loader workers see what the training process decides. Stage 0 begins at row 0.
    """

    def __init__(self) -> None:
        self._first_rows = torch.full((_MOST_STAGES,), ENDLESS, dtype=torch.int64).share_memory_()
        self._first_rows[0] = 0

    @property
    def last(self) -> int:
        """Return the latest stage that was begun."""
        return int((self._first_rows < ENDLESS).sum()) - 1

    def first_row(self, stage: int) -> int:
        """Return the row that a stage begins with."""
        return int(self._first_rows[stage])

    def begin(self, stage: int, first_row: int) -> None:
        """Let a stage hold from a row on, which no loader may have read yet."""
        if stage != self.last + 1 or first_row < self._first_rows[self.last]:
            raise ValueError(f"got stage {stage} from row {first_row}, wanted stage {self.last + 1} at a later row")
        self._first_rows[stage] = first_row

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the stage of each row, int64 like `rows`."""
        return np.searchsorted(self._first_rows.numpy(), rows, side="right") - 1


class Batches(Dataset):
    """A dataset that fetches a whole batch at once; a single row is the first of a batch of one."""

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Return the rows of these numbers, in their order, as one batch."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index])[0].items()}


class OnlineRows(Batches):
    """Rows of a task from the first on, made when they are read.

    A finite task begins again after its last row, each pass in an order of its own. With a curriculum, `task` gives
    the task of a stage, and `stages` says which rows it holds for.
    """

    def __init__(
        self,
        task: Task | Callable[[int], Task],
        *,
        split: str = "train",
        seed: int = 0,
        size: int = ENDLESS,
        stages: Stages | None = None,
    ) -> None:
        """`task`: one task, or with `stages` a function from stage to task. `size`: how many rows there are."""
        if (stages is None) == (not isinstance(task, Task)):
            raise ValueError("got stages without a task for each, or the other way round; wanted both or neither")
        self._task_of = (lambda _: task) if isinstance(task, Task) else task
        self.split, self.seed, self.size, self.stages = split, seed, size, stages
        self._ahead: tuple[int, Rows] | None = None  # rows from a number on, that will be read next
        self._next = -1  # the number after the last row that was read

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        return [batch_of(self.rows(np.asarray(indices, np.int64)))]

    def rows(self, index: np.ndarray) -> Rows:
        """Make the rows of any numbers, in their order; runs of successive numbers of one stage are made at once."""
        breaks = np.diff(index) != 1
        if self.stages is None and len(index) and not breaks.any():
            return self._successive(int(index[0]), len(index))
        stage = np.zeros_like(index) if self.stages is None else self.stages.of(index)
        breaks |= np.diff(stage) != 0
        ends = [0, *(breaks.nonzero()[0] + 1).tolist(), len(index)]
        parts = [
            self._task_of(int(stage[first])).rows(int(index[first]), last - first, split=self.split, seed=self.seed)
            for first, last in itertools.pairwise(ends)
        ]
        return parts[0] if len(parts) == 1 else concatenated(parts)

    def _successive(self, first: int, count: int) -> Rows:
        """Make rows of successive numbers. To a reader of batch after batch, some batches are made at once."""
        follows, self._next = first == self._next, first + count
        start, ahead = self._ahead or (0, None)
        if ahead is None or not start <= first <= first + count <= start + len(ahead):
            start, more = first, min(_BATCHES_TOGETHER * count, self.size - first) if follows else count
            ahead = self._task_of(0).rows(first, max(count, more), split=self.split, seed=self.seed)
            self._ahead = (start, ahead)
        return ahead.select(np.arange(first - start, first - start + count))


class DistillationDataset(OnlineRows):
    """Rows of a task whose labels are soft: what the best possible predictor knows of each token that carries loss.

    `labels` are its probabilities, float32 [rows, width, ids], -100 where no loss is; `soft_cross_entropy` reads them:

        rows = DistillationDataset(hf_synth.get_task("dyck", "k2-l16"))
        loss = {"data_collator": only_batch, "compute_loss_func": soft_cross_entropy}
        Trainer(model, args, train_dataset=rows, **loss).train()
    """

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        if self.stages is not None:
            raise ValueError(
                "got stages, wanted one task: the rows of a batch have one distribution of the next token"
            )
        rows, task = self.rows(np.asarray(indices, np.int64)), self._task_of(0)
        batch = batch_of(rows)
        labels = torch.full((*batch["labels"].shape, len(all_words(task))), float(IGNORED))
        for index, positions in rows.by_span():
            best = task.optimal_distribution(rows.select(index), positions)
            labels[torch.from_numpy(index)[:, None], torch.from_numpy(positions)] = torch.from_numpy(best).float()
        return [{**batch, "labels": labels}]


def soft_cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the cross entropy of a model's logits and soft labels, [rows, width, ids], in nats per token with loss.

    It is the best predictor's entropy plus KL(best predictor || model). `num_items_in_batch`: the elements of labels
    that are not -100, as Trainer counts them over all batches of a step.
    """
    targets = labels[:, 1:]
    carries = targets[:, :, 0] != IGNORED
    log_probs = outputs.logits[:, :-1][carries].float().log_softmax(-1)[:, : targets.shape[-1]]
    if log_probs.shape[-1] < targets.shape[-1]:
        raise ValueError(f"got a model of {log_probs.shape[-1]} ids, wanted the task's {targets.shape[-1]}, or more")
    total = -(targets[carries] * log_probs.masked_fill(targets[carries] == 0, 0)).sum()  # a logit may be -inf there
    return total * targets.shape[-1] / num_items_in_batch if num_items_in_batch is not None else total / carries.sum()


class HeldRows(Batches):
    """Rows that lie in memory, such as a fixed evaluation set."""

    def __init__(self, rows: Rows, optimal: np.ndarray | None = None, groups: np.ndarray | None = None) -> None:
        """`optimal`: the best predictor's ln P, [rows, width], where known. `groups`: a name for each row, [rows]."""
        self.rows, self.optimal, self.groups = rows, optimal, groups

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Return tokens of the longest row."""
        return int(self.rows.lengths.max(initial=0))

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        return [batch_of(self.rows.select(np.asarray(indices, np.int64)))]


class TokenColumns(Batches):
    """A dataset of the `datasets` library with columns input_ids and labels, lists of one length in each row."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @functools.cached_property
    def width(self) -> int:
        """Return tokens of the longest row."""
        tables = self.dataset.select_columns("input_ids").with_format("arrow").iter(_COUNTED_TOGETHER)
        return max((pc.max(pc.list_value_length(table["input_ids"])).as_py() for table in tables), default=0)

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        columns = self.dataset[list(map(int, indices))]
        rows = {name: [torch.tensor(row) for row in columns[name]] for name in ("input_ids", "labels")}
        return [{name: pad_sequence(rows[name], True, IGNORED if name == "labels" else PAD) for name in rows}]


class Passes(Batches):
    """A finite dataset without end: pass after pass, each row once in every one, in an order of the pass's own."""

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        """`dataset`: one with a length that fetches whole batches. `seed` chooses the orders."""
        if not len(dataset):
            raise ValueError("got a dataset of no row to train on, wanted at least one")
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return ENDLESS

    @property
    def width(self) -> int | None:
        """Return tokens of the longest row, where the dataset tells it."""
        return getattr(self.dataset, "width", None)

    def numbers(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        """Return which rows of the dataset these are."""
        return shuffled(np.asarray(indices, np.int64), len(self.dataset), f"{self.seed}\0passes").tolist()

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        return self.dataset.__getitems__(self.numbers(indices))


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Join blocks of rows one after the other, as wide as the widest."""
    width = max(part.tokens.shape[1] for part in parts)
    tokens = [np.pad(part.tokens, ((0, 0), (0, width - part.tokens.shape[1])), constant_values=PAD) for part in parts]
    names = [field.name for field in dataclasses.fields(Rows) if field.name not in ("tokens", "columns")]
    fields = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    return Rows(np.concatenate(tokens), columns=columns, **fields)
