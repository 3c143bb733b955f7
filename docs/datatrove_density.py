"""Rows of a task, without duplicates and with their density, as a datatrove pipeline.

    python docs/datatrove_density.py --task agreement --rows 100000 --tasks 8 --folder runs/trove
    python docs/datatrove_density.py ... --executor slurm --options '{"time": "4:00:00", "partition": "cpu"}'
    python docs/datatrove_density.py ... --executor ray

`folder` must be one that every machine sees. Then `recipes/grpo.py --density_from FOLDER` draws by these densities.
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter

import hf_synth
from hf_synth.sampling import rarity_weights
from hf_synth.sampling.embeddings import load_embedder
from hf_synth.sampling.shards import DensitySettings, DensityStages, Ranks
from hf_synth.training.weighting import place_on_map, write_density

EXECUTORS = {"local": LocalPipelineExecutor, "slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor}


def text_of(document: Document) -> bytes:
    """Return what makes two documents duplicates."""
    return document.text.encode()


class TaskPrompts(PipelineStep):
    """Prompts of a task: every rank makes its own rows."""

    type, name = "hf_synth", "prompts of a task"

    def __init__(self, task: str, rows: int) -> None:
        super().__init__()
        self.task, self.rows = task, rows

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        rows = hf_synth.load_dataset(self.task, split="train", size=self.rows, view="prompt", streaming=True)
        for number, row in enumerate(split_dataset_by_node(rows, rank, world_size)):
            yield Document(text=row["prompt"], id=f"{rank}-{number}")


class Density(PipelineStep):
    """One stage of the density of all texts; ranks share `embed` and `search`."""

    type, name = "hf_synth", "density"

    def __init__(self, folder: Path, stage: str) -> None:
        super().__init__()
        self.folder, self.stage = folder, stage

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        ranks, settings = Ranks(rank, world_size), DensitySettings(k=10)
        stages = DensityStages(self.folder / "work", load_embedder("hashing"), settings, ranks)
        if self.stage == "plan":
            stages.plan(self.texts)
        elif self.stage == "finish":
            self.finish(stages)
        else:
            getattr(stages, self.stage)()

    def texts(self) -> Iterator[list[str]]:
        for path in sorted((self.folder / "distinct").glob("*.parquet")):
            yield pq.read_table(path, columns=["text"])["text"].to_pylist()

    def finish(self, stages: DensityStages) -> None:
        measured = stages.finish()
        weights, points = rarity_weights(measured.density), place_on_map(measured.points)[measured.point]
        write_density(self.folder, self.texts(), measured.keys, measured.density, weights, points, measured.facts)


def pipelines(task: str, rows: int, folder: Path) -> Iterator[tuple[str, bool, list[PipelineStep]]]:
    """Yield each pipeline: its name, whether all ranks share it, and its steps."""
    exact = ExactDedupConfig(content_getter=text_of)
    signatures, repeats = str(folder / "signatures"), str(folder / "repeats")
    written, kept = (partial(ParquetWriter, str(folder / name)) for name in ("rows", "distinct"))
    yield "rows", True, [TaskPrompts(task, rows), written(), ExactDedupSignature(signatures, exact)]
    yield "repeats", False, [ExactFindDedups(signatures, repeats, exact)]
    yield "distinct", True, [ParquetReader(str(folder / "rows")), ExactDedupFilter(repeats, exact), kept()]
    for stage, shared in (("plan", 0), ("embed", 1), ("find_points", 0), ("search", 1), ("finish", 0)):
        yield stage, bool(shared), [Density(folder, stage)]


def main() -> None:
    """Run every pipeline after the one before it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="agreement")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tasks", type=int, default=2, help="ranks of datatrove")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--executor", choices=EXECUTORS, default="local")
    parser.add_argument("--options", type=json.loads, default={}, help="more options of the executor, as JSON")
    given, last = parser.parse_args(), None
    folder = given.folder.resolve()
    for name, shared, steps in pipelines(given.task, given.rows, folder):
        options = {"tasks": given.tasks if shared else 1, "logging_dir": str(folder / "logs" / name)}
        last = EXECUTORS[given.executor](steps, depends=last, **options, **given.options)
    last.run()


if __name__ == "__main__":
    main()
