"""Sampling weights of prompts from their density, and the table that says how they came about."""

import dataclasses
import functools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from sklearn.decomposition import PCA

from hf_synth.errors import nearest
from hf_synth.io import is_main_process, load_json, reading, whole_file, write_json
from hf_synth.preferences import distinct_prompts, prompt_id
from hf_synth.sampling import (
    ChangingWeightsCallback,
    Curriculum,
    FixedWeights,
    PassRates,
    RefreshedRarity,
    ScheduledRarity,
    WeightFactor,
    balanced_weights,
    combined_weights,
    effective_sample_size,
    permuted,
    policy_density,
    prompt_text,
)
from hf_synth.sampling.density import measure_knn_density
from hf_synth.sampling.embeddings import Embedder, load_embedder, text_key
from hf_synth.sampling.shards import fingerprint
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.run_directory import WEIGHTS_TABLE

logger = logging.getLogger(__name__)

_FEWEST_DISTINCT = 3  # two neighbours are the least that a dimension can be read off
_MAPPED = 10_000  # rows
_COLUMN_OF = {"cluster": "cluster", "source": "src"}


@dataclasses.dataclass(frozen=True)
class PromptDensity:
    """The density of each prompt.

    density: [N], larger is denser. points: [N, 2], the first two principal components of the embeddings.
    dimension: the intrinsic dimension of the embeddings. recall: the fraction of true neighbours in the lists.
    """

    density: np.ndarray
    points: np.ndarray
    dimension: float
    recall: float = 1.0


def measure_density(prompts: Dataset, arguments: WeightArguments) -> PromptDensity:
    """Measure the density of each row's `prompt`, or read it from the folder `density_from`.

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
    """Load the embedder that the arguments name; a ValueError says why it cannot be loaded."""
    try:
        return load_embedder(arguments.embedder, layer=arguments.embedder_layer)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"embedder: got {arguments.embedder!r}, which cannot be loaded: {reason}") from error


def place_on_map(embeddings: np.ndarray) -> np.ndarray:
    """Project [N, D] -> [N, 2] on the first two principal components of at most 10,000 of the rows; else 0."""
    step = -(-len(embeddings) // _MAPPED)
    sample = embeddings[::step]
    points = np.zeros((len(embeddings), 2), embeddings.dtype)
    if len(sample) < 2:
        return points
    components = PCA(min(2, *sample.shape), svd_solver="full").fit(sample)
    for start in range(0, len(embeddings), _MAPPED):
        part = slice(start, start + _MAPPED)
        points[part, : components.n_components_] = components.transform(embeddings[part])
    return points


def held_out_density(held_out: Dataset, prompts: Dataset, arguments: WeightArguments) -> np.ndarray:
    """Measure [H] densities of held-out prompts, each among all of them and the training prompts."""
    together = concatenate_datasets([held_out.select_columns("prompt"), prompts.select_columns("prompt")])
    # A folder knows the training prompts only.
    return measure_density(together, dataclasses.replace(arguments, density_from=None)).density[: len(held_out)]


def crowded_or_rare(density: np.ndarray) -> list[str]:
    """Return `crowded` for the larger densities, `rare` for the other half."""
    return ["crowded" if above else "rare" for above in density > np.median(density)]


def line_counts(prompts: Dataset, lines: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of lines of each row's prompt [N], and of each distinct prompt [P]; lines: by prompt_id."""
    return np.array([lines[prompt_id(prompt)] for prompt in prompts["prompt"]]), np.array(list(lines.values()))


def weight_metrics(
    measured: PromptDensity, weights: np.ndarray, copies: np.ndarray, lines: np.ndarray
) -> dict[str, float]:
    """Return, and print, metrics of the weights [N], and of how many lines became how many prompts.

    copies: [N], the number of lines that have the row's prompt. lines: [P], of each prompt, held-out ones included.
    """
    share, median = effective_sample_size(weights) / len(weights), np.median(weights)
    repeated = weights[copies > 1].sum()
    if is_main_process():
        print(
            f"{lines.sum():,} lines, {len(lines):,} distinct prompts, at most {lines.max():,} of each; weights "
            f"{weights.min():.3g} to {weights.max():.3g}, median {median:.3g}, effective sample size {share:.2f} of "
            f"all; repeated prompts get {repeated / weights.sum():.1%} of the draws"
        )
    return {
        "prompts/lines": float(lines.sum()),
        "prompts/distinct": float(len(lines)),
        "prompts/repeated": float(lines.sum() - len(lines)),
        "prompts/most_lines": float(lines.max()),
        "weights/effective_sample_size": effective_sample_size(weights),
        "weights/effective_share": share,
        "weights/intrinsic_dimension": float(measured.dimension),
        "weights/recall": float(measured.recall),
        "weights/prompts": float(len(weights)),
        "weights/smallest": float(weights.min()),
        "weights/median": float(median),
        "weights/largest": float(weights.max()),
        "weights/repeated_share": float(repeated / weights.sum()),
    }


