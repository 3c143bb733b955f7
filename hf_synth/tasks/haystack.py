"""Haystack: the value of one key among pairs of keys and values."""

import dataclasses

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below_wide, mix, step_of
from hf_synth.tasks.base import FIRST_CONTENT, Rows, TaskConfig, bounded
from hf_synth.tasks.families.determined import Determined, is_number, parts_of
from hf_synth.tasks.families.sequences import exchange


@dataclasses.dataclass(frozen=True)
class HaystackConfig(TaskConfig):
    """A row has 1 .. max_keys pairs, their number uniform, with values from 1 to num_values."""

    max_keys: int = bounded(30, 1, 16_384)
    num_values: int = bounded(127, 2, 1_000_000)


class Haystack(Determined[HaystackConfig]):
    """`<bos> k7 v93 k2 v5 <sep> k2 <sep> v5 <eos>`: loss on the value and `<eos>`.

    The keys are distinct and in uniform order, the values uniform, and each pair is as likely to be asked for.

    >>> Haystack().verify("k7 v93 k2 v5 <sep> k2 <sep>", "v5")
    1.0
    """

    name = "haystack"
    version = 1
    config_class = HaystackConfig
    presets = {
        "30": HaystackConfig(),
        "10": HaystackConfig(max_keys=10),
        "4": HaystackConfig(max_keys=4, num_values=16),
    }
    source = "Procedural pretraining, arXiv 2601.21725"

    def vocabulary(self) -> tuple[str, ...]:
        """Keys k1 .. k{max_keys}, then values v1 .. v{num_values}."""
        keys = (f"k{number}" for number in range(1, self.config.max_keys + 1))
        return (*keys, *(f"v{number}" for number in range(1, self.config.num_values + 1)))

    def corruption_ids(self) -> tuple[int, int]:
        """The ids of the values."""
        first = FIRST_CONTENT + self.config.max_keys
        return first, first + self.config.num_values

    def generate(self, rng: RowRandom) -> Rows:
        """Distinct keys with their values, and one of the pairs."""
        counts = rng.integers(1, self.config.max_keys + 1, 1)[:, 0]
        pairs, query, value = _pairs(rng.keys(), counts, self.config.max_keys, self.config.num_values)
        return Rows.transduction(pairs, query, value, counts=(2 * counts, None, None))

    def answer(self, prompt: list[str]) -> list[str] | None:
        """The value behind the query's key."""
        parts = parts_of(prompt)
        if len(parts) != 3 or len(parts[0]) % 2 or len(parts[1]) != 1 or parts[2]:
            return None
        keys, values = parts[0][::2], parts[0][1::2]
        value_of = dict(zip(keys, values, strict=True))
        if len(value_of) < len(keys) or not self._are("k", keys) or not self._are("v", values):
            return None
        query = parts[1][0]
        return [value_of[query]] if query in value_of else None

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return (
            "Each key is followed by its value; after the key between the two <sep> comes that key's value again.",
        )

    def contents(self) -> int:
        """The number of distinct rows: ordered choices of keys, their values, and which pair is asked for."""
        total, ways = 0, 1
        for pairs in range(1, self.config.max_keys + 1):
            ways *= (self.config.max_keys - pairs + 1) * self.config.num_values
            total += ways * pairs
        return total

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Rows by the number of their pairs, then by the pairs in order, then by which is asked for."""
        return _rank(rows.tokens, rows.lengths, self.config.max_keys, self.config.num_values)

    def _are(self, kind: str, words: list[str]) -> bool:
        most = self.config.max_keys if kind == "k" else self.config.num_values
        return all(word[0] == kind and is_number(word[1:], 1, most) for word in words)


@kernel
def _pairs(keys, counts, max_keys, num_values):  # type: ignore[no-untyped-def]
    """The first keys of a partial Fisher-Yates shuffle, each with a value."""
    rows = keys.size
    pairs = np.empty((rows, 2 * max_keys), np.int32)
    query, value = np.empty((rows, 1), np.int32), np.empty((rows, 1), np.int32)
    moved = np.empty(max_keys, np.int32)
    first_value = FIRST_CONTENT + max_keys
    for row in range(rows):
        state, step = keys[row], step_of(keys[row])
        moved[:] = 0
        for pair in range(counts[row]):
            state += step
            position = pair + below_wide(mix(state), max_keys - pair)
            pairs[row, 2 * pair] = FIRST_CONTENT + exchange(moved, pair, position)
            state += step
            pairs[row, 2 * pair + 1] = first_value + below_wide(mix(state), num_values)
        asked = 2 * below_wide(mix(state + step), counts[row])
        query[row, 0], value[row, 0] = pairs[row, asked], pairs[row, asked + 1]
    return pairs, query, value


@kernel
def _rank(tokens, lengths, max_keys, num_values):  # type: ignore[no-untyped-def]
    out = np.empty(tokens.shape[0], np.int64)
    for row in range(tokens.shape[0]):
        words, pairs = tokens[row], (lengths[row] - 6) // 2
        rank = fewer = asked = 0  # fewer: contents of fewer pairs
        ways = 1  # keys and values of as many pairs as were seen
        for pair in range(pairs):
            word = words[2 * pair + 1]
            key = word - FIRST_CONTENT  # its number among the keys that are left
            for earlier in range(pair):
                key -= words[2 * earlier + 1] < word
            value = words[2 * pair + 2] - FIRST_CONTENT - max_keys
            rank = (rank * (max_keys - pair) + key) * num_values + value
            fewer += ways * pair
            ways *= (max_keys - pair) * num_values
            if word == words[2 * pairs + 2]:
                asked = pair
        out[row] = fewer + rank * pairs + asked
    return out
