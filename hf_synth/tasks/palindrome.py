"""Palindrome: the same both ways inside brackets, which may nest."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below, draw
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, TaskConfig, Violation, bounded
from hf_synth.tasks.families.grammars import Grammar, foreign_token, frames, place_of, replaced
from hf_synth.tasks.families.mirrors import LETTERS, break_mirror, mirror_probs, random_letter

_OPEN, _CLOSE, _LETTER = range(FIRST_CONTENT, FIRST_CONTENT + 3)
_CENTRE_CHANCES = np.full(LETTERS, 1 / LETTERS)
_CONTENT = 2  # <bos> [ stand before the content


@dataclasses.dataclass(frozen=True)
class PalindromeConfig(TaskConfig):
    """At most `max_depth` brackets stand inside the outermost, in each other; a half has at most `max_half` words."""

    max_depth: int = bounded(3, 0, 64)
    max_half: int = bounded(3, 1, 256)


class Palindrome(Grammar[PalindromeConfig]):
    """`<bos> [ A [ B C B ] A ] <eos>`: between brackets, words of A B C D and brackets read the same both ways.

    A content is simple or nested, equally likely; inside `max_depth` brackets it is simple. Simple: a half of
    0 .. max_half uniform words, with probability 1/2 a centre where the half is not empty, and the half mirrored.
    Nested: a half of 1 .. max_half words around another bracket. More than these are right: brackets at any place,
    compared as wholes, and as deep as they come. Loss on every token after `<bos>`.

    >>> Palindrome().verify("[ [ A ] B", "[ A ] ]")
    1.0
    """

    name = "palindrome"
    version = 1
    config_class = PalindromeConfig
    presets = {"default": PalindromeConfig()}
    source = "Hyperdata grammar experiment, grammar 3 (github.com/tractatus1889/hyperdata)"

    def vocabulary(self) -> tuple[str, ...]:
        """The brackets and the four words."""
        return ("[", "]", "A", "B", "C", "D")

    def generate(self, rng: RowRandom) -> Rows:
        """The left side level by level, and its mirror image."""
        levels, most = rng.keys(), (self.config.max_depth, self.config.max_half)
        rows = frames(_sizes(levels, *most))
        _fill(rows.tokens, rows.lengths, levels, rng.keys(), *most)
        return rows

    def is_sentence(self, words: list[str]) -> bool:
        """Whether all brackets match and every content reads the same both ways; equal brackets get equal numbers."""
        letters = self.vocabulary()[2:]
        numbers: dict[tuple[str | int, ...], int] = {}
        contents: list[list[str | int]] = [[]]
        for word in words:
            if word == "[":
                contents.append([])
            elif word == "]":
                items = contents.pop()
                if not contents or items != items[::-1]:
                    return False
                contents[-1].append(numbers.setdefault(tuple(items), len(numbers)))
            elif word in letters:
                contents[-1].append(word)
            else:
                return False
        return len(contents) == 1 and len(contents[0]) == 1 and contents[0][0] not in letters

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two words that differ, which always breaks the mirror.

        Where none may move, one becomes another; where none but brackets may change, those do.
        """
        return rows.changed(break_mirror, rng.keys(), _CONTENT, _LETTER, _OPEN)

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Each word's fraction of the kinds, lengths and centres that the words before it allow."""
        rule = (_CONTENT, (_LETTER, _OPEN, _CLOSE), _CENTRE_CHANCES, self.config.max_half, self.config.max_depth)
        return mirror_probs(rows.tokens, rows.lengths, positions, tokens, *rule)

    def statements(self) -> tuple[str, ...]:
        """The brackets, the mirror, what may stand inside, and examples."""
        return (
            "A palindrome sentence opens with [ and closes with the ] that belongs to it.",
            "Between the brackets of a palindrome sentence stand only the words A, B, C and D and further palindrome "
            "sentences.",
            "What stands between two brackets of a palindrome sentence reads the same from either side, each bracket "
            "inside taken as one whole.",
            "In a palindrome sentence every [ is closed by one ], and the bracket that was opened last closes first.",
            "[ ], [ A B A ] and [ A [ B B ] A ] are palindrome sentences; [ A B ] and [ A [ B C ] A ] are not.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """A broken mirror, a bracket without its partner, a foreign word.

        A content of no word has no mirror to break: there `not_palindrome` exchanges the brackets.
        """
        return {
            "not_palindrome": Violation(self.corrupt),
            "unmatched_open": Violation(lambda rows, rng: _without_one(rows, _CLOSE, rng)),
            "unmatched_close": Violation(lambda rows, rng: _without_one(rows, _OPEN, rng)),
            "foreign_token": Violation(foreign_token),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """What completes the shortest mirror against what does not; a bracket that closes too soon.

        Words are never wrong at once, for a longer half may follow. Where halves have at most three words, the best
        predictor finds the valid ones more likely than the invalid ones together.
        """
        most, points = self.config.max_half, []
        if most <= 3:
            points.append(DecisionPoint("after one word", "[ A", ("A",), ("B",)))
            points.append(DecisionPoint("after a mirrored pair", "[ A A", ("]",), ("B",)))
        if most >= 2:
            points.append(DecisionPoint("after two words", "[ A B", ("A", "B"), ("]",)))
        if 2 <= most <= 3:
            points.append(DecisionPoint("past the middle", "[ A B B", ("A",), ("B", "C", "D", "]")))
        if self.config.max_depth:
            points.append(DecisionPoint("after brackets inside", "[ A [ B B ]", ("A",), ("B", "C", "D", "]")))
        return tuple(points)

    def contents(self) -> int:
        """Every simple content, alone and in every sequence of halves around it."""
        return self._counts[-1]

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Simple contents first, by half and centre; then nested ones, by half and what is inside; modulo 2**63."""
        return _rank(rows.tokens, np.array([count % 2**63 for count in self._counts]))

    @property
    def _counts(self) -> list[int]:
        """How many contents there are with room for 0, 1, ... max_depth brackets inside each other."""
        halves = (LETTERS ** (self.config.max_half + 1) - LETTERS) // (LETTERS - 1)
        simple = 1 + halves * (1 + LETTERS)
        counts = [simple]
        for _ in range(self.config.max_depth):
            counts.append(simple + halves * counts[-1])
        return counts


def _without_one(rows: Rows, bracket: int, rng: RowRandom) -> Rows:
    """A random one of the brackets becomes a word."""
    return replaced(rows, (place_of(rows.tokens == bracket, rng), random_letter(rng, _LETTER)))


@kernel(inline="always")
def _level(key, depth, max_depth, max_half):  # type: ignore[no-untyped-def]
    """The words of a level's half, whether another level is inside, and whether a centre is."""
    number = draw(key, depth)
    nested = depth < max_depth and number & np.uint64(1) == 0
    half = 1 + below(number, max_half) if nested else below(number, max_half + 1)
    return half, nested, not nested and half > 0 and number & np.uint64(2) == 0


@kernel
def _sizes(levels, max_depth, max_half):  # type: ignore[no-untyped-def]
    sizes = np.zeros(levels.size, np.int64)
    for row in range(levels.size):
        nested, depth = True, 0
        while nested:
            half, nested, centred = _level(levels[row], depth, max_depth, max_half)
            sizes[row] += 2 + 2 * half + centred
            depth += 1
    return sizes


@kernel
def _fill(tokens, lengths, levels, letters, max_depth, max_half):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        words, last = tokens[row], lengths[row] - 1
        nested, depth, at, drawn = True, 0, 1, 0
        while nested:
            words[at], words[last - at] = _OPEN, _CLOSE
            half, nested, centred = _level(levels[row], depth, max_depth, max_half)
            for position in range(at + 1, at + 1 + half + centred):
                number = draw(letters[row], drawn // 32) >> np.uint64(2 * (drawn % 32))
                words[position] = words[last - position] = _LETTER + np.int64(number & np.uint64(LETTERS - 1))
                drawn += 1
            at += 1 + half
            depth += 1


@kernel
def _rank(tokens, counts):  # type: ignore[no-untyped-def]
    out = np.zeros(tokens.shape[0], np.int64)
    for row in range(tokens.shape[0]):
        words, at, left = tokens[row], _CONTENT, counts.size - 1
        while True:
            size = 0
            while words[at + size] >= _LETTER:
                size += 1
            nested = words[at + size] == _OPEN
            half = size if nested else size // 2
            number, weight, shorter = 0, 1, 0
            for position in range(half):
                shorter += weight
                number += weight * (words[at + position] - _LETTER)
                weight *= LETTERS
            number += shorter - 1  # among the halves that are not empty
            if nested:
                left -= 1
                out[row] += counts[0] + number * counts[left]
                at += size + 1
                continue
            if size:
                centre = 1 + words[at + half] - _LETTER if size % 2 else 0
                out[row] += 1 + number * (1 + LETTERS) + centre
            break
    return out
