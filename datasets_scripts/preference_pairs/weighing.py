"""Second pass: which prompts repeat others, and how crowded the surroundings of the rest are."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from hf_synth.preferences import NearDuplicates
from hf_synth.sampling import embed_texts
from hf_synth.sampling.density import MeasuredDensity, measure_knn_density
from preference_pairs.collecting import Collected, fresh_processes
from preference_pairs.stages import stage

_APART_FROM = 20_000  # prompts: the search leaves memory in pieces, which only the end of a process gives back
_FEWEST = 3  # prompts; two neighbours are the least that a dimension can be read off


@dataclasses.dataclass(frozen=True)
class Weighing:
    """How prompts are compared and weighed: the command line's flags of these names.

    near_duplicates: "drop" leaves out prompts that nearly repeat an earlier one, with their pairs; "keep" marks them.
    """

    near_duplicates: str = "drop"
    similarity: float = 0.8
    embedder: str = "hashing"
    density_k: int = 10
    density_estimator: str = "volume"
    density_smoothing: int = 0
    sampling_strength: float = 1.0
    max_ratio: float = 100.0


def repeated(found: Collected, weighing: Weighing) -> np.ndarray:
    """For each distinct prompt the row of the first one that it nearly repeats, or its own: [P] int64."""
    if len(found.first) < _APART_FROM:
        return _repeated(found, weighing)
    with fresh_processes(1) as pool:
        return pool.submit(_repeated, found, weighing).result()


def _repeated(found: Collected, weighing: Weighing) -> np.ndarray:
    index = NearDuplicates(weighing.similarity)
    rows = [row for batch, _ in found.prompts() for row in index.add(batch.column("text").to_pylist())]
    return np.array(rows, dtype=np.int64)


def prompt_density(found: Collected, kept: np.ndarray, weighing: Weighing, cache: Path) -> MeasuredDensity:
    """The density of each of the kept prompts, larger = more crowded, and how it was found; of fewer than 3 all 1.

    `cache`: a folder for the vectors of a model, so that a killed run need not embed again.
    """
    number = int(kept.sum())
    if number < _FEWEST:
        return MeasuredDensity(np.ones(number), 0.0, number, 0, "none", 1.0)
    if weighing.density_k >= number:
        raise ValueError(f"density_k: got {weighing.density_k} with {number} distinct prompts; lower it below that")
    with stage(f"embed {number:,} prompts, measure density"):
        return measure_knn_density(
            _embedded(found, kept, weighing.embedder, cache),  # not kept here: it is given back before the search
            k=weighing.density_k,
            estimator=weighing.density_estimator,
            smoothing=weighing.density_smoothing,
        )


def _embedded(found: Collected, kept: np.ndarray, embedder: str, cache: Path) -> np.ndarray:
    batches = (batch.column("text").filter(pa.array(kept[rows])) for batch, rows in found.prompts())
    texts = [text for batch in batches for text in batch.to_pylist()]
    try:
        return embed_texts(texts, embedder, cache=None if embedder == "hashing" else cache)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"embedder: got {embedder!r}, which cannot be loaded: {reason}") from error
