"""Sources: short names, columns of one's own, and no more than what is asked for."""

import datasets
import pytest

from hf_synth.preferences import KNOWN_SOURCES, PairStream, Source, read_preferences

GOOD = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}


@pytest.fixture
def calls(monkeypatch):
    """What the Hub was asked; it has one row, a stream when a stream is asked for."""
    found = []

    def load_dataset(*args, **options):
        found.append((args, options))
        rows = datasets.Dataset.from_list([GOOD])
        return rows.to_iterable_dataset() if options["streaming"] else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return found


@pytest.mark.parametrize(
    ("name", "repository", "split"),
    [
        ("hh", "Anthropic/hh-rlhf", "train"),
        ("uf", "HuggingFaceH4/ultrafeedback_binarized", "train_prefs"),
        ("se", "HuggingFaceH4/stack-exchange-preferences", "train"),
    ],
)
def test_short_names(calls, name, repository, split):
    source = Source(name, src="mine").open()
    assert source.src == "mine"
    assert Source(name).open(streaming=True).src == repository
    Source(name, split="test").open()
    assert [(args, options["split"], options["streaming"]) for args, options in calls] == [
        ((repository,), split, False),
        ((repository,), split, True),
        ((repository,), "test", False),
    ]
    assert list(KNOWN_SOURCES) == ["hh", "uf", "se"]


def test_a_stream_from_the_hub_is_read_row_by_row(calls):
    stream = PairStream(Source("hh").open(streaming=True), pytest.fail)
    assert [pair.columns["prompt"][0]["content"] for pair in stream] == ["Hi"]
    assert [pair.line for pair in stream] == [1], "and again"
    assert (stream.read, stream.pairs, stream.schema) == (1, 1, "hh-rlhf")


def test_columns_of_ones_own(write):
    rows = [{"question": "Hi", "good": "Hello.", "bad": "No.", "prompt": "not this"}, {"question": "Hi", "bad": "No."}]
    path = write("mine.jsonl", *rows, "broken")
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    data = read_preferences(path, columns=columns)
    assert data.dataset["prompt"][0] == [{"role": "user", "content": "Hi"}]
    assert data.dataset["chosen"][0] == [{"role": "assistant", "content": "Hello."}]
    assert data.dropped == {"missing field": 1, "not JSON": 1}
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
