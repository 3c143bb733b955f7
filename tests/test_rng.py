"""Random numbers against SplitMix64 in plain Python integers, and against what uniform and independent means."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.rng import RowRandom, draw, hash_rows, mix, permute

MASK = 2**64 - 1
GOLDEN, INCREMENT = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
INTEGERS = st.integers(-(2**63), 2**63)


def slow_mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def slow_key(row: int, *, call: int = 0, seed: int = 0, split: str = "train", purpose: str = "generate") -> int:
    address = f"{seed}\0{split}\0{purpose}".encode()
    base = int.from_bytes(hashlib.blake2b(address, digest_size=8).digest(), "little")
    return slow_mix((base + call * INCREMENT) & MASK ^ slow_mix((row * GOLDEN + 1) & MASK))


def slow_draw(key: int, position: int) -> int:
    increment = slow_mix(key ^ INCREMENT) | 1
    return slow_mix((key + (position + 1) * increment) & MASK)


def make(index, *, seed: int = 0, split: str = "train", purpose: str = "generate") -> RowRandom:
    return RowRandom(seed=seed, split=split, purpose=purpose, index=np.asarray(index))


# Against the slow definition


def test_mix_is_the_published_finaliser():
    """The first outputs of SplitMix64 from state 0, as published with the reference implementation in C."""
    states = [np.uint64(GOLDEN * step & MASK) for step in (1, 2, 3)]
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(mix(state)) for state in states] == published
    assert [slow_mix(int(state)) for state in states] == published


@given(
    row=st.integers(0, 2**63),
    seed=st.integers(-5, 2**70),
    split=st.sampled_from(["train", "test"]),
    call=st.integers(0, 4),
)
def test_keys_equal_the_slow_definition(row, seed, split, call):
    rng = make(np.array([row], np.uint64), seed=seed, split=split)
    for _ in range(call):
        rng.keys()
    assert int(rng.keys()[0]) == slow_key(row, call=call, seed=seed, split=split)


@pytest.mark.parametrize("position", [0, 1, 2, 1000, 2**40])
def test_draw_equals_the_slow_definition(position):
    key = slow_key(7)
    assert int(draw(np.uint64(key), position)) == slow_draw(key, position)


@given(low=INTEGERS, high=INTEGERS)
def test_integers_scale_the_draws_to_any_range(low, high):
    """Multiply and shift: on the upper 32 bits for spans up to 2**16, on all 64 above."""
    low, high = sorted((low, high))
    span = high - low
    if not 0 < span < 2**63:
        return
    result = make([0, 5]).integers(low, high, 3)
    for at, row in enumerate([0, 5]):
        numbers = [slow_draw(slow_key(row), position) for position in range(3)]
        narrow, wide = [(v >> 32) * span >> 32 for v in numbers], [v * span >> 64 for v in numbers]
        assert result[at].tolist() == [low + value for value in (narrow if span <= 2**16 else wide)]


@pytest.mark.parametrize("span", [1, 2, 3, 2**16 - 1, 2**16, 2**16 + 1, 2**32, 2**32 + 1, 2**62, 2**63 - 1])
def test_integers_equal_the_slow_definition_where_the_arithmetic_changes(span):
    result = make(range(50)).integers(0, span, 4)
    for row, position in itertools.product(range(50), range(4)):
        value = slow_draw(slow_key(row), position)
        assert result[row, position] == ((value >> 32) * span >> 32 if span <= 2**16 else value * span >> 64)


def test_random_equals_the_slow_definition():
    result = make([3, 4]).random(5)
    for at, row in enumerate([3, 4]):
        assert result[at].tolist() == [(slow_draw(slow_key(row), position) >> 11) / 2**53 for position in range(5)]


def test_hash_rows_equals_the_slow_definition_and_ignores_padding():
    tokens = np.array([[1, 9, 2, 0], [1, 9, 2, 7], [1, 9, 8, 2]], np.int32)
    lengths = np.array([3, 3, 4], np.int32)

    def slow_hash(words: list[int]) -> int:
        state = slow_mix((len(words) + GOLDEN) & MASK)
        for word in words:
            state = slow_mix(state ^ ((word * INCREMENT + GOLDEN) & MASK))
        return state

    result = hash_rows(tokens, lengths).tolist()
    assert result == [slow_hash([1, 9, 2]), slow_hash([1, 9, 2]), slow_hash([1, 9, 8, 2])]


# Uniform


@pytest.mark.parametrize(("low", "high"), [(0, 2), (5, 12), (-3, 97), (0, 2**16)])
def test_integers_are_uniform(low, high):
    result = make(range(20_000)).integers(low, high, 5).ravel()
    assert low <= result.min()
    assert result.max() < high
    bins = min(high - low, 128)
    counts = np.bincount((result - low) // ((high - low) // bins), minlength=bins)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("span", [2**16 + 1, 10**12, 2**63 - 1])
def test_wide_integers_are_uniform(span):
    result = make(range(20_000)).integers(-7, span - 7, 2).ravel()
    assert stats.kstest((result + 7) / span, "uniform").pvalue > 1e-4


def test_random_is_uniform_on_zero_to_one():
    result = make(range(20_000)).random(3).ravel()
    assert 0 <= result.min() < result.max() < 1
    assert stats.kstest(result, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 62, 63])
def test_every_bit_of_a_stream_is_fair(bit):
    keys = make(range(20_000)).keys()
    ones = sum(int(draw(key, 0)) >> bit & 1 for key in keys)
    assert stats.binomtest(ones, len(keys)).pvalue > 1e-4


def test_hash_of_rows_is_uniform():
    tokens = np.arange(20_000, dtype=np.int32)[:, None]
    result = hash_rows(tokens, np.ones(20_000, np.int32)) / 2.0**64
    assert stats.kstest(result, "uniform").pvalue > 1e-4


# Independent


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"seed": -1}, {"split": "test"}, {"purpose": "corrupt"}, {"index": np.arange(50_000, 100_000)}],
    ids=str,
)
def test_streams_of_another_address_are_independent(other):
    address = {"index": np.arange(50_000), "seed": 0, "split": "train", "purpose": "generate"}
    one, two = (RowRandom(**arguments).random(1)[:, 0] for arguments in (address, {**address, **other}))
    assert_independent(one, two)


def test_calls_on_one_block_are_independent():
    rng = make(range(50_000))
    assert_independent(rng.random(1)[:, 0], rng.random(1)[:, 0])


@pytest.mark.parametrize("shift", [1, 2, 3, 1024])
def test_neighbouring_rows_are_independent(shift):
    result = make(range(50_000)).random(1)[:, 0]
    assert_independent(result[shift:], result[:-shift])


@pytest.mark.parametrize("shift", [1, 2, 7])
def test_columns_of_a_row_are_independent(shift):
    result = make(range(5_000)).random(10 + shift)
    assert_independent(result[:, shift:].ravel(), result[:, :-shift].ravel())


def test_a_stream_is_no_shifted_copy_of_the_next_row():
    """Streams of one increment are shifted copies: here no number comes twice among 400,000."""
    result = make(range(4_000)).integers(0, 2**63 - 1, 100)
    assert len(np.unique(result)) == result.size


def assert_independent(one: np.ndarray, two: np.ndarray) -> None:
    """No correlation beyond 4.5 standard errors, and the joint distribution flat on an 8 by 8 grid."""
    assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / len(one) ** 0.5
    counts = np.histogram2d(one, two, bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


# Addresses


@given(
    rows=st.lists(st.integers(0, 2**62), min_size=1, max_size=8), low=st.integers(-9, 9), span=st.integers(1, 2**40)
)
def test_rows_are_the_same_in_any_block(rows, low, span):
    together = make(rows).integers(low, low + span, 3)
    assert [make([row]).integers(low, low + span, 3)[0].tolist() for row in rows] == together.tolist()


@pytest.mark.parametrize("chosen", [np.array([True, False, True, True]), np.array([3, 0])])
def test_subset_draws_what_those_rows_draw_in_the_full_block(chosen):
    block = make([10, 20, 30, 40], seed=3, purpose="corrupt")
    part = block.subset(chosen)
    for method, arguments in [("keys", ()), ("random", (2,)), ("integers", (0, 100, 2))]:
        full = getattr(block, method)(*arguments)
        assert np.array_equal(getattr(part, method)(*arguments), full[chosen])


def test_a_draw_added_later_leaves_the_earlier_ones():
    few, many = make(range(5)), make(range(5))
    first = few.random(2)
    assert np.array_equal(many.random(2), first)
    assert not np.array_equal(many.random(2), first)


def test_a_wider_draw_starts_with_the_narrower_one():
    assert np.array_equal(make(range(5)).random(9)[:, :4], make(range(5)).random(4))


def test_address_parts_do_not_run_into_each_other():
    one, two = make([0], split="a", purpose="bc"), make([0], split="ab", purpose="c")
    assert one.keys() != two.keys()


# Ranges and shapes


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 10, np.int32),
        (-(2**31), 2**31, np.int32),
        (0, 2**31 + 1, np.int64),
        (-(2**31) - 1, 0, np.int64),
        (2**63 - 5, 2**63, np.int64),
        (-(2**63), -(2**63) + 5, np.int64),
    ],
)
def test_integers_reach_both_ends_of_their_type(low, high, dtype):
    result = make(range(2_000)).integers(low, high, 1)
    assert result.dtype == dtype
    assert low <= int(result.min())
    assert int(result.max()) < high
    if high - low < 100:
        assert (int(result.min()), int(result.max())) == (low, high - 1)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 0), (1, 0), (0, 2**63 + 1), (-(2**63), 2**63 - 1), (2**63, 2**63 + 5), (-(2**63) - 9, -(2**63))],
)
def test_an_empty_or_too_wide_range_is_an_error(low, high):
    with pytest.raises(ValueError, match=rf"integers\(low={low}, high={high}\): got an empty or too wide range"):
        make([0]).integers(low, high, 1)


@pytest.mark.parametrize(("rows", "size"), [(0, 3), (3, 0)])
def test_empty_blocks_have_their_shape(rows, size):
    assert make(np.arange(rows)).integers(0, 9, size).shape == (rows, size)
    assert make(np.arange(rows)).random(size).shape == (rows, size)
    assert make(np.arange(rows)).rows == rows


# Orders of finite sets


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 1_000, 4_097])
def test_permute_gives_every_number_once(size):
    for key in (0, 1, 2**63):
        result = permute(np.arange(size), size, np.uint64(key))
        assert sorted(result.tolist()) == list(range(size))


def test_permute_puts_each_number_anywhere_equally_often():
    firsts = [int(permute(np.array([0]), 10, np.uint64(key))[0]) for key in range(5_000)]
    assert stats.chisquare(np.bincount(firsts, minlength=10)).pvalue > 1e-4


def test_permute_of_one_place_does_not_need_the_others():
    together = permute(np.arange(1_000), 1_000, np.uint64(5))
    assert [int(permute(np.array([at]), 1_000, np.uint64(5))[0]) for at in (0, 17, 999)] == together[
        [0, 17, 999]
    ].tolist()
