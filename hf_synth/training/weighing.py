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

from hf_synth.sampling import effective_sample_size, prompt_text
from hf_synth.sampling.density import measure_knn_density
from hf_synth.sampling.embeddings import Embedder, load_embedder
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.density_folder import read_density
from hf_synth.training.locks import is_main_process
from hf_synth.training.runs import WEIGHTS_TABLE

logger = logging.getLogger(__name__)

_FEWEST_DISTINCT = 3  # two neighbours are the least that a dimension can be read off
_MAPPED = 10_000  # rows


@dataclasses.dataclass(frozen=True)
class PromptDensity:
    """How crowded the surroundings of each prompt are.

    density: [N], larger is more crowded. place: [N, 2], the first two principal components of the embeddings.
    dimension: the intrinsic dimension of the embeddings. recall: the share of the true neighbours that was found.
    """

    density: np.ndarray
    place: np.ndarray
    dimension: float
    recall: float = 1.0


def measure_density(prompts: Dataset, arguments: WeightArguments) -> PromptDensity:
    """The density of each row's `prompt`: embedded and measured, or read from the folder `density_from`.

    Raises ValueError where the embedder cannot be loaded, there are too few distinct prompts for `density_k`, or the
    folder was made of other prompts.
    """
    texts = [prompt_text(prompt) for prompt in prompts["prompt"]]
    if arguments.density_from:
        return PromptDensity(*read_density(Path(arguments.density_from), texts))
    distinct = len(set(texts))
    if distinct < _FEWEST_DISTINCT:
        logger.warning("Density of %d distinct prompts says nothing: all weigh alike", distinct)
        return PromptDensity(np.ones(len(texts)), np.zeros((len(texts), 2)), 0.0)
    k = arguments.density_k
    if k >= distinct:
        raise ValueError(
            f"density_k: got {k} with {distinct} distinct prompts, wanted at most {distinct - 1}; lower it"
        )
    embeddings = open_embedder(arguments)(texts, arguments.embedding_cache)
    measured = measure_knn_density(
        embeddings,
        k=k,
        estimator=arguments.density_estimator,
        backend=arguments.density_backend,
        smoothing=arguments.density_smoothing,
    )
    if is_main_process():
        logger.info("Density of %d prompts by %s, recall %.3f", len(texts), measured.backend, measured.recall)
    return PromptDensity(measured.density, place_on_map(embeddings), measured.dimension, measured.recall)


def open_embedder(arguments: WeightArguments) -> Embedder:
    """The embedder that the arguments name, or a ValueError that says why it cannot be loaded."""
    try:
        return load_embedder(arguments.embedder, layer=arguments.embedder_layer)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"embedder: got {arguments.embedder!r}, which cannot be loaded: {reason}") from error


def place_on_map(embeddings: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, 2]: the first two principal components, found from at most 10,000 of the rows; 0 where none is."""
    step = -(-len(embeddings) // _MAPPED)
    sample = embeddings[::step]
    place = np.zeros((len(embeddings), 2), embeddings.dtype)
    if len(sample) < 2:
        return place
    components = PCA(min(2, *sample.shape), svd_solver="full").fit(sample)
    for start in range(0, len(embeddings), _MAPPED):
        part = slice(start, start + _MAPPED)
        place[part, : components.n_components_] = components.transform(embeddings[part])
    return place


def held_out_density(held_out: Dataset, prompts: Dataset, arguments: WeightArguments) -> np.ndarray:
    """[H] densities of held-out prompts, each among all of them and the training prompts."""
    together = concatenate_datasets([held_out.select_columns("prompt"), prompts.select_columns("prompt")])
    alone = dataclasses.replace(arguments, density_from=None)  # a folder knows the training prompts only
    return measure_density(together, alone).density[: len(held_out)]


def crowded_or_rare(density: np.ndarray) -> list[str]:
    """`crowded` for the larger densities, `rare` for the other half."""
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
        "weights/recall": float(measured.recall),
        "weights/prompts": float(len(weights)),
        "weights/smallest": float(weights.min()),
        "weights/largest": float(weights.max()),
    }
