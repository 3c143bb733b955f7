"""Color-shape: pairs of a color and a shape that goes with it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw
from hf_synth.tasks.base import EOS, FIRST_CONTENT, DecisionPoint, Rows, TaskConfig, Violation, bounded
from hf_synth.tasks.families.grammars import (
    Grammar,
    end_chance,
    framed,
    random_below,
    replaced,
    sequence_rank,
    swapped,
)

_SHAPES = {"RED": ("CIRCLE", "SQUARE"), "BLUE": ("TRIANGLE", "DIAMOND")}
_COLOR, _SHAPE = FIRST_CONTENT, FIRST_CONTENT + len(_SHAPES)
_KINDS = 4  # of pairs: kind k has shape k and color k // 2


@dataclasses.dataclass(frozen=True)
class ColorShapeConfig(TaskConfig):
    """A sentence has 1 .. max_pairs pairs, their number uniform; more are wrong."""

    max_pairs: int = bounded(4, 1, 10_000)


class ColorShape(Grammar[ColorShapeConfig]):
    """`<bos> RED SQUARE BLUE DIAMOND <eos>`: RED with CIRCLE or SQUARE, BLUE with TRIANGLE or DIAMOND.

    Colors and shapes are uniform; loss on every token after `<bos>`.

    >>> ColorShape().verify("RED SQUARE BLUE", "DIAMOND")
    1.0
    """

    name = "color_shape"
    version = 1
    config_class = ColorShapeConfig
    presets = {"default": ColorShapeConfig()}
    source = "Hyperdata grammar experiment, grammar 2 (github.com/tractatus1889/hyperdata)"

    def vocabulary(self) -> tuple[str, ...]:
        """The two colors, then the shapes of the first and of the second."""
        return (*_SHAPES, *(shape for shapes in _SHAPES.values() for shape in shapes))

    def generate(self, rng: RowRandom) -> Rows:
        """A number of pairs, then their kinds."""
        pairs = rng.integers(1, self.config.max_pairs + 1, 1)[:, 0]
        return framed(_pairs(rng, self.config.max_pairs), 2 * pairs)

    def verify(self, prompt: str, completion: str) -> float:
        """Whether both together are a sentence. Some of its beginnings are, too: an empty completion is wrong."""
        return super().verify(prompt, completion) if completion.split() else 0.0

    def is_sentence(self, words: list[str]) -> bool:
        """Pairs alone, one to `max_pairs` of them."""
        pairs = zip(words[::2], words[1::2], strict=False)
        right = all(shape in _SHAPES.get(color, ()) for color, shape in pairs)
        return right and len(words) % 2 == 0 and 0 < len(words) <= 2 * self.config.max_pairs

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two shapes of different colors; where there are none, a color and its shape; else change the shape."""
        return rows.changed(_spoil, rng.keys())

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """After n pairs the end has probability 1 / (max_pairs - n + 1); colors and shapes are uniform."""
        word = positions[:, :, None] - 1
        end = end_chance(word // 2, self.config.max_pairs)
        color = np.where(tokens == EOS, end, (1.0 - end) / 2 * ((tokens >= _COLOR) & (tokens < _SHAPE)))
        before = np.take_along_axis(rows.tokens, positions - 1, axis=1)[:, :, None] - _COLOR
        return np.where(word % 2 == 0, color, 0.5 * ((tokens - _SHAPE) // 2 == before))

    def statements(self) -> tuple[str, ...]:
        """The pairs, what goes with each color, and how many pairs there may be."""
        most = self.config.max_pairs
        return (
            "A color-shape sentence is made of pairs, each of them a color and then a shape.",
            *(
                f"In a color-shape sentence the color {color} is always followed by {one} or {other}."
                for color, (one, other) in _SHAPES.items()
            ),
            f"A color-shape sentence has at least one pair and at most {most}.",
            "RED CIRCLE is a color-shape sentence; RED TRIANGLE and CIRCLE RED are not.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """A shape of the other color, a word left out, too many pairs, a shape before its color."""
        return {
            "wrong_pairing": Violation(_wrong_pairing),
            "odd_length": Violation(_odd_length, keeps_length=False),
            "too_many_pairs": Violation(self._too_many_pairs, keeps_length=False),
            "swapped_order": Violation(_swapped_order),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """After a color only its shapes; after a pair, where another may follow, only a color."""
        red, blue, *shapes = self.vocabulary()
        points = [
            DecisionPoint("after red", red, (*shapes[:2],), (*shapes[2:], red, blue)),
            DecisionPoint("after blue", blue, (*shapes[2:],), (*shapes[:2], red, blue)),
        ]
        if self.config.max_pairs > 1:
            points.append(DecisionPoint("after a pair", f"{red} {shapes[0]}", (red, blue), (*shapes,)))
        return tuple(points)

    def contents(self) -> int:
        """Every sequence of kinds of pairs, of each length."""
        return (_KINDS ** (self.config.max_pairs + 1) - _KINDS) // (_KINDS - 1)

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Sentences by their number of pairs, then by the kinds of these as a number in base 4."""
        return sequence_rank(rows.tokens[:, 2::2] - _SHAPE, rows.lengths // 2 - 1, _KINDS)

    def _too_many_pairs(self, rows: Rows, rng: RowRandom) -> Rows:
        """As many pairs as are allowed before those of the row."""
        more = _pairs(rng, self.config.max_pairs)
        return framed(np.concatenate([more, rows.tokens[:, 1:-1]], axis=1), more.shape[1] + rows.lengths - 2)


def _pairs(rng: RowRandom, count: int) -> np.ndarray:
    """Ids int32 [rows, 2 * count] of uniform pairs."""
    kinds = rng.integers(0, _KINDS, count)
    words = np.empty((rng.rows, 2 * count), np.int32)
    words[:, ::2], words[:, 1::2] = _COLOR + (kinds >> 1), _SHAPE + kinds
    return words


def _random_color(rows: Rows, rng: RowRandom) -> np.ndarray:
    return 1 + 2 * random_below(rows.lengths // 2 - 1, rng)


def _wrong_pairing(rows: Rows, rng: RowRandom) -> Rows:
    """A shape becomes one of the other color's."""
    at = 1 + _random_color(rows, rng)
    kind = rows.tokens[np.arange(len(rows)), at] - _SHAPE
    return replaced(rows, (at, _SHAPE + (kind ^ rng.integers(2, _KINDS, 1)[:, 0])))


def _odd_length(rows: Rows, rng: RowRandom) -> Rows:
    out = random_below(rows.lengths - 2, rng)
    at = np.arange(rows.tokens.shape[1] - 3)
    return framed(np.take_along_axis(rows.tokens, 1 + at + (at >= out[:, None]), axis=1), rows.lengths - 3)


def _swapped_order(rows: Rows, rng: RowRandom) -> Rows:
    """The shape of one pair before its color."""
    color = _random_color(rows, rng)
    return swapped(rows, color, color + 1)


@kernel
def _spoil(tokens, lengths, loss_start, keys):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        words, start, key, pairs = tokens[row], loss_start[row], keys[row], lengths[row] // 2 - 1
        first, whole = (start - 1) // 2, start // 2  # the first pairs whose shape, and whose color too, may change
        count = pairs - first
        one = 2 + 2 * (first + np.int64(draw(key, 0) % np.uint64(count)))
        offset = np.int64(draw(key, 1) % np.uint64(count))
        other = one
        for step in range(count):
            candidate = 2 + 2 * (first + (offset + step) % count)
            if (words[candidate] - _SHAPE) // 2 != (words[one] - _SHAPE) // 2:
                other = candidate
                break
        if other == one and whole < pairs:
            other = 2 + 2 * (whole + np.int64(draw(key, 0) % np.uint64(pairs - whole)))
            one = other - 1
        if other == one:
            words[one] = _SHAPE + ((words[one] - _SHAPE) ^ (2 + np.int64(draw(key, 2) % np.uint64(2))))
        else:
            words[one], words[other] = words[other], words[one]
