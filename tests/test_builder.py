"""load_dataset: mapped equals streamed, one process equals two, and a cache that is neither stale nor made twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from hf_synth import get_task, list_tasks, load_dataset
from hf_synth.builder import dataset_spec
from hf_synth.tasks import task_class
from hf_synth.tasks.sort import Sort
from hf_synth.views import VIEW_FEATURES, block_rows, view_features

SORT = {"name": "sort", "preset": "8", "split": "train", "size": 20}


def files(rows) -> list[str]:
    return [file["filename"] for file in rows.cache_files]


@pytest.fixture
def tables_made(monkeypatch) -> list[str]:
    """The views of the blocks that were generated, in order."""
    import hf_synth.builder as builder

    made, real = [], builder.view_table
    monkeypatch.setattr(
        builder, "view_table", lambda task, view, *a, **k: (made.append(view), real(task, view, *a, **k))[1]
    )
    return made


# Equal however they are made


@pytest.mark.parametrize("view", VIEW_FEATURES)
@pytest.mark.parametrize("name", list_tasks())
def test_streamed_rows_equal_mapped_rows(name, view):
    if not task_class(name).verifiable and view in ("preference", "labelled"):
        pytest.skip("no text of this task is wrong")
    size = get_task(name).size("train") or 30
    arguments = {"split": "train", "size": min(size, 30), "view": view}
    mapped = load_dataset(name, **arguments)
    streamed = load_dataset(name, **arguments, streaming=True)
    assert mapped.features == streamed.features == view_features(get_task(name), view)
    assert mapped.to_list() == list(streamed)
    assert len(mapped) == arguments["size"]


def test_tokens_are_the_rows_of_the_task():
    task = get_task("sort", "8")
    assert load_dataset(**SORT)["input_ids"][:] == task.rows(0, 20).tokens.tolist()


def test_rows_do_not_depend_on_the_size():
    assert load_dataset(**{**SORT, "size": 7})[:] == load_dataset(**SORT)[:7]


def test_blocks_join_without_a_gap_or_a_double(monkeypatch):
    expected = load_dataset(**SORT).to_list()
    monkeypatch.setattr("hf_synth.builder._BLOCK_ROWS", 3)
    monkeypatch.setattr("hf_synth.builder._SHARD_ROWS", 7)
    assert load_dataset(**SORT, streaming=True).num_shards == 3
    assert list(load_dataset(**SORT, streaming=True)) == expected


def test_blocks_of_long_rows_are_small():
    assert block_rows(get_task("sort", "8"), "train", 10_000) == 10_000
    assert block_rows(get_task("sort", length=65_536), "train", 10_000) == 2**26 // (2 * 65_536 + 3)


@pytest.mark.processes
def test_two_processes_make_what_one_makes(tmp_path):
    arguments = {"name": "start_mid_end", "split": "test", "size": 60_000, "view": "prompt_completion"}
    one = load_dataset(**arguments, cache_dir=str(tmp_path / "one"))
    two = load_dataset(**arguments, cache_dir=str(tmp_path / "two"), num_proc=2)
    assert len(files(one)) == 1
    assert len(files(two)) == 2
    assert one.data.table.combine_chunks().equals(two.data.table.combine_chunks())


@pytest.mark.parametrize(("size", "shards"), [(1, 1), (50_000, 1), (50_001, 2), (100_000, 2), (100_001, 3)])
def test_number_of_shards_depends_on_the_size_alone(size, shards):
    for name in ("sort", "tivari"):
        assert load_dataset(name, split="train", size=size, streaming=True).num_shards == shards


@pytest.mark.parametrize("view", VIEW_FEATURES)
def test_dataset_of_one_row(view):
    for streaming in (False, True):
        assert len(list(load_dataset("tivari3", split="train", size=1, view=view, streaming=streaming))) == 1


# The cache


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"size": 21}, {"view": "text"}, {"split": "test"}, {"preset": "16"}, {"vocab_size": 99}],
    ids=lambda change: next(iter(change)),
)
def test_any_change_gives_new_data(change, tmp_path):
    before = load_dataset(**SORT, cache_dir=str(tmp_path))
    after = load_dataset(**{**SORT, **change}, cache_dir=str(tmp_path))
    assert not set(files(before)) & set(files(after))
    assert before._fingerprint != after._fingerprint
    assert before.to_list() != after.to_list()
    assert load_dataset(**SORT, cache_dir=str(tmp_path)).to_list() == before.to_list()


def test_holdout_gives_new_data(tmp_path):
    arguments = {"name": "start_mid_end", "split": "test", "size": 20, "cache_dir": str(tmp_path)}
    assert load_dataset(**arguments).to_list() != load_dataset(**arguments, holdout="content").to_list()


def test_raised_version_gives_new_data(tmp_path, monkeypatch):
    before = load_dataset(**SORT, cache_dir=str(tmp_path))
    monkeypatch.setattr(Sort, "version", Sort.version + 1)
    real = Sort.generate
    monkeypatch.setattr(Sort, "generate", lambda self, rng: (rng.keys(), real(self, rng))[1])
    assert load_dataset(**SORT, cache_dir=str(tmp_path)).to_list() != before.to_list()


def test_raised_row_format_is_made_anew(tmp_path, monkeypatch, tables_made):
    load_dataset(**SORT, cache_dir=str(tmp_path))
    monkeypatch.setattr("hf_synth.builder.ROW_FORMAT", 10**6)
    load_dataset(**SORT, cache_dir=str(tmp_path))
    assert tables_made == ["tokens", "tokens"]


def test_same_arguments_are_made_once(tmp_path, tables_made):
    first = load_dataset(**SORT, cache_dir=str(tmp_path))
    assert files(load_dataset(**SORT, cache_dir=str(tmp_path))) == files(first)
    assert tables_made == ["tokens"]


@pytest.mark.parametrize(
    "explicit",
    [
        {"seed": 0},
        {"view": "tokens"},
        {"holdout": "none"},
        {"length": 8, "vocab_size": 100},
        {"preset": "64", "length": 8},
        {"num_proc": None},
        {"num_proc": 1},
        {"streaming": False},
    ],
    ids=str,
)
def test_default_passed_explicitly_is_not_made_anew(explicit, tmp_path, tables_made):
    first = load_dataset(**SORT, cache_dir=str(tmp_path))
    second = load_dataset(**{**SORT, **explicit}, cache_dir=str(tmp_path))
    assert files(first) == files(second)
    assert tables_made == ["tokens"]


def test_cache_lies_where_it_was_asked_for(tmp_path):
    assert all(Path(name).is_relative_to(tmp_path) for name in files(load_dataset(**SORT, cache_dir=str(tmp_path))))


def test_spec_holds_all_that_rows_depend_on():
    spec = dataset_spec("sort", get_task("sort", "8"), split="test", size=5, seed=3, view="text")
    assert json.loads(json.dumps(spec)) == {
        "row_format": 2,
        "task": "sort",
        "version": Sort.version,
        "config": {"holdout": "none", "length": 8, "vocab_size": 100, "min_length": 0, "test_length": 0},
        "seed": 3,
        "split": "test",
        "size": 5,
        "view": "text",
    }


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view": "token"}, r"got unknown view 'token'; did you mean 'tokens'\? Known: distribution, labelled"),
        (
            {"split": "valid"},
            r"got unknown split 'valid'; (did you mean 'validation'\? )?Known: test, train, validation",
        ),
        ({"split": "train[:5]"}, r"got unknown split 'train\[:5\]'; .*`size` says how many rows there are"),
        ({"split": None}, "got unknown split None; Known: "),
        ({"name": None}, r"name: got None \(NoneType\), wanted a task's name"),
        ({"name": Path("sort.py")}, r"name: got .*, wanted a task's name or its file's, as text"),
        ({"preset": 8}, "task sort: got unknown preset 8; did you mean '8'"),
        ({"sede": 1}, r"load_dataset: got unknown argument 'sede'; did you mean 'seed'\? Known: .*of task sort: "),
        ({"size": 0}, r"got size=0, wanted a whole number of rows, at least 1"),
        ({"size": -5}, r"got size=-5, wanted"),
        ({"size": 2.5}, r"got size=2.5, wanted"),
        ({"size": None}, r"task sort never ends: got size=None, wanted the number of rows"),
        ({"seed": "one"}, r"got seed='one', wanted a whole number"),
        ({"preset": "9"}, r"task sort: got unknown preset '9'"),
        ({"vocab": 9}, r"SequenceConfig: got unknown field 'vocab'; did you mean 'vocab_size'\?"),
        ({"length": 0}, r"SequenceConfig.length: got 0, wanted a value from 1 to 65536"),
        ({"name": "sorted"}, r"got unknown task 'sorted'; did you mean 'sort'\?"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_illegal_argument_is_an_error_that_says_what_was_wanted(change, message, streaming):
    with pytest.raises(ValueError, match=message):
        load_dataset(**{**SORT, **change}, streaming=streaming)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_processes_for_a_stream_are_an_error_that_says_who_splits_it(num_proc):
    with pytest.raises(ValueError, match=f"num_proc: got {num_proc} with streaming=True.*IterableDataset.shard"):
        load_dataset(**SORT, streaming=True, num_proc=num_proc)


def test_a_finite_task_begins_again():
    size = get_task("analogy").size("test")
    rows = load_dataset("analogy", split="test", size=2 * size)[:]["input_ids"]
    assert sorted(map(tuple, rows[:size])) == sorted(map(tuple, rows[size:]))
    assert rows[:size] != rows[size:]


@pytest.mark.parametrize("streaming", [False, True])
def test_split_that_cannot_be_filled_is_the_task_s_own_error(streaming):
    with pytest.raises(ValueError, match='holdout="content" leaves the test split empty'):
        list(load_dataset("tivari", split="test", size=5, max_middle=2, holdout="content", streaming=streaming))


def test_preferences_of_a_task_in_which_nothing_is_wrong_are_an_error(monkeypatch):
    monkeypatch.setattr(Sort, "verifiable", False)
    with pytest.raises(ValueError, match='task sort: got view "preference", but no text of this task is wrong'):
        load_dataset(**{**SORT, "view": "preference", "seed": 12345})


def test_numpy_integers_are_whole_numbers_and_truth_values_are_not():
    plain = load_dataset("sort", "8", split="train", size=3, seed=1, streaming=True)
    numpy = load_dataset("sort", "8", split="train", size=np.int64(3), seed=np.int32(1), streaming=True)
    assert list(numpy) == list(plain)
    for wrong in ({"size": True}, {"size": 3, "seed": True}, {"size": 3.0}):
        with pytest.raises(ValueError, match="wanted a whole number"):
            load_dataset("sort", "8", split="train", **wrong)
