"""Random Language Model: the leaves of trees grown by random rules."""

import dataclasses
import functools
import math

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, Rows, Task, TaskConfig, bounded, choice
from hf_synth.tasks.families import trees
from hf_synth.tasks.families.inside import Inside

_MOST_STRINGS = 1 << 24


@dataclasses.dataclass(frozen=True)
class RlmConfig(TaskConfig):
    """Trees of `depth` levels below a root over `vocab_size` symbols, so rows of 2**depth leaves.

    `beta` sharpens the rules that `rule_seed` draws: 0 makes all pairs of children equally likely. `root_prior` has a
    weight for each symbol; empty, it is uniform. `loss` is on the last leaf, or on all. With `size` above 0 the train
    split has that many rows, again in every pass; the other splits never end.
    Memory grows with vocab_size**3: the rules take 17 MB at 128 and 1.1 GB at 512, and as much again for the floor.
    """

    vocab_size: int = bounded(128, 2, 512)
    depth: int = bounded(1, 1, 16)
    beta: float = bounded(2.0, 0.0, 20.0)
    rule_seed: int = bounded(0, 0, 2**63 - 1)
    root_prior: tuple[float, ...] = ()
    loss: str = choice("last", "all")
    size: int = bounded(0, 0, 2**40)

    def __post_init__(self) -> None:
        super().__post_init__()
        prior = self.root_prior
        if prior and len(prior) != self.vocab_size:
            raise self.illegal("root_prior", f"as many weights as vocab_size={self.vocab_size}, or none")
        if prior and not (all(math.isfinite(weight) and weight >= 0 for weight in prior) and any(prior)):
            raise self.illegal("root_prior", "finite weights of at least 0, not all of them 0")


class Rlm(Task[RlmConfig]):
    """`<bos> t1 ... tn`, n = 2**depth, without `<eos>`; loss on the last token, or on t1 ... tn.

    The root's symbol comes from the prior. A node of symbol i gets children j, k with probability M[i, j, k], the
    softmax over all pairs of beta * sqrt(ln vocab_size) * g with g standard normal; the tokens are the leaves.
    Probabilities are multiples of 2**-32 over the number of pairs, so that all platforms make the same rows, and the
    floor is that of these probabilities. No string is wrong, so there is nothing to verify.

    >>> task = Rlm(RlmConfig(vocab_size=6, depth=2))
    >>> bool(task.conditional_entropy() <= task.marginal_entropy() <= np.log(6))
    True
    """

    name = "rlm"
    version = 2
    config_class = RlmConfig
    presets = {
        "v128-l1-b2": RlmConfig(),
        "v128-l6-b2": RlmConfig(depth=6),
        "v128-l10-b2": RlmConfig(depth=10),
        **{f"v32-l1-b{beta}": RlmConfig(vocab_size=32, beta=beta) for beta in (0.8, 1.2, 1.8, 2.4)},
        **{f"v6-l2-b{beta}": RlmConfig(vocab_size=6, depth=2, beta=beta) for beta in (1, 2, 3)},
        "v32-l4-b2-all": RlmConfig(vocab_size=32, depth=4, loss="all"),
    }
    source = "De Giuli, Random Language Model, PRL 122, 128301, and its scaling limit, arXiv 2606.28105"
    verifiable = False

    def vocabulary(self) -> tuple[str, ...]:
        """The symbols as numbers in decimal."""
        return tuple(map(str, range(self.config.vocab_size)))

    def generate(self, rng: RowRandom) -> Rows:
        """Each row's root, then the children of every node, level by level."""
        leaves = self._leaves
        tokens = trees.leaf_tokens(rng.keys(), *self._tables, leaves)
        lengths = np.full(rng.rows, 1 + leaves, np.int32)
        start = np.full(rng.rows, leaves if self.config.loss == "last" else 1, np.int32)
        return Rows(tokens, lengths, start, lengths.copy())

    def verify(self, prompt: str, completion: str) -> float:
        """0.0: no string is wrong, and so none is right."""
        return 0.0

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """A ValueError: no string is wrong."""
        raise ValueError("task rlm: got rows to corrupt, but no text of this task is wrong; wanted a verifiable task")

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Exact sums over all trees, by one pass over the leaves; see Inside."""
        leaves, symbols = rows.tokens[:, 1 : 1 + self._leaves] - FIRST_CONTENT, tokens - FIRST_CONTENT
        return np.where(symbols >= 0, self._inside.next_leaves(leaves, positions - 1, np.maximum(symbols, 0)), 0.0)

    def size(self, split: str) -> int | None:
        """The config's `size` for the train split, where it is above 0; None otherwise."""
        return self.config.size or None if split == "train" else None

    def trees(self, rng: RowRandom) -> list[str]:
        """Each row's tree from the root down, its leaves in the last line."""
        nodes = trees.tree_nodes(rng.keys(), *self._tables, self._leaves)
        return [trees.drawn(symbols) for symbols in nodes[:, 1:].tolist()]

    def conditional_entropy(self) -> float:
        """Entropy of the last leaf given all others, in nats: the floor of `loss="last"`.

        By enumeration of all strings. ValueError where there are more than 2**24.
        """
        if self.config.vocab_size**self._leaves > _MOST_STRINGS:
            raise ValueError(
                f"task rlm: got {self.config.vocab_size}**{self._leaves} strings, wanted at most {_MOST_STRINGS} to "
                "enumerate; take the mean of -optimal_log_probs over rows instead"
            )
        strings = self._inside.strings(self.config.depth)
        return _entropy(strings) - _entropy(strings.reshape(-1, self.config.vocab_size).sum(axis=1))

    def marginal_entropy(self) -> float:
        """Entropy of the last leaf alone, in nats."""
        return _entropy(self._inside.last_leaf(self.config.depth))

    @functools.cached_property
    def rules(self) -> np.ndarray:
        """P(children j, k | parent i) as they are drawn from, float64 [i, j, k]."""
        size = self.config.vocab_size
        by_left = np.empty((size, size, size))  # Inside reads them in this order
        for parent in range(size):
            by_left[:, parent] = self._rule_weights(parent) * 2.0 ** -(32 + 2 * trees.column_bits(size))
        return by_left.transpose(1, 0, 2)

    @property
    def _leaves(self) -> int:
        return 1 << self.config.depth

    def _rule_weights(self, parent: int) -> np.ndarray:
        return trees.rule_weights(self.config.vocab_size, self.config.beta, self.config.rule_seed, parent)

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.uint64]:
        """The alias tables of the root and of every parent's pairs, and the bits of a symbol in them."""
        bits = trees.column_bits(self.config.vocab_size)
        rules = np.empty((self.config.vocab_size, 1 << (2 * bits)), np.uint64)
        for parent, table in enumerate(rules):
            table[:] = trees.alias_table(self._rule_weights(parent))
        root = trees.root_weights(self.config.vocab_size, self.config.root_prior)
        return trees.alias_table(root), rules, np.uint64(bits)

    @functools.cached_property
    def _inside(self) -> Inside:
        root = trees.root_weights(self.config.vocab_size, self.config.root_prior)
        return Inside(self.rules, root * 2.0 ** -(32 + trees.column_bits(self.config.vocab_size)))


def _entropy(probabilities: np.ndarray) -> float:
    """In nats; what is impossible adds nothing."""
    possible = probabilities[probabilities > 0]
    return float(-(possible * np.log(possible)).sum())
