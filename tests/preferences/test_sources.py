"""Sources: short names, columns of one's own, and no more than what is asked for."""

from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_synth.preferences import KNOWN_SOURCES, PairStream, Source, read_preferences
from hf_synth.preferences.sources import read_rows

GOOD = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}


@pytest.fixture
def calls(monkeypatch, write):
    """What the Hub was asked; every split of it is one file of one row."""
    result = []
    file = str(write("train.jsonl", GOOD))

    def load_dataset_builder(*args, **options):
        result.append((*args, {name: value for name, value in options.items() if value}))
        files = {split: [file] for split in ("train", "train_prefs", "test")}
        return SimpleNamespace(config=SimpleNamespace(data_files=files))

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    return result


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("hh", "Anthropic/hh-rlhf"),
        ("uf", "HuggingFaceH4/ultrafeedback_binarized"),
        ("se", "HuggingFaceH4/stack-exchange-preferences"),
    ],
)
def test_short_names(calls, name, repository):
    assert Source(name, src="mine").open().src == "mine"
    assert Source(name).open(streaming=True).src == repository
    with pytest.raises(ValueError, match=r"No split 'test_gen' in .*: got train \(train.jsonl\); train_prefs"):
        Source(name, split="test_gen").open()
    assert calls == [(repository, None, {})] * 3
    assert list(KNOWN_SOURCES) == ["hh", "uf", "se"]


def test_a_config_a_folder_and_a_revision(calls):
    source = Source("owner/name:sft@refs/pr/1", data_dir="inside").open()
    assert source.src == "owner/name/sft/inside"
    Source("owner/name@main", name="other", revision="v1").open()
    assert calls == [
        ("owner/name", "sft", {"data_dir": "inside", "revision": "refs/pr/1"}),
        ("owner/name", "other", {"revision": "v1"}),
    ]


def test_a_source_can_be_read_more_than_once(calls):
    stream = PairStream(Source("hh").open(streaming=True), pytest.fail)
    assert [pair["prompt"][0]["content"] for pair in stream] == ["Hi"]
    assert [pair["line"] for pair in stream] == [1], "and again"
    assert (stream.read, stream.pairs, stream.schema) == (1, 1, "hh-rlhf")


def test_columns_of_ones_own(write):
    rows = [{"question": "Hi", "good": "Hello.", "bad": "No.", "prompt": "not this"}, {"question": "Hi", "bad": "No."}]
    path = write("mine.jsonl", *rows, "broken")
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    data = read_preferences(path, columns=columns)
    assert data.dataset["prompt"][0] == [{"role": "user", "content": "Hi"}]
    assert data.dataset["chosen"][0] == [{"role": "assistant", "content": "Hello."}]
    assert data.dropped == {"missing field": 1, "not JSON": 1}
    named = write("named.jsonl", {"q": "Hi", "good": "a", "bad": "b", "s": "Be brief.", "x": 1, "y": 1})
    names = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    data = read_preferences(named, columns={**names, "system": "s"})
    assert [turn["content"] for turn in data.dataset["prompt"][0]] == ["Be brief.", "Hi"]
    assert data.unread == (), "a column that is not named is not wanted"
    with pytest.raises(ValueError, match=r"none of 1 rows is usable \(\{'scores are equal': 1\}\)"):
        read_preferences(named, columns={**names, "score_chosen": "x", "score_rejected": "y"})
    dialogues = write("dialogues.jsonl", {"a": GOOD["chosen"], "b": GOOD["rejected"]})
    assert read_preferences(dialogues, columns={"chosen": "a", "rejected": "b"}).schema == "hh-rlhf"


def test_columns_that_are_none(write):
    path = write("mine.jsonl", {"question": "Hi", "good": "Hello."})
    with pytest.raises(ValueError, match="columns: got unknown name 'chosn'; did you mean 'chosen'"):
        Source(path, columns={"chosn": "good"})
    with pytest.raises(ValueError, match="got rejected=bda, which no row has; the columns are question, good"):
        read_preferences(path, columns={"prompt": "question", "chosen": "good", "rejected": "bda"})


def test_no_more_rows_than_asked_for(write):
    path = write("pairs.jsonl", GOOD, "broken", *[GOOD] * 5)
    data = read_preferences(path, max_rows=3)
    assert (data.read, len(data.dataset), data.dropped) == (3, 2, {"not JSON": 1})


@pytest.mark.parametrize("max_rows", [None, 1])
def test_a_column_that_no_row_has_is_named(write, max_rows):
    path = write("mine.jsonl", {"question": "Hi", **GOOD}, {"question": "Hi", **GOOD})
    columns = {"prompt": "nope", "chosen": "chosen", "rejected": "rejected"}
    wanted = "got prompt=nope, which no row has; the columns are question, chosen, rejected"
    with pytest.raises(ValueError, match=wanted):
        read_preferences(path, columns=columns, max_rows=max_rows)


def test_a_folder_of_published_pairs_gives_its_pairs(write, tmp_path):
    turns = {"prompt": [{"role": "user", "content": "Hi"}]}
    turns |= {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    row = {"id": "1", "prompt_id": "2", "src": "hh", **turns, "density": 1.0, "sampling_weight": 1.0}
    write("made/pairs/train-00000-of-00001.jsonl", row, {**row, "src": "uf", "chosen": "other"})
    write("made/prompts/train-00000-of-00001.jsonl", {"prompt": "not this"})
    write("made/dropped_rows.jsonl", {"reason": "not this"})
    data = read_preferences(tmp_path / "made")
    assert data.dataset["src"][:] == ["hh", "uf"], "each row keeps its source"
    assert (data.src, data.schema) == ("made/pairs", "hf_synth")


def test_scores_that_say_nothing_are_ignored_where_columns_are_named(write):
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_rating": 1, "rejected_rating": 5}
    path = write("pairs.jsonl", row, {**row, "rejected_rating": 0})
    assert read_preferences(path).dropped == {"the rejected reply has the higher score": 1}
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    assert len(read_preferences(path, columns=columns).dataset) == 2


def test_fields_that_are_not_read_are_named_once(write, caplog):
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "system": "", "score_chosen": 2, "score_rejected": 1}
    data = read_preferences(write("pairs.jsonl", {**row, "note": "x"}, {**row, "margin": 3}))
    assert data.unread == ("margin", "note")
    assert [record.getMessage() for record in caplog.records] == ["pairs.jsonl: the fields margin, note are not read"]


def test_every_flipped_byte_of_a_parquet_file_is_read_or_one_line(tmp_path):
    path = tmp_path / "pairs.parquet"
    pairs = [{"prompt": f"say {number}", "chosen": "yes", "rejected": "no"} for number in range(20)]
    pq.write_table(pa.Table.from_pylist(pairs), path)
    whole = path.read_bytes()
    refused = []
    for position in range(0, len(whole), 5):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            list(read_rows(path))
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(line.startswith("pairs.parquet is not a whole Parquet file (") for line in refused)
    assert not any("\n" in line for line in refused)
