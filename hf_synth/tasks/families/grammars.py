"""Languages of words: what those have in common whose texts are `<bos> word ... word <eos>`."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import BOS, EOS, PAD, SEP, ConfigT, Rows, Task


class Grammar(Task[ConfigT]):
    """A language; a subclass says which words between the delimiters are a sentence, and explains it in statements."""

    one_block: ClassVar[bool] = True  # the form of explanations(): all statements as one text, or one at a time

    @property
    def delimiters(self) -> tuple[str, ...]:
        """The word before and the word behind every sentence, where the language has them."""
        return ()

    @abstractmethod
    def is_sentence(self, words: list[str]) -> bool:
        """Whether words, the delimiters left out, are one sentence."""

    @abstractmethod
    def statements(self) -> tuple[str, ...]:
        """The rule in single sentences, each of which can stand alone."""

    def verify(self, prompt: str, completion: str) -> float:
        """Whether prompt and completion together are one sentence between its delimiters, and nothing else."""
        words = f"{prompt} {completion}".split()
        if self.delimiters:
            if len(words) < 2 or (words[0], words[-1]) != self.delimiters:
                return 0.0
            words = words[1:-1]
        return float(self.is_sentence(words))

    def explanations(self) -> tuple[str, ...]:
        """The statements, as one block or one at a time."""
        return (" ".join(self.statements()),) if self.one_block else self.statements()

    def document(self, text: str) -> str:
        """`text` between the delimiters, unless it already stands there."""
        if not self.delimiters or text.startswith(self.delimiters[0]):
            return text
        opening, closing = self.delimiters
        return f"{opening} {text} {closing}"


def framed(content: np.ndarray, counts: np.ndarray, head: tuple[int, ...] = (), tail: tuple[int, ...] = ()) -> Rows:
    """`<bos> head w1 ... wn tail <eos>`; loss after `<bos>`.

    content: ids int32 [rows, any], of which each row has the first `counts`, int [rows]; head, tail: ids of every row.
    """
    rows = frames(counts, head, tail)
    _write(rows.tokens[:, 1 + len(head) :], content, counts)
    return rows


def frames(counts: np.ndarray, head: tuple[int, ...] = (), tail: tuple[int, ...] = ()) -> Rows:
    """Rows as `framed` makes them, for a kernel to write their `counts` words from position 1 + len(head) on."""
    around = len(head) + len(tail) + 2
    lengths = (counts + around).astype(np.int32)
    tokens = np.empty((len(counts), int(lengths.max(initial=around))), np.int32)
    _frame(tokens, lengths, np.array((BOS, *head), np.int32), np.array((*tail, EOS), np.int32))
    return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())


def end_chance(seen: np.ndarray, most: int) -> np.ndarray:
    """P(a sentence ends after `seen` of its parts), their number uniform on 1 .. most."""
    return np.where((seen > 0) & (seen <= most), 1.0 / np.maximum(most - seen + 1.0, 1.0), 0.0)


def sequence_rank(digits: np.ndarray, counts: np.ndarray, base: int) -> np.ndarray:
    """The number of each sequence, the empty one left out: by length, then as a number in `base`, lowest digit first.

    digits: int [rows, any], the first `counts` [rows] of each row. Returns int64 [rows].
    """
    position, counts = np.arange(digits.shape[1]), counts.astype(np.int64)
    number = np.where(position < counts[:, None], digits.astype(np.int64) * np.int64(base) ** position, 0).sum(axis=1)
    return (np.int64(base) ** counts - base) // (base - 1) + number


# Wrong sentences


def random_below(counts: np.ndarray, rng: RowRandom) -> np.ndarray:
    """A uniform number below each count, int64 [rows]; 0 below 0."""
    return np.floor(rng.random(1)[:, 0] * counts).astype(np.int64)


def replaced(rows: Rows, *changes: tuple[np.ndarray | int, np.ndarray | int]) -> Rows:
    """A copy with other words: (position, id) pairs, each a number or int [rows]."""
    every = np.arange(len(rows))
    wrong = rows.select(every)
    for at, word in changes:
        wrong.tokens[every, at] = word
    return wrong


def swapped(rows: Rows, one: np.ndarray, other: np.ndarray) -> Rows:
    """A copy in which the words at two places int [rows] have changed places."""
    every = np.arange(len(rows))
    return replaced(rows, (one, rows.tokens[every, other]), (other, rows.tokens[every, one]))


def place_of(chosen: np.ndarray, rng: RowRandom) -> np.ndarray:
    """The position of a random True in each row of a mask that has one, int64 [rows]."""
    count = np.cumsum(chosen, axis=1, dtype=np.int32)
    return np.argmax(count > random_below(count[:, -1], rng)[:, None], axis=1)


def foreign_token(rows: Rows, rng: RowRandom) -> Rows:
    """A random word becomes `<sep>`, which no language has."""
    return replaced(rows, (1 + random_below(rows.lengths - 2, rng), SEP))


@kernel
def _frame(tokens, lengths, head, tail):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        length = lengths[row]
        for at in range(head.size):
            tokens[row, at] = head[at]
        for at in range(tail.size):
            tokens[row, length - tail.size + at] = tail[at]
        for at in range(length, tokens.shape[1]):
            tokens[row, at] = PAD


@kernel
def _write(tokens, content, counts):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        for at in range(counts[row]):
            tokens[row, at] = content[row, at]
