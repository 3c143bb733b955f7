"""Arms as datasets: cached or streamed as `hf_synth.load_dataset` does it, and the configs that are published."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import datasets
import pyarrow as pa
from datasets.builder import Key

from hf_synth.builder import TaskDataset, configured, dataset_spec, prepared, task_of
from hf_synth.corpora.arms import Arm, Form, arm_stream
from hf_synth.corpora.streams import FEATURES, Ratio, Unit, share_of
from hf_synth.tasks import Task

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
        chosen = {name: spec[name] for name in ("explanation_form", "explanation_unit", "seed", "split")}
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
    explanation_form: Form = "source",
    explanation_unit: Unit = "documents",
    split: str = "train",
    seed: int = 0,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """The first `size` documents of an arm, columns text and kind: "example" or "explanation"; see `Arm`.

    name, preset: as for `get_task`; config: fields of the task's config, over the preset.
    explanation_ratio: the share of explanations, a number from 0 to 1 or text such as "1/3".
    explanation_form: single "statements", one "block" of all, or as the "source" of the task had it.
    explanation_unit: what the ratio is a share of, "documents" or "tokens" (words separated by white space).
    split: "train", "validation" or "test"; examples are the rows of that split. seed: of rows and explanations.
    streaming, num_proc, cache_dir: as for `hf_synth.load_dataset`; `size` documents, the same map-style and streamed.

    Raises ValueError for an illegal argument.

    >>> load_corpus("tivari", size=4, explanation_ratio=0.5, streaming=True).take(1).to_list()[0]["kind"]
    'explanation'
    """
    task = configured("load_corpus", load_corpus, name, preset, config)
    chosen: dict[str, Any] = {"explanation_form": explanation_form, "explanation_unit": explanation_unit}
    spec = corpus_spec(name, task, explanation_ratio, split=split, size=size, seed=seed, **chosen)
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
    name: str,
    task: Task,
    explanation_ratio: Ratio,
    *,
    explanation_form: Form,
    explanation_unit: Unit,
    split: str,
    size: int,
    seed: int,
) -> dict[str, Any]:
    """All that the documents of an arm depend on. Raises ValueError for an illegal argument."""
    chosen: dict[str, Any] = {"explanation_form": explanation_form, "explanation_unit": explanation_unit}
    arm_stream(task, explanation_ratio, seed=seed, split=split, **chosen)
    rows = dataset_spec(name, task, split=split, size=size, seed=seed, view="text")
    ratio = str(share_of("explanation_ratio", explanation_ratio))
    return {**rows, "view": "corpus", "format": CORPUS_FORMAT, "explanation_ratio": ratio, **chosen}


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
        chosen: dict[str, Any] = {"explanation_form": "source", "explanation_unit": "documents"}
        chosen |= {"split": split, "seed": self.seed, "size": self.splits[split]}
        return corpus_spec(self.task.name, self.task, self.explanation_ratio, **chosen)


def published_corpora(task: Task, splits: Mapping[str, int], *, seed: int = 0) -> tuple[Corpus, ...]:
    """The arms of a task that are published: examples alone, and 1, 5, 10 and 100 % explanations.

    Their names are TASK-examples, TASK-explanations-1 and so on.
    """
    return tuple(Corpus(f"{task.name}-{arm}", task, ratio, splits, seed) for arm, ratio in RATIOS.items())