@dataclasses.dataclass(frozen=True)
class WeighedRows:
    """The rows of one run, weighed by the product of all kinds in `sampling_by`.

    rows: {prompt}, with `cluster`, `src` or `difficulty` where a kind needs it. measured: their density, None where
    all weigh 1. seed: of the permutation. Weights raise ValueError where a column is missing.
    """

    rows: Dataset
    measured: PromptDensity | None
    arguments: WeightArguments
    strength: float
    seed: int

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """The [N] sampling weights, mean 1, that the run starts with."""
        if self.measured is None:
            return np.ones(len(self.rows))
        return combined_weights(*(factor.weights(0, 1) for factor in self._factors(self.measured.density)))

    @property
    def dataset(self) -> Dataset:
        """The rows with a `sampling_weight` column, which the weighted trainers read."""
        return self.rows.add_column("sampling_weight", self.weights.tolist())

    def add_callbacks(self, trainer: Any) -> None:
        """Give a trainer of this dataset what it needs where weights change while it trains."""
        factors = [] if self.measured is None else self._factors(self.measured.density, trainer)
        if any(factor.changes for factor in factors):
            trainer.add_callback(ChangingWeightsCallback(trainer, factors))

    def record(self, folder: Path, lines: Mapping[str, int] | None = None) -> dict[str, float]:
        """Write the table of the weights to the folder, and return their metrics: see `weight_metrics`.

        lines: how many lines each prompt_id had; by default those of the rows themselves.
        """
        if self.measured is None:
            return {}
        self.write_table(folder)
        lines = distinct_prompts(self.rows)[1] if lines is None else lines
        return weight_metrics(self.measured, self.weights, *line_counts(self.rows, lines))

    def write_table(self, folder: Path) -> None:
        """Write prompts.parquet: prompt, cluster and src where known, density, sampling_weight, place on the map.

        Only the main process writes.
        """
        if self.measured is None or not is_main_process():
            return
        columns: dict[str, Any] = {"prompt": [prompt_text(prompt) for prompt in self.rows["prompt"]]}
        columns |= {name: self.rows[name] for name in _COLUMN_OF.values() if name in self.rows.column_names}
        x, y = self.measured.points.T
        columns |= {"density": self.measured.density, "sampling_weight": self.weights, "x": x, "y": y}
        pq.write_table(pa.table(columns), folder / WEIGHTS_TABLE)

    def _factors(self, density: np.ndarray, trainer: Any = None) -> list[WeightFactor]:
        """Return the kinds of weights by their names; only with a trainer can density be measured again."""
        return [self._factor(kind, density, trainer) for kind in self.arguments.sampling_by]

    def _factor(self, kind: str, density: np.ndarray, trainer: Any) -> WeightFactor:
        if kind in ("density", "permuted"):
            return self._rarity(kind, density, trainer)
        if kind in _COLUMN_OF:
            column = _COLUMN_OF[kind]
            if column not in self.rows.column_names:
                raise ValueError(
                    f"sampling_by: got {kind!r}, and the prompts have no column {column!r}, only "
                    f"{', '.join(self.rows.column_names)}; leave it out, or take data that has it"
                )
            groups = list(map(str, self.rows[column]))
            shares: Any = self.arguments.source_shares if kind == "source" else None
            return FixedWeights(balanced_weights(groups, shares and completed_shares(groups, shares)), name=kind)
        if kind == "uniform":
            return FixedWeights(np.ones(len(self.rows)), name=kind)
        texts = [prompt_text(prompt) for prompt in self.rows["prompt"]]
        if kind == "pass_rate":
            return PassRates(texts)
        harder = "difficulty" in self.rows.column_names  # larger is harder
        return Curriculum(list(self.rows["difficulty"]) if harder else [float(len(text)) for text in texts])

    def _rarity(self, kind: str, density: np.ndarray, trainer: Any) -> WeightFactor:
        options: dict[str, Any] = {
            "strength": self.strength,
            "schedule": self.arguments.strength_schedule,
            "max_ratio": self.arguments.max_ratio,
        }

        def dealt(measured: np.ndarray) -> np.ndarray:
            return permuted(measured, seed=self.seed) if kind == "permuted" else measured

        every, k = self.arguments.density_refresh, self.arguments.density_k
        if trainer is None or every is None:
            return ScheduledRarity(dealt(density), **options)
        return RefreshedRarity(
            lambda: dealt(policy_density(trainer, k=k)), every=every, density=dealt(density), **options
        )


