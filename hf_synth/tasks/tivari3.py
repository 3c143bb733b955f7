"""FEP palindrome GOR: a language whose sentences read the same both ways, in words that no model has met."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numba import njit

from hf_synth.rng import RowRandom, draw
from hf_synth.tasks.base import BOS, EOS, FIRST_CONTENT, PAD, DecisionPoint, Rows, Task, TaskConfig, Violation, bounded

_OPEN, _CLOSE, _FIRST, _LAST, _NUL, _TAS, _WEJ, _KOB = range(FIRST_CONTENT, FIRST_CONTENT + 8)
_CENTRES = (_NUL, _KOB)
_LETTERS = 4
_CONTENT = 3  # <bos> <tivari3> FEP stand before the content


@dataclasses.dataclass(frozen=True)
class Tivari3Config(TaskConfig):
    """Half of the content has 0 .. max_half words, their number uniform."""

    max_half: int = bounded(8, 0, 256)


class Tivari3(Task[Tivari3Config]):
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
    source = "Hyperdata grammar experiment, the later variant of Tivari"

    def vocabulary(self) -> tuple[str, ...]:
        """The delimiters, the two brackets and the four words of the content."""
        return ("<tivari3>", "</tivari3>", "FEP", "GOR", "NUL", "TAS", "WEJ", "KOB")

    def generate(self, rng: RowRandom) -> Rows:
        """A half, perhaps a centre, and the half mirrored."""
        most = self.config.max_half
        half = rng.integers(0, most + 1, 1)[:, 0]
        centred = (rng.random(1)[:, 0] < 0.5) & (half > 0)
        centre = np.array(_CENTRES, np.int32)[rng.integers(0, 2, 1)[:, 0]]
        letters = rng.integers(_NUL, _KOB + 1, max(most, 1))
        length = (2 * half + centred)[:, None]
        at = np.arange(2 * most + 1)
        mirrored = np.clip(np.minimum(at, length - 1 - at), 0, max(most, 1) - 1)
        content = np.take_along_axis(letters, mirrored, axis=1)
        content = np.where(centred[:, None] & (at == half[:, None]), centre[:, None], content)
        return _rows(content, length[:, 0])

    def verify(self, prompt: str, completion: str) -> float:
        """Whether prompt and completion together are one sentence between its delimiters, and nothing else."""
        opening, closing, first, last, *letters = self.vocabulary()
        words = f"{prompt} {completion}".split()
        if words[:2] != [opening, first] or words[-2:] != [last, closing] or len(words) < 4:
            return 0.0
        content = words[2:-2]
        even = all(content.count(letter) % 2 == 0 for letter in letters[1:3])
        return float(even and content == content[::-1] and set(content) <= set(letters))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Swap two words of the content that differ, which always breaks the mirror.

        Where none may move, one word of the content becomes another; where no content may change, the closing does.
        """
        wrong = rows.select(np.arange(len(rows)))
        _break_content(wrong.tokens, wrong.lengths, wrong.loss_start, rng.keys())
        return wrong

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """Ln of P(prefix + token) / P(prefix), each a sum over the lengths and centres that the prefix allows."""
        prefix = _prefix_probability(rows.tokens, rows.lengths, self.config.max_half)
        before = np.concatenate([np.ones((len(rows), 1)), prefix[:, :-1]], axis=1)
        return np.log(np.divide(prefix, before, out=np.ones_like(prefix), where=rows.loss_mask))

    def explanations(self) -> tuple[str, ...]:
        """Single sentences, to be inserted one at a time."""
        _, _, first, last, nul, tas, wej, kob = self.vocabulary()
        return (
            f"A Tivari3 sentence opens with {first} and closes with {last}.",
            f"What stands between {first} and {last} reads the same from either side.",
            f"Between {first} and {last} only the words {nul}, {tas}, {wej} and {kob} are allowed.",
            f"{tas} occurs an even number of times in every Tivari3 sentence, and so does {wej}.",
            f"Only {nul} or {kob} can be the middle word of a Tivari3 sentence with an odd number of words inside.",
            f"{first} {last}, with nothing inside, is a sentence of Tivari3.",
        )

    def document(self, text: str) -> str:
        """`text` between the delimiters, unless it already stands there."""
        opening, closing = self.vocabulary()[:2]
        return text if text.startswith(opening) else f"{opening} {text} {closing}"

    def violations(self) -> Mapping[str, Violation]:
        """A broken mirror, an odd count, a bracket missing, brackets exchanged.

        A content of no word has no mirror to break: there `not_mirrored` breaks the closing.
        """
        return {
            "not_mirrored": Violation(self.corrupt, keeps_length=True),
            "odd_count": Violation(_odd_centre, keeps_length=False),
            "missing_start": Violation(lambda rows, rng: _replaced(rows, {2: None}, rng), keeps_length=True),
            "missing_end": Violation(lambda rows, rng: _replaced(rows, {-3: None}, rng), keeps_length=True),
            "wrong_order": Violation(
                lambda rows, rng: _replaced(rows, {2: _LAST, -3: _FIRST}, rng), keeps_length=True
            ),
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
        halves = (_LETTERS ** (self.config.max_half + 1) - 1) // (_LETTERS - 1)
        return halves + 2 * (halves - 1)

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Sentences by length of their half, then by its words as a number in base 4, then by their centre."""
        length = rows.lengths.astype(np.int64) - 6
        half, centred = length // 2, length % 2
        every = np.arange(len(rows))
        place = np.arange(self.config.max_half)
        letters = rows.tokens[:, _CONTENT : _CONTENT + self.config.max_half].astype(np.int64) - _NUL
        weight = np.where(place[: letters.shape[1]] < half[:, None], _LETTERS ** place[: letters.shape[1]], 0)
        word = (letters * weight).sum(axis=1)
        centre = np.where(centred == 1, 1 + (rows.tokens[every, _CONTENT + half] == _KOB), 0)
        shorter = (_LETTERS**half - 1) // (_LETTERS - 1)
        return np.where(half > 0, 1 + 3 * (shorter - 1) + 3 * word + centre, 0)


def _rows(content: np.ndarray, counts: np.ndarray) -> Rows:
    """Sentences around a content int32 [rows, most], the first `counts` [rows] words of each."""
    every = np.arange(len(content))
    words = np.full((len(content), content.shape[1] + 4), PAD, np.int32)
    words[:, 0], words[:, 1], words[:, 2:-2] = _OPEN, _FIRST, content
    words[every, counts + 2] = _LAST
    words[every, counts + 3] = _CLOSE
    return Rows.language(words, counts + 4)


def _replaced(rows: Rows, changes: dict[int, int | None], rng: RowRandom) -> Rows:
    """Put words at fixed places (negative ones counted from the row's end); None is a random word of the content."""
    wrong = rows.select(np.arange(len(rows)))
    every = np.arange(len(rows))
    for place, word in changes.items():
        at = place if place >= 0 else rows.lengths + place
        wrong.tokens[every, at] = rng.integers(_NUL, _KOB + 1, 1)[:, 0] if word is None else word
    return wrong


def _odd_centre(rows: Rows, rng: RowRandom) -> Rows:
    """TAS or WEJ as the centre: a palindrome in which that word occurs an odd number of times."""
    length = rows.lengths - 6
    half = length // 2
    old = rows.tokens[:, _CONTENT:-3]
    at = np.arange(old.shape[1] + 1)
    source = np.where(at <= half[:, None], at, at - (length % 2 == 0)[:, None])
    content = np.take_along_axis(np.pad(old, ((0, 0), (0, 1))), source, axis=1)
    content[np.arange(len(rows)), half] = rng.integers(_TAS, _WEJ + 1, 1)[:, 0]
    return _rows(content, 2 * half + 1)


@njit(cache=True, nogil=True)
def _break_content(tokens, lengths, loss_start, keys):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        words, key = tokens[row], keys[row]
        low, high = max(loss_start[row], _CONTENT), lengths[row] - 3
        if low < high:
            first = low + draw(key, 0) % np.uint64(high - low)
            other = first
            offset = draw(key, 1) % np.uint64(high - low)
            for step in range(high - low):
                candidate = low + (offset + step) % (high - low)
                if words[candidate] != words[first]:
                    other = candidate
                    break
            if other != first:
                words[first], words[other] = words[other], words[first]
            else:
                if 2 * (first - _CONTENT) == lengths[row] - 7:  # the centre is its own mirror image: take the next
                    first += 1
                words[first] = _NUL + (words[first] - _NUL + 1 + draw(key, 2) % np.uint64(_LETTERS - 1)) % _LETTERS
        elif loss_start[row] <= lengths[row] - 3:
            words[lengths[row] - 3], words[lengths[row] - 2] = _CLOSE, _LAST
        else:
            words[lengths[row] - 2] = _LAST


@njit(cache=True, nogil=True)
def _prefix_probability(tokens, lengths, max_half):  # type: ignore[no-untyped-def]
    """P(first p + 1 tokens) of each row under the generator, float64 [rows, width]."""
    out = np.zeros(tokens.shape, np.float64)
    for row in range(tokens.shape[0]):
        words = tokens[row]
        for half in range(max_half + 1):
            for centred in range(2 if half else 1):
                length = 2 * half + centred
                probability = 1.0 / (max_half + 1) / (2 if half else 1)
                for at in range(lengths[row]):
                    probability *= _word_probability(words, at, half, centred, length)
                    if probability == 0.0:
                        break
                    out[row, at] += probability
    return out


@njit(cache=True, nogil=True)
def _word_probability(words, at, half, centred, length):  # type: ignore[no-untyped-def]
    """P(words[at] | words before it, this length and centre)."""
    word, place = words[at], at - _CONTENT
    if at == 0:
        return 1.0 if word == BOS else 0.0
    if at == 1:
        return 1.0 if word == _OPEN else 0.0
    if at == 2:
        return 1.0 if word == _FIRST else 0.0
    if place < half:
        return 0.25 if _NUL <= word <= _KOB else 0.0
    if place == half and centred:
        return 0.5 if word in (_NUL, _KOB) else 0.0
    if place < length:
        return 1.0 if word == words[_CONTENT + length - 1 - place] else 0.0
    if place == length:
        return 1.0 if word == _LAST else 0.0
    if place == length + 1:
        return 1.0 if word == _CLOSE else 0.0
    return 1.0 if place == length + 2 and word == EOS else 0.0
