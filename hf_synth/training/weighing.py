"""Sampling weights of prompts from their density, and the table that says how they came about."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from sklearn.decomposition import PCA

from hf_synth.sampling import (
    effective_sample_size,
    embed_texts,
    intrinsic_dimension,
    knn_density,
    prompt_text,
    rarity_weights,
)
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.runs import WEIGHTS_TABLE, is_main_process

logger = logging.getLogger(__name__)

_FEWEST_DISTINCT = 3  # two neighbours are the least that a dimension can be read off


@dataclasses.dataclass(frozen=True)
class PromptDensity:
    """How crowded the surroundings of each prompt are.

    density: [N], larger is more crowded. place: [N, 2], the first two principal components of the embeddings.
    dimension: the intrinsic dimension of the embeddings.
    """

    density: np.ndarray
    place: np.ndarray
    dimension: float

    def weights(self, arguments: WeightArguments, strength: float) -> np.ndarray:
        """Sampling weights [N] of mean 1 at one strength."""
        return rarity_weights(self.density, strength=strength, max_ratio=arguments.max_ratio)


def measure_density(prompts: Dataset, arguments: WeightArguments) -> PromptDensity:
    """Embed the column `prompt` and measure the density of each row."""
    texts = [prompt_text(prompt) for prompt in prompts["prompt"]]
    distinct = len(set(texts))
    if distinct < _FEWEST_DISTINCT:
        logger.warning("Density of %d distinct prompts says nothing: all weigh alike", distinct)
        return PromptDensity(np.ones(len(texts)), np.zeros((len(texts), 2)), 0.0)
    k = arguments.density_k
    if k >= distinct:
        raise ValueError(
            f"density_k: got {k} with {distinct} distinct prompts, wanted at most {distinct - 1}; lower it"
        )
    try:
        embeddings = embed_texts(texts, arguments.embedder)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"embedder: got {arguments.embedder!r}, which cannot be loaded: {reason}") from error
    return PromptDensity(
        knn_density(embeddings, k=k, estimator=arguments.density_estimator),
        PCA(2, svd_solver="full").fit_transform(embeddings),
        intrinsic_dimension(embeddings, k=k),
    )


def crowded_or_rare(held_out: Dataset, prompts: Dataset, arguments: WeightArguments) -> list[str]:
    """`crowded` for the held-out prompts of the larger densities among all prompts, `rare` for the other half."""
    density = measure_density(concatenate_datasets([held_out, prompts]), arguments).density[: len(held_out)]
    return ["crowded" if above else "rare" for above in density > np.median(density)]


def with_weights(prompts: Dataset, weights: np.ndarray) -> Dataset:
    """The dataset with a `sampling_weight` column, which the weighted trainers read."""
    return prompts.add_column("sampling_weight", weights.tolist())


def write_weights_table(folder: Path, prompts: Dataset, measured: PromptDensity, weights: np.ndarray) -> None:
    """Write prompts.parquet: prompt, cluster where known, density, sampling_weight, and a place on the map.

    Only the main process writes.
    """
    if not is_main_process():
        return
    columns: dict[str, Any] = {"prompt": [prompt_text(prompt) for prompt in prompts["prompt"]]}
    if "cluster" in prompts.column_names:
        columns["cluster"] = prompts["cluster"]
    x, y = measured.place.T
    columns |= {"density": measured.density, "sampling_weight": weights, "x": x, "y": y}
    pq.write_table(pa.table(columns), folder / WEIGHTS_TABLE)


def weight_metrics(measured: PromptDensity, weights: np.ndarray) -> dict[str, float]:
    """What is always reported of weights."""
    return {
        "weights/effective_sample_size": effective_sample_size(weights),
        "weights/effective_share": effective_sample_size(weights) / len(weights),
        "weights/intrinsic_dimension": float(measured.dimension),
        "weights/prompts": float(len(weights)),
        "weights/smallest": float(weights.min()),
        "weights/largest": float(weights.max()),
    }
