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

    def leaf_log_probs(self, leaves: np.ndarray, first: int) -> np.ndarray:
        """Ln P(leaf | all before it) of leaves int [R, 2**depth], float64; leaves before the one at `first` get 0."""
        out = np.zeros(leaves.shape)
        if leaves.shape[1] == 2:
            alone = self._pairs.sum(axis=1)
            out[:, 0] = np.log(alone[leaves[:, 0]])
            out[:, 1] = np.log(self._pairs[leaves[:, 0], leaves[:, 1]] / alone[leaves[:, 0]])
        else:
            self._read_blocks(leaves, out, first)
        out[:, :first] = 0.0
        return np.minimum(out, 0.0)  # a quotient of sums may round to just above 1

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

    def _read_blocks(self, leaves: np.ndarray, out: np.ndarray, first: int) -> None:
        """Read all rows, few at a time: on every level one [R, V, V] is held."""
        levels = leaves.shape[1].bit_length() - 2
        block = max(1, _BLOCK_BYTES // (8 * self.symbols**2 * levels))
        for start in range(0, len(leaves), block):
            part = leaves[start : start + block]
            prior = np.broadcast_to(self.root, (len(part), self.symbols))
            self._read(part, out[start : start + block], prior, first)

    def _read(self, leaves: np.ndarray, out: np.ndarray, prior: np.ndarray | None, first: int) -> np.ndarray:
        """Read the leaves under one node; P(leaves | node's symbol) up to a factor a row, [R, V].

        prior: P(node's symbol | all leaves before), [R, V]; None where no leaf under it is to be predicted.
        """
        half = leaves.shape[1] // 2
        if half == 1:
            return self._read_pair(leaves, out, prior)
        left_prior = prior @ self._left.T if prior is not None and first < half else None
        left = self._read(leaves[:, :half], out[:, :half], left_prior, first)
        # [R, i, k]: P(leaves of the left child, right child k | i)
        beside = (left @ self._by_left.reshape(self.symbols, -1)).reshape(-1, self.symbols, self.symbols)
        right_prior = None
        if prior is not None:
            right_prior = (prior[:, None, :] @ beside)[:, 0, :]
            right_prior /= right_prior.sum(axis=1, keepdims=True)
        right = self._read(leaves[:, half:], out[:, half:], right_prior, max(first - half, 0))
        here = (beside @ right[:, :, None])[:, :, 0]
        return here / here.max(axis=1, keepdims=True)

    def _read_pair(self, leaves: np.ndarray, out: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
        """The same for a node whose children are leaves."""
        both = self._by_left[leaves[:, 0], :, leaves[:, 1]]
        if prior is not None:
            alone = (prior * self._left[leaves[:, 0]]).sum(axis=1)
            out[:, 0] = np.log(alone)
            out[:, 1] = np.log((prior * both).sum(axis=1) / alone)
        return both
