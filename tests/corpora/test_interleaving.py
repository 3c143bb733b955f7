"""Interleaving: how often, where, and that nothing is lost between two streams."""

import fractions
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth import get_task
from hf_synth.corpora import arm_stream, canonical_text, interleave

SIZE = 20_000


@pytest.fixture(scope="module")
def mixed(counted):
    """Canonical documents of 5 words and synthetic ones of 3, interleaved."""

    def make(ratio=0.1, unit="documents", seed=0, *, canonical=None, synthetic=None, **options):
        streams = (counted(canonical), counted(synthetic, kind="example", words=3))
        return interleave(*streams, ratio=ratio, unit=unit, seed=seed, **options)

    return make


def synthetic(table) -> np.ndarray:
    return np.array(table["kind"].to_pylist()) == "example"


@pytest.mark.parametrize("unit", ["documents", "tokens"])
@pytest.mark.parametrize("ratio", [0.01, 0.1, "1/3", 0.9])
def test_both_kinds_stay_whole_and_in_order(mixed, numbers, unit, ratio):
    table = mixed(ratio, unit).read(5_432)
    for kind in ("canonical", "example"):
        result = numbers(table, kind)
        assert result == list(range(len(result)))
    assert table.num_rows == 5_432


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.97])
def test_documents_are_drawn_independently_with_the_ratio_as_probability(mixed, ratio):
    drawn = synthetic(mixed(ratio, seed=1).read(SIZE))
    spread = math.sqrt(SIZE * ratio * (1 - ratio))
    assert abs(drawn.sum() - SIZE * ratio) < 4 * spread
    blocks = drawn.reshape(-1, 100).sum(axis=1)
    assert 0.7 < blocks.var() / (100 * ratio * (1 - ratio)) < 1.4, "binomial, neither even nor clustered"
    pairs = (drawn[1:] & drawn[:-1]).sum()
    assert abs(pairs - SIZE * ratio**2) < 5 * math.sqrt(SIZE * ratio**2)


def test_draws_depend_on_the_seed_alone(mixed):
    first, again, other = (synthetic(mixed(0.1, seed=seed).read(2_000)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(ratio=st.floats(1e-4, 1 - 1e-4), words=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_the_share_of_tokens_is_kept_at_every_beginning(counted, ratio, words):
    streams = [counted(words=size, kind=kind) for size, kind in zip(words, ("canonical", "example"), strict=True)]
    drawn = synthetic(interleave(*streams, ratio=ratio, unit="tokens").read(3_000))
    tokens = np.where(drawn, words[1], words[0])
    off = np.cumsum(tokens * drawn) - float(fractions.Fraction(str(ratio))) * np.cumsum(tokens)
    assert np.abs(off).max() <= max(words) / 2 + 1e-6


def test_tokens_are_counted_once_a_block(mixed):
    counts = []

    def count(texts):
        counts.append(len(texts))
        return np.full(len(texts), 7)

    mixed(0.5, "tokens", count_tokens=count).read(20_000)
    assert sum(counts) <= 22_000


@pytest.mark.parametrize("unit", ["documents", "tokens"])
@given(before=st.lists(st.integers(0, 1_500), max_size=4))
def test_a_resumed_mixture_equals_the_uninterrupted_one(mixed, resumed, unit, before):
    stream = mixed(0.3, unit)
    for count in before:
        stream.read(count)
    other = resumed(stream, mixed(0.3, unit))
    assert other.read(1_700).equals(stream.read(1_700))
    assert other.state_dict() == stream.state_dict()


@pytest.mark.parametrize("unit", ["documents", "tokens"])
def test_shards_share_no_document_and_no_draws(mixed, numbers, unit):
    parts = [mixed(0.3, unit).shard(3, index).read(6_000) for index in range(3)]
    for kind in ("canonical", "example"):
        result = [set(numbers(part, kind)) for part in parts]
        assert not set.intersection(*itertools.islice(result, 2))
        assert sum(map(len, result)) == len(set().union(*result))
    if unit == "documents":
        assert len({synthetic(part).tobytes() for part in parts}) == 3


@pytest.mark.parametrize("unit", ["documents", "tokens"])
@pytest.mark.parametrize("ended", ["canonical", "synthetic"])
def test_a_stream_that_ends_is_an_error_once_it_is_due(mixed, numbers, unit, ended):
    stream = mixed(0.5, unit, **{ended: 1_234})
    kind = "example" if ended == "synthetic" else ended
    tables = []
    with pytest.raises(
        ValueError, match=f"the {ended} documents ended after .*wanted more of them, .*repeat=True.* --repeat"
    ):
        tables.extend(iter(lambda: stream.read(1), None))
    assert sum(len(numbers(table, kind)) for table in tables) == 1_234


def test_nothing_and_everything_are_the_streams_themselves(counted):
    streams = counted(), counted()
    assert interleave(*streams, ratio=0) is streams[0]
    assert interleave(*streams, ratio=1) is streams[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.5}, "ratio: got 1.5, wanted a number from 0 to 1"),
        ({"unit": "token"}, "unit: got 'token'; .*Known: documents, tokens"),
    ],
)
def test_wrong_arguments_are_errors(mixed, options, message):
    with pytest.raises(ValueError, match=message):
        mixed(**options)


@pytest.mark.parametrize("unit", ["documents", "tokens"])
def test_a_language_among_real_text(shared_data, unit):
    canonical = canonical_text(shared_data / "wikitext-2", repeat=True)
    arm = arm_stream(get_task("tivari"), 0.1, explanation_unit=unit)
    rows = interleave(canonical, arm, ratio=0.1, unit=unit).read(5_000).to_pylist()
    sizes = {
        kind: sum(len(row["text"].split()) if unit == "tokens" else 1 for row in rows if row["kind"] == kind)
        for kind in ("canonical", "example", "explanation")
    }
    mixed, explained = sizes["example"] + sizes["explanation"], sizes["explanation"]
    assert mixed / sum(sizes.values()) == pytest.approx(0.1, abs=0.02 if unit == "documents" else 0.002)
    assert explained / mixed == pytest.approx(0.1, abs=0.01)
