"""Random binary rewriting rules, as integers that are the same on every platform, and the trees that they derive.

Everything here is made by additions, multiplications, divisions and square roots, which IEEE 754 rounds one way;
`exp`, `log` and `cos` of a platform's library are not.
"""

import math

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw
from hf_synth.tasks.base import BOS, FIRST_CONTENT

_LN2 = 0.6931471805599453
_GRAIN = 2.0**44  # of the greatest weight: sums of 2**18 of them fit an int64
_HALF = np.uint64(32)
_MASK = np.uint64(0xFFFFFFFF)
_LEAF_WIDTH = 4  # three digits and a space


def column_bits(vocab_size: int) -> int:
    """Bits of a symbol: tables have 2**bits columns a symbol, so that bits of a random number choose one exactly."""
    return (vocab_size - 1).bit_length()


def root_weights(vocab_size: int, prior: tuple[float, ...]) -> np.ndarray:
    """P(root) * 2**(32 + bits) as integers, int64 [V]; an empty prior is uniform."""
    scores = np.array(prior or (1.0,) * vocab_size)
    return _integers(scores / scores.max(), 1 << (32 + column_bits(vocab_size)))


def rule_weights(vocab_size: int, beta: float, rule_seed: int, parent: int) -> np.ndarray:
    """P(children j, k | parent) * 2**(32 + 2 * bits) as integers, int64 [V, V].

    A softmax over all pairs of beta * sqrt(ln V) * g, g standard normal. Pairs rarer than 2**-44 of the commonest
    get 0.
    """
    rng = RowRandom(seed=rule_seed, split="", purpose="rules", index=np.array([parent]))
    normal = _normals(rng.random(2 * ((vocab_size**2 + 1) // 2))[0])[: vocab_size**2]
    score = beta * np.sqrt(_log(np.array(float(vocab_size)))) * normal
    weights = _integers(_exp(score - score.max()), 1 << (32 + 2 * column_bits(vocab_size)))
    return weights.reshape(vocab_size, vocab_size)


def alias_table(weights: np.ndarray) -> np.ndarray:
    """A table, uint64 [columns], for one draw of an index of `weights`, int64 [V] or [V, V], by Walker's method.

    The column is (j, k) written in bits. An entry is a threshold on 2**32 and, in its low half, the other column.
    """
    size = 1 << column_bits(weights.shape[0])
    padded = np.zeros((size,) * weights.ndim, np.int64)
    padded[tuple(slice(length) for length in weights.shape)] = weights
    return _alias(padded.ravel())


def _integers(scores: np.ndarray, total: int) -> np.ndarray:
    """Integers in proportion to scores on [0, 1], one of which is 1, that sum to `total`."""
    counts = np.floor(scores * _GRAIN).astype(np.int64)
    weights = np.floor(counts * (total / int(counts.sum()))).astype(np.int64)
    weights[np.flatnonzero(counts)[: total - int(weights.sum())]] += 1  # a score of 0 stays impossible
    return weights


def _normals(uniform: np.ndarray) -> np.ndarray:
    """As many independent standard normals as uniforms on [0, 1), an even number, by Box and Muller.

    The angle is taken on half a circle, and one bit says on which half.
    """
    first, second = np.split(uniform, 2)
    radius = np.sqrt(np.maximum(-2.0 * _log(1.0 - first), 0.0))
    upper = second >= 0.5
    angle = math.pi * (2.0 * second - upper - 0.5)
    square = angle * angle
    cosine = _series(square, [(-1) ** k / math.factorial(2 * k) for k in range(13)])
    sine = angle * _series(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(13)])
    return np.concatenate([radius * np.where(upper, cosine, -cosine), radius * sine])


def _log(x: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(x)
    z = (mantissa - math.sqrt(0.5)) / (mantissa + math.sqrt(0.5))
    return (exponent - 0.5) * _LN2 + 2.0 * z * _series(z * z, [1.0 / (2 * k + 1) for k in range(12)])


def _exp(x: np.ndarray) -> np.ndarray:
    """The exponential of numbers that are at most 0; below -64 it stays what it is there."""
    x = np.maximum(x, -64.0)
    power = np.rint(x / _LN2)
    rest = x - power * _LN2
    return np.ldexp(_series(rest, [1.0 / math.factorial(k) for k in range(15)]), power.astype(np.int32))


def _series(x: np.ndarray, coefficients: list[float]) -> np.ndarray:
    """The sum of coefficients[k] * x**k."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


@kernel
def _alias(weights):  # type: ignore[no-untyped-def]
    """Each column holds 2**32, the mean weight: those that have less are filled up from one that has more."""
    full = np.int64(1 << 32)
    table = np.empty(weights.size, np.uint64)
    small, large = np.empty(weights.size, np.int64), np.empty(weights.size, np.int64)
    smalls = larges = 0
    for column in range(weights.size):
        if weights[column] < full:
            small[smalls] = column
            smalls += 1
        else:
            large[larges] = column
            larges += 1
    while smalls:
        smalls -= 1
        column, other = small[smalls], large[larges - 1]
        table[column] = (np.uint64(weights[column]) << _HALF) | np.uint64(other)
        weights[other] -= full - weights[column]
        if weights[other] < full:
            larges -= 1
            small[smalls] = other
            smalls += 1
    for position in range(larges):
        table[large[position]] = np.uint64(large[position])
    return table


@kernel(inline="always")
def _pick(table, bits, number):  # type: ignore[no-untyped-def]
    """The column that a 64-bit number draws from an alias table of 2**bits columns: its high bits, and its low 32."""
    column = number >> (np.uint64(64) - bits)
    entry = table[column]
    return column if number & _MASK < entry >> _HALF else entry & _MASK


@kernel(inline="always")
def _derive(nodes, key, root, rules, bits):  # type: ignore[no-untyped-def]
    """Fill nodes[1:] level by level: the children of nodes[h] are nodes[2 * h] and nodes[2 * h + 1]."""
    low = (np.uint64(1) << bits) - np.uint64(1)
    nodes[1] = _pick(root, bits, draw(key, 0))
    for node in range(1, nodes.size // 2):
        pair = _pick(rules[nodes[node]], np.uint64(2) * bits, draw(key, node))
        nodes[2 * node] = pair >> bits
        nodes[2 * node + 1] = pair & low


@kernel
def tree_nodes(keys, root, rules, bits, leaves):  # type: ignore[no-untyped-def]
    """All symbols of each row's tree, int32 [rows, 2 * leaves]: the root at 1, the children of h at 2h and 2h + 1."""
    nodes = np.zeros((keys.size, 2 * leaves), np.int32)
    for row in range(keys.size):
        _derive(nodes[row], keys[row], root, rules, bits)
    return nodes


@kernel
def leaf_tokens(keys, root, rules, bits, leaves):  # type: ignore[no-untyped-def]
    """`<bos>` and the ids of the leaves of each row's tree, int32 [rows, 1 + leaves]."""
    tokens = np.empty((keys.size, 1 + leaves), np.int32)
    nodes = np.empty(2 * leaves, np.int32)
    for row in range(keys.size):
        _derive(nodes, keys[row], root, rules, bits)
        tokens[row, 0] = BOS
        for leaf in range(leaves):
            tokens[row, 1 + leaf] = FIRST_CONTENT + nodes[leaves + leaf]
    return tokens


def drawn(nodes: list[int]) -> str:
    """A full binary tree as text, from its symbols level by level: the root in the first line, the leaves in the last.

    >>> print(drawn([3, 1, 4, 0, 2, 5, 1]))
           3
       ┌───┴───┐
       1       4
     ┌─┴─┐   ┌─┴─┐
     0   2   5   1
    """
    centres = [_LEAF_WIDTH * leaf + 1 for leaf in range((len(nodes) + 1) // 2)]
    lines = [_placed(centres, [str(symbol) for symbol in nodes[len(centres) - 1 :]])]
    while len(centres) > 1:
        halves = [(right - left) // 2 for left, right in zip(centres[::2], centres[1::2], strict=True)]
        centres = [left + half for left, half in zip(centres[::2], halves, strict=True)]
        lines.append(_placed(centres, [f"┌{'─' * (half - 1)}┴{'─' * (half - 1)}┐" for half in halves]))
        level = nodes[len(centres) - 1 : 2 * len(centres) - 1]
        lines.append(_placed(centres, [str(symbol) for symbol in level]))
    return "\n".join(reversed(lines))


def _placed(centres: list[int], texts: list[str]) -> str:
    line = ""
    for centre, text in zip(centres, texts, strict=True):
        line = line.ljust(centre - len(text) // 2) + text
    return line
