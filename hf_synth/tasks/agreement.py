"""Agreement: nouns, each followed by the verb that agrees with it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below, draw
from hf_synth.tasks.base import FIRST_CONTENT, DecisionPoint, Rows, TaskConfig, Violation, bounded
from hf_synth.tasks.families.grammars import Grammar, end_chance, framed, random_below, sequence_rank, swapped

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


class Agreement(Grammar[AgreementConfig]):
    """`<bos> <d1> d1n3 d1v3 d1n0 d1v0 </d1> <eos>`: noun n of a dialect is followed by verb n of that dialect.

    Any number of pairs from one on is right; loss on every token after `<bos>`.

    >>> Agreement().verify("<d1> d1n3", "d1v3 d1n0 d1v0 </d1>")
    1.0
    """

    name = "agreement"
    version = 2
    config_class = AgreementConfig
    presets = {"default": AgreementConfig()}
    source = "hf_synth's own test bed for prompts in clusters of unequal size"

    def vocabulary(self) -> tuple[str, ...]:
        """The two delimiters, the nouns, and the verbs in the nouns' order."""
        dialect = f"d{self.config.dialect}"
        nouns, verbs = ([f"{dialect}{part}{kind}" for kind in range(self.config.kinds)] for part in "nv")
        return (*self.delimiters, *nouns, *verbs)

    def generate(self, rng: RowRandom) -> Rows:
        """A number of pairs, then their nouns, each with its verb."""
        most = self.config.max_pairs
        pairs = rng.integers(1, most + 1, 1)[:, 0]
        nouns = rng.integers(_NOUNS, _NOUNS + self.config.kinds, most)
        words = np.empty((rng.rows, 2 * most), np.int32)
        words[:, ::2], words[:, 1::2] = nouns, nouns + self.config.kinds
        return framed(words, 2 * pairs, (_OPEN,), (_CLOSE,))

    @property
    def delimiters(self) -> tuple[str, ...]:
        """The two words of the dialect around every sentence."""
        return f"<d{self.config.dialect}>", f"</d{self.config.dialect}>"

    def is_sentence(self, words: list[str]) -> bool:
        """Pairs alone, at least one, each a noun and its verb."""
        content, kinds = self.vocabulary()[2:], self.config.kinds
        agrees = dict(zip(content[:kinds], content[kinds:], strict=True))
        pairs = zip(words[::2], words[1::2], strict=False)
        return bool(words) and len(words) % 2 == 0 and all(agrees.get(noun) == verb for noun, verb in pairs)

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Two verbs that differ change places; where there are none, one becomes another, or the closing a noun."""
        return rows.changed(_break_pairs, rng.keys(), self.config.kinds)

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """After n pairs the end has probability 1 / (max_pairs - n + 1); nouns are uniform, verbs certain."""
        word, kinds = positions[:, :, None] - _FIRST_NOUN, self.config.kinds
        end = end_chance(word // 2, self.config.max_pairs)
        noun = (tokens >= _NOUNS) & (tokens < _NOUNS + kinds)
        chance = np.where(tokens == _CLOSE, end, (1.0 - end) / kinds * noun)
        drawn = (word >= 0) & (word % 2 == 0) & (word < rows.lengths[:, None, None] - _FIRST_NOUN - 1)
        return np.where(drawn, chance, rows.have(positions, tokens))

    def statements(self) -> tuple[str, ...]:
        """The pairs, what agrees, and that nothing else counts."""
        opening, closing, noun, *_ = self.vocabulary()
        verb = self.vocabulary()[2 + self.config.kinds]
        return (
            f"A sentence between {opening} and {closing} is made of one or more pairs of a noun and a verb.",
            f"Between {opening} and {closing} a noun is followed by the verb that has its number: {noun} by {verb}.",
            f"No pair between {opening} and {closing} depends on another.",
        )

    def violations(self) -> Mapping[str, Violation]:
        """A verb that does not agree, and a pair the wrong way round."""
        return {"wrong_verb": Violation(self.corrupt), "swapped_order": Violation(_swapped_order)}

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
        kinds = self.config.kinds
        return (kinds ** (self.config.max_pairs + 1) - kinds) // (kinds - 1)

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Sentences by their number of pairs, then by their nouns as a number in base `kinds`."""
        nouns = rows.tokens[:, _FIRST_NOUN:-1:2] - _NOUNS
        return sequence_rank(nouns, (rows.lengths - 4) // 2, self.config.kinds)


def _swapped_order(rows: Rows, rng: RowRandom) -> Rows:
    """The verb of one pair before its noun."""
    noun = _FIRST_NOUN + 2 * random_below((rows.lengths - 4) // 2, rng)
    return swapped(rows, noun, noun + 1)


@kernel
def _break_pairs(tokens, lengths, loss_start, keys, kinds):  # type: ignore[no-untyped-def]
    for row in range(tokens.shape[0]):
        words, key = tokens[row], keys[row]
        first = max((loss_start[row] - _FIRST_NOUN) // 2, 0)  # the first pair whose verb may change
        verbs = (lengths[row] - 4) // 2 - first
        if verbs < 1:
            words[lengths[row] - 2] = _NOUNS
            continue
        one = _FIRST_NOUN + 1 + 2 * (first + below(draw(key, 0), verbs))
        other, offset = one, below(draw(key, 1), verbs)
        for step in range(verbs):
            candidate = _FIRST_NOUN + 1 + 2 * (first + (offset + step) % verbs)
            if words[candidate] != words[one]:
                other = candidate
                break
        if other != one:
            words[one], words[other] = words[other], words[one]
        else:
            verb_zero = _NOUNS + kinds
            words[one] = verb_zero + (words[one] - verb_zero + 1 + below(draw(key, 2), kinds - 1)) % kinds
