"""Reading pairs: what is kept, what is left out, and that one bad row stops nothing."""

import gzip
import json

import datasets
import pytest

from hf_synth.preferences import Pair, read_preferences, reader, readers

GOOD = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}


def with_chosen(chosen):
    return {**GOOD, "chosen": chosen}


BAD = [
    ("not JSON", '{"chosen": "\\n\\nHuman: a'),
    ("not JSON", "[" * 100_000),
    ("not JSON", '{"chosen": ' + "9" * 5000 + "}"),
    ("not UTF-8", b'{"chosen": "\xff"}'),
    ("not a JSON object", '["chosen", "rejected"]'),
    ("missing field", {"chosen": GOOD["chosen"]}),
    ("wrong type", with_chosen(None)),
    ("wrong type", with_chosen(["\n\nHuman: Hi\n\nAssistant: Hello."])),
    ("no assistant turn", with_chosen("Hi! Hello.")),
    ("no assistant turn", with_chosen("\n\nHuman: Hi")),
    ("last turn is not the assistant's", with_chosen(GOOD["chosen"] + "\n\nHuman: Bye")),
    ("text before the first turn", with_chosen("Note" + GOOD["chosen"])),
    ("empty prompt", {side: "\n\nHuman: \n\nAssistant: " + side for side in GOOD}),
    ("empty prompt", {side: "\n\nAssistant: " + side for side in GOOD}),
    (
        "empty turn in the prompt",
        {side: f"\n\nHuman: a\n\nAssistant:\n\nHuman: b\n\nAssistant: {side}" for side in GOOD},
    ),
    ("prompts differ", with_chosen("\n\nHuman: Hey\n\nAssistant: Hello.")),
    ("chosen equals rejected", with_chosen(GOOD["rejected"] + " ")),
    ("empty reply", with_chosen("\n\nHuman: Hi\n\nAssistant: ")),
    (
        "not valid Unicode",
        '{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: \\ud83d", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: b"}',
    ),
]


@pytest.mark.parametrize(("reason", "line"), BAD)
def test_a_bad_row_is_counted_and_kept_and_stops_nothing(write, reason, line):
    data = read_preferences(write("pairs.jsonl", line, GOOD, "", line, GOOD))
    assert (data.read, len(data.dataset), data.dropped) == (4, 2, {reason: 2})
    assert [(row.file, row.line, row.reason) for row in data.rejected_rows] == [
        ("pairs.jsonl", 1, reason),
        ("pairs.jsonl", 4, reason),  # lines are numbered as an editor does: the empty third counts
    ]


def test_all_kinds_of_rejected_rows_together(write):
    data = read_preferences(write("pairs.jsonl.gz", GOOD, *(line for _, line in BAD)))
    assert len(data.dataset) == 1
    assert sum(data.dropped.values()) == len(BAD) == data.read - 1
    assert [row.reason for row in data.rejected_rows] == [reason for reason, _ in BAD]
    assert data.rejected_rows[1].row == "[" * 500 + "... (99500 more characters)"
    assert json.loads(data.rejected_rows[5].row) == BAD[5][1]
    assert [row.line for row in data.rejected_rows] == list(range(2, len(BAD) + 2))


