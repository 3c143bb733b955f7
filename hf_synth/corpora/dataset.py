"""Arms as datasets: cached or streamed as `hf_synth.load_dataset` does it, and the configs that are published."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import datasets
import pyarrow as pa
from datasets.builder import Key

from hf_synth.builder import TaskDataset, dataset_spec, prepared, task_of
from hf_synth.corpora.arms import Arm, Form, arm_stream
from hf_synth.corpora.interleaving import Ratio, Unit, share_of
from hf_synth.corpora.streams import FEATURES
from hf_synth.tasks import Task, get_task

CORPUS_FORMAT = 1  # raise it whenever the documents of an arm change: it is part of every cache key
RATIOS: Mapping[str, float] = {
    "examples": 0.0,
    "explanations-1": 0.01,
    "explanations-5": 0.05,
    "explanations-10": 0.1,
    "explanations-100": 1.0,
}
_BLOCK_ROWS = 10_000


class CorpusDataset(TaskDataset):
    """The first documents of one arm. Built by `load_corpus`."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        spec = json.loads(self.config.spec)
        chosen = {name: spec[name] for name in ("form", "unit", "seed", "split")}
        stream, at = arm_stream(task_of(spec), spec["explanation_ratio"], **chosen), 0
        for shard, (first, stop) in enumerate(shards):
            stream.forward(first - at)
            at = stop
            for block, start in enumerate(range(first, stop, _BLOCK_ROWS)):
                yield Key(shard, block), stream.read(min(_BLOCK_ROWS, stop - start))


def load_corpus(
    name: str,
    preset: str | None = None,
    *,
    size: int,
    explanation_ratio: Ratio = 0.0,
    form: Form = "source",
    unit: Unit = "documents",
    split: str = "train",
    seed: int = 0,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """The first `size` documents of an arm, columns text and kind; see `Arm` and `arm_stream`.

    Arguments are those of `hf_synth.load_dataset`; tokens, where they are the unit, are words.
    """
    task = get_task(name, preset, **config)
    spec = corpus_spec(name, task, explanation_ratio, form=form, unit=unit, split=split, size=size, seed=seed)
    text = json.dumps(spec, sort_keys=True)
    builder = CorpusDataset(
        cache_dir=cache_dir,
        dataset_name=f"hf_synth_{task.name}",
        config_name="corpus",
        hash=hashlib.sha256(text.encode()).hexdigest()[:16],
        spec=text,
    )
    return prepared(builder, split, streaming=streaming, num_proc=num_proc)


def corpus_spec(
    name: str, task: Task, explanation_ratio: Ratio, *, form: Form, unit: Unit, split: str, size: int, seed: int
) -> dict[str, Any]:
    """All that the documents of an arm depend on. Raises ValueError for an illegal argument."""
    arm_stream(task, explanation_ratio, form=form, unit=unit, seed=seed, split=split)
    rows = dataset_spec(name, task, split=split, size=size, seed=seed, view="text")
    ratio = str(share_of("explanation_ratio", explanation_ratio))
    chosen = {"explanation_ratio": ratio, "form": form, "unit": unit}
    return {**rows, "view": "corpus", "format": CORPUS_FORMAT, **chosen}


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An arm as a config of a dataset on the Hub: columns text and kind."""

    name: str
    task: Task
    explanation_ratio: Ratio
    splits: Mapping[str, int]
    seed: int = 0
    content: ClassVar[str] = "text"
    features: ClassVar[datasets.Features] = FEATURES

    @property
    def group(self) -> str:
        """The task's name."""
        return self.task.name

    def table(self, split: str, start: int, count: int) -> pa.Table:
        """Documents start .. start + count - 1 of a split."""
        return Arm(self.task, self.explanation_ratio, seed=self.seed, split=split).table(start, count)

    def spec(self, split: str) -> dict[str, Any]:
        """All that a split's documents depend on, as JSON has it."""
        chosen: dict[str, Any] = {"form": "source", "unit": "documents", "split": split, "seed": self.seed}
        chosen["size"] = self.splits[split]
        return corpus_spec(self.task.name, self.task, self.explanation_ratio, **chosen)


def published_corpora(task: Task, splits: Mapping[str, int], *, seed: int = 0) -> tuple[Corpus, ...]:
    """The arms of a task that are published: examples alone, and 1, 5, 10 and 100 % explanations.

    Their names are TASK-examples, TASK-explanations-1 and so on.
    """
    return tuple(Corpus(f"{task.name}-{arm}", task, ratio, splits, seed) for arm, ratio in RATIOS.items())
