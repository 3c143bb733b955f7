"""What the leaves of a random tree say about each other: exact sums over all trees of one shape."""

import functools

import numpy as np

_BLOCK_BYTES = 1 << 26


class Inside:
    """The exact predictor of leaves from those before them, for trees of binary rules.

    rules: float64 [V, V, V], P(children j, k | parent i). root: float64 [V], P(root). V below stands for symbols, R
    for rows. The sums are those of the inside-outside algorithm (Lari and Young, 1990), with the shape given: one
    pass from left to right, which costs V**3 a row for each node that has grandchildren.
    """

    def __init__(self, rules: np.ndarray, root: np.ndarray) -> None:
        """`rules` is kept by left child, [j, i, k]; one that already lies so in memory is not copied."""
        self.root = root
        self.symbols = len(root)
        self._by_left = np.ascontiguousarray(rules.transpose(1, 0, 2))
        self._left = self._by_left.sum(axis=2)  # [j, i]: P(left child j | parent i)

    def next_leaves(self, leaves: np.ndarray, positions: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """P(symbol | all leaves before its position), float64 like `symbols`, int [R, positions, any].

        leaves: int [R, 2**depth]; positions: int [R, positions], of leaves.
        """
        if leaves.shape[1] == 2:
            alone, before = self._pairs.sum(axis=1), leaves[:, :1, None]
            second = self._pairs[before, symbols] / alone[before]
            return np.where(positions[:, :, None] == 0, alone[symbols], second)
        wanted, slot_of = np.unique(positions, return_inverse=True)
        slots = np.full(leaves.shape[1], -1)  # where a leaf's distribution goes
        slots[wanted] = np.arange(wanted.size)
        out, slot_of = np.empty(symbols.shape), slot_of.reshape(positions.shape)
        levels = leaves.shape[1].bit_length() - 2  # on each of them one [R, V, V] is held
        block = max(1, _BLOCK_BYTES // (8 * self.symbols * (self.symbols * levels + wanted.size)))
        for start in range(0, len(leaves), block):
            part = slice(start, start + block)
            count = len(leaves[part])
            probs = np.empty((count, wanted.size, self.symbols))
            self._read(leaves[part], slots, probs, np.broadcast_to(self.root, (count, self.symbols)))
            out[part] = probs[np.arange(count)[:, None, None], slot_of[part, :, None], symbols[part]]
        return out

    def strings(self, depth: int) -> np.ndarray:
        """P(leaves) of every string of 2**depth leaves, float64 [V ** 2**depth], in lexicographic order."""
        below = np.eye(self.symbols)  # [i, strings under i]
        rules = self._by_left.transpose(1, 0, 2)
        for _ in range(depth - 1):
            below = (below.T @ rules @ below).reshape(self.symbols, -1)
        return (below.T @ self._pairs @ below).ravel()

    def last_leaf(self, depth: int) -> np.ndarray:
        """P(last leaf), float64 [V]."""
        right = self._by_left.sum(axis=0)  # [i, k]
        return self.root @ np.linalg.matrix_power(right, depth)

    @functools.cached_property
    def _pairs(self) -> np.ndarray:
        """P(children j, k of the root), [j, k]."""
        return np.einsum("jik,i->jk", self._by_left, self.root)

    def _read(self, leaves: np.ndarray, slots: np.ndarray, out: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
        """Read the leaves under one node; P(leaves | node's symbol) up to a factor a row, [R, V].

        The distribution of each leaf whose slot is not -1 goes to out[:, slot], [R, V].
        prior: P(node's symbol | all leaves before), [R, V]; None where no leaf under it is to be predicted.
        """
        half = leaves.shape[1] // 2
        if half == 1:  # the children are leaves
            if prior is not None and slots[0] >= 0:
                out[:, slots[0]] = _normalised(prior @ self._left.T)
            if prior is not None and slots[1] >= 0:
                out[:, slots[1]] = _normalised((prior[:, None, :] @ self._by_left[leaves[:, 0]])[:, 0, :])
            return self._by_left[leaves[:, 0], :, leaves[:, 1]]
        left_prior = prior @ self._left.T if prior is not None and slots[:half].max() >= 0 else None
        left = self._read(leaves[:, :half], slots[:half], out, left_prior)
        # [R, i, k]: P(leaves of the left child, right child k | i)
        beside = (left @ self._by_left.reshape(self.symbols, -1)).reshape(-1, self.symbols, self.symbols)
        right_prior = None
        if prior is not None and slots[half:].max() >= 0:
            right_prior = _normalised((prior[:, None, :] @ beside)[:, 0, :])
        right = self._read(leaves[:, half:], slots[half:], out, right_prior)
        here = (beside @ right[:, :, None])[:, :, 0]
        return here / here.max(axis=1, keepdims=True)


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)