def weigh_rows(rows: Dataset, arguments: WeightArguments, seed: int, *, unweighed: bool = False) -> WeighedRows:
    """Weigh the rows of a recipe that trains one model; `unweighed`: nothing is measured, and all weigh 1."""
    strength = arguments.one_strength()
    return WeighedRows(rows, None if unweighed else measure_density(rows, arguments), arguments, strength, seed)


def completed_shares(sources: Sequence[str], shares: Any) -> dict[str, float]:
    """Return the fraction of the draws of every source [N]: as `shares` says, the others by rows in what remains.

    Raises ValueError where a name has no row, and where all sources are named and nobody gets what remains.
    """
    sizes, left = Counter(sources), max(0.0, 1 - math.fsum(shares.values()))
    others = sum(rows for name, rows in sizes.items() if name not in shares)
    for name in shares.keys() - sizes.keys():
        raise ValueError(f"source_shares: got {name!r}, which no row is from; {nearest(name, sizes)}")
    if not others and left > 1e-9:
        raise ValueError(f"source_shares: got {1 - left:g} for all sources together, wanted 1")
    return {name: shares.get(name, left * rows / max(others, 1)) for name, rows in sizes.items()}


TABLE, FACTS = "density.parquet", "density.json"
_SCHEMA = pa.schema(
    {
        "prompt": pa.string(),
        "key": pa.binary(16),
        "density": pa.float64(),
        "sampling_weight": pa.float64(),
        "x": pa.float32(),
        "y": pa.float32(),
    }
)


def write_density(
    folder: Path,
    batches: Iterable[list[str]],
    keys: np.ndarray,
    density: np.ndarray,
    weights: np.ndarray,
    points: np.ndarray,
    facts: dict[str, Any],
) -> None:
    """Write both files, the table a batch of prompts at a time.

    keys: [N, 16] uint8; density, weights: [N]; points: [N, 2], on a map. facts: with a `fingerprint`.
    """
    start = 0
    with whole_file(folder / TABLE) as part, pq.ParquetWriter(part, _SCHEMA, compression="zstd") as table:
        for batch in batches:
            rows = slice(start, start + len(batch))
            x, y = np.ascontiguousarray(points[rows].T, dtype=np.float32)
            key = pa.array([key.tobytes() for key in keys[rows]], pa.binary(16))
            columns = [pa.array(batch), key, density[rows], weights[rows], x, y]
            table.write_table(pa.table(columns, schema=_SCHEMA))
            start += len(batch)
    write_json(folder / FACTS, facts)


def read_density(folder: Path, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Read density [N], points [N, 2], intrinsic dimension and recall of prompts in any order, by their text.

    Raises ValueError where the folder is none of these, or was made of other prompts: all must be in it.
    """
    again = "make it again by recipes/density.py"
    facts = load_json(folder / FACTS, again)
    if facts is None:
        raise ValueError(f"density_from: got {str(folder)!r}, which holds no {FACTS}; make it by recipes/density.py")
    with reading(folder / FACTS, again):
        made_of, dimension, recall = (facts[name] for name in ("fingerprint", "dimension", "recall"))
    with reading(folder / TABLE, again):
        table = pq.read_table(folder / TABLE).select(["key", "density", "x", "y"])
    row_of = {key: row for row, key in enumerate(table["key"].to_pylist())}
    wanted = [text_key(text) for text in texts]
    if missing := len({key for key in wanted if key not in row_of}):
        here = fingerprint(np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, 16))
        raise ValueError(
            f"density_from: {str(folder)!r} was made of other prompts: {missing} of {len(set(wanted))} are not in it "
            f"(fingerprint {made_of} there, {here} here); run recipes/density.py on these prompts"
        )
    rows = np.array([row_of[key] for key in wanted])
    density, x, y = (table[name].to_numpy()[rows] for name in ("density", "x", "y"))
    return density, np.stack([x, y], axis=1), dimension, recall
