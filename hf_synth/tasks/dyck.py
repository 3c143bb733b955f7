"""Dyck: brackets of k types, the one opened last closed first."""

import math

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, mix, step_of
from hf_synth.tasks.base import FIRST_CONTENT, Rows
from hf_synth.tasks.families.brackets import BracketConfig, BracketTask


class Dyck(BracketTask[BracketConfig]):
    """`<bos> (0 (3 )3 )0 <eos>`: opens with probability p_open, unless none is open or all must close.

    A type that opens is uniform; the bracket that was opened last closes. The first preset is a short one, to be read
    and trained on anywhere; the paper's is `k64-l2048`.

    >>> Dyck().verify("(0 (3 )3", "(1 )1 )0")
    1.0
    """

    name = "dyck"
    version = 1
    config_class = BracketConfig
    presets = {
        "k8-l64": BracketConfig(),
        "k64-l2048": BracketConfig(k=64, length=2048),
        "k2-l16": BracketConfig(k=2, length=16),
        "k4-l32": BracketConfig(k=4, length=32),
        "k4-l16-to-l64": BracketConfig(k=4, length=16, test_length=64),
    }
    nested = True

    def walk(self, tokens: np.ndarray, keys: np.ndarray) -> None:
        """One draw a bracket."""
        _walk(tokens, keys, self.config.k, self.config.open_threshold)

    def trees(self, rng: RowRandom) -> list[str]:
        """A line a bracket, indented by how many are open around it."""
        drawn, words, k = [], self.vocabulary(), self.config.k
        for row in self.generate(rng).tokens[:, 1:-1] - FIRST_CONTENT:
            depth = np.cumsum(np.where(row < k, 1, -1)) - (row < k)
            drawn.append("\n".join("  " * level + words[word] for word, level in zip(row, depth, strict=True)))
        return drawn

    def explanations(self) -> tuple[str, ...]:
        """One block."""
        return (
            f"{self.alphabet()} Every bracket that is opened is closed later by one of its own type. The bracket "
            "that was opened last is always closed first, so that pairs of brackets stand inside each other or side "
            f"by side and never cross. A text has {self.count()}, and at its end none is open.",
        )

    def contents(self) -> int | None:
        """Every shape (a Catalan number) with every choice of types, where all rows have one length."""
        config = self.config
        if config.test_length or config.open_threshold in (0, 2**32):  # the walk has one shape
            return None
        pairs = config.length // 2
        return math.comb(2 * pairs, pairs) // (pairs + 1) * config.k**pairs

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Words in the order of their token ids."""
        return _rank(rows.tokens, self.config.length, self.config.k)


@kernel
def _walk(tokens, keys, k, threshold):  # type: ignore[no-untyped-def]
    """Without a branch that depends on a draw: no processor foresees those."""
    length = tokens.shape[1] - 2
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    stack = np.empty(length // 2 + 2, np.int32)  # token ids, from 1 on
    for row in range(tokens.shape[0]):
        words, state, step = tokens[row], keys[row], step_of(keys[row])
        depth = 0
        for at in range(length):
            state += step
            number = mix(state)
            free = np.int64((number >> half) < np.uint64(threshold)) & np.int64(depth < length - at)
            opens = np.int64(depth == 0) | free
            stack[depth + 1] = FIRST_CONTENT + np.int64(((number & low) * np.uint64(k)) >> half)
            words[at + 1] = stack[depth + opens] + k * (1 - opens)
            depth += 2 * opens - 1


@kernel
def _rank(tokens, length, k):  # type: ignore[no-untyped-def]
    ways = np.zeros((length + 1, length + 2), np.int64)  # [brackets left, depth]: how many words end that way
    ways[0, 0] = 1
    for left in range(1, length + 1):
        for depth in range(left + 1):
            ways[left, depth] = k * ways[left - 1, depth + 1] + (ways[left - 1, depth - 1] if depth else 0)
    out = np.zeros(tokens.shape[0], np.int64)
    for row in range(tokens.shape[0]):
        depth = 0
        for at in range(1, length + 1):
            kind = tokens[row, at] - FIRST_CONTENT
            out[row] += min(kind, k) * ways[length - at, depth + 1]
            depth += 1 if kind < k else -1
    return out
