"""Shuffled Dyck: brackets of k types, each type balanced by itself."""

import dataclasses

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import mix, step_of
from hf_synth.tasks.base import FIRST_CONTENT, bounded
from hf_synth.tasks.families.brackets import LONGEST, BracketConfig, BracketTask


@dataclasses.dataclass(frozen=True)
class DyckShuffleConfig(BracketConfig):
    """Types, length and the probability to open; see BracketConfig. At most `max_depth` brackets are open at once.

    `balanced=False` is the paper's walk: it stops after `length` brackets, odd numbers too, and leaves open what is.
    """

    p_open: float = bounded(0.5, 0.0, 1.0)
    max_depth: int = bounded(16, 1, LONGEST)
    balanced: bool = True

    @property
    def deepest(self) -> int:
        """`max_depth`."""
        return self.max_depth

    @property
    def closes(self) -> bool:
        """`balanced`."""
        return self.balanced


class DyckShuffle(BracketTask[DyckShuffleConfig]):
    """`<bos> (0 (3 )0 )3 <eos>`: a bracket opens with p_open, unless one must open or close.

    One must open where none is open, and close where max_depth are, or where the rest must close what is open
    (balanced=True). A type that opens is uniform; a closing bracket closes a type that is open, each as likely.
    `max_depth` is part of the language. The first preset is a short one, to be read and trained on anywhere; the
    paper's is `k64-l2048-truncated`.

    >>> DyckShuffle().verify("(0 (3 )0", "(1 )3 )1")
    1.0
    """

    name = "dyck_shuffle"
    version = 1
    config_class = DyckShuffleConfig
    presets = {
        "k8-l64": DyckShuffleConfig(),
        "k64-l2048": DyckShuffleConfig(k=64, length=2048),
        "k64-l2048-truncated": DyckShuffleConfig(k=64, length=2048, balanced=False),
        "k2-l16": DyckShuffleConfig(k=2, length=16),
        "k4-l32": DyckShuffleConfig(k=4, length=32),
        "k4-l32-truncated": DyckShuffleConfig(k=4, length=32, balanced=False),
        "k4-l16-to-l64": DyckShuffleConfig(k=4, length=16, test_length=64),
    }
    nested = False

    def walk(self, tokens: np.ndarray, keys: np.ndarray) -> None:
        """One draw a bracket."""
        config = self.config
        _walk(tokens, keys, config.k, config.open_threshold, config.max_depth, config.balanced)

    def explanations(self) -> tuple[str, ...]:
        """One block."""
        config = self.config
        end = "at its end none is open" if config.balanced else "at its end some may still be open"
        return (
            f"{self.alphabet()} A bracket closes only if one of its own type is open. Brackets of different types "
            "take no notice of each other: their pairs may cross. No more than "
            f"{config.max_depth} brackets are open at once. A text has {self.count()}, and {end}.",
        )


@kernel
def _walk(tokens, keys, k, threshold, max_depth, balanced):  # type: ignore[no-untyped-def]
    """Without a branch that depends on a draw, and without a signed index: they would take half the time."""
    length = tokens.shape[1] - 2
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    counts = np.empty(k, np.int64)  # how many brackets of each type are open
    kinds = np.empty(k + 1, np.int64)  # the types that are open, `distinct` of them; behind them room for a draw
    for row in range(tokens.shape[0]):
        words, state, step = tokens[row], keys[row], step_of(keys[row])
        counts[:] = 0
        depth = distinct = 0
        for at in range(length):
            state += step
            number = mix(state)
            most = min(max_depth, length - at) if balanced else max_depth
            free = np.int64((number >> half) < np.uint64(threshold)) & np.int64(depth < most)
            opens = np.int64(depth == 0) | free
            closes = 1 - opens
            kinds[np.uint64(distinct)] = np.int64(((number & low) * np.uint64(k)) >> half)
            position = np.int64(((number & low) * np.uint64(distinct)) >> half)
            position += (distinct - position) * opens
            kind = kinds[np.uint64(position)]
            words[at + 1] = FIRST_CONTENT + kind + k * closes
            count = counts[np.uint64(kind)] + opens - closes
            counts[np.uint64(kind)] = count
            gone = closes & np.int64(count == 0)
            last = position + (distinct - 1 - position) * gone  # fills the gap
            kinds[np.uint64(position)] = kinds[np.uint64(last)]
            distinct += (opens & np.int64(count == 1)) - gone
            depth += opens - closes
