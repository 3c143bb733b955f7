"""Sentences that read the same both ways, in kernels: how well their words can be predicted, and how to break one.

A level of a sentence is a half of 0 .. most letters, their number uniform, perhaps a centre, and the half mirrored;
or, above the last level, a half of 1 .. most letters around another level. The ids of the four letters are in a row.
"""

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw

LETTERS = 4


def random_letter(rng: RowRandom, first: int) -> np.ndarray:
    """A uniform letter for each row, int32 [rows]; first: the id of the first letter."""
    return rng.integers(first, first + LETTERS, 1)[:, 0]


@kernel(error_model="numpy")
def mirror_log_probs(tokens, lengths, start, first, opening, centre, most, max_depth):  # type: ignore[no-untyped-def]
    """Ln P(token | all before it), float64 [rows, width], 0 where it is certain.

    start: where the outermost level begins; first: the id of the first letter; opening: the id of the word that opens
    a level inside another; centre: float64 [4], the chances of the letters as the centre. Levels above `max_depth`
    have another level inside with probability 1/2.
    """
    out = np.zeros(tokens.shape)
    weights = np.empty(tokens.shape[1])
    for row in range(tokens.shape[0]):
        words, begin, depth = tokens[row], start, 0
        while True:
            end = begin
            while end < lengths[row] - 1 and first <= words[end] < first + LETTERS:
                end += 1
            share = 0.5 if depth < max_depth else 1.0
            whole = share * _level_weights(words, begin, end, first, centre, most, share, weights)
            for at in range(begin, end):
                out[row, at] = np.log(weights[at + 1 - begin] / weights[at - begin])
            if words[end] != opening:  # from here on all is the mirror image of what was
                out[row, end] = np.log(whole / weights[end - begin])
                break
            nested = (1.0 - share) / most * (1.0 / LETTERS) ** (end - begin) if begin < end <= begin + most else 0.0
            out[row, end] = np.log(nested / weights[end - begin])
            begin, depth = end + 1, depth + 1
    return out


@kernel
def _level_weights(words, begin, end, first, centre, most, share, weights):  # type: ignore[no-untyped-def]
    """Set weights[j] to P(a level begins with the first j letters of words[begin:end]), for each j.

    share: P(no other level inside). Returns P(words[begin:end] | no other level inside).
    """
    count, whole, letter = end - begin, 0.0, 1.0 / LETTERS
    for seen in range(count + 1):
        halves = max(most - max(seen, 1) + 1, 0)  # those of at least as many letters, around another level
        weights[seen] = (1.0 - share) * halves / max(most, 1) * letter**seen
    for half in range(most + 1):
        for centred in range(2 if half else 1):
            length = 2 * half + centred
            chance = 1.0 / (most + 1) / (2 if half else 1)
            for seen in range(min(length, count) + 1):
                weights[seen] += share * chance
                if seen == count:
                    whole += chance if length == count else 0.0
                    break
                word = words[begin + seen]
                if seen < half:
                    chance *= letter
                elif seen == half and centred:
                    chance *= centre[word - first]
                elif seen < length and words[begin + length - 1 - seen] != word:
                    break
                if chance == 0.0:
                    break
    return whole


@kernel
def break_mirror(tokens, lengths, loss_start, keys, begin, first, instead):  # type: ignore[no-untyped-def]
    """Swap two letters that differ, from loss_start and from `begin` on; where none do, one becomes another.

    Rows are symmetric about their middle, delimiters and `<bos>` and `<eos>` included. Without a letter the last two
    words change places, or the last one becomes `instead`.
    """
    places = np.empty(tokens.shape[1], np.int64)
    for row in range(tokens.shape[0]):
        words, key, length = tokens[row], keys[row], lengths[row]
        count = 0
        for at in range(max(loss_start[row], begin), length - 1):
            if first <= words[at] < first + LETTERS:
                places[count] = at
                count += 1
        if count:
            _break_letters(words, places, count, key, length, first)
        elif loss_start[row] <= length - 3:
            words[length - 3], words[length - 2] = words[length - 2], words[length - 3]
        else:
            words[length - 2] = instead


@kernel
def _break_letters(words, places, count, key, length, first):  # type: ignore[no-untyped-def]
    many = np.uint64(count)
    chosen, offset = np.int64(draw(key, 0) % many), np.int64(draw(key, 1) % many)
    one = places[chosen]
    for step in range(count):
        other = places[(offset + step) % count]
        if words[other] != words[one]:
            words[one], words[other] = words[other], words[one]
            return
    if 2 * one == length - 1:  # the centre is its own mirror image: take the next
        one = places[chosen + 1]
    shift = 1 + np.int64(draw(key, 2) % np.uint64(LETTERS - 1))
    words[one] = first + (words[one] - first + shift) % LETTERS
