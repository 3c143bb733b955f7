"""Elementary cellular automaton: the states of a ring of cells."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, hash_rows
from hf_synth.tasks.base import BOS, EOS, FIRST_CONTENT, PAD, DecisionPoint, Rows, Task, Violation, bounded
from hf_synth.tasks.families.determined import SizedConfig, corrupt_rows
from hf_synth.tasks.families.grammars import replaced

_ZERO, _ONE = FIRST_CONTENT, FIRST_CONTENT + 1


@dataclasses.dataclass(frozen=True)
class EcaConfig(SizedConfig):
    """`rule` by Wolfram's number, on a ring of `width` cells, `steps` states after the first one.

    With `test_steps` above 0 the test split's rows have that many steps instead. A ring of fewer than three cells has
    no two different neighbours.
    """

    rule: int = bounded(110, 0, 255)
    width: int = bounded(16, 3, 1024)
    steps: int = bounded(15, 1, 1024)
    test_steps: int = bounded(0, 0, 1024)

    size_field: ClassVar[str] = "steps"


class Eca(Task[EcaConfig]):
    """`<bos> w1 ... wn <eos>`: width uniform cells, then each next state; loss on every cell and `<eos>`.

    >>> Eca(EcaConfig(rule=90, width=4, steps=1)).verify("0 1 0 0", "1 0 1 0")
    1.0
    """

    name = "eca"
    version = 1
    config_class = EcaConfig
    presets = {
        "110-w16-s15": EcaConfig(),
        "30-w16-s15": EcaConfig(rule=30),
        "54-w16-s15": EcaConfig(rule=54),
        "90-w16-s15": EcaConfig(rule=90),
        "110-w32-s31": EcaConfig(width=32, steps=31),
        "110-w16-s7-to-s31": EcaConfig(steps=7, test_steps=31),
    }
    source = "Procedural pretraining, arXiv 2601.21725"

    def vocabulary(self) -> tuple[str, ...]:
        """The two states of a cell."""
        return ("0", "1")

    def generate(self, rng: RowRandom) -> Rows:
        """A uniform first state, and what the rule makes of it."""
        _, steps = self.config.sizes(rng.split)
        return self._run(rng.integers(_ZERO, _ONE + 1, self.config.width), steps)

    def verify(self, prompt: str, completion: str) -> float:
        """Whether both together are the states that follow from the first one, `steps` or `test_steps` of them."""
        words, config = f"{prompt} {completion}".split(), self.config
        states, rest = divmod(len(words), config.width)
        if rest or states < 2 or states - 1 not in (config.steps, config.test_steps) or set(words) - {"0", "1"}:
            return 0.0
        states_read = np.array([_ZERO if word == "0" else _ONE for word in words], np.int32)[None]
        right = self._run(states_read[:, : config.width], states - 1)
        return float(np.array_equal(right.tokens[:, 1:-1], states_read))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two neighbours that differ, none of the first state; where there are none, one cell becomes another.

        The first state that is touched follows from the one before it no more.
        """
        wrong = rows.copy()
        first = np.maximum(rows.loss_start, 1 + self.config.width).astype(np.int32)
        corrupt_rows(wrong.tokens, wrong.lengths, first, rng.keys(), _ZERO, _ONE + 1)
        return wrong

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """1/2 for either cell of the first state; what follows from it is certain."""
        drawn = positions[:, :, None] <= self.config.width
        return np.where(drawn, 0.5 * (tokens >= _ZERO), rows.have(positions, tokens))

    def explanations(self) -> tuple[str, ...]:
        """One block: the rule as a table in words."""
        config = self.config
        tested = f", {config.test_steps} in tests" if config.test_steps else ""
        table = ", ".join(f"{' '.join(around)} give {result}" for around, result in self._table.items())
        return (
            f"A text is a list of states of {config.width} cells, each cell 0 or 1, and nothing marks where a state "
            "ends. The cells of the first state may be anything. Each cell of a later state follows from three cells "
            f"of the state before: its left neighbour, itself and its right neighbour. Of these three {table}. "
            "The cells stand in a ring: the left neighbour of the first cell is the last one, and the right neighbour "
            f"of the last cell is the first one. After the first state come {config.steps} more{tested}.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """Cells that do not follow, states by the opposite rule, a cell missing."""
        return {
            "wrong_cells": Violation(self.corrupt),
            "opposite_rule": Violation(self._by_the_opposite_rule),
            "missing_cell": Violation(_without_the_last, keeps_length=False),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """The second state's first cell, for each of the eight triples that it may follow from."""
        points = []
        for around, result in self._table.items():
            state = [*around[1:], *"0" * (self.config.width - 3), around[0]]
            points.append(DecisionPoint(f"after {around}", " ".join(state), (result,), ("10"[int(result)],)))
        return tuple(points)

    def contents(self) -> int:
        """The number of first states, which determine all others."""
        return 2**self.config.width

    def content_hash(self, rows: Rows) -> np.ndarray:
        """Of the first state."""
        state = rows.tokens[:, : 1 + self.config.width]
        return hash_rows(state, np.full(len(rows), state.shape[1], np.int32))

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The first state as a binary number."""
        cells = rows.tokens[:, 1 : 1 + self.config.width].astype(np.int64) - _ZERO
        return cells @ (np.int64(2) ** np.arange(self.config.width))

    def _run(self, first: np.ndarray, steps: int) -> Rows:
        """Rows from their first states, ids int32 [rows, width]."""
        rows, width = first.shape
        tokens = np.empty((rows, (steps + 1) * width + 2), np.int32)
        tokens[:, 0], tokens[:, 1 : width + 1], tokens[:, -1] = BOS, first, EOS
        _evolve(tokens, width, self.config.rule)
        lengths = np.full(rows, tokens.shape[1], np.int32)
        return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())

    def _by_the_opposite_rule(self, rows: Rows, rng: RowRandom) -> Rows:
        """All states after the first, by the rule that gives 1 where this one gives 0."""
        wrong = rows.copy()
        _evolve(wrong.tokens, self.config.width, 255 - self.config.rule)
        return wrong

    @functools.cached_property
    def _table(self) -> dict[str, str]:
        """Left, middle and right cell, from 111 to 000 as Wolfram lists them, to the middle one's next state."""
        return {f"{around:03b}": str(self.config.rule >> around & 1) for around in range(7, -1, -1)}


def _without_the_last(rows: Rows, rng: RowRandom) -> Rows:
    wrong = replaced(rows, (rows.lengths - 2, EOS), (rows.lengths - 1, PAD))
    wrong.lengths, wrong.loss_stop = rows.lengths - 1, rows.loss_stop - 1
    return wrong


@kernel
def _evolve(tokens, width, rule):  # type: ignore[no-untyped-def]
    """Fill in all states but the first, between the first and the last column of tokens."""
    for row in range(tokens.shape[0]):
        words = tokens[row]
        for start in range(1 + width, tokens.shape[1] - 1, width):
            before = start - width
            around = 2 * (words[start - 1] - _ZERO) + words[before] - _ZERO  # the two cells left of the next one
            for cell in range(width - 1):
                around = (2 * around + words[before + cell + 1] - _ZERO) & 7
                words[start + cell] = _ZERO + (rule >> around & 1)
            around = (2 * around + words[before] - _ZERO) & 7
            words[start + width - 1] = _ZERO + (rule >> around & 1)
