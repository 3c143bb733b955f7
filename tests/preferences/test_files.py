"""Raw rows: which files a split has, and nested columns as Python values."""

import bz2
import codecs
import gzip
import json
import lzma

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences import Source, read_preferences, sources
from hf_synth.preferences.sources import python_values, read_rows

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


@pytest.mark.parametrize("rows", [[], [{}], [{}, None, {}]])
def test_dictionaries_without_keys(rows):
    assert python_values(pa.array(rows, pa.struct([]))) == rows
    inside = [{"a": 1, "meta": row} for row in rows]
    assert python_values(pa.array(inside, pa.struct({"a": pa.int8(), "meta": pa.struct([])}))) == inside


ROWS = [{"prompt": f"Q{number}", "chosen": "a", "rejected": "b"} for number in range(100)]


def fields(path):
    return [row.fields if row.reason is None else row.reason for row in read_rows(path)]


ARRAYS = {
    "one line": json.dumps(ROWS),
    "a row a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "rows with brackets": "[" + "\n,".join(map(json.dumps, ROWS)) + "]",
    "printed": json.dumps(ROWS, indent=4),
    "in an object": '{"data": [\n' + ",\n".join(map(json.dumps, ROWS)) + "]}",
    "one after another": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "marked": "\ufeff" + json.dumps(ROWS),
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.json.gz", "rows.ndjson"])
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("chunk", [64, 2**20])
def test_arrays(write, monkeypatch, kind, name, chunk):
    """Whatever part of the file is held at a time."""
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    assert fields(write(name, ARRAYS[kind])) == ROWS


@pytest.mark.parametrize("kind", ["one line", "a row a line", "printed"])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('"Q7", "chosen": tru', "not JSON"),
        ('"Q7', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ('"\udcff"', "not UTF-8"),
    ],
)
@pytest.mark.parametrize("chunk", [300, 2**20])
def test_a_broken_row_of_an_array_is_counted_and_the_others_are_read(
    tmp_path, monkeypatch, kind, broken, reason, chunk
):
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    text = ARRAYS[kind].replace('"Q7"', broken)
    (tmp_path / "rows.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert fields(tmp_path / "rows.json") == [*ROWS[:7], reason, *ROWS[8:]]


def test_what_follows_an_array_is_counted(write):
    assert fields(write("rows.json", json.dumps(ROWS[:2]), ROWS[2])) == [*ROWS[:2], "text after the end of the array"]
    assert fields(write("rows.json", '[{"a": 1}, "text", null, 5, {"a": 2}]')) == [
        {"a": 1},
        *["not a JSON object", "not JSON", "not a JSON object"],
        {"a": 2},
    ]


def test_lines_that_are_arrays_are_no_rows(write):
    assert fields(write("rows.jsonl", ["a", "b"], {"a": 1})) == ["not a JSON object", {"a": 1}]
    assert fields(write("rows.jsonl", "", "  ", {"a": 1}, "x", {"a": 2})) == [{"a": 1}, "not JSON", {"a": 2}]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.tsv", "\t"), ("rows.csv.gz", ",")])
def test_tables_of_text(write, name, mark):
    """Cells may have line ends; bad rows are counted, and lines are numbered as an editor does."""
    lines = [["a", "b"], ['"x\n""y"""', "1"], ["only one"], ["", "2"], ["z", "\udcff"], ["é", "3"], ['"open', "4"]]
    path = write(name, "\n".join(map(mark.join, lines)).encode("utf-8", "surrogateescape"))
    assert [(row.line, row.fields or row.reason) for row in read_rows(path)] == [
        (2, {"a": 'x\n"y"', "b": "1"}),
        (4, "another number of cells than columns"),
        (5, {"a": None, "b": "2"}),
        (6, "not UTF-8"),
        (7, {"a": "é", "b": "3"}),
        (8, "not CSV"),
    ]


@pytest.mark.parametrize("suffix", [".zst", ".bz2", ".xz", ".gz"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_compressed_files(tmp_path, suffix, name):
    text = b"a\n1\n" if "csv" in name else b'{"a": "1"}\n'
    packed = {".bz2": bz2.compress, ".xz": lzma.compress, ".gz": gzip.compress}
    packed[".zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(packed[suffix](text))
    assert fields(path) == [{"a": "1"}]
    path.write_bytes(packed[suffix](text * 1000)[:-9])
    with pytest.raises(ValueError, match=f"{name}{suffix} is not a whole"):
        fields(path)


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", ",")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_first_line_of_a_table_says_what_separates_its_cells(write, name, mark, quote):
    cells = [["a", " b"], [f"1.5{mark if quote else ''}", "x"]]
    lines = [mark.join(f"{quote}{cell}{quote}" for cell in row) for row in cells]
    assert fields(write(name, *lines)) == [{"a": cells[1][0], "b": "x"}]


def test_every_line_behind_a_quote_that_stays_open_is_counted(write):
    lines = [f"question {number},good,bad" for number in range(200)]
    lines[50] = 'question 50,"good,bad'
    data = read_preferences(write("pairs.csv", "prompt,chosen,rejected", *lines))
    assert (data.read, len(data.dataset), data.dropped) == (200, 50, {"not CSV": 150})
    assert [row.line for row in data.rejected_rows] == [*range(52, 202)], "the first names the line of the quote"
    assert [row.row for row in data.rejected_rows] == lines[50:]
    broken = write("broken.csv", b'a,b\n"x\ny"z\xff,1\nc,2\n')
    assert [(row.line, row.raw, row.reason) for row in read_rows(broken)][:2] == [
        (2, '"x', "not CSV"),
        (3, 'y"z?,1', "not CSV"),
    ]
    assert fields(broken)[2:] == [{"a": "c", "b": "2"}]


def test_a_column_without_a_name_is_left_out(write):
    """The index that pandas writes."""
    assert fields(write("rows.csv", ",a,b", "0,x,1", "1,y,2")) == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", [{}, {"version": "1.0", "count": 2, "checked": True}])
def test_rows_in_an_object_that_says_more(write, before, indent):
    for name in ("data", "rows", "examples"):
        rows = [{"a": 1, "b": [{"c": 2}]}, {"a": 3, "b": []}]
        assert fields(write("rows.json", json.dumps({**before, name: rows}, indent=indent))) == rows
    for name, row in (("rows.jsonl", {"id": "1", "data": rows}), ("rows.json", {"id": "1", "data": ["x", "y"]})):
        assert fields(write(name, row, row)) == [row, row], "a row of its own in each line"


def test_a_first_line_that_is_no_csv_is_an_error_in_one_line(write):
    with pytest.raises(ValueError, match=r"a\.csv is not a whole \.csv file \(.*expected after"):
        fields(write("a.csv", '"a"x,"b"'))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_marks_of_files_that_were_joined_are_no_text(write, name):
    lines = ["a", "1"] if "csv" in name else ['{"a": "1"}']
    assert fields(
        write(name, *(f"\ufeff{line}" for line in lines), "\ufeff2" if "csv" in name else '\ufeff{"a": "2"}')
    ) == [
        {"a": "1"},
        {"a": "2"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "Git LFS pointer"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "Git LFS pointer"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("a.csv", codecs.BOM_UTF16_BE + "a,b\n".encode("utf-16-be"), "UTF-16: save it as UTF-8"),
        ("a.jsonl", gzip.compress(b'{"a": 1}', mtime=0), "gzip: add .gz to its name"),
        ("a.arrow", b"ARROW1\x00\x00", "Arrow's file format"),
        ("a.csv", b"PK\x03\x04...", "a zip archive or a spreadsheet"),
    ],
)
def test_what_has_the_name_of_another_kind_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is (a )?{said}"):
        fields(tmp_path / name)


def test_parquet_with_checksums_is_verified(tmp_path):
    """Without them, one changed letter of a text is a text like any other."""
    path = tmp_path / "a.parquet"
    for checksums in (False, True):
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(pa.table({"a": ["Where?", "Here."]}), path, write_page_checksum=checksums, **options)
        assert path.read_bytes().count(b"Where?") == 1
        path.write_bytes(path.read_bytes().replace(b"Where?", b"There?"))
        if not checksums:
            assert fields(path) == [{"a": "There?"}, {"a": "Here."}]
    with pytest.raises(ValueError, match=r"a\.parquet is not a whole Parquet file .*CRC"):
        fields(path)


def test_names_in_capitals(write):
    assert fields(write("A.JSONL", {"a": 1})) == [{"a": 1}]


@pytest.mark.parametrize("kind", ["lines", "one line", "a row a line"])
@pytest.mark.parametrize("row", ['{"prompt": "Q", "chosen": "a", "prompt": "R"}', '{"prompt": [{"a": 1, "a": 2}]}'])
def test_a_key_that_stands_twice_breaks_its_row(tmp_path, kind, row):
    rows = [json.dumps(ROWS[0]), row, json.dumps(ROWS[1])]
    text = "\n".join(rows) if kind == "lines" else "[" + (",\n" if "a line" in kind else ", ").join(rows) + "]"
    (tmp_path / "a.json").write_text(text)
    assert fields(tmp_path / "a.json") == [ROWS[0], "a key stands twice", ROWS[1]]


def test_an_empty_array_has_no_rows(write):
    assert fields(write("a.json", "[]")) == []


def test_messages_in_a_table_of_text(write):
    turns = json.dumps([{"role": "user", "content": "Q?"}])
    table = "prompt,chosen,rejected,score_chosen,score_rejected\n"
    table += '"{}",a,b,2,1\nR?,a,b,1,1\n'.format(turns.replace('"', '""'))
    data = read_preferences(write("pairs.csv", table))
    assert data.dataset["prompt"][:] == [[{"role": "user", "content": "Q?"}]]
    assert data.dropped == {"scores are equal": 1}


# Folders


def place(tmp_path, *names, readme=None):
    for number, name in enumerate(names):
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"prompt": f"Q{number}", "chosen": "a", "rejected": "b"}
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_text(json.dumps(row) + "\n")
    if readme:
        (tmp_path / "repo" / "README.md").write_text(f"---\n{readme}\n---\n")
    return str(tmp_path / "repo")


def read(position, **options):
    return [int(row.fields["prompt"][1:]) for row in Source(position, **options).open().rows()]


def test_splits_are_told_apart_or_asked_for(tmp_path, caplog):
    published = [f"data/{split}-00000-of-00001.parquet" for split in ("train_prefs", "train_sft", "test_prefs")]
    folder = place(tmp_path, *published)
    assert read(folder, split="train_prefs") == [0]
    assert read(folder, default_split="test_prefs") == [2]
    assert "split train_prefs is read, not test_prefs, train_sft" in caplog.text
    with pytest.raises(ValueError, match=r"No split 'train' in repo: got .*train_prefs \(train_prefs-00000.*name one"):
        read(folder)


def test_configs_are_told_apart_or_asked_for(tmp_path):
    names = ["one/train.jsonl", "two/train.jsonl"]
    configs = [f"- config_name: {name[:3]}\n  data_files:\n  - split: train\n    path: {name}" for name in names]
    folder = place(tmp_path, *names, readme="configs:\n" + "\n".join(configs))
    assert read(folder, name="two") == read(f"{folder}:two") == [1]
    with pytest.raises(ValueError, match=r"repo: Config name is missing.*one.*two.*Write repo:CONFIG"):
        read(folder)
    with pytest.raises(ValueError, match=r"repo: BuilderConfig 'three' not found"):
        read(folder, name="three")


def test_the_only_split_needs_no_name(tmp_path):
    folder = place(tmp_path, "test.jsonl")
    assert read(folder) == [0]
    with pytest.raises(ValueError, match=r"No split 'train' in repo: got test \(test\.jsonl\)"):
        read(folder, split="train")
    place(tmp_path, "test.jsonl", "validation.jsonl")
    with pytest.raises(ValueError, match="No split 'train'"):
        read(folder)


def test_parts_are_one_split(tmp_path):
    assert read(place(tmp_path, "part-0.jsonl", "part-1.jsonl")) == [0, 1]


def test_of_several_kinds_of_files_one_is_read_and_the_others_are_named(tmp_path, caplog):
    folder = place(tmp_path, "train-0.jsonl", "train-1.parquet")
    assert read(folder) == [1]
    assert "files in no split, which are not read:" in caplog.text
    assert "train-0.jsonl" in caplog.text


def test_a_clone_whose_card_names_patterns_gives_its_default_config(tmp_path, caplog):
    names = ["data/train-0.jsonl", "data/train-1.jsonl", "raw/all.jsonl"]
    card = "- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
    assert read(place(tmp_path, *names, readme=f"configs:\n{card}- config_name: raw\n  data_files: raw/*")) == [0, 1]
    assert "raw/all.jsonl" in caplog.text
    assert read(f"{tmp_path / 'repo'}:raw") == [2]


def test_folders_in_folders(tmp_path):
    assert read(place(tmp_path, "data/data/train.jsonl", ".ipynb_checkpoints/train-checkpoint.jsonl")) == [0]


def test_a_folder_without_data(tmp_path):
    (tmp_path / "notes.xlsx").touch()
    with pytest.raises(ValueError, match=r"No (data file|split 'train') in"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("README.md", "---\nconfigs: [\n---\n", r"repo: while parsing a flow node .*Give the path of a data file\."),
        (
            "repo.py",
            "raise SystemExit\n",
            r"repo: Dataset scripts are no longer supported.*Give the path of a data file\.",
        ),
        ("README.md", "---\nconfigs: one\n---\n", r"repo: Expected configs to be a list"),
    ],
)
def test_damaged_cards_and_scripts_are_one_line(tmp_path, name, text, said):
    folder = place(tmp_path, "train.jsonl")
    (tmp_path / "repo" / name).write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_a_folder_whose_name_is_a_pattern(write, tmp_path):
    """`datasets` takes it for one."""
    write("a[1]/train.jsonl", ROWS[0])
    with pytest.raises(ValueError, match=r"No data file in the folder a\[1\]: wanted .*, and no \*, \? or \[ in the"):
        read(tmp_path / "a[1]")


def test_a_single_file_has_no_split(write):
    path = write("a.jsonl", ROWS[0])
    with pytest.raises(ValueError, match=r"split: got 'test' of the file a\.jsonl, wanted none"):
        read(path, split="test")


def test_saved_datasets(tmp_path):
    rows = datasets.Dataset.from_list(ROWS[:5])
    rows.shuffle(seed=1).save_to_disk(tmp_path / "one")
    assert sorted(read(tmp_path / "one")) == [0, 1, 2, 3, 4]
    datasets.DatasetDict(train=rows, test=rows.select([3])).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "two") == [0, 1, 2, 3, 4]
    assert read(tmp_path / "two", split="test") == [3]
    saved = datasets.load_from_disk(tmp_path / "one")
    saved.filter(lambda row: row["prompt"] == "Q1")
    saved.map(lambda row: {"prompt": "Q9"})
    assert len(list((tmp_path / "one").glob("cache-*.arrow"))) == 2
    assert sorted(read(tmp_path / "one")) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="No split 'dev' in two: got train"):
        read(tmp_path / "two", split="dev")


def test_metadata_without_keys_is_saved_and_read(tmp_path):
    datasets.Dataset.from_list([row | {"meta": {}} for row in ROWS]).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == list(range(100))


def test_a_column_that_stands_twice_is_no_choice_of_ours(write, tmp_path):
    columns = [pa.array([text]) for text in "qabc"]
    table = pa.Table.from_arrays(columns, names=["prompt", "chosen", "rejected", "chosen"])
    pq.write_table(table, tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match=r"pairs\.parquet is .*the columns chosen stand in it more than once"):
        read_preferences(tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match="columns chosen more than once"):
        read_preferences(write("pairs.csv", b"prompt,chosen,chosen,rejected\nq,a,b,c\n"))
