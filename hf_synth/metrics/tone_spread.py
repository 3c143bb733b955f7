"""Tone spread: how much the tone of completions differs between contexts.

Tone is measured by short lists of English words. This is crude: it ignores negation and irony. Use it to compare
samples of two policies to the same prompts, or pass a classifier or embeddings instead.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .base import as_metric
from .intervals import Interval, by_group, entries, jackknife_interval
from .words import letters_only, words

Features = Callable[[Sequence[str]], np.ndarray]

FEATURES = ("formality", "sentiment", "hedging", "politeness", "address", "excitement")

_FORMAL = """accordingly additionally consequently furthermore hence however moreover nevertheless nonetheless
notwithstanding regarding subsequently therefore thereby thus whereas whereby wherein upon shall"""
_INFORMAL = """awesome bro cool cuz damn dude gonna gotta guys hey hi haha kinda lol lots nah nope ok okay
oh omg stuff sorta sucks wanna wow yeah yep yup"""
_POSITIVE = """amazing beautiful best better delicious delightful easy enjoy excellent fantastic fun glad good
great happy helpful hope interesting kind love lovely nice perfect pleasure positive safe success successful
wonderful"""
_NEGATIVE = """angry awful bad boring cruel danger dangerous death difficult disgusting evil fail failure fear
hard harm harmful hate horrible hurt illegal pain poor problem sad stupid terrible ugly unsafe violence worse worst
wrong"""
_HEDGES = """apparently arguably approximately could generally guess likely may maybe might often perhaps
possible possibly probably roughly seem seems somewhat sometimes suppose unlikely usually"""
_POLITE = """apologies apologize appreciate excuse glad grateful kindly pardon please respectfully sorry
thank thanks welcome"""
_SECOND_PERSON = "you your yours yourself yourselves you're you'll you've you'd"
_CONTRACTIONS = ("n't", "'ll", "'re", "'ve", "'d", "'m", "'s")

_LISTS = [
    frozenset(text.split()) for text in (_FORMAL, _INFORMAL, _POSITIVE, _NEGATIVE, _HEDGES, _POLITE, _SECOND_PERSON)
]


def tone(texts: Sequence[str]) -> np.ndarray:
    """Return the tone of each text, float64 [texts, 6] in the order of FEATURES: points per 100 words.

    formality: formal words minus informal ones and contractions. sentiment: positive words minus negative ones.
    hedging, politeness, address (you, your): such words. excitement: exclamation marks. 0 for a text without words.
    """
    tones = np.zeros((len(texts), len(FEATURES)))
    for row, text in enumerate(texts):
        tokens = words(text.replace("\u2019", "'"))
        own = letters_only(tokens)
        counts = (sum(token in known for token in own) for known in _LISTS)
        formal, informal, positive, negative, hedges, polite, address = counts
        informal += sum(token.endswith(_CONTRACTIONS) for token in own)
        points = (formal - informal, positive - negative, hedges, polite, address, tokens.count("!"))
        tones[row] = 100 * np.array(points) / max(len(own), 1)
    return tones


def tone_spread(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    contexts: Sequence[Hashable] | None = None,
    *,
    features: Features = tone,
) -> dict[str, float]:
    """`tone_spread`: the standard deviation of tone between contexts; 0 if every context gets the same tone.

    texts: completions. prompts: which prompt each belongs to. contexts: which context its prompt belongs to (a topic,
    a source, a cluster); by default each prompt is a context, and needs two completions or more. features:
    texts -> float [texts, any], by default `tone`, in points per 100 words; embeddings work too.

    The variance component between groups of a one-way analysis of variance, summed over features: chance differences
    between groups are subtracted. Values are the prompts' means in contexts, or the completions of prompts. A negative
    component counts as 0. With its jackknife interval over prompts.

    Source: Searle, Casella and McCulloch (1992), Variance components, section 3.6.
    """
    tones = np.asarray(features(list(texts)), np.float64)
    if contexts is None:
        groups, values, units = _numbered(prompts), tones, _numbered(prompts)
    else:
        groups, values = _prompt_means(tones, prompts, contexts)
        units = np.arange(len(groups))
    whole = _between_variance(values, groups)
    if np.isnan(whole):
        raise ValueError(
            f"tone_spread: got {len(values)} values in {len(set(groups))} contexts, wanted two contexts or more, and "
            "several values in one of them at least: several completions of a prompt, or several prompts in a context"
        )
    kept = [units != unit for unit in range(units.max() + 1)]
    spread = jackknife_interval(whole, [_between_variance(values[keep], groups[keep]) for keep in kept])
    return entries("tone_spread", Interval(*np.sqrt(np.maximum(spread, 0)).tolist()))


def _numbered(labels: Sequence[Hashable]) -> np.ndarray:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels])


def _prompt_means(
    tones: np.ndarray, prompts: Sequence[Hashable], contexts: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Return each prompt's context, int [prompts], and its completions' mean tone, float64 [prompts, features]."""
    means = np.array([np.mean(rows, axis=0) for rows in by_group(tones, prompts, "tone_spread").values()])
    owners = by_group(contexts, prompts, "tone_spread")
    if mixed := [prompt for prompt, owner in owners.items() if len(set(owner)) > 1]:
        raise ValueError(f"tone_spread: got prompt {mixed[0]!r} in several contexts, wanted one context per prompt")
    return _numbered([owner[0] for owner in owners.values()]), means


def _between_variance(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the variance component between groups, summed over features; negative if they differ less than by chance.

    NaN if there is one group, or one value in each.
    """
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2 or len(values) == len(sizes):
        return float("nan")
    means = np.zeros((len(sizes), values.shape[1]))
    np.add.at(means, numbers, values)
    means /= sizes[:, None]
    among = (sizes[:, None] * (means - values.mean(axis=0)) ** 2).sum() / (len(sizes) - 1)
    inside = ((values - means[numbers]) ** 2).sum() / (len(values) - len(sizes))
    typical = (len(values) - (sizes**2).sum() / len(values)) / (len(sizes) - 1)
    return float((among - inside) / typical)


ToneSpread = as_metric(tone_spread)