def test_the_row_that_comes_out(write):
    data = read_preferences(write("pairs.jsonl", GOOD), src="mine")
    assert data.dataset[0] == {
        "id": "a3e9cc9ebc5f427b",  # md5('[[{"content": "Hi", "role": "user"}], "Hello.", "No."]')
        "prompt_id": "c1a5298f939e87e8",  # md5("Hi")
        "src": "mine",
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    assert (data.src, data.schema, data.read, data.joined, data.dropped) == ("mine", "hh-rlhf", 1, 0, {})


def test_the_id_is_that_of_the_pair(write):
    swapped = {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}
    spaced = with_chosen(GOOD["chosen"] + "\n")
    ids = read_preferences(write("pairs.jsonl", GOOD, swapped, spaced)).dataset["id"]
    assert ids[0] == ids[2] != ids[1]


class TestRealFile:
    """Measured on the published test file of harmless-base."""

    @pytest.fixture(scope="class")
    def data(self, hh_file):
        return read_preferences(hh_file)

    def test_counts(self, data):
        assert (data.read, len(data.dataset), data.joined) == (2312, 2308, 9)
        assert data.dropped == {"empty reply": 4}
        assert [row.line for row in data.rejected_rows] == [87, 517, 926, 1104]
        assert len(set(data.dataset["id"])) == 2308
        assert len(set(data.dataset["prompt_id"])) == 2306

    def test_every_prompt_alternates_and_ends_with_the_user(self, data):
        for row in data.dataset:
            assert [m["role"] for m in row["prompt"]] == (["user", "assistant"] * len(row["prompt"]))[
                : len(row["prompt"])
            ]
            assert row["prompt"][-1]["role"] == "user"
            assert [m["role"] for m in (*row["chosen"], *row["rejected"])] == ["assistant"] * 2
            assert all(m["content"].strip() for m in (*row["prompt"], *row["chosen"], *row["rejected"]))

    def test_nothing_but_markers_and_outer_whitespace_is_lost(self, data, hh_file):
        with gzip.open(hh_file, "rt", encoding="utf-8") as lines:
            raw = [json.loads(line) for number, line in enumerate(lines, 1) if number not in {87, 517, 926, 1104}]
        for row, source in zip(data.dataset, raw, strict=True):
            for side in ("chosen", "rejected"):
                text = source[side]
                for message in (*row["prompt"], *row[side]):
                    for part in message["content"].split():
                        assert part in text
                kept = sum(len(m["content"].split()) for m in (*row["prompt"], *row[side]))
                markers = text.count("\n\nHuman: ") + text.count("\n\nAssistant: ")
                assert kept == len(text.split()) - markers


class TestFiles:
    def test_parquet_gzip_and_plain_agree(self, write, tmp_path):
        rows = [GOOD, with_chosen(None), with_chosen("\n\nHuman: Hi\n\nAssistant: Well.")]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "pairs.parquet")
        paths = [write("pairs.jsonl", *rows), write("pairs.jsonl.gz", *rows), tmp_path / "pairs.parquet"]
        read = [read_preferences(path, src="same") for path in paths]
        assert read[0].dataset.to_list() == read[1].dataset.to_list() == read[2].dataset.to_list()
        assert [data.rejected_rows[0].line for data in read] == [2, 2, 2]

    def test_byte_order_mark_and_windows_line_ends(self, write):
        path = write("pairs.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r", GOOD)
        assert len(read_preferences(path).dataset) == 2

    def test_what_hf_synth_publishes_beside_the_data_is_not_named(self, write, tmp_path, caplog):
        for name in ("published.json", "tokenizer.json", "tokenizer_config.json"):
            write(f"published/data/{name}", "{}")
        write("published/data/train-00000-of-00001.jsonl", GOOD)
        with caplog.at_level("WARNING"):
            read_preferences(tmp_path / "published")
        assert "not read" not in caplog.text

    def test_folder_in_the_hubs_layout(self, write, tmp_path, caplog):
        other = with_chosen("\n\nHuman: Hi\n\nAssistant: Test.")
        write("repo/harmless-base/train.jsonl.gz", GOOD)
        write("repo/harmless-base/test.jsonl.gz", other)
        write("repo/data/train-00000-of-00001.jsonl", GOOD, GOOD)
        write("repo/.cache/train.txt", "no data")
        with caplog.at_level("WARNING"):
            assert len(read_preferences(tmp_path / "repo").dataset) == 2, "as `datasets` finds them: data/ alone"
        assert "files in no split, which are not read" in caplog.text
        assert "harmless-base/train.jsonl.gz" in caplog.text
        test = read_preferences(tmp_path / "repo", split="test", data_dir="harmless-base")
        assert test.src == "repo/harmless-base"
        assert test.dataset[0]["chosen"][0]["content"] == "Test."
        with pytest.raises(ValueError, match=r"No split 'validation' in repo: got train"):
            read_preferences(tmp_path / "repo", split="validation")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.jsonl", "just\nprose", r"none of 2 rows has any columns \(\{'not JSON': 2\}\). Wanted JSON lines"),
            ("a.jsonl", "", "none of 0 rows"),
            (
                "a.jsonl",
                '{"question": "a"}',
                r"columns question are of no known schema. Known are: hh-rlhf: chosen, rej",
            ),
            ("a.jsonl", '{"chosen": 1, "rejected": 2}', r"none of 1 rows is usable \(\{'wrong type': 1\}\)"),
            ("a.xlsx", "chosen,rejected", "wanted a name ending in .jsonl"),
            ("a.jsonl.gz", "not compressed", "not a whole gzip file"),
            ("a.parquet", "no table", "not a whole Parquet file"),
        ],
    )
    def test_files_that_give_nothing(self, tmp_path, name, content, message):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            read_preferences(tmp_path / name)

    def test_cut_off_archive(self, write):
        path = write("pairs.jsonl.gz", *[GOOD] * 50)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match="not a whole gzip file"):
            read_preferences(path)


class TestHub:
    @pytest.mark.parametrize("source", ["missing/pairs.jsonl", "./missing", "a/b/c", "owner/name with space"])
    def test_a_misspelt_path_never_asks_the_hub(self, monkeypatch, source):
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda *args, **options: pytest.fail("asked the Hub"))
        with pytest.raises(ValueError, match="no file or folder"):
            read_preferences(source)

    def test_unknown_on_the_hub(self, monkeypatch):
        def load_dataset_builder(*args, **options):
            raise datasets.exceptions.DatasetNotFoundError("not there")

        monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
        with pytest.raises(ValueError, match="neither a local path nor a dataset on the Hub called owner/name"):
            read_preferences("owner/name")


def test_another_schema_joins_as_one_function(monkeypatch, write):
    monkeypatch.setattr(readers, "SCHEMAS", dict(readers.SCHEMAS))

    @reader("answers", columns=("question", "answers"))
    def read_answers(row):
        best, *others = row["answers"]
        return [Pair([{"role": "user", "content": row["question"]}], best, other) for other in others]

    path = write("a.jsonl", {"question": "Why?", "answers": ["Because.", "So.", "No."]})
    data = read_preferences(path)
    assert (data.schema, data.read, len(data.dataset)) == ("answers", 1, 2)
