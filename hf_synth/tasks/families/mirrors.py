"""Sentences that read the same both ways, in kernels: how well their words can be predicted, and how to break one.

A level of a sentence is a half of 0 .. most letters, their number uniform, perhaps a centre, and the half mirrored;
or, above the last level, a half of 1 .. most letters around another level. The ids of the four letters are in a row.
"""

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw

LETTERS = 4
_ANY, _OPENS, _CLOSES = range(LETTERS, LETTERS + 3)


def random_letter(rng: RowRandom, first: int) -> np.ndarray:
    """A uniform letter for each row, int32 [rows]; first: the id of the first letter."""
    return rng.integers(first, first + LETTERS, 1)[:, 0]


@kernel(error_model="numpy")
def mirror_probs(tokens, lengths, positions, asked, start, ends, centre, most, max_depth):  # type: ignore[no-untyped-def]
    """P(asked token | all before its position), float64 like `asked`, [rows, positions, any]; 1 for what is certain.

    start: where the outermost level begins; ends: the ids of the first letter, of the word that opens a level inside
    another, and of the word that closes one; centre: float64 [4], the chances of the letters as the centre. Levels
    above `max_depth` have another level inside with probability 1/2.
    """
    first, opening, closing = ends
    out = np.zeros(asked.shape)
    weights = np.empty((tokens.shape[1], LETTERS + 3))
    for row in range(tokens.shape[0]):
        words, begin, depth = tokens[row], start, 0
        while True:
            end = begin
            while end < lengths[row] - 1 and first <= words[end] < first + LETTERS:
                end += 1
            share = 0.5 if depth < max_depth else 1.0
            _level_weights(words, begin, end, first, centre, most, share, weights)
            if words[end] != opening:  # from here on all is the mirror image of what was
                break
            begin, depth = end + 1, depth + 1
        for column in range(asked.shape[1]):
            at = positions[row, column]
            total = weights[at].sum()
            for candidate in range(asked.shape[2]):
                token = asked[row, column, candidate]
                if at < start or at > end:
                    out[row, column, candidate] = token == words[at]
                elif first <= token < first + LETTERS:
                    out[row, column, candidate] = (weights[at, token - first] + weights[at, _ANY] / LETTERS) / total
                elif token == opening:
                    out[row, column, candidate] = weights[at, _OPENS] / total
                elif token == closing:
                    out[row, column, candidate] = weights[at, _CLOSES] / total
    return out


@kernel
def _level_weights(words, begin, end, first, centre, most, share, weights):  # type: ignore[no-untyped-def]
    """Set weights[at], for begin <= at <= end, to P(words[begin:at], what comes next), by what comes next.

    That is one of the four letters, any of them with the same chance, a level inside, or the end of this one.
    share: P(no other level inside).
    """
    count, letter = end - begin, 1.0 / LETTERS
    for seen in range(count + 1):
        weights[begin + seen] = 0.0
        nested = (1.0 - share) / max(most, 1) * letter**seen  # a half of one length, around another level
        weights[begin + seen, _ANY] = nested * max(most - seen, 0)
        weights[begin + seen, _OPENS] = nested if 0 < seen <= most else 0.0
    for half in range(most + 1):
        for centred in range(2 if half else 1):
            length = 2 * half + centred
            chance = share / (most + 1) / (2 if half else 1)
            for seen in range(min(length, count) + 1):
                here = weights[begin + seen]
                word = words[begin + seen] - first  # beyond the letters at the end
                if seen == length:
                    here[_CLOSES] += chance
                    break
                if seen < half:
                    here[_ANY] += chance
                    chance *= letter
                elif seen == half and centred:
                    for number in range(LETTERS):
                        here[number] += chance * centre[number]
                    chance *= centre[word] if seen < count else 0.0
                else:
                    mirrored = words[begin + length - 1 - seen] - first
                    here[mirrored] += chance
                    chance *= word == mirrored
                if chance == 0.0:
                    break


@kernel
def break_mirror(tokens, lengths, loss_start, keys, begin, first, instead):  # type: ignore[no-untyped-def]
    """Swap two letters that differ, from loss_start and from `begin` on; where none do, one becomes another.

    Rows are symmetric about their middle, delimiters and `<bos>` and `<eos>` included. Without a letter the last two
    words change places, or the last one becomes `instead`.
    """
    letters = np.empty(tokens.shape[1], np.int64)
    for row in range(tokens.shape[0]):
        words, key, length = tokens[row], keys[row], lengths[row]
        count = 0
        for at in range(max(loss_start[row], begin), length - 1):
            if first <= words[at] < first + LETTERS:
                letters[count] = at
                count += 1
        if count:
            _break_letters(words, letters, count, key, length, first)
        elif loss_start[row] <= length - 3:
            words[length - 3], words[length - 2] = words[length - 2], words[length - 3]
        else:
            words[length - 2] = instead


@kernel
def _break_letters(words, letters, count, key, length, first):  # type: ignore[no-untyped-def]
    many = np.uint64(count)
    chosen, offset = np.int64(draw(key, 0) % many), np.int64(draw(key, 1) % many)
    one = letters[chosen]
    for step in range(count):
        other = letters[(offset + step) % count]
        if words[other] != words[one]:
            words[one], words[other] = words[other], words[one]
            return
    if 2 * one == length - 1:  # the centre is its own mirror image: take the next
        one = letters[chosen + 1]
    shift = 1 + np.int64(draw(key, 2) % np.uint64(LETTERS - 1))
    words[one] = first + (words[one] - first + shift) % LETTERS
