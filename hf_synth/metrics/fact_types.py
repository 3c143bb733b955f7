"""Results on the facts of analogy: cross entropy, perplexity, accuracy and probability, for each type of fact."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric
from .checks import log_probabilities
from .intervals import same_length


def fact_types(
    log_probs: Sequence[float] | np.ndarray, hits: Sequence[bool] | np.ndarray, types: Sequence[str] | np.ndarray
) -> dict[str, float]:
    """For each type of fact: `ce/TYPE`, `ppl/TYPE`, `acc/TYPE`, `prob/TYPE`, and `facts/TYPE`, the number of facts.

    log_probs: ln P of each fact's last token, [facts]. hits: whether it was the most likely token. types: names.
    CE is the mean of -ln P in nats, PPL exp(CE), ACC the fraction of hits, PROB the mean of P.
    Source: Emergent analogical reasoning in Transformers, arXiv 2602.01992.
    """
    same_length("fact_types", log_probs=log_probs, hits=hits, types=types)
    values, hit, names = log_probabilities("fact_types", log_probs), np.asarray(hits, bool), np.asarray(types)
    results: dict[str, float] = {}
    for name in dict.fromkeys(names.tolist()):
        own = values[names == name]
        entropy = 0.0 - float(own.mean())
        results |= {
            f"ce/{name}": entropy,
            f"ppl/{name}": float(np.exp(entropy)),
            f"acc/{name}": float(hit[names == name].mean()),
            f"prob/{name}": float(np.exp(own).mean()),
            f"facts/{name}": float(own.size),
        }
    return results


FactTypes = as_metric(fact_types, {"predictions": "float64", "hits": "bool", "references": "string"})
