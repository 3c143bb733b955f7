"""Coverage: how much of each language was sampled at least once."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from .base import SampleMetric
from .intervals import jackknife_interval
from .units import entries


def coverage(
    texts: Sequence[str],
    right: Sequence[float],
    prompts: Sequence[Hashable],
    languages: Sequence[str],
    *,
    sizes: Mapping[str, int],
) -> dict[str, float]:
    """`coverage/LANGUAGE`: the share of a language's strings that was sampled; `coverage`: the mean over languages.

    texts: whole strings. right: 1 for a string of its language, 0 otherwise. prompts, languages: which each belongs
    to. sizes: how many strings each language has. With intervals over prompts, by the jackknife: what would be lost
    without each. It rises with the number of samples, so that only equal numbers compare. `generation` tells lengths
    apart.
    """
    shares, losses = {}, {}
    for language, size in sizes.items():
        sampled: dict[Hashable, set[str]] = {}
        for text, is_right, prompt, own in zip(texts, right, prompts, languages, strict=True):
            if own == language:
                sampled.setdefault(prompt, set()).update([text] if is_right else [])
        shares[language], losses[language] = _share(sampled, size, language)
    mean, lost = np.mean(list(shares.values())), np.concatenate(list(losses.values())) / len(losses)
    found = entries("coverage", jackknife_interval(float(mean), mean - lost))
    for language, share in shares.items():
        found |= entries(f"coverage/{language}", jackknife_interval(share, share - losses[language]))
    return found


def _share(sampled: Mapping[Hashable, set[str]], size: int, language: str) -> tuple[float, np.ndarray]:
    """The share of a language's strings, and what each prompt alone contributes to it, float64 [prompts]."""
    if not sampled:
        raise ValueError(f"coverage: got no sample of {language}, whose size is given; wanted one at least")
    owners = Counter(text for texts in sampled.values() for text in texts)
    if len(owners) > size:
        raise ValueError(f"coverage: got {len(owners)} different right strings of {language}, which has {size}")
    alone = [sum(owners[text] == 1 for text in texts) for texts in sampled.values()]
    return len(owners) / size, np.array(alone) / size


class Coverage(SampleMetric):
    """`coverage` as a metric of `evaluate`: `compute(predictions=texts, right=..., references=prompts, ...)`."""

    measure = staticmethod(coverage)
    columns = {"predictions": "string", "right": "float64", "references": "string", "languages": "string"}
