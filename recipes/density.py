# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""The density around every prompt of a dataset, at any size, on any number of processes.

    accelerate launch recipes/density.py --task agreement
    torchrun --nproc_per_node 2 recipes/density.py --prompts prompts.parquet --output_dir runs/density
    accelerate launch recipes/grpo.py --density_from runs/density --prompts prompts.parquet ...

Every process embeds and searches its parts; exact results do not depend on how many there are. A run that was killed
goes on where it was when it is started again. No model is trained here.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from hf_synth.errors import option, user_errors
from hf_synth.sampling import effective_sample_size, prompt_text, rarity_weights
from hf_synth.sampling.shards import DensitySettings, Ranks, ShardedDensity, sharded_density
from hf_synth.training.arguments import DataArguments, WeightArguments, parse_recipe
from hf_synth.training.data import prompt_split, usable_prompts
from hf_synth.training.run_directory import run_directory, write_metrics
from hf_synth.training.weighting import (
    FACTS,
    PromptDensity,
    open_embedder,
    place_on_map,
    weight_metrics,
    write_density,
)

CONFIG = Path(__file__).parent / "configs" / "density" / "agreement.yaml"
BATCH = 10_000  # prompts in memory at a time
LONGEST_WAIT = timedelta(days=7)  # of a process for the others


@dataclasses.dataclass
class DensityArguments:
    """What this recipe adds to data and weights."""

    output_dir: str = option("runs/density", "Where all results go.")


CLASSES = (DensityArguments, DataArguments, WeightArguments)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds density.parquet, density.json and metrics.json."""
    parsed = parse_recipe(CLASSES, argv, CONFIG, __doc__)
    output, data, weights = parsed
    weights.one_strength()
    with run_directory(output.output_dir, *parsed, recipe="density", settings=parsed.settings) as folder:
        return measure(folder, data, weights)


def measure(folder: Path, data: DataArguments, weights: WeightArguments) -> Path:
    """Measure the density, while the output directory is locked."""
    settings = DensitySettings(
        k=weights.density_k,
        estimator=weights.density_estimator,
        backend=weights.density_backend,
        smoothing=weights.density_smoothing,
    )
    prompts = prompt_source(data, folder)
    result = sharded_density(folder / "work", prompts, open_embedder(weights), settings, ranks())
    if result is not None:
        finish(folder, prompts(), result, weights)
    return folder


def ranks() -> Ranks:
    """Return the rank of this process among those that a launcher started."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    return Ranks(state.process_index, state.num_processes, state.wait_for_everyone)


def prompt_source(data: DataArguments, folder: Path) -> Callable[[], Iterable[list[str]]]:
    """Return a function that yields all prompts in batches: of files as they stand, or those that training draws."""
    if data.prompts:
        source, split = data.prompts, data.prompts_split
        return lambda: batched(prompt_text(prompt) for prompt, _ in usable_prompts(source, folder, split))
    return lambda: batched(map(prompt_text, prompt_split(data, folder, 0)[0]["prompt"]))


def batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of at most BATCH texts."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def finish(folder: Path, prompts: Iterable[list[str]], measured: ShardedDensity, arguments: WeightArguments) -> None:
    """Write weights, points of the map and files, and print a summary."""
    strength = arguments.one_strength()
    weights = rarity_weights(measured.density, strength=strength, max_ratio=arguments.max_ratio)
    facts = {
        **measured.facts,
        "sampling_strength": strength,
        "max_ratio": arguments.max_ratio,
        "effective_sample_size": effective_sample_size(weights),
        "largest_over_smallest": float(weights.max() / weights.min()),
    }
    points = place_on_map(measured.points)[measured.point]
    write_density(folder, prompts, measured.keys, measured.density, weights, points, facts)
    density = PromptDensity(measured.density, points, facts["dimension"], facts["recall"])
    lines = np.bincount(measured.point)
    metrics = weight_metrics(density, weights, lines[measured.point], lines)
    numbers = {name: fact for name, fact in facts.items() if isinstance(fact, int | float) and fact is not bool(fact)}
    write_metrics(folder, metrics | {f"density/{name}": float(fact) for name, fact in numbers.items()})
    print(f"Density of dimension {density.dimension:.1f} by {facts['backend']} with recall {density.recall:.3f}")
    print(f"Density: {folder / FACTS}")


if __name__ == "__main__":
    with user_errors("density.py"):
        main()
