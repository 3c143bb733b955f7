"""Perplexity of valid and of invalid strings: the gap and the ratio that a model leaves between them."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of
from .checks import log_probabilities


def perplexity(
    log_probs: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    valid: Sequence[bool] | np.ndarray,
    kinds: Sequence[str] | None = None,
) -> dict[str, float]:
    """`perplexity/valid`, `perplexity/invalid`, `perplexity/gap` (invalid - valid) and `perplexity/ratio`.

    log_probs: summed ln P of each string, [strings]. tokens: how many tokens each sum is over. valid: whether each
    string is in the language. kinds: the name of each one's violation, any for a valid one; gives an entry
    `perplexity/kind/NAME` for each name.

    Perplexity is exp(mean loss per token) of all strings of a sort together. `string_perplexity/...` is the mean of
    the strings' own perplexities instead, which few improbable strings dominate.
    """
    sums, counts, right = np.asarray(log_probs, np.float64), np.asarray(tokens), np.asarray(valid, bool)
    _check(sums, counts, right)
    together = _contrast("perplexity", *(_perplexity(sums[sort], counts[sort]) for sort in (right, ~right)))
    strings = np.exp(-sums / counts)
    apart = _contrast("string_perplexity", *(float(strings[sort].mean()) for sort in (right, ~right)))
    return {**together, **apart, **(_by_kind(sums, counts, right, kinds) if kinds is not None else {})}


def _perplexity(sums: np.ndarray, counts: np.ndarray) -> float:
    return float(np.exp(-sums.sum() / counts.sum()))


def _contrast(name: str, valid: float, invalid: float) -> dict[str, float]:
    return {
        f"{name}/valid": valid,
        f"{name}/invalid": invalid,
        f"{name}/gap": invalid - valid,
        f"{name}/ratio": invalid / valid,
    }


def _by_kind(sums: np.ndarray, counts: np.ndarray, right: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    if len(kinds) != len(sums):
        raise ValueError(f"perplexity: got {len(kinds)} kinds for {len(sums)} strings, wanted one each")
    members = {name: ~right & (np.asarray(kinds) == name) for name in dict.fromkeys(kinds)}
    return {
        f"perplexity/kind/{name}": _perplexity(sums[member], counts[member])
        for name, member in members.items()
        if member.any()
    }


def _check(sums: np.ndarray, counts: np.ndarray, right: np.ndarray) -> None:
    if not sums.shape == counts.shape == right.shape:
        raise ValueError(
            f"perplexity: got {sums.size} sums, {counts.size} counts, {right.size} labels, wanted as many"
        )
    if right.all() or not right.any():
        raise ValueError("perplexity: got strings of one sort, wanted valid and invalid ones")
    if not (counts > 0).all():
        raise ValueError("perplexity: got a string of no token, wanted sums over one or more")
    log_probabilities("perplexity", sums / counts)


class Perplexity(evaluate.Metric):
    """`perplexity` as a metric of `evaluate`: `compute(predictions=log_probs, references=valid, tokens=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("float64"),
            "references": datasets.Value("bool"),
            "tokens": datasets.Value("int64"),
        }
        return evaluate.MetricInfo(
            description="Perplexity of valid and of invalid strings, their gap and their ratio.",
            citation="",
            inputs_description=inputs_of(perplexity, predictions="log_probs", references="valid", tokens="tokens"),
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[bool],
        tokens: Sequence[int],
        kinds: Sequence[str] | None = None,
    ) -> dict[str, float]:
        return perplexity(predictions, tokens, references, kinds)
