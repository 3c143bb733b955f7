"""Any task as a dataset of the `datasets` library: one builder class, keyed by all that its rows depend on."""

import dataclasses
import difflib
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import datasets
import pyarrow as pa
from datasets.builder import Key

from hf_synth.errors import nearest, whole_number
from hf_synth.tasks import Task, get_task, source_digest, task_class
from hf_synth.tasks.base import SPLITS
from hf_synth.views import VIEW_FEATURES, block_rows, view_features, view_table

ROW_FORMAT = 2  # raise it whenever the layout of a view changes: it is part of every cache key
_SHARD_ROWS = 50_000
_BLOCK_ROWS = 10_000


@dataclasses.dataclass
class TaskDatasetConfig(datasets.BuilderConfig):
    """`spec`: canonical JSON of all that the rows depend on; see `dataset_spec`."""

    spec: str = ""


class TaskDataset(datasets.ArrowBasedBuilder):
    """One split of one task in one view. Built by `load_dataset`; its config holds nothing but the spec."""

    BUILDER_CONFIG_CLASS = TaskDatasetConfig

    @classmethod
    def of(cls, spec: Mapping[str, Any], name: str, config_name: str, cache_dir: str | None) -> Self:
        """Return a builder whose cache key is the hash of the spec, as JSON."""
        text = json.dumps(spec, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(cache_dir, f"hf_synth_{name}", config_name, hash=key, spec=text)

    def _info(self) -> datasets.DatasetInfo:
        spec = json.loads(self.config.spec)
        return datasets.DatasetInfo(features=view_features(task_of(spec), spec["view"]))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        spec = json.loads(self.config.spec)
        starts = range(0, spec["size"], _SHARD_ROWS)
        shards = [(start, min(start + _SHARD_ROWS, spec["size"])) for start in starts]
        return [datasets.SplitGenerator(name=spec["split"], gen_kwargs={"shards": shards})]

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        spec = json.loads(self.config.spec)
        task = task_of(spec)
        most = block_rows(task, spec["split"], _BLOCK_ROWS, spec["view"])
        for shard, (first, stop) in enumerate(shards):
            for block, start in enumerate(range(first, stop, most)):
                count = min(most, stop - start)
                table = view_table(task, spec["view"], start, count, split=spec["split"], seed=spec["seed"])
                yield Key(shard, block), table


def task_of(spec: dict[str, Any]) -> Task:
    """Return the task that a spec describes."""
    task = task_class(spec["task"])
    return task(task.config_class(**spec["config"]))


def dataset_spec(name: str, task: Task, *, split: str, size: int | None, seed: int, view: str) -> dict[str, Any]:
    """Return all that a dataset's rows depend on; its hash is the cache key. ValueError for an illegal argument."""
    if view not in VIEW_FEATURES:
        raise ValueError(f"got unknown view {view!r}; {nearest(view, VIEW_FEATURES)}")
    if split not in SPLITS:
        first = " `size` says how many rows there are, from the first on." if "[" in str(split) else ""
        raise ValueError(f"got unknown split {split!r}; {nearest(split, SPLITS)}{first}")
    size = task.size(split) if size is None else size
    if size is None:
        raise ValueError(f"task {task.name} never ends: got size=None, wanted the number of rows")
    size, seed = whole_number("size", size), whole_number("seed", seed)
    if size < 1:
        raise ValueError(f"got size={size}, wanted a whole number of rows, at least 1")
    spec = {
        "row_format": ROW_FORMAT,
        "task": str(Path(name).resolve()) if name.endswith(".py") else name,
        "version": task.version,
        "config": dataclasses.asdict(task.config),
        "seed": seed,
        "split": split,
        "size": size,
        "view": view,
    }
    if (source := source_digest(type(task))) is not None:
        spec["source"] = source
    return spec


def load_dataset(
    name: str,
    preset: str | None = None,
    *,
    split: str,
    size: int | None = None,
    seed: int = 0,
    view: str = "tokens",
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load rows of a task as a dataset: `size` rows of `split`, the same map-style and streamed.

    `name` and `preset` as for `get_task`, `config` over the preset; `view` is a key of `hf_synth.views.VIEW_FEATURES`.
    Map-style datasets are made once and cached; `num_proc` processes share shards of 50,000 rows.
    A finite task begins again beyond the rows that it has: each pass has every row once, in its own order.
    Raises ValueError for an illegal argument.

    >>> load_dataset("sort", "8", split="train", size=1, view="prompt_completion")[0]["prompt"].split()[-1]
    '<sep>'
    """
    task = configured("load_dataset", load_dataset, name, preset, config)
    spec = dataset_spec(name, task, split=split, size=size, seed=seed, view=view)
    return prepared(TaskDataset.of(spec, task.name, view, cache_dir), split, streaming=streaming, num_proc=num_proc)


def configured(
    caller: str, load: Callable[..., Any], name: str, preset: str | None, config: Mapping[str, Any]
) -> Task:
    """Call `get_task`; where an unknown field is nearest to an argument of `load`, the error names that argument."""
    if not isinstance(name, str):
        raise ValueError(f"name: got {name!r} ({type(name).__name__}), wanted a task's name or its file's, as text")
    own = [word.name for word in inspect.signature(load).parameters.values() if word.kind is not word.VAR_KEYWORD]
    fields = [field.name for field in dataclasses.fields(task_class(name).config_class)]
    for unknown in config.keys() - set(fields):
        if (close := difflib.get_close_matches(unknown, [*own, *fields], n=1)) and close[0] in own:
            raise ValueError(
                f"{caller}: got unknown argument {unknown!r}; did you mean {close[0]!r}? Known: {', '.join(own)}; "
                f"of task {name}: {', '.join(fields)}."
            )
    return get_task(name, preset, **config)


def prepared(
    builder: TaskDataset, split: str, *, streaming: bool, num_proc: int | None
) -> datasets.Dataset | datasets.IterableDataset:
    """Return the builder's dataset; what a task says of an illegal argument comes through as its own ValueError."""
    if streaming:
        if num_proc is not None:
            raise ValueError(
                f"num_proc: got {num_proc} with streaming=True, wanted none: `datasets` splits a stream itself, "
                "by IterableDataset.shard or among the workers of a DataLoader"
            )
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)
