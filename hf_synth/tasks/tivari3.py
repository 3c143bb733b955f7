"""Tivari3: palindromes between FEP and GOR, in invented words."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, TaskConfig, Violation, bounded
from hf_synth.tasks.families.grammars import Grammar, foreign_token, frames, replaced, sequence_rank
from hf_synth.tasks.families.mirrors import LETTERS, break_mirror, mirror_probs, random_letter

_OPEN, _CLOSE, _FIRST, _LAST, _NUL, _TAS, _WEJ, _KOB = range(FIRST_CONTENT, FIRST_CONTENT + 8)
_CENTRE_CHANCES = np.array((0.5, 0.0, 0.0, 0.5))
_CONTENT = 3  # <bos> <tivari3> FEP stand before the content


@dataclasses.dataclass(frozen=True)
class Tivari3Config(TaskConfig):
    """Half of the content has 0 .. max_half words, their number uniform."""

    max_half: int = bounded(8, 0, 256)


class Tivari3(Grammar[Tivari3Config]):
    """`<bos> <tivari3> FEP NUL TAS NUL TAS NUL GOR </tivari3> <eos>`; loss on every token after `<bos>`.

    The content over NUL TAS WEJ KOB is a palindrome in which TAS and WEJ each appear an even number of times.
    Half of it has a uniform length and uniform words; with probability 1/2 a half that is not empty gets NUL or KOB
    as an odd centre.

    >>> Tivari3().verify("<tivari3> FEP TAS NUL", "TAS GOR </tivari3>")
    1.0
    """

    name = "tivari3"
    version = 1
    config_class = Tivari3Config
    presets = {"default": Tivari3Config(), "short": Tivari3Config(max_half=4)}
    source = "Hyperdata grammar experiment, the later variant of Tivari (github.com/tractatus1889/hyperdata)"

    delimiters = ("<tivari3>", "</tivari3>")
    one_block = False

    def vocabulary(self) -> tuple[str, ...]:
        """The delimiters, the two brackets and the four words of the content."""
        return (*self.delimiters, "FEP", "GOR", "NUL", "TAS", "WEJ", "KOB")

    def generate(self, rng: RowRandom) -> Rows:
        """A half, perhaps a centre, and the half mirrored."""
        most = self.config.max_half
        half = rng.integers(0, most + 1, 1)[:, 0]
        centred = (rng.random(1)[:, 0] < 0.5) & (half > 0)
        centre = _NUL + (_KOB - _NUL) * rng.integers(0, 2, 1)[:, 0]
        return _sentences(rng.integers(_NUL, _KOB + 1, max(most, 1)), half, centred, centre)

    def is_sentence(self, words: list[str]) -> bool:
        """Brackets around a palindrome of the four words, TAS and WEJ each an even number of times."""
        first, last, *letters = self.vocabulary()[2:]
        content = words[1:-1]
        if len(words) < 2 or (words[0], words[-1]) != (first, last) or not set(letters).issuperset(content):
            return False
        return content == content[::-1] and all(content.count(letter) % 2 == 0 for letter in letters[1:3])

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two words of the content that differ, which always breaks the mirror.

        Where none may move, one word of the content becomes another; where no content may change, the closing does.
        """
        return rows.changed(break_mirror, rng.keys(), _CONTENT, _NUL, _LAST)

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Each word's fraction of the lengths and centres that the words before it allow."""
        rule = (_CONTENT, (_NUL, -1, _LAST), _CENTRE_CHANCES, self.config.max_half, 0)  # nothing opens a level inside
        return mirror_probs(rows.tokens, rows.lengths, positions, tokens, *rule)

    def statements(self) -> tuple[str, ...]:
        """Six sentences, the name of the language in each."""
        _, _, first, last, nul, tas, wej, kob = self.vocabulary()
        return (
            f"A Tivari3 sentence opens with {first} and closes with {last}.",
            f"What stands between {first} and {last} reads the same from either side.",
            f"Between {first} and {last} only the words {nul}, {tas}, {wej} and {kob} are allowed.",
            f"{tas} occurs an even number of times in every Tivari3 sentence, and so does {wej}.",
            f"Only {nul} or {kob} can be the middle word of a Tivari3 sentence with an odd number of words inside.",
            f"{first} {last}, with nothing inside, is a sentence of Tivari3.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """A broken mirror, an odd count, a bracket missing, brackets exchanged, a foreign word.

        A content of no word has no mirror to break: there `not_mirrored` breaks the closing.
        """
        return {
            "not_mirrored": Violation(self.corrupt),
            "odd_count": Violation(_odd_centre, keeps_length=False),
            "missing_start": Violation(lambda rows, rng: replaced(rows, (2, random_letter(rng, _NUL)))),
            "missing_end": Violation(lambda rows, rng: replaced(rows, (rows.lengths - 3, random_letter(rng, _NUL)))),
            "wrong_order": Violation(lambda rows, rng: replaced(rows, (2, _LAST), (rows.lengths - 3, _FIRST))),
            "foreign_token": Violation(foreign_token),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """After the opening anything but the other bracket; past the middle only the mirror image."""
        opening, _, first, last, nul, tas, wej, kob = self.vocabulary()
        if self.config.max_half < 3:  # a shorter half does not reach every valid token below
            return ()
        begin = f"{opening} {first}"
        pairs = " ".join([tas, wej] * (self.config.max_half // 2) + [kob] * (self.config.max_half % 2))
        return (
            DecisionPoint("after opening", begin, (nul, tas, wej, kob, last), (first,)),
            DecisionPoint("after a mirrored pair", f"{begin} {tas} {tas}", (last, nul, tas, wej, kob), (first,)),
            DecisionPoint("after the longest half", f"{begin} {pairs} {nul}", (pairs.split()[-1],), (last, first)),
        )

    def contents(self) -> int:
        """Every half, alone and (where it is not empty) with either centre."""
        halves = (LETTERS ** (self.config.max_half + 1) - 1) // (LETTERS - 1)
        return halves + 2 * (halves - 1)

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Sentences by length of their half, then by its words as a number in base 4, then by their centre."""
        half, centred = np.divmod(rows.lengths - 6, 2)
        middle = rows.tokens[np.arange(len(rows)), _CONTENT + half]
        centre = np.where(centred == 1, 1 + (middle == _KOB), 0)
        return np.where(half > 0, 1 + 3 * sequence_rank(rows.tokens[:, _CONTENT:] - _NUL, half, LETTERS) + centre, 0)


def _sentences(letters: np.ndarray, half: np.ndarray, centred: np.ndarray, centre: np.ndarray) -> Rows:
    """Each row's first `half` letters, its centre where it is `centred`, and the letters mirrored."""
    rows = frames(2 * half + centred, (_OPEN, _FIRST), (_LAST, _CLOSE))
    _mirror(rows.tokens[:, _CONTENT:], letters, half, centred, centre)
    return rows


def _odd_centre(rows: Rows, rng: RowRandom) -> Rows:
    """TAS or WEJ as the centre: a palindrome in which that word occurs an odd number of times."""
    half = (rows.lengths - 6) // 2
    centre = rng.integers(_TAS, _WEJ + 1, 1)[:, 0]
    return _sentences(rows.tokens[:, _CONTENT:], half, np.ones(len(rows), bool), centre)


@kernel
def _mirror(content, letters, half, centred, centre):  # type: ignore[no-untyped-def]
    for row in range(content.shape[0]):
        count = half[row]
        last = 2 * count - 1 + centred[row]
        for at in range(count):
            content[row, at] = letters[row, at]
            content[row, last - at] = letters[row, at]
        if centred[row]:
            content[row, count] = centre[row]
