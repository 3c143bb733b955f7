"""Streams: read in any pieces, resumed anywhere, dealt to shards without a gap or a double."""

import itertools

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.corpora import Numbered, Streamed

SIZE = 3_400


def lines(name: str, count: int) -> list[dict]:
    return [{"text": f"{name} {number}", "other": number} for number in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Four Parquet files of canonical text."""
    folder = tmp_path_factory.mktemp("files")
    for name, count in {"a": 1_700, "b": 900, "c": 1, "d": 1_300}.items():
        datasets.Dataset.from_list(lines(name, count)).to_parquet(folder / f"{name}.parquet")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def dataset(files):
    """The files as `datasets` streams them."""
    return lambda: datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)


@pytest.fixture(scope="module")
def make(dataset, counted):
    """Fresh streams of three kinds."""
    return {
        "endless": counted,
        "finite": lambda: counted(SIZE),
        "streamed": lambda: Streamed(dataset()),
        "repeated": lambda: Streamed(dataset(), repeat=True),
    }


NAMES = ["endless", "finite", "streamed", "repeated"]


@pytest.mark.parametrize("name", NAMES)
def test_documents_do_not_depend_on_the_pieces_that_are_read(make, name):
    pieces = [0, 1, 999, 1, 1_000, 2_500, 3, 300]
    wanted = make[name]().read(sum(pieces))["text"].to_pylist()
    stream = make[name]()
    assert [text for piece in pieces for text in stream.read(piece)["text"].to_pylist()] == wanted


@pytest.mark.parametrize("name", NAMES)
@given(before=st.integers(0, 9_000), piece=st.integers(1, 2_000))
def test_a_resumed_stream_goes_on_where_the_other_stood(make, resumed, name, before, piece):
    stream = make[name]()
    while before > 0 and stream.read(min(piece, before)).num_rows:
        before -= piece
    other = resumed(stream, make[name]())
    assert other.state_dict() == stream.state_dict()
    assert other.read(1_500)["text"].to_pylist() == stream.read(1_500)["text"].to_pylist()


@pytest.mark.parametrize("name", ["finite", "streamed"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_shards_together_hold_every_document_once(make, name, count):
    parts = [make[name]().shard(count, index).read(10_000)["text"].to_pylist() for index in range(count)]
    whole = make[name]().read(10_000)["text"].to_pylist()
    assert sorted([*itertools.chain(*parts)]) == sorted(whole)
    if count == 1:
        assert parts == [whole]


@pytest.mark.parametrize("name", ["finite", "streamed"])
def test_shards_of_shards_together_hold_every_document_once(make, name):
    parts = [
        make[name]().shard(2, rank).shard(2, worker).read(10_000)["text"].to_pylist()
        for rank in range(2)
        for worker in range(2)
    ]
    assert sorted([*itertools.chain(*parts)]) == sorted(make[name]().read(10_000)["text"].to_pylist())


def test_a_shard_of_an_endless_stream_takes_every_nth_block(counted, numbers):
    part = counted().shard(3, 1).read(2_500)
    assert numbers(part, "canonical") == [*range(1_000, 2_000), *range(4_000, 5_000), *range(7_000, 7_500)]


@pytest.mark.parametrize(("count", "index"), [(2, 2), (2, -1), (0, 0)])
def test_a_shard_that_is_none_is_an_error(make, count, index):
    for name in ("endless", "streamed"):
        with pytest.raises(ValueError, match=f"got index={index} of num_shards={count}"):
            make[name]().shard(count, index)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("before", "count"), [(0, 0), (0, 1_000), (10, 2_500), (1_000, 1), (1_500, 700)])
def test_forward_leaves_documents_out(make, name, before, count):
    wanted = make[name]().read(before + count + 50)["text"].to_pylist()[-50:]
    stream = make[name]()
    stream.read(before)
    stream.forward(count)
    assert stream.read(50)["text"].to_pylist() == wanted


def test_forward_makes_none_of_the_blocks_that_it_leaves_out(counted):
    stream = counted()
    made, make = [], stream.documents.table
    stream.documents.table = lambda start, count: (made.append(start), make(start, count))[1]
    stream.forward(2**40 + 7)
    assert stream.read(1)["text"].to_pylist() == [f"w w w w {2**40 + 7}"]
    assert made == [(2**40 + 7) // 1_000 * 1_000]


# Datasets of the library


def test_a_streamed_dataset_keeps_its_order_and_ends(dataset):
    result = Streamed(dataset()).read(10_000)
    assert result["text"].to_pylist() == [row["text"] for row in dataset()]
    assert set(result["kind"].to_pylist()) == {"canonical"}


def test_a_repeated_dataset_comes_again_file_by_file_in_another_order(dataset):
    wanted = [row["text"] for row in dataset()]
    result = Streamed(dataset(), repeat=True).read(5 * len(wanted))["text"].to_pylist()
    passes = [tuple(result[start : start + len(wanted)]) for start in range(0, len(result), len(wanted))]
    assert list(passes[0]) == wanted
    assert all(sorted(one) == sorted(wanted) for one in passes)
    assert len(set(passes)) > 1


def test_an_empty_dataset_ends_even_where_it_is_repeated():
    empty = datasets.IterableDataset.from_generator(lambda: iter(()))
    assert Streamed(empty, repeat=True).read(5).num_rows == 0


@pytest.mark.parametrize(
    ("column", "message"),
    [("texts", "got 'texts', which the text does not have; did you mean 'text'"), ("other", "'other', which holds")],
)
def test_a_column_without_text_is_an_error(dataset, column, message):
    with pytest.raises(ValueError, match=message):
        Streamed(dataset(), text_column=column)


def test_a_missing_text_is_an_empty_one():
    rows = datasets.Dataset.from_dict({"text": ["a", None]}).to_iterable_dataset()
    assert Streamed(rows).read(2)["text"].to_pylist() == ["a", ""]


def test_numbered_documents_need_no_more_than_size_and_table(counted):
    documents = counted(10).documents
    assert Numbered(documents).read(20).num_rows == 10
