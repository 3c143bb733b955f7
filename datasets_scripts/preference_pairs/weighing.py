"""Second pass: which prompts repeat others, and the density of the rest."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from hf_synth.preferences.duplicates import SIMILARITY, NearDuplicates
from hf_synth.sampling import embed_texts
from hf_synth.sampling.density import MeasuredDensity, measure_knn_density
from preference_pairs.collecting import Collected, fresh_processes

logger = logging.getLogger(__name__)

_APART_FROM = 20_000  # prompts: the search leaves memory in pieces, which only the end of a process gives back
_FEWEST = 3  # prompts; two neighbours are the least that a dimension can be read off


@dataclasses.dataclass(frozen=True)
class Weighing:
    """How prompts are compared and weighed: the command line's flags of these names.

    near_duplicates: "drop" leaves out prompts that nearly repeat an earlier one, with their pairs; "keep" marks them.
    """

    near_duplicates: str = "drop"
    similarity: float = SIMILARITY
    embedder: str = "hashing"
    density_k: int = 10
    density_estimator: str = "volume"
    density_smoothing: int = 0
    sampling_strength: float = 1.0
    max_ratio: float = 100.0


def repeated(collected: Collected, weighing: Weighing) -> tuple[np.ndarray, dict[int, float]]:
    """Return for each distinct prompt the row of the first one that it nearly repeats, or its own: [P] int64.

    And how similar those that repeat are to it, by their rows.
    """
    if len(collected.first) < _APART_FROM:
        return _repeated(collected, weighing)
    with fresh_processes(1) as pool:
        return pool.submit(_repeated, collected, weighing).result()


def _repeated(collected: Collected, weighing: Weighing) -> tuple[np.ndarray, dict[int, float]]:
    index = NearDuplicates(weighing.similarity)
    rows = [row for batch, _ in collected.prompts() for row in index.add(batch.column("text").to_pylist())]
    return np.array(rows, dtype=np.int64), index.similarities


def prompt_density(collected: Collected, kept: np.ndarray, weighing: Weighing, cache: Path) -> MeasuredDensity:
    """Measure the density of each kept prompt, larger = denser; of fewer than 3 all 1.

    `cache`: a folder for the vectors of a model, so that a killed run need not embed again.
    """
    number = int(kept.sum())
    if number < _FEWEST:
        return MeasuredDensity(np.ones(number), 0.0, number, 0, "none", 1.0)
    if weighing.density_k >= number:
        raise ValueError(f"density_k: got {weighing.density_k} with {number} distinct prompts; lower it below that")
    with stage(f"embed {number:,} prompts, measure density"):
        return measure_knn_density(
            _embedded(collected, kept, weighing.embedder, cache),  # not kept here: it is freed before the search
            k=weighing.density_k,
            estimator=weighing.density_estimator,
            smoothing=weighing.density_smoothing,
        )


def _embedded(collected: Collected, kept: np.ndarray, embedder: str, cache: Path) -> np.ndarray:
    batches = (batch.column("text").filter(pa.array(kept[rows])) for batch, rows in collected.prompts())
    texts = [text for batch in batches for text in batch.to_pylist()]
    try:
        return embed_texts(texts, embedder, cache=None if embedder == "hashing" else cache)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"embedder: got {embedder!r}, which cannot be loaded: {reason}") from error


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Log the name now and the seconds afterwards, by the clock and of processor time, at level INFO."""
    logger.info("%s ...", name)
    start, busy = time.perf_counter(), time.process_time()
    yield
    logger.info("%s: %.1f s, %.1f s busy", name, time.perf_counter() - start, time.process_time() - busy)
