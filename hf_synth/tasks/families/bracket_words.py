"""Words of brackets in kernels: what is one, how to make a wrong one, and how well its brackets can be predicted.

Each kernel takes the rule of the language: `k` types; `nested`, whether the bracket that was opened last is closed
first; `closes`, whether none is open at the end; `deepest`, how many may be open at once.
"""

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import below, draw
from hf_synth.tasks.base import EOS, FIRST_CONTENT, SEP

_TRIES = 16  # swaps and exchanges at random before the sure way is taken


@kernel
def is_word(words, stop, k, nested, closes, deepest):  # type: ignore[no-untyped-def]
    """Whether words[1:stop], brackets all, are a word of the language."""
    stack = np.empty(stop if nested else 0, np.int32)
    counts = np.zeros(0 if nested else k, np.int32)
    depth = 0
    for at in range(1, stop):
        kind = words[at] - FIRST_CONTENT
        if kind < k:
            if depth == deepest:
                return False
            if nested:
                stack[depth] = kind
            else:
                counts[kind] += 1
            depth += 1
            continue
        kind -= k
        if depth == 0 or (stack[depth - 1] != kind if nested else counts[kind] == 0):
            return False
        depth -= 1
        if not nested:
            counts[kind] -= 1
    return depth == 0 or not closes


@kernel
def corrupt_rows(tokens, lengths, loss_start, keys, k, nested, closes, deepest):  # type: ignore[no-untyped-def]
    """Make each row no word, by a swap from loss_start on where one does it, else by another bracket or `<sep>`."""
    for row in range(tokens.shape[0]):
        words, start, stop, key = tokens[row], loss_start[row], lengths[row] - 1, keys[row]
        if not _swap(words, start, stop, key, k, nested, closes, deepest):
            _replace(words, start, stop, key, k, nested, closes, deepest)


@kernel
def _swap(words, start, stop, key, k, nested, closes, deepest):  # type: ignore[no-untyped-def]
    """Try to make words[1:stop] invalid by a swap inside words[start:stop]; says whether it did."""
    for attempt in range(_TRIES):
        one = start + below(draw(key, 2 * attempt), stop - start)
        other = _next(words, start, stop, start + below(draw(key, 2 * attempt + 1), stop - start), words[one])
        if other < 0:
            return False
        words[one], words[other] = words[other], words[one]
        if not is_word(words, stop, k, nested, closes, deepest):
            return True
        words[one], words[other] = words[other], words[one]
    if closes:
        for opening in range(start, stop):
            if words[opening] < FIRST_CONTENT + k:  # a word that ends in an opening bracket is never closed
                words[opening], words[stop - 1] = words[stop - 1], words[opening]
                return True
    return False


@kernel
def _next(words, start, stop, first, word):  # type: ignore[no-untyped-def]
    """The first place from `first` on, around the end, where another than `word` stands; -1 if there is none."""
    for step in range(stop - start):
        at = start + (first - start + step) % (stop - start)
        if words[at] != word:
            return at
    return -1


@kernel
def _replace(words, start, stop, key, k, nested, closes, deepest):  # type: ignore[no-untyped-def]
    """Make words[1:stop] invalid by one other word inside words[start:stop]; where all are closed, any does."""
    position = start
    for attempt in range(_TRIES):
        position = start + below(draw(key, 2 * (_TRIES + attempt)), stop - start)
        old = words[position]
        other = 1 + below(draw(key, 2 * (_TRIES + attempt) + 1), 2 * k - 1)
        words[position] = FIRST_CONTENT + (old - FIRST_CONTENT + other) % (2 * k)
        if not is_word(words, stop, k, nested, closes, deepest):
            return
        words[position] = old
    words[position] = SEP


@kernel(error_model="numpy")
def next_brackets(tokens, lengths, positions, order, asked, share, k, nested, closes, deepest):  # type: ignore[no-untyped-def]
    """P(asked bracket | those before its position), float64 like `asked`, [rows, positions, any].

    order: what sorts `positions` [rows, positions] in each row; share: P(open) where either bracket is allowed.
    """
    out = np.zeros(asked.shape)
    stack, counts = np.empty(tokens.shape[1], np.int32), np.empty(k, np.int32)
    for row in range(tokens.shape[0]):
        words, stop = tokens[row], lengths[row] - 1
        counts[:] = 0
        depth = kinds = reached = 0  # kinds: how many types are open
        for at in range(1, stop):
            free = 0 < depth < deepest and (depth < stop - at or not closes)
            opens = share if free else np.float64(depth == 0)
            while reached < positions.shape[1] and positions[row, order[row, reached]] <= at:
                column = order[row, reached]
                reached += 1
                for candidate in range(asked.shape[2]):
                    kind = asked[row, column, candidate] - FIRST_CONTENT
                    if 0 <= kind < k:
                        out[row, column, candidate] = opens / k
                    elif kind >= k and depth and (stack[depth - 1] == kind - k if nested else counts[kind - k] > 0):
                        out[row, column, candidate] = (1.0 - opens) / (1 if nested else kinds)
            kind = words[at] - FIRST_CONTENT
            if kind < k:
                stack[depth] = kind
                depth += 1
                counts[kind] += 1
                kinds += counts[kind] == 1
            else:
                depth -= 1
                counts[kind - k] -= 1
                kinds -= counts[kind - k] == 0
        for column in order[row, reached:]:
            out[row, column] = asked[row, column] == EOS
    return out
