"""Geometry of the embeddings in the analogy task: entities e of E1, their images f(e) in E2, and the functor f."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.preprocessing import normalize

from .checks import as_float64


def geometry(embeddings: np.ndarray, pairs: np.ndarray | Sequence[Sequence[int]], functor_id: int) -> dict[str, float]:
    """Six measures of an embedding table, float [vocabulary, width]; pairs: token ids of e and f(e), int [pairs, 2].

    - `dirichlet_energy`: the mean over edges e - f(e) of |u(e) - u(f(e))|**2, embeddings scaled to unit vectors u;
      from 0 (each e lies on its image) to 4, about 2 for random vectors.
    - `parallelogram`: the mean cosine of f(e) - e and the functor's embedding; 1 if the functor is that step.
    - `translation_consistency`: the mean cosine of f(e) - e over all pairs of entities; 1 if they take one step.
    - `isometry`: the correlation of distances within E1 with those between the images; 1 if the two have one
      shape, at any scale. NaN with fewer than 3 pairs or equal distances.
    - `distortion`: the mean difference of these distances as a fraction of their mean; 0 if the scales agree too.
    - `separation`: the mean silhouette of the two clusters E1 and E2; from -1 to 1, 0 where they overlap.

    Distances are Euclidean. Source: Emergent analogical reasoning in Transformers, arXiv 2602.01992.
    """
    first, second, functor = _rows(as_float64("geometry", embeddings), np.asarray(pairs), functor_id)
    edges, steps = normalize(first) - normalize(second), normalize(second - first)
    distances = [pairwise_distances(points)[np.triu_indices(len(points), 1)] for points in (first, second)]
    alike = len(first) < 3 or any(np.isclose(own.min(), own.max()) for own in distances)
    return {
        "dirichlet_energy": float(np.square(edges).sum(axis=1).mean()),
        "parallelogram": float((steps @ normalize(functor[None])[0]).mean()),
        "translation_consistency": float((steps @ steps.T)[np.triu_indices(len(steps), 1)].mean()),
        "isometry": float("nan") if alike else float(np.corrcoef(*distances)[0, 1]),
        "distortion": float(2 * np.abs(distances[0] - distances[1]).sum() / np.sum(distances)),
        "separation": float(silhouette_score(np.concatenate([first, second]), np.repeat([0, 1], len(first)))),
    }


def _rows(embeddings: np.ndarray, pairs: np.ndarray, functor_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the embeddings of E1 and of E2 [pairs, width], and the functor's [width]."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) < 2:
        raise ValueError(f"geometry: got pairs of shape {pairs.shape}, wanted [pairs, 2] with two pairs or more")
    if embeddings.ndim != 2 or not -1 < min(pairs.min(), functor_id) <= max(pairs.max(), functor_id) < len(embeddings):
        raise ValueError(
            f"geometry: got embeddings {embeddings.shape}, wanted [vocabulary, width] with a row for every id"
        )
    return embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], embeddings[functor_id]
