"""Self-BLEU: how similar sampled completions are, within a prompt and across prompts."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from .base import as_metric
from .intervals import across, entries, mean_interval, within
from .words import FIRST, Split, words


def self_bleu(
    texts: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    pairs: int = 16,
    first: int = FIRST,
    split: Split = words,
    seed: int = 0,
) -> dict[str, float]:
    """The mean BLEU-4 of pairs of texts, from 0 to 1, all the same; with intervals over prompts.

    texts: completions. prompts: which prompt each belongs to. first: how many tokens of each are read; otherwise
    longer texts would be more similar.

    `self_bleu`: of two completions of one prompt; at most `pairs` ordered pairs of each prompt, chosen by `seed`.
    `self_bleu/across`: of completions of two prompts, which `seed` pairs at random. Each is left out if there is no
    pair. Pairs are used because BLEU against all other texts at once rises with their number. BLEU is SacreBLEU's
    sentence BLEU with effective order; two empty texts count as the same. Needs sacrebleu.

    Source: Zhu et al. (2018), Texygen; pairs as in Shen et al. (2019), Mixture models for diverse machine translation.
    """
    read = [" ".join(split(text)[:first]) for text in texts]
    results: dict[str, float] = {}
    rng = np.random.default_rng(seed)
    if groups := within(read, prompts, "self_bleu"):
        ordered = np.argwhere(~np.eye(len(groups[0]), dtype=bool))  # pairs of different texts of a prompt
        most, means = min(pairs, len(ordered)), []
        for group in groups:
            chosen = ordered[rng.choice(len(ordered), most, replace=False)]
            means.append(_mean_bleu((group[a], group[b]) for a, b in chosen))
        results |= entries("self_bleu", mean_interval(means))
    if matched := across(read, prompts, 2, "self_bleu", seed):
        means = [_mean_bleu(pair for one, two in match for pair in ((one, two), (two, one))) for match in matched]
        results |= entries("self_bleu/across", mean_interval(means))
    return results


def _mean_bleu(pairs: Iterable[tuple[str, str]]) -> float:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        hint = "run pip install sacrebleu, or in a clone of hf_synth pip install '.[metrics]'"
        raise ValueError(f"self_bleu: sacrebleu is not installed; {hint}") from None
    judge = BLEU(effective_order=True, tokenize="none", force=True)
    return float(np.mean([1.0 if one == two else judge.sentence_score(one, [two]).score / 100 for one, two in pairs]))


SelfBleu = as_metric(self_bleu)
