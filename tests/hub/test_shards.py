"""Shards: the rows of the task, the same bytes always, whole or not there, and never another publication's."""

import dataclasses
import os
import shutil
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, List, Value

from hf_synth.hub import shards
from hf_synth.hub.publication import Choices, offered_tasks
from hf_synth.hub.shards import content_hashes, ensure, measure, overlap, plan, read_spec, refuse_others

ROWS = {"train": 100, "validation": 30, "test": 31}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 30)
    monkeypatch.setattr(shards, "_GROUP_ROWS", 7)


def published(name: str = "sort-8", **choices):
    return offered_tasks(name.split("-")[0], "rlm")[name](Choices(**{"rows": ROWS, **choices}))


def make(config, folder) -> dict[str, bytes]:
    for shard in plan([config]):
        ensure(shard, folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What is in them


def test_layout_follows_from_the_sizes_alone():
    assert [shard.path for shard in plan([published()])] == [
        "sort-8/train-00000-of-00004.parquet",
        "sort-8/train-00001-of-00004.parquet",
        "sort-8/train-00002-of-00004.parquet",
        "sort-8/train-00003-of-00004.parquet",
        "sort-8/validation-00000-of-00001.parquet",
        "sort-8/test-00000-of-00002.parquet",
        "sort-8/test-00001-of-00002.parquet",
    ]
    assert [(shard.start, shard.rows) for shard in plan([published()])] == [
        *((0, 30), (30, 30), (60, 30), (90, 10)),
        (0, 30),
        *((0, 30), (30, 1)),
    ]


def test_rows_are_those_of_the_task(tmp_path):
    config = published()
    make(config, tmp_path)
    task = config.task
    assert task.config.holdout == "content"
    for split, size in ROWS.items():
        files = sorted((tmp_path / "sort-8").glob(f"{split}-*"))
        read = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
        rows = task.rows(0, size, split=split)
        assert len(read) == size
        for row, tokens in zip(read, rows.tokens.tolist(), strict=True):
            words = [["<pad>", "<bos>", "<eos>", "<sep>", *task.vocabulary()][token] for token in tokens]
            ids = {"input_ids": tokens, "labels": [-100] * 10 + tokens[10:], "text": " ".join(words[1:-1])}
            halves = {"prompt": " ".join(words[1:10]), "completion": " " + " ".join(words[10:-1])}
            assert row == {**ids, **halves, "task": task.to_json(), "floor": 0.0}


def test_features_travel_with_the_file(tmp_path):
    make(published(), tmp_path)
    schema = pq.read_schema(tmp_path / "sort-8" / "train-00000-of-00004.parquet")
    features = {name: List(Value("int32")) for name in ("input_ids", "labels")}
    features |= {name: Value("string") for name in ("text", "prompt", "completion", "task")}
    assert Features.from_arrow_schema(schema) == {**features, "floor": Value("float32")}


def test_rows_whose_floor_takes_long_have_one_in_the_test_split_alone():
    offers = offered_tasks("tivari3", presets=["short"])
    slow = offered_tasks("tivari3", presets=["short"], slow=True)
    quick, slow = (one["tivari3-short"](Choices(rows=ROWS)) for one in (offers, slow))
    for split in ROWS:
        rows, other = quick.table(split, 0, 20), slow.table(split, 0, 20)
        assert rows.schema.equals(other.schema)
        assert rows.drop_columns("floor").equals(other.drop_columns("floor"))
        nats = -quick.task.optimal_log_probs(quick.task.rows(0, 20, split=split)).sum(axis=1)
        assert rows["floor"].to_pylist() == pytest.approx(nats, rel=1e-6)
        assert other["floor"].null_count == (0 if split == "test" else 20)
        assert (quick.spec(split) == slow.spec(split)) is (split == "test")


def test_measures_are_those_of_the_file(tmp_path):
    config = published()
    make(config, tmp_path)
    path = tmp_path / "sort-8" / "train-00003-of-00004.parquet"
    result = measure(path, "input_ids")
    assert (result.rows, result.size, len(result.hashes)) == (10, path.stat().st_size, 10)
    ids = 10 * 19
    texts = [pq.read_table(path)[name].to_pylist() for name in ("text", "prompt", "completion", "task")]
    text = sum(len(text) for column in texts for text in column)
    bare = 2 * 4 * ids + text + 4 * 10 + 4 * 6 * (10 + 2)  # values, and the offsets of six columns in two row groups
    assert bare <= result.num_bytes <= 1.05 * bare, "nothing more than what says that no value is missing"


# The same bytes always


@pytest.mark.parametrize("name", ["sort-8", "rlm-v6-l2-b2"])
def test_same_arguments_give_the_same_bytes(name, tmp_path):
    first, again = make(published(name), tmp_path / "a"), make(published(name), tmp_path / "b")
    assert first == again
    assert len(first) == 7
    assert make(published(name), tmp_path / "a") == first


def test_order_of_making_changes_nothing(tmp_path):
    expected = make(published(), tmp_path / "a")
    for shard in reversed(plan([published()])):
        ensure(shard, tmp_path / "b")
    assert make(published(), tmp_path / "b") == expected


def test_finished_shards_are_left_alone(tmp_path, monkeypatch):
    config = published()
    make(config, tmp_path)
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    monkeypatch.setattr(type(config), "table", None)
    make(config, tmp_path)
    assert {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


def test_rows_are_counted_as_they_are_made_or_found(tmp_path):
    for expected in ([7, 7, 7, 7, 2], [30]):
        counts: list[int] = []
        ensure(plan([published()])[0], tmp_path, counts.append)
        assert counts == expected


# Whole or not there


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_torn_shard_is_made_anew(kept, tmp_path):
    expected = make(published(), tmp_path)
    path = tmp_path / "sort-8" / "train-00001-of-00004.parquet"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert make(published(), tmp_path) == expected


def test_flipped_bit_in_any_page_is_noticed(tmp_path):
    expected = make(published(), tmp_path)
    path = tmp_path / "sort-8" / "train-00001-of-00004.parquet"
    footer = pq.read_metadata(path)
    for group in range(footer.num_row_groups):
        for column in range(3):
            chunk = footer.row_group(group).column(column)
            damaged = bytearray(path.read_bytes())
            damaged[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
            path.write_bytes(damaged)
            assert make(published(), tmp_path) == expected


@pytest.mark.parametrize("content", [b"", b"words", b"PAR1" * 10])
def test_file_that_is_no_parquet_is_replaced(content, tmp_path):
    expected = make(published(), tmp_path)
    (tmp_path / "sort-8" / "test-00000-of-00002.parquet").write_bytes(content)
    refuse_others(plan([published()]), tmp_path)
    assert make(published(), tmp_path) == expected


def test_foreign_parquet_file_is_replaced(tmp_path):
    expected = make(published(), tmp_path)
    pq.write_table(pa.table({"input_ids": [[1]]}), tmp_path / "sort-8" / "test-00000-of-00002.parquet")
    refuse_others(plan([published()]), tmp_path)
    assert make(published(), tmp_path) == expected


def test_shard_that_failed_leaves_nothing(tmp_path, monkeypatch):
    config, real = published(), type(published()).table
    monkeypatch.setattr(type(config), "table", lambda self, split, start, count: real(self, split, start, 10 - start))
    with pytest.raises(ValueError, match="count"):
        ensure(plan([config])[0], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_leftovers_of_a_killed_process_go(tmp_path):
    expected = make(published(), tmp_path)
    path = tmp_path / "sort-8" / "train-00001-of-00004.parquet"
    path.rename(path.with_name(f".{path.name}.abc.part"))
    assert make(published(), tmp_path) == expected


# Never another publication's


def change_version(config):
    return dataclasses.replace(config, task=type("Newer", (type(config.task),), {"version": 99})(config.task.config))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda: published(seed=1), "seed: 0 there, 1 now"),
        (lambda: published(rows={**ROWS, "train": 101}), "size: 100 there, 101 now"),
        (lambda: published(rows={**ROWS, "train": 200}), "size: 100 there, 200 now"),
        (lambda: published(holdout="none"), "holdout: 'content' there, 'none' now"),
        (lambda: change_version(published()), "version: 1 there, 99 now"),
    ],
)
def test_shards_of_other_arguments_are_an_error(changed: Callable, message, tmp_path):
    expected = make(published(), tmp_path)
    with pytest.raises(ValueError, match=f"output_dir: .* was made by other arguments .*{message}"):
        refuse_others(plan([changed()]), tmp_path)
    assert make(published(), tmp_path) == expected


def test_shard_under_another_s_name_is_an_error(tmp_path):
    make(published(), tmp_path)
    folder = tmp_path / "sort-8"
    shutil.copy(folder / "train-00000-of-00004.parquet", folder / "train-00001-of-00004.parquet")
    with pytest.raises(ValueError, match="start: 0 there, 30 now"):
        refuse_others(plan([published()]), tmp_path)


@pytest.mark.parametrize("name", ["sort-8", "rlm-v6-l2-b2"])
def test_own_shards_are_no_error(name, tmp_path):
    make(published(name), tmp_path)
    refuse_others(plan([published(name)]), tmp_path)
    assert read_spec(tmp_path / "nowhere.parquet") is None


# Contents and overlap


def hashes_of(values, kind=None) -> list[int]:
    return content_hashes(pa.chunked_array([pa.array(values, kind)])).tolist()


def test_same_contents_have_the_same_hash_and_others_another():
    lists = [[1, 2], [1, 2, 0], [], [2, 1], [1, 2], [0], [0, 0]]
    result = hashes_of(lists, pa.list_(pa.int32()))
    assert result[0] == result[4]
    assert len(set(result)) == 6
    texts = ["a b", "", "a b ", "b a", "a b", "ä"]
    result = hashes_of(texts)
    assert result[0] == result[4]
    assert len(set(result)) == 5


def test_hashes_do_not_depend_on_neighbours_or_chunks():
    lists = pa.array([[1, 2, 3], [4], [], [5, 6]], pa.list_(pa.int32()))
    texts = pa.array(["one", "", "two", "three"])
    for array in (lists, texts):
        whole = content_hashes(pa.chunked_array([array]))
        parts = content_hashes(pa.chunked_array([array[:1], array[1:]]))
        assert whole.tolist() == parts.tolist()
        assert content_hashes(pa.chunked_array([array[2:]])).tolist() == whole[2:].tolist()
    assert content_hashes(pa.chunked_array([texts[:0]])).size == 0


def test_planted_overlap_is_found():
    def values(*numbers: int) -> np.ndarray:
        return np.array(numbers, np.uint64)

    result = overlap({"train": values(1, 2, 2, 3), "validation": values(4, 5), "test": values(3, 3, 5, 6)})
    assert result == {
        "distinct": {"train": 3, "validation": 2, "test": 3},
        "shared": {"validation in train": 0, "test in train": 2, "test in validation": 1},
    }
