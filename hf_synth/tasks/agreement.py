"""Agreement: pairs of words, the second of each the one that agrees with the first; in as many dialects as wanted."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, Task, TaskConfig, Violation, bounded

_OPEN, _CLOSE, _NOUNS = FIRST_CONTENT, FIRST_CONTENT + 1, FIRST_CONTENT + 2
_FIRST_NOUN = 2  # <bos> and the opening stand before it


@dataclasses.dataclass(frozen=True)
class AgreementConfig(TaskConfig):
    """`kinds` nouns, each with its verb; a sentence has 1 .. max_pairs pairs, their number and nouns uniform.

    Dialects share this rule and no word, so that they make clusters of prompts that differ in nothing but their size.
    """

    kinds: int = bounded(6, 2, 10_000)
    max_pairs: int = bounded(4, 1, 10_000)
    dialect: int = bounded(1, 1, 10_000)


class Agreement(Task[AgreementConfig]):
    """`<bos> <d1> d1n3 d1v3 d1n0 d1v0 </d1> <eos>`: noun n of a dialect is followed by verb n of that dialect.

    Any number of pairs from one on is right; loss on every token after `<bos>`.

    >>> Agreement().verify("<d1> d1n3", "d1v3 d1n0 d1v0 </d1>")
    1.0
    """

    name = "agreement"
    version = 1
    config_class = AgreementConfig
    presets = {"default": AgreementConfig()}
    source = "hf_synth's own test bed for prompts in clusters of unequal size"

    def vocabulary(self) -> tuple[str, ...]:
        """The two delimiters, the nouns, and the verbs in the nouns' order."""
        dialect = f"d{self.config.dialect}"
        nouns, verbs = ([f"{dialect}{part}{kind}" for kind in range(self.config.kinds)] for part in "nv")
        return (f"<{dialect}>", f"</{dialect}>", *nouns, *verbs)

    def generate(self, rng: RowRandom) -> Rows:
        """A number of pairs, then their nouns, each with its verb."""
        most = self.config.max_pairs
        pairs = rng.integers(1, most + 1, 1)[:, 0]
        nouns = rng.integers(_NOUNS, _NOUNS + self.config.kinds, most)
        words = np.empty((rng.rows, 2 * most + 2), np.int32)
        words[:, 0] = _OPEN
        words[:, 1:-1:2] = nouns
        words[:, 2:-1:2] = nouns + self.config.kinds
        words[np.arange(rng.rows), 2 * pairs + 1] = _CLOSE
        return Rows.language(words, 2 * pairs + 2)

    def verify(self, prompt: str, completion: str) -> float:
        """Whether prompt and completion together are one sentence between its delimiters, and nothing else."""
        opening, closing, *content = self.vocabulary()
        agrees = dict(zip(content[: self.config.kinds], content[self.config.kinds :], strict=True))
        words = f"{prompt} {completion}".split()
        if len(words) < 4 or (words[0], words[-1]) != (opening, closing):
            return 0.0
        nouns, verbs = words[1:-1:2], words[2:-1:2]
        return float(len(nouns) == len(verbs) and all(agrees.get(n) == v for n, v in zip(nouns, verbs, strict=True)))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """One verb becomes another one; where only the closing may change, it becomes a noun."""
        wrong = rows.select(np.arange(len(rows)))
        every = np.arange(len(rows))
        first = np.maximum((rows.loss_start - _FIRST_NOUN) // 2, 0)
        verbs = np.maximum((rows.lengths - 4) // 2 - first, 0)
        pick = rng.random(2)
        at = _FIRST_NOUN + 1 + 2 * (first + np.floor(pick[:, 0] * verbs).astype(np.int64))
        at = np.where(verbs > 0, at, rows.lengths - 2)
        shift = 1 + np.floor(pick[:, 1] * (self.config.kinds - 1)).astype(np.int32)
        verb_zero = _NOUNS + self.config.kinds
        other = verb_zero + (rows.tokens[every, at] - verb_zero + shift) % self.config.kinds
        wrong.tokens[every, at] = np.where(verbs > 0, other, _NOUNS)
        return wrong

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """After n pairs the end has probability 1 / (max_pairs - n + 1); nouns are uniform, verbs certain."""
        position = np.arange(rows.tokens.shape[1])
        seen = (position - _FIRST_NOUN) // 2
        decided = (
            rows.loss_mask & (position >= _FIRST_NOUN) & (position % 2 == 0) & (position < rows.lengths[:, None] - 1)
        )
        ends = rows.tokens == _CLOSE
        end = np.where(seen > 0, 1.0 / np.maximum(self.config.max_pairs - seen + 1, 1), 0.0)
        chance = np.where(ends, end, (1.0 - end) / self.config.kinds)
        return np.log(np.where(decided, chance, 1.0))

    def explanations(self) -> tuple[str, ...]:
        """One block."""
        opening, closing, first, *_ = self.vocabulary()
        verb = self.vocabulary()[2 + self.config.kinds]
        return (
            f"A sentence between {opening} and {closing} is made of pairs, one or more. A pair is a noun and then the "
            f"verb with the noun's number: {first} is always followed by {verb}. No pair depends on another.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """A verb that does not agree, and a pair the wrong way round."""
        return {
            "wrong_verb": Violation(self.corrupt, keeps_length=True),
            "swapped_order": Violation(_swapped, keeps_length=True),
        }

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """After a noun only its verb; after a verb a noun or the end."""
        opening, closing, *content = self.vocabulary()
        nouns, verbs = tuple(content[: self.config.kinds]), tuple(content[self.config.kinds :])
        return (
            DecisionPoint("after opening", opening, nouns, (*verbs, closing)),
            DecisionPoint("after a noun", f"{opening} {nouns[0]}", verbs[:1], (*verbs[1:], *nouns, closing)),
        )

    def contents(self) -> int:
        """Every sequence of nouns, of each length."""
        return sum(self.config.kinds**pairs for pairs in range(1, self.config.max_pairs + 1))

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Sentences by their number of pairs, then by their nouns as a number in base `kinds`."""
        kinds, most = self.config.kinds, self.config.max_pairs
        pairs = (rows.lengths.astype(np.int64) - 4) // 2
        nouns = rows.tokens[:, _FIRST_NOUN : _FIRST_NOUN + 2 * most : 2].astype(np.int64) - _NOUNS
        place = np.arange(nouns.shape[1])
        number = np.where(place < pairs[:, None], nouns * np.int64(kinds) ** place, 0).sum(axis=1)
        shorter = (np.int64(kinds) ** pairs - kinds) // (kinds - 1)
        return shorter + number


def _swapped(rows: Rows, rng: RowRandom) -> Rows:
    """The verb of one pair before its noun."""
    wrong = rows.select(np.arange(len(rows)))
    every = np.arange(len(rows))
    pairs = (rows.lengths - 4) // 2
    at = _FIRST_NOUN + 2 * np.floor(rng.random(1)[:, 0] * pairs).astype(np.int64)
    wrong.tokens[every, at], wrong.tokens[every, at + 1] = rows.tokens[every, at + 1], rows.tokens[every, at]
    return wrong
