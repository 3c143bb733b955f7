"""The table of analogy: cross entropy, perplexity, accuracy and probability of the right answer, by type of fact."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of
from .checks import log_probabilities


def fact_types(
    log_probs: Sequence[float] | np.ndarray, hits: Sequence[bool] | np.ndarray, types: Sequence[str] | np.ndarray
) -> dict[str, float]:
    """For each type of fact: `ce/TYPE`, `ppl/TYPE`, `acc/TYPE`, `prob/TYPE`, and `facts/TYPE`, how many there are.

    log_probs: ln P of each fact's last token, [facts]. hits: whether it was the most likely token. types: a name each.
    CE is the mean of -ln P in nats, PPL exp(CE), ACC the share of hits, PROB the mean of P.
    Source: Emergent analogical reasoning in Transformers, arXiv 2602.01992.
    """
    values, found, names = log_probabilities("fact_types", log_probs), np.asarray(hits, bool), np.asarray(types)
    if not values.shape == found.shape == names.shape or not values.size:
        raise ValueError(
            f"fact_types: got {values.size} values, {found.size} hits, {names.size} types, wanted as many"
        )
    table = {name: _measure(values[names == name], found[names == name]) for name in dict.fromkeys(names.tolist())}
    return {f"{key}/{name}": value for name, row in table.items() for key, value in row.items()}


def _measure(values: np.ndarray, found: np.ndarray) -> dict[str, float]:
    entropy = 0.0 - float(values.mean())
    return {
        "ce": entropy,
        "ppl": float(np.exp(entropy)),
        "acc": float(found.mean()),
        "prob": float(np.exp(values).mean()),
        "facts": float(values.size),
    }


class FactTypes(evaluate.Metric):
    """`fact_types` as a metric of `evaluate`: `compute(predictions=log_probs, references=types, hits=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("float64"),
            "references": datasets.Value("string"),
            "hits": datasets.Value("bool"),
        }
        return evaluate.MetricInfo(
            description="Cross entropy, perplexity, accuracy and probability of the right answer, by type of fact.",
            citation="",
            inputs_description=inputs_of(fact_types, predictions="log_probs", references="types", hits="hits"),
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[str], hits: Sequence[bool]
    ) -> dict[str, float]:
        return fact_types(predictions, hits, references)
