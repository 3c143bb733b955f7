"""What the tests of all tasks share: plain-Python readings of rows, and the strings of small languages."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy import stats

from hf_synth.rng import RowRandom
from hf_synth.tasks import Rows, Task

SPECIAL = ("<pad>", "<bos>", "<eos>", "<sep>")
Words = tuple[str, ...]


@pytest.fixture(scope="session")
def rng() -> Callable[..., RowRandom]:
    """A RowRandom for rows 0 .. count - 1 of a purpose."""

    def make(count: int, purpose: str = "test", *, seed: int = 0, split: str = "train", start: int = 0) -> RowRandom:
        return RowRandom(seed=seed, split=split, purpose=purpose, index=np.arange(start, start + count))

    return make


@pytest.fixture(scope="session")
def texts() -> Callable[[Task, Rows], list[tuple[str, str]]]:
    """(prompt, completion) of each row, joined word by word: `<bos>` and `<eos>` left out."""

    def read(task: Task, rows: Rows) -> list[tuple[str, str]]:
        words = [*SPECIAL, *task.vocabulary()]
        pairs = []
        for tokens, length, start in zip(rows.tokens.tolist(), rows.lengths, rows.loss_start, strict=True):
            row = [words[token] for token in tokens[:length]]
            assert row[0] == "<bos>"
            stop = length - (row[-1] == "<eos>")
            pairs.append((" ".join(row[1:start]), " ".join(row[start:stop])))
        return pairs

    return read


class Language:
    """A finite language given as every string with its probability, and sums over it."""

    def __init__(self, strings: Iterable[tuple[Words, float]]) -> None:
        """`strings`: words without `<bos>` and `<eos>`; the same words may come several times."""
        self.strings: Counter[Words] = Counter()
        for words, probability in strings:
            self.strings[words] += probability  # type: ignore[assignment]
        assert math.isclose(math.fsum(self.strings.values()), 1.0, rel_tol=1e-12)
        parts = defaultdict(list)
        for words, probability in self.strings.items():
            for stop in range(len(words) + 1):
                parts[words[:stop]].append(probability)
            parts[(*words, "<eos>")].append(probability)
        self.prefixes = {words: math.fsum(chances) for words, chances in parts.items()}

    def log_probs(self, words: Words) -> list[float]:
        """Ln P(word | words before it) for every word and for the `<eos>` after the last, in nats."""
        ended = (*words, "<eos>")
        chances = [self.prefixes[ended[:stop]] for stop in range(len(ended) + 1)]
        return [math.log(after / before) for before, after in itertools.pairwise(chances)]

    def entropy(self) -> float:
        """In nats a string."""
        return -math.fsum(p * math.log(p) for p in self.strings.values())


@pytest.fixture(scope="session")
def language() -> type[Language]:
    """The class of enumerated languages."""
    return Language


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Task, Iterable[Words]], Rows]:
    """Rows of a language from its strings, built id by id."""

    def build(task: Task, strings: Iterable[Words]) -> Rows:
        ids = {word: number for number, word in enumerate([*SPECIAL, *task.vocabulary()])}
        encoded = [[1, *(ids[word] for word in words), 2] for words in strings]
        width = max(map(len, encoded))
        lengths = np.array([len(row) for row in encoded], np.int32)
        tokens = np.array([row + [0] * (width - len(row)) for row in encoded], np.int32)
        return Rows(tokens, lengths, np.ones_like(lengths), lengths.copy())

    return build


@pytest.fixture(scope="session")
def assert_exact(rows_of) -> Callable[..., None]:
    """Compares the best predictor with sums over all strings of a language: of every token, and of every next one."""

    def compare(task: Task, language: Language, every: Iterable[Words] | None = None) -> None:
        strings = list(language.strings if every is None else every)
        rows, ids = rows_of(task, strings), [*SPECIAL, *task.vocabulary()]
        log_probs, read = task.optimal_log_probs(rows), set()
        for row, words in enumerate(strings):
            np.testing.assert_allclose(
                log_probs[row],
                np.pad([0.0, *language.log_probs(words)], (0, rows.tokens.shape[1] - len(words) - 2)),
                rtol=0,
                atol=1e-12,
            )
            fresh = [stop for stop in range(len(words) + 1) if words[:stop] not in read]
            read.update(words[:stop] for stop in fresh)
            result = task.optimal_distribution(rows.select(np.array([row])), [1 + stop for stop in fresh])[0]
            after = [[language.prefixes.get((*words[:stop], word), 0.0) for word in ids] for stop in fresh]
            before = [language.prefixes[words[:stop]] for stop in fresh]
            np.testing.assert_allclose(result, np.array(after) / np.array(before)[:, None], rtol=0, atol=1e-12)
            assert not result[np.array(after) == 0].any()

    return compare


@pytest.fixture(scope="session")
def goodness() -> Callable[[Counter, dict], float]:
    """A chi-square test of counts under exact probabilities."""

    def p_value(counts: Counter, expected: dict) -> float:
        """The p-value of counts under probabilities; values that are expected fewer than ten times count as one."""
        total = sum(counts.values())
        assert {value for value in counts if counts[value]} <= {value for value, chance in expected.items() if chance}
        large = [value for value, chance in expected.items() if chance * total >= 10]
        rest = (
            total - sum(counts[value] for value in large),
            total * (1 - math.fsum(expected[value] for value in large)),
        )
        pairs = [(counts[value], expected[value] * total) for value in large] + ([rest] if rest[1] > 1e-6 else [])
        if len(pairs) == 1:
            return 1.0
        seen, wanted = zip(*pairs, strict=True)
        return stats.chisquare(seen, np.array(wanted) * total / sum(wanted)).pvalue

    return p_value
