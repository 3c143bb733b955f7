"""Coverage: the fraction of each language's strings that was sampled at least once."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from .base import as_metric
from .intervals import entries, jackknife_interval


def coverage(
    texts: Sequence[str],
    right: Sequence[float],
    prompts: Sequence[Hashable],
    languages: Sequence[str],
    *,
    sizes: Mapping[str, int],
) -> dict[str, float]:
    """`coverage/LANGUAGE`: the fraction of a language's strings that was sampled; `coverage`: the mean over languages.

    texts: whole strings. right: 1 for a string of its language, 0 otherwise. prompts, languages: which each belongs
    to. sizes: how many strings each language has. With jackknife intervals over prompts. Coverage rises with
    the number of samples, so compare equal numbers only. `generation` has coverage by length.
    """
    fractions, losses = {}, {}
    for language, size in sizes.items():
        sampled: dict[Hashable, set[str]] = {}
        for text, is_right, prompt, own in zip(texts, right, prompts, languages, strict=True):
            if own == language:
                sampled.setdefault(prompt, set()).update([text] if is_right else [])
        fractions[language], losses[language] = _fraction(sampled, size, language)
    mean, centred = np.mean(list(fractions.values())), [lost - lost.mean() for lost in losses.values()]
    lost = np.concatenate(centred) / len(losses)  # that languages differ in size is no error of sampling
    results = entries("coverage", jackknife_interval(float(mean), mean - lost))
    for language, fraction in fractions.items():
        results |= entries(f"coverage/{language}", jackknife_interval(fraction, fraction - losses[language]))
    return results


def _fraction(sampled: Mapping[Hashable, set[str]], size: int, language: str) -> tuple[float, np.ndarray]:
    """Return the fraction of a language's strings, and what is lost from it without each prompt, float64 [prompts]."""
    if not sampled:
        raise ValueError(f"coverage: got no sample of {language}, which is in `sizes`; wanted one or more")
    owners = Counter(text for texts in sampled.values() for text in texts)
    if len(owners) > size:
        raise ValueError(f"coverage: got {len(owners)} different right strings of {language}, which has {size}")
    lost = [sum(owners[text] == 1 for text in texts) for texts in sampled.values()]
    return len(owners) / size, np.array(lost) / size


_COLUMNS = {"predictions": "string", "right": "float64", "references": "string", "languages": "string"}
Coverage = as_metric(coverage, _COLUMNS)
