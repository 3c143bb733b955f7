"""Perplexity of valid and of invalid strings, with their difference and their ratio."""

from collections.abc import Sequence

import numpy as np

from .base import as_metric
from .checks import as_float64, log_probabilities, valid_and_invalid
from .intervals import same_length


def perplexity(
    log_probs: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    valid: Sequence[bool] | np.ndarray,
    kinds: Sequence[str] | None = None,
) -> dict[str, float]:
    """`perplexity/valid`, `perplexity/invalid`, `perplexity/gap` (invalid - valid) and `perplexity/ratio`.

    log_probs: summed ln P of each string, [strings]. tokens: how many tokens each sum is over. valid: whether each
    string is in the language. kinds: the name of each string's violation, anything for a valid one; adds an entry
    `perplexity/kind/NAME` for each name.

    Perplexity is exp(mean loss per token) over all valid, or all invalid, strings together. `string_perplexity/...`
    is the mean of the strings' own perplexities instead; a few improbable strings dominate it.
    """
    same_length("perplexity", log_probs=log_probs, tokens=tokens, valid=valid, kinds=valid if kinds is None else kinds)
    sums, counts = (as_float64("perplexity", values) for values in (log_probs, tokens))
    right = valid_and_invalid("perplexity", valid)
    if not (counts > 0).all():
        raise ValueError("perplexity: got a string without tokens, wanted sums over one token or more")
    log_probabilities("perplexity", sums / counts)
    together = [_perplexity(sums[part], counts[part]) for part in (right, ~right)]
    strings = np.exp(-sums / counts)
    single = [float(strings[part].mean()) for part in (right, ~right)]
    results: dict[str, float] = {}
    for name, (inside, outside) in (("perplexity", together), ("string_perplexity", single)):
        results |= {f"{name}/valid": inside, f"{name}/invalid": outside}
        results |= {f"{name}/gap": outside - inside, f"{name}/ratio": outside / inside}
    for kind in dict.fromkeys(() if kinds is None else kinds):
        members = ~right & (np.asarray(kinds) == kind)
        if members.any():
            results[f"perplexity/kind/{kind}"] = _perplexity(sums[members], counts[members])
    return results


def _perplexity(sums: np.ndarray, counts: np.ndarray) -> float:
    return float(np.exp(-sums.sum() / counts.sum()))


Perplexity = as_metric(perplexity, {"predictions": "float64", "tokens": "int64", "references": "bool"})
