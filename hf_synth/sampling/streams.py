"""The rows of a dataset in a weighted order as a stream, for trainers and loops that take no sampler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import datasets
from datasets.iterable_dataset import _BaseExamplesIterable

from hf_synth.sampling.samplers import DensityWeightedSampler

_ROWS_AT_A_TIME = 256


def weighted_stream(dataset: datasets.Dataset, sampler: DensityWeightedSampler) -> datasets.IterableDataset:
    """Return a stream of a dataset's rows in the sampler's order: round after round, without end.

    It has what every stream of `datasets` has. `state_dict` and `load_state_dict` resume at any row, and `set_epoch`
    sets the first round. It is one shard: `split_dataset_by_node` deals its draws out to ranks in turn, and of several
    loader workers one reads. The sampler draws single rows: whoever needs groups repeats each row that it reads, as
    TRL's trainers do, so that groups stay whole on every rank.

    Raises ValueError for a sampler of another number of rows, or one that repeats rows.
    """
    if len(sampler.weights) != len(dataset):
        raise ValueError(f"sampler: got {len(sampler.weights)} weights, wanted one for each of {len(dataset)} rows.")
    if sampler.group_size * sampler.repeat_count > 1:
        raise ValueError(
            f"sampler: got group_size={sampler.group_size} and repeat_count={sampler.repeat_count}, wanted 1: the "
            "trainer repeats the rows of a stream."
        )
    return datasets.IterableDataset(_Draws(dataset, sampler), datasets.DatasetInfo(features=dataset.features))


class _Draws(_BaseExamplesIterable):
    """What `datasets` iterates over: one shard, whose state is the round and how much of it was drawn."""

    is_typed, num_shards = True, 1

    def __init__(self, dataset: datasets.Dataset, sampler: DensityWeightedSampler, first: int = 0) -> None:
        super().__init__()
        self.dataset, self.sampler, self.first = dataset, sampler, first

    @property
    def features(self) -> datasets.Features:
        return self.dataset.features

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        state: dict[str, Any] = self._state_dict or self._init_state_dict()
        for number in itertools.count(self.first + state["round"]):
            self.sampler.set_epoch(number)
            rows = self.sampler.round_rows().tolist()
            while part := rows[state["draw"] : state["draw"] + _ROWS_AT_A_TIME]:
                for row in self.dataset.__getitems__(part):
                    state["draw"] += 1
                    yield f"{number}_{state['draw']}", row
            state.update(round=state["round"] + 1, draw=0)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict: dict[str, Any] | None = {"round": 0, "draw": 0}
        return self._state_dict

    def shift_rngs(self, value: int) -> _Draws:  # what `set_epoch` comes to
        return _Draws(self.dataset, self.sampler, self.first + value)

    def shuffle_data_sources(self, generator: Any) -> _Draws:
        return self

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> _Draws:
        return self
