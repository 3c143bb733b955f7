"""Raw rows: which files a split has, and nested columns as Python values."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences.sources import local_files, python_values

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROW = pa.struct({"prompt": pa.string(), "chosen": MESSAGES, "score": pa.float64(), "tags": pa.list_(pa.int8())})
message = st.none() | st.fixed_dictionaries({"role": st.none() | st.text(max_size=3), "content": st.text(max_size=3)})
rows = st.none() | st.fixed_dictionaries(
    {
        "prompt": st.none() | st.text(max_size=3),
        "chosen": st.none() | st.lists(message, max_size=3),
        "score": st.none() | st.floats(allow_nan=False),
        "tags": st.none() | st.lists(st.integers(-9, 9), max_size=2),
    }
)


@given(st.lists(rows, max_size=6), st.integers(0, 3))
def test_columns_become_the_rows_that_arrow_gives(values, start):
    array = pa.array(values, ROW)[start:]
    assert python_values(array) == array.to_pylist() == values[start:]


@given(st.lists(st.none() | st.lists(st.text(max_size=2), max_size=2), max_size=4))
def test_other_lists(values):
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_view(pa.string())):
        assert python_values(pa.array(values, kind)) == values


@pytest.fixture
def folder(tmp_path):
    """Some files, all empty."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(folder, split, **options):
    return [path.relative_to(folder).as_posix() for path in local_files(folder, split, **options)]


def test_a_split_is_words_of_a_name(folder):
    published = ("data/train_prefs-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet", "test.jsonl")
    place = folder(*published, "README.md", "training.jsonl")
    assert names(place, "train_prefs") == [published[0]]
    assert names(place, "train") == [*published[:2]]
    assert names(place, None, default="train_prefs") == [published[0]]
    assert names(place, "test") == ["test.jsonl"]
    with pytest.raises(ValueError, match=r"No file of split 'prefs_train' in the folder .* it has data/train_prefs"):
        local_files(place, "prefs_train")


def test_the_only_file_needs_no_split(folder):
    place = folder("test.jsonl.gz")
    assert names(place, None) == ["test.jsonl.gz"]
    with pytest.raises(ValueError, match=r"No file of split 'train' in the folder .* it has test\.jsonl\.gz"):
        local_files(place, "train")
    folder("validation.jsonl")
    with pytest.raises(ValueError, match="No file of split 'train'"):
        local_files(place, None)
