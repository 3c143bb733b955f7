"""Generation: how many sampled strings are in the language, by length, and how much of the language they cover."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

import datasets
import evaluate
import numpy as np

from .base import inputs_of
from .checks import between
from .validity import grouped_mean


def generation(
    texts: Sequence[str | None],
    valid: Sequence[float],
    lengths: Sequence[Hashable] | None = None,
    *,
    counts: Mapping[int, int] | int | None = None,
    training: Collection[str] | None = None,
) -> dict[str, float]:
    """What became of sampled strings, all shares on [0, 1].

    texts: None for an unfinished one, which is wrong, whatever `valid` says, and like no other. valid: 1 or 0 each.
    lengths: one each; without them, the number of words, and "unfinished". counts: how many strings the language has,
    or how many of each length. training: the training strings.

    `validity`: the share of strings that are valid. `validity_by_length`: the mean over lengths, each weighing alike,
    and `validity_by_length/LENGTH`. `distinct`: how many different ones, as a share of all. `coverage`: the share of
    the language's strings that was sampled (of the lengths counted), and `coverage/LENGTH`. `in_training`: the share
    of strings that are training strings; `valid_and_new`: of those that are valid and not in training.
    """
    right = [float(score) if text is not None else 0.0 for text, score in zip(texts, valid, strict=True)]
    between("generation", right, 0, 1, "1 for a valid string and 0 for another")
    if lengths is None:
        lengths = [len(text.split()) if text is not None else "unfinished" for text in texts]
    by_length = grouped_mean(right, lengths, name="validity_by_length")
    finished = [text for text in texts if text is not None]
    distinct = (len(set(finished)) + len(texts) - len(finished)) / len(texts)
    sampled = {
        text: length for text, length, score in zip(texts, lengths, right, strict=True) if score and text is not None
    }
    return {
        "validity": float(np.mean(right)),
        **by_length,
        "distinct": distinct,
        **(_coverage(sampled, counts) if counts is not None else {}),
        **(_memory(texts, right, frozenset(training)) if training is not None else {}),
    }


def _coverage(sampled: Mapping[str, Hashable], counts: Mapping[int, int] | int) -> dict[str, float]:
    """`sampled`: the length of each different valid string."""
    if isinstance(counts, Mapping):
        found = Counter(sampled.values())
        shares = {f"coverage/{length}": _share(found[length], count) for length, count in counts.items()}
        return {"coverage": _share(sum(found[length] for length in counts), sum(counts.values())), **shares}
    return {"coverage": _share(len(sampled), counts)}


def _share(found: int, count: int) -> float:
    if not count or found > count:
        raise ValueError(
            f"generation: got {found} different valid strings of {count} that there are; check the counts"
        )
    return found / count


def _memory(texts: Sequence[str | None], right: Sequence[float], training: frozenset[str]) -> dict[str, float]:
    known = np.array([text in training for text in texts])
    return {"in_training": float(known.mean()), "valid_and_new": float(np.mean(~known * np.asarray(right)))}


class Generation(evaluate.Metric):
    """`generation` as a metric of `evaluate`: `compute(predictions=texts, references=valid, counts=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("string"), "references": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description="The validity of sampled strings by length, and how much of the language they cover.",
            citation="",
            inputs_description=inputs_of(generation, predictions="texts", references="valid"),
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence[str | None],
        references: Sequence[float],
        lengths: Sequence[Hashable] | None = None,
        counts: Mapping[int, int] | int | None = None,
        training: Collection[str] | None = None,
    ) -> dict[str, float]:
        return generation(predictions, references, lengths, counts=counts, training=training)
