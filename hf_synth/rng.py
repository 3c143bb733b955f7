"""Random numbers addressed by (seed, split, purpose, call, row): the same wherever and however a row is made.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) with one stream a row. Each stream has its own odd increment:
streams that shared one would be shifted copies of each other.
"""

import hashlib

import numpy as np

from hf_synth.kernels import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_INCREMENT = np.uint64(0xD1342543DE82EF95)
_NARROW_SPAN = 1 << 16


@kernel(inline="always")
def mix(value):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64: a bijection of 64 bits in which every output bit depends on every input bit."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_A
    value = (value ^ (value >> np.uint64(27))) * _MIX_B
    return value ^ (value >> np.uint64(31))


@kernel(inline="always")
def step_of(key):  # type: ignore[no-untyped-def]
    """The odd increment of a row key's stream: `state = key`, then `state += step; mix(state)` gives its numbers."""
    return mix(key ^ _INCREMENT) | np.uint64(1)


@kernel(inline="always")
def draw(key, position):  # type: ignore[no-untyped-def]
    """The 64-bit number at `position` (0, 1, ...) of the stream of a row key."""
    return mix(key + (np.uint64(position) + np.uint64(1)) * step_of(key))


@kernel(inline="always")
def below(number, span):  # type: ignore[no-untyped-def]
    """A 64-bit number as an integer on [0, span), int64, for a span of at most 2**16; its bias is below 2**-16."""
    return np.int64(((number >> np.uint64(32)) * np.uint64(span)) >> np.uint64(32))


@kernel(inline="always")
def below_wide(number, span):  # type: ignore[no-untyped-def]
    """A 64-bit number as an integer on [0, span), int64, for a span of at most 2**31; its bias is below 2**-33."""
    half, span = np.uint64(32), np.uint64(span)
    rest = ((number & np.uint64(0xFFFFFFFF)) * span) >> half
    return np.int64(((number >> half) * span + rest) >> half)


@kernel(inline="always")
def unit(number):  # type: ignore[no-untyped-def]
    """A 64-bit number as a float64 on [0, 1)."""
    return np.float64(number >> np.uint64(11)) * 2.0**-53


@kernel
def _row_keys(call_key, index):  # type: ignore[no-untyped-def]
    keys = np.empty(index.size, np.uint64)
    for row in range(index.size):
        keys[row] = mix(call_key ^ mix(index[row] * _GOLDEN + np.uint64(1)))
    return keys


@kernel
def _fill_narrow(keys, low, span, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        state, step = keys[row], step_of(keys[row])
        for column in range(out.shape[1]):
            state += step
            out[row, column] = low + below(mix(state), span)


@kernel
def _fill_wide(keys, low, span, out):  # type: ignore[no-untyped-def]
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            value = draw(keys[row], column)
            high, rest = value >> half, value & mask
            span_high, span_rest = span >> half, span & mask
            middle = high * span_rest + ((rest * span_rest) >> half)
            carry = rest * span_high + (middle & mask)
            out[row, column] = low + np.int64(high * span_high + (middle >> half) + (carry >> half))


@kernel
def _fill_uniform(keys, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = unit(draw(keys[row], column))


class RowRandom:
    """Random numbers for a block of rows; row i gets the same ones in every block that holds it.

    Each call is a stream of its own, so a draw that is added after the others leaves those as they were.
    """

    def __init__(self, *, seed: int, split: str, purpose: str, index: np.ndarray) -> None:
        """`index` holds the row numbers, int64 or uint64 [rows]; they need not be contiguous."""
        self.seed, self.split, self.purpose = seed, split, purpose
        self.index = np.ascontiguousarray(index, dtype=np.uint64)
        address = f"{seed}\0{split}\0{purpose}".encode()
        self._base = int.from_bytes(hashlib.blake2b(address, digest_size=8).digest(), "little")
        self._calls = 0

    @property
    def rows(self) -> int:
        """How many rows the block has."""
        return self.index.size

    def keys(self) -> np.ndarray:
        """One stream a row, uint64 [rows]: for kernels that draw a varying number with `draw(key, position)`."""
        call_key = np.uint64((self._base + self._calls * int(_INCREMENT)) % 2**64)
        self._calls += 1
        return _row_keys(call_key, self.index)

    def integers(self, low: int, high: int, size: int) -> np.ndarray:
        """Uniform integers on [low, high), [rows, size]; int32 where both bounds fit, int64 otherwise."""
        span = high - low
        if not (0 < span < 2**63 and low >= -(2**63) and high <= 2**63):
            raise ValueError(
                f"integers(low={low}, high={high}): got an empty or too wide range, "
                "wanted low < high, both of 64 bits, less than 2**63 apart"
            )
        dtype = np.int32 if low >= -(2**31) and high <= 2**31 else np.int64
        out = np.empty((self.rows, size), dtype)
        fill = _fill_narrow if span <= _NARROW_SPAN else _fill_wide
        fill(self.keys(), np.int64(low), np.uint64(span), out)
        return out

    def random(self, size: int) -> np.ndarray:
        """Uniform float64 on [0, 1), [rows, size]."""
        out = np.empty((self.rows, size), np.float64)
        _fill_uniform(self.keys(), out)
        return out

    def subset(self, mask: np.ndarray) -> "RowRandom":
        """The same address for the rows that `mask` (bool or integer positions) selects, its calls counted anew."""
        return RowRandom(seed=self.seed, split=self.split, purpose=self.purpose, index=self.index[mask])


@kernel
def hash_rows(tokens, lengths):  # type: ignore[no-untyped-def]
    """A 64-bit hash of the first `lengths[r]` tokens of each row, uint64 [rows]; padding does not count."""
    out = np.empty(tokens.shape[0], np.uint64)
    for row in range(tokens.shape[0]):
        state = mix(np.uint64(lengths[row]) + _GOLDEN)
        for column in range(lengths[row]):
            state = mix(state ^ (np.uint64(tokens[row, column]) * _INCREMENT + _GOLDEN))
        out[row] = state
    return out


@kernel
def permute(positions, size, key):  # type: ignore[no-untyped-def]
    """Each position's number in a shuffle of 0 .. size - 1 that the key chooses, int64 like `positions`.

    A Feistel network of six rounds over the next even power of two, walked until it lands inside `size`: a position
    costs the same whatever the size, and no table is made. Black and Rogaway, "Ciphers with arbitrary finite domains".
    """
    half = np.uint64(1)
    while (np.uint64(1) << (np.uint64(2) * half)) < np.uint64(size):
        half += np.uint64(1)
    mask = (np.uint64(1) << half) - np.uint64(1)
    out = np.empty(positions.size, np.int64)
    for at in range(positions.size):
        value = np.uint64(positions[at])
        while True:
            left, right = value >> half, value & mask
            for turn in range(6):
                left, right = right, left ^ (mix(key + right * _GOLDEN + np.uint64(turn) * _INCREMENT) & mask)
            value = (left << half) | right
            if value < np.uint64(size):
                break
        out[at] = np.int64(value)
    return out
