"""N-gram predictors (unigram, bigram, trigram) from counts: baselines for a trained model."""

import numpy as np


def ngram_log_probs(
    train: np.ndarray, test: np.ndarray, order: int, vocabulary: int, *, smoothing: float = 0.5
) -> np.ndarray:
    """Ln P(token | the order - 1 tokens before it) by counts of `train`, float64 [rows, width] like `test`.

    train, test: ids int [rows, width], of equal length in each, below 2**20. Contexts are shorter at the start
    of a row. `smoothing` is added to the count of each of the `vocabulary` tokens. Column 0 is 0.
    Errors: ValueError for an order below 1, or above 3: longer contexts do not fit the codes.
    """
    if not 1 <= order <= 3:
        raise ValueError(f"ngram: got order {order}, wanted 1, 2 or 3")
    context, whole = _codes(train, order)
    seen, counts = np.unique(whole, return_counts=True)
    before, totals = np.unique(context, return_counts=True)
    test_context, test_whole = _codes(test, order)
    hits = _count_of(seen, counts, test_whole) + smoothing
    out = np.log(hits / (_count_of(before, totals, test_context) + smoothing * vocabulary))
    return np.concatenate([np.zeros((len(test), 1)), out], axis=1)


def _codes(tokens: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes of the context of each token after the first, and of context and token, int64 [rows, width - 1].

    A code holds three tokens of 20 bits. Tokens of a context are stored plus 1, so that 0 means "before the row".
    """
    wide = tokens.astype(np.int64)
    context = np.zeros((len(tokens), tokens.shape[1] - 1), np.int64)
    for back in range(1, order):
        reached = wide[:, : tokens.shape[1] - back] + 1
        context[:, back - 1 :] |= reached << (20 * back)
    return context, context | wide[:, 1:]


def _count_of(keys: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    nearest = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[nearest] == wanted, counts[nearest], 0)
