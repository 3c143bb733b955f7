"""Generation: how many sampled strings are in the language, by length, and how much of the language they cover."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from .base import as_metric
from .checks import between
from .intervals import grouped_mean


def generation(
    texts: Sequence[str | None],
    valid: Sequence[float],
    lengths: Sequence[Hashable] | None = None,
    *,
    counts: Mapping[int, int] | int | None = None,
    training: Collection[str] | None = None,
) -> dict[str, float]:
    """Validity, distinctness, coverage and memorisation of sampled strings, all as fractions on [0, 1].

    texts: None for an unfinished string, which is invalid whatever `valid` says, and distinct. valid: 1 or 0 each.
    lengths: one each; the default is the number of words, or "unfinished". counts: how many strings the language has,
    or how many of each length. training: the training strings.

    `validity`: the fraction of strings that are valid. `validity_by_length/LENGTH`: of each length;
    `validity_by_length`: their mean, lengths weighted equally. `distinct`: distinct strings / all. `coverage`: the
    fraction of the language's strings that was sampled (of the lengths counted), and `coverage/LENGTH`.
    `in_training`: the fraction of strings that are training strings; `valid_and_new`: that are valid and not in
    training.
    """
    right = [float(score) if text is not None else 0.0 for text, score in zip(texts, valid, strict=True)]
    between("generation", right, 0, 1, "1 for a valid string and 0 for another")
    if lengths is None:
        lengths = [len(text.split()) if text is not None else "unfinished" for text in texts]
    by_length = grouped_mean(right, lengths, name="validity_by_length")
    finished = [text for text in texts if text is not None]
    results = {
        "validity": float(np.mean(right)),
        **by_length,
        "distinct": (len(set(finished)) + len(texts) - len(finished)) / len(texts),
    }
    if counts is not None:
        sampled = {text: length for text, length, score in zip(texts, lengths, right, strict=True) if score}
        if isinstance(counts, Mapping):
            per_length = Counter(sampled.values())
            results["coverage"] = _fraction(sum(per_length[length] for length in counts), sum(counts.values()))
            results |= {f"coverage/{length}": _fraction(per_length[length], counts[length]) for length in counts}
        else:
            results["coverage"] = _fraction(len(sampled), counts)
    if training is not None:
        known_strings = frozenset(training)
        known = np.array([text in known_strings for text in texts])
        results |= {"in_training": float(known.mean()), "valid_and_new": float(np.mean(~known * np.asarray(right)))}
    return results


def _fraction(sampled: int, count: int) -> float:
    if not count or sampled > count:
        raise ValueError(f"generation: got {sampled} different valid strings, wanted at most {count}; check `counts`")
    return sampled / count


Generation = as_metric(generation, {"predictions": "string", "references": "float64"})
