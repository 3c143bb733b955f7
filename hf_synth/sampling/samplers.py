"""A weighted sampler with the structure that TRL's trainers need, resumable and the same on every process.

`weighted_stream` gives its order as a stream, for trainers and loops that take no sampler.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.iterable_dataset import _BaseExamplesIterable
from numpy.typing import ArrayLike
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import Sampler

from hf_synth.io import reading, whole_file
from hf_synth.sampling.weights import check_weights

_ROWS_AT_A_TIME = 2**16  # rows turned into Python numbers at once
_ROWS_READ_AT_ONCE = 256  # of a stream
_ARRAYS = ("weights", "next_weights")
_COUNTS = ("group_size", "batch_size", "repeat_count", "round_size")


class DensityWeightedSampler(Sampler[int]):
    """Draws rows in proportion to their weights, in groups and repeated batches as TRL's `RepeatSampler` has them.

    ```txt
    weights = [1, 0, 4, 1, 2, 1, 1, 2, 2, 2, 1, 1],  N = 12      row 1 is never drawn, row 2 about three times
    group_size = 3, batch_size = 4, repeat_count = 2               n = N // batch_size * batch_size = 12 draws

          group of one prompt
          -   -   -
         [8,  8,  8,  2,  2,  2,  4,  4,  4,  9,  9,  9,      |
          8,  8,  8,  2,  2,  2,  4,  4,  4,  9,  9,  9,      |  repeat_count = 2

          2,  2,  2,  0,  0,  0,  2,  2,  2,  7,  7,  7,      |  row 2 twice in one batch: its weight asks for it
          2,  2,  2,  0,  0,  0,  2,  2,  2,  7,  7,  7,  ...]   |
          -------------------------------------------
                 batch_size = 4 groups
    ```

    Within a round, row i is drawn n_i times, with E[n_i] = n * w_i / sum(w) and |n_i - E[n_i]| < 1: systematic
    resampling over randomly permuted rows, then shuffled. Equal weights draw each row at most once, and all of them
    where batch_size divides N. A row heavy enough may come twice in one batch: two groups of the same prompt, each
    with completions and a baseline of its own, which TRL handles like any two groups.

    The order is a function of (seed, round, weights when the round starts), so every process sees the same one and a
    resumed run draws what an uninterrupted one would have. `set_epoch` sets the round; a round iterated twice is the
    same twice. Nothing is read from or written to a global random state.

    weights: [N] numbers of at least 0, not all 0, any scale; 0 is never drawn.
    group_size: times each index comes in a row (GRPO: num_generations).
    batch_size: draws in a batch, each a whole group.
    repeat_count: times each batch comes (GRPO: num_iterations * steps_per_generation).
    seed: at least 0.
    round_size: n before it is cut to whole batches; N where not given. A shorter round lets weights that change
        act sooner; each round permutes all N rows anew, and equal weights draw a row at most once in a round only.
    Raises ValueError also for fewer rows than batch_size, a count below 1, and a round shorter than one batch.

    Source: J. Carpenter, P. Clifford and P. Fearnhead (1999) for systematic resampling; TRL for the structure.
    """

    def __init__(
        self,
        weights: ArrayLike,
        *,
        group_size: int = 1,
        batch_size: int = 1,
        repeat_count: int = 1,
        seed: int = 0,
        round_size: int | None = None,
    ) -> None:
        self.group_size, self.batch_size, self.repeat_count, self.seed = group_size, batch_size, repeat_count, seed
        for name, least in {"group_size": 1, "batch_size": 1, "repeat_count": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: wanted at least {least}.")
        self._weights = self._next_weights = check_weights(weights)
        if len(self._weights) < batch_size:
            raise ValueError(
                f"{len(self._weights)} rows cannot fill one batch of {batch_size}. Give at least {batch_size} rows, "
                "or make the batch smaller (GRPO: generation_batch_size / num_generations prompts a batch)."
            )
        self.round_size = len(self._weights) if round_size is None else round_size
        if self.round_size < batch_size:
            raise ValueError(
                f"round_size={round_size}: wanted at least one batch of {batch_size} draws, or none for all rows."
            )
        self.round = 0
        self._started = False  # has this round drawn anything?
        self.changed = False  # set or loaded after construction: a checkpoint must hold the weights

    @property
    def weights(self) -> np.ndarray:
        """[N] weights of the current round (a copy)."""
        return self._weights.copy()

    def set_epoch(self, epoch: int) -> None:
        """Set the round to draw next. Weights set since the last round started take effect with a new round."""
        if epoch < 0:
            raise ValueError(f"epoch={epoch}: wanted at least 0.")
        if epoch != self.round:
            self.round, self._started, self._weights = epoch, False, self._next_weights

    def set_weights(self, weights: ArrayLike) -> None:
        """Take new weights [N] from the next round on; at once where the current round has drawn nothing yet."""
        checked = check_weights(weights)
        if len(checked) != len(self._weights):
            raise ValueError(f"weights: got {len(checked)}, wanted {len(self._weights)}, one for each row.")
        self._next_weights, self.changed = checked, True
        if not self._started:
            self._weights = checked

    def round_rows(self) -> np.ndarray:
        """The [n] int64 rows of the current round in the order drawn, each standing for a whole group."""
        self._started = True
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(self.round,))))
        order = rng.permutation(len(self._weights))
        counts = systematic_counts(self._weights[order], self._draws, rng.random())
        return rng.permutation(np.repeat(order, counts))

    def __iter__(self) -> Iterator[int]:
        """Yield the round's indices, groups and repeats included."""
        batches = self.round_rows().reshape(-1, 1, self.batch_size)
        step = max(1, _ROWS_AT_A_TIME // (self.batch_size * self.group_size * self.repeat_count))
        for start in range(0, len(batches), step):
            block = batches[start : start + step].repeat(self.repeat_count, axis=1).repeat(self.group_size, axis=2)
            yield from block.ravel().tolist()

    def __len__(self) -> int:
        """Indices in a round: draws * group_size * repeat_count."""
        return self._draws * self.group_size * self.repeat_count

    @property
    def _draws(self) -> int:
        return self.round_size // self.batch_size * self.batch_size

    def fingerprint(self) -> int:
        """A 32-bit checksum of all that decides the order: equal on all processes, or their groups are broken."""
        settings = (self.seed, self.round, *(getattr(self, name) for name in _COUNTS))
        return zlib.crc32(self._weights.tobytes(), zlib.crc32(repr(settings).encode()))

    def state_dict(self) -> dict[str, Any]:
        """Seed, counts, round, and the weights of this round and the next; numbers and two arrays [N]."""
        return {
            **{name: getattr(self, name) for name in ("seed", *_COUNTS, "round")},
            "started": self._started,
            "weights": self._weights.copy(),
            "next_weights": self._next_weights.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; ValueError where it has another seed, other counts or another number of rows."""
        current, following = check_weights(state["weights"]), check_weights(state["next_weights"])
        if not len(current) == len(following) == len(self._weights):
            raise ValueError(
                f"the saved sampler has {len(current)} rows, this one {len(self._weights)}. Resume with the data set "
                "of the saved run."
            )
        for name in ("seed", *_COUNTS):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the saved sampler has {name}={state[name]}, this one {getattr(self, name)}: it could not go on "
                    "where the saved one stopped. Resume with the settings of the saved run."
                )
        self._weights, self._next_weights = current, following
        self.round, self._started, self.changed = int(state["round"]), bool(state["started"]), True

    def save(self, path: str) -> None:
        """Write `state_dict` to a safetensors file; a process killed meanwhile leaves the old file or the new one."""
        state = self.state_dict()
        arrays = {name: state.pop(name) for name in _ARRAYS}
        with whole_file(Path(path)) as part:
            save_file(arrays, part, metadata={"sampler": json.dumps(state)})

    def load(self, path: str) -> None:
        """Take up the state in a file that `save` wrote; errors as `load_state_dict`."""
        with reading(path), safe_open(path, framework="numpy") as file:
            state = json.loads(file.metadata()["sampler"]) | {name: file.get_tensor(name) for name in _ARRAYS}
        self.load_state_dict(state)


def weighted_stream(
    dataset: datasets.Dataset, sampler: DensityWeightedSampler, *, rank: int = 0, world_size: int = 1
) -> datasets.IterableDataset:
    """Return a stream of a dataset's rows in the sampler's order: round after round, without end.

    It has what every stream of `datasets` has. `state_dict` and `load_state_dict` resume at any row, and `set_epoch`
    sets the first round. It is one shard: of several loader workers one reads. The sampler draws single rows: whoever
    needs groups repeats each row that it reads, as TRL's trainers do.
    rank, world_size: for loops of one's own; a rank reads every world_size-th draw, so that its groups are whole.

    Raises ValueError for a sampler of another number of rows, one that repeats rows, and a rank that there is not.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: got {rank} of world_size {world_size}, wanted 0 to world_size - 1.")
    if len(sampler.weights) != len(dataset):
        raise ValueError(f"sampler: got {len(sampler.weights)} weights, wanted one for each of {len(dataset)} rows.")
    if sampler.group_size * sampler.repeat_count > 1:
        raise ValueError(
            f"sampler: got group_size={sampler.group_size} and repeat_count={sampler.repeat_count}, wanted 1: the "
            "trainer repeats the rows of a stream."
        )
    return datasets.IterableDataset(
        _Draws(dataset, sampler, rank, world_size), datasets.DatasetInfo(features=dataset.features)
    )


class _Draws(_BaseExamplesIterable):
    """What `datasets` iterates over: one shard, whose state is the round and how much of it was drawn."""

    is_typed, num_shards, ex_iterables = True, 1, ()  # it draws from no other iterable

    def __init__(self, dataset: Any, sampler: DensityWeightedSampler, rank: int, ranks: int, first: int = 0) -> None:
        super().__init__()
        self.dataset, self.sampler, self.rank, self.ranks, self.first = dataset, sampler, rank, ranks, first

    @property
    def features(self) -> datasets.Features:
        return self.dataset.features

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        state: dict[str, Any] = self._state_dict or self._init_state_dict()
        for number in itertools.count(self.first + state["round"]):
            self.sampler.set_epoch(number)
            rows = self.sampler.round_rows().tolist()
            before = (number - self.first) * len(rows)  # the ranks take draws in turn over all rounds
            rows = rows[(self.rank - before) % self.ranks :: self.ranks]
            while part := rows[state["draw"] : state["draw"] + _ROWS_READ_AT_ONCE]:
                for row in self.dataset.__getitems__(part):
                    state["draw"] += 1
                    yield f"{number}_{state['draw']}", row
            state.update(round=state["round"] + 1, draw=0)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict: dict[str, Any] | None = {"round": 0, "draw": 0}
        return self._state_dict

    def shift_rngs(self, value: int) -> _Draws:  # what `set_epoch` comes to
        return _Draws(self.dataset, self.sampler, self.rank, self.ranks, self.first + value)

    def shuffle_data_sources(self, generator: Any) -> _Draws:
        return self

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> _Draws:
        if index:
            raise ValueError(f"got shard {index} of {num_shards}, wanted the only one; use rank= and world_size=")
        return self


def systematic_counts(weights: np.ndarray, draws: int, offset: float) -> np.ndarray:
    """How often each row is drawn: [N] weights of at least 0 -> [N] counts that sum to draws.

    ```txt
    rows, as wide as their share     |   a   |b|        c        |
    a comb of `draws` teeth            ^      ^      ^      ^          offset in [0, 1) moves all teeth together
    counts                               1    0 or 1     2 or 3
    ```

    Each count differs from draws * w / sum(w) by less than 1; over a uniform offset its mean is exactly that.
    """
    edges = weights / weights.max()  # divided first: equal weights become 1, and their sums exact
    np.cumsum(edges, out=edges)  # in place from here on: with millions of rows, fresh memory costs most
    total = edges[-1]
    at_end = np.searchsorted(edges, total)
    edges *= draws
    edges /= total
    teeth = np.floor(edges)
    edges -= teeth
    teeth += edges > offset  # teeth before each edge; the difference is exact, edges - offset would not be
    teeth[at_end:] = draws  # the last edge, and that of zeros after it, free of rounding
    counts = teeth.astype(np.int64)
    counts[1:] -= counts[:-1].copy()
    return counts
