"""Canonical text: what a document of a file is, which files are read, passes over them, and the stand-in."""

import collections
import gzip
import hashlib
import json

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.corpora import StandIn, Streamed, Texts, canonical_text
from hf_synth.corpora.text import CUTS, cut_text

WIKI = (
    " \n = First = \n \n One . \n Two . \n \n = = Section = = \n \n Three . \n \n = Second = \n \n = 4 = \n Four . \n"
)


def cut(text: str, document: str) -> list[str]:
    return list(cut_text(text.splitlines(keepends=True), document))


def texts(stream, count: int = 10_000) -> list[str]:
    return stream.read(count)["text"].to_pylist()


# What a document is


def test_documents_of_a_text_in_four_ways():
    assert cut(WIKI, "paragraph") == [
        "= First =",
        "One . \n Two .",
        "= = Section = =",
        "Three .",
        "= Second =",
        "= 4 = \n Four .",
    ]
    assert cut(WIKI, "article") == [
        "= First = \n \n One . \n Two . \n \n = = Section = = \n \n Three .",
        "= Second =",
        "= 4 = \n Four .",
    ]
    assert cut(WIKI, "line")[:3] == ["= First =", "One .", "Two ."]
    assert cut(WIKI, "file") == [WIKI.strip()]


def test_a_heading_begins_an_article_only_after_a_blank_line():
    assert len(cut("= A =\n\ntext\n= B =\n", "article")) == 1


@given(text=st.text(st.sampled_from("ab= \n\t"), max_size=60), document=st.sampled_from(CUTS))
def test_documents_hold_every_word_once_and_no_blank_text(text, document):
    result = cut(text, document)
    assert " ".join(result).split() == text.split()
    assert all(one == one.strip() != "" for one in result)
    if document == "paragraph":
        assert not any("\n\n" in one for one in result)


@pytest.mark.parametrize("document", CUTS)
def test_real_text_is_cut_without_loss(shared_data, document):
    folder = shared_data / "wikitext-2"
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    result = texts(canonical_text(folder, document=document))
    words = collections.Counter(word for line in lines for word in line.split())
    assert collections.Counter(word for text in result for word in text.split()) == words
    if document == "article":
        assert 110 < len(result) < 140
        assert all(text.startswith("= ") for text in result)
    if document == "line":
        assert len(result) == sum(bool(line.strip()) for line in lines)
    if document == "file":
        assert len(result) == 2


# Files, folders, datasets, the Hub


@pytest.fixture
def folders(tmp_path):
    """The same three documents in files of each kind."""
    rows = [{"text": f"document {number}", "body": f"body {number}"} for number in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    plain = "\n\n".join(row["text"] for row in rows)
    made = {name: tmp_path / name for name in ("txt", "txt.gz", "jsonl", "jsonl.gz", "parquet")}
    for folder in made.values():
        folder.mkdir()
    (made["txt"] / "a.txt").write_text(plain)
    (made["txt.gz"] / "a.txt.gz").write_bytes(gzip.compress(plain.encode()))
    (made["jsonl"] / "a.jsonl").write_text(lines)
    (made["jsonl.gz"] / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    datasets.Dataset.from_list(rows).to_parquet(made["parquet"] / "a.parquet")
    return made


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "jsonl.gz", "parquet"])
def test_a_file_and_its_folder_hold_the_same_documents(folders, kind):
    folder = folders[kind]
    (file,) = folder.iterdir()
    wanted = ["document 0", "document 1", "document 2"]
    assert sorted(texts(canonical_text(folder))) == sorted(texts(canonical_text(str(file)))) == wanted


def test_a_changed_file_is_read_anew(folders):
    (file,) = folders["jsonl"].iterdir()
    assert len(texts(canonical_text(file))) == 3
    file.write_text('{"text": "another"}\n')
    assert texts(canonical_text(file)) == ["another"]


def test_another_column_may_hold_the_text(folders):
    assert sorted(texts(canonical_text(folders["parquet"], text_column="body")))[0] == "body 0"


def test_datasets_that_are_loaded_are_taken_as_they_are(folders):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    assert sorted(texts(canonical_text(rows))) == ["a", "b"]
    streamed = canonical_text(rows.to_iterable_dataset())
    assert isinstance(streamed, Streamed)
    assert texts(streamed) == ["a", "b"]


def test_an_id_on_the_hub_is_streamed(monkeypatch):
    calls = []

    def load(*names, **options):
        calls.append((names, options))
        return datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    chosen = {"config": "en", "split": "validation", "revision": "v1"}
    assert texts(canonical_text("user/corpus", **chosen)) == ["a", "b"]
    assert calls == [(("user/corpus", "en"), {"split": "validation", "revision": "v1", "streaming": True})]


def test_an_id_that_cannot_be_had_is_an_error_in_one_line():
    with pytest.raises(
        ValueError, match="got 'user/no-such-text', which is no file or folder here, and the Hub says: "
    ) as error:
        canonical_text("user/no-such-text")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["nowhere/", "./text.txt", "/no/such/text", "a/b/c"])
def test_a_path_that_leads_nowhere_is_not_looked_for_on_the_hub(path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(ValueError, match=f"got '{path}', which is no file or folder here; wanted one, 'stand_in', or"):
        canonical_text(path)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "got no such file in .*, wanted files of one kind: .txt"),
        ({"a.csv": b"x"}, {}, "got no such file"),
        ({"a.txt": b"x", "b.jsonl": b"{}"}, {}, r"files of several kinds \(json, text\)"),
        ({"a.txt": b"\xff\xfe"}, {}, "a.txt cannot be read: .*utf-8"),
        ({"a.txt.gz": b"plain"}, {}, "a.txt.gz cannot be read: .*gzip"),
        ({"a.txt.gz": gzip.compress(b"text")[:-6]}, {}, "a.txt.gz cannot be read: "),
        ({"a.jsonl": b"no json\n"}, {}, "cannot be read: "),
        ({"a.jsonl": b""}, {}, "cannot be read: "),
        ({"a.parquet": b"no parquet"}, {}, "cannot be read: "),
        ({"a.jsonl": b'{"body": "x"}\n'}, {}, "text_column: got 'text', which the text does not have"),
        ({"a.jsonl": b'{"text": 3}\n'}, {}, "text_column: got 'text', which holds .*int64"),
        ({"a.txt": b"x"}, {"document": "page"}, "document: got 'page'; .*Known: article, file, line, paragraph"),
        ({"a.txt": b"x"}, {"split": "test"}, "is not on the Hub; config, split and revision are for ids there"),
    ],
)
def test_text_that_cannot_be_had_is_an_error(tmp_path, files, options, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        canonical_text(tmp_path, **options)


def test_made_up_text_stands_in_for_a_dataset_of_the_hub_whatever_is_said_of_it():
    plain, named = (canonical_text("stand_in", **said).read(3) for said in ({}, {"config": "en", "split": "test"}))
    assert plain.equals(named)


# Passes


def test_a_pass_holds_every_text_once_in_an_order_of_its_own():
    rows = datasets.Dataset.from_dict({"text": [f"text {number}" for number in range(700)]})
    wanted = rows["text"][:]
    result = texts(canonical_text(rows, repeat=True, seed=1), 2_100)
    passes = [result[start : start + 700] for start in (0, 700, 1_400)]
    assert all(sorted(one) == sorted(wanted) for one in passes)
    assert len({tuple(one) for one in [*passes, wanted]}) == 4
    assert texts(canonical_text(rows, repeat=False, seed=1)) == passes[0]
    assert texts(canonical_text(rows, seed=2)) != passes[0]


def test_no_text_has_no_pass():
    empty = Texts(
        datasets.Dataset.from_dict({"text": []}, features=datasets.Features({"text": datasets.Value("string")})),
        repeat=True,
    )
    assert empty.size == 0


# The stand-in


def test_the_stand_in_is_a_pure_function_of_seed_and_number():
    wanted = StandIn(3).table(0, 300)
    assert StandIn(3).table(120, 50).equals(wanted.slice(120, 50))
    assert not StandIn(4).table(0, 300).equals(wanted)
    assert texts(canonical_text("stand_in", seed=3), 300) == wanted["text"].to_pylist()


def test_the_stand_in_is_the_same_on_any_platform():
    joined = "\n".join(StandIn(0).table(0, 500)["text"].to_pylist())
    assert (
        hashlib.sha256(joined.encode()).hexdigest()
        == "f746bf70c686ed5e700621f2e8b21ca16865ac0d3b0180f37bb14c86086e0a58"
    )


def test_the_stand_in_is_sentences_of_frequent_and_rare_words():
    documents = StandIn(0).table(0, 5_000)["text"].to_pylist()
    sentences = [sentence.split() for text in documents for sentence in text.removesuffix(" .").split(" . ")]
    assert set(map(len, sentences)) == set(range(4, 17))
    assert {text.count(" .") for text in documents} == set(range(1, 9))
    assert all(words[0].istitle() and "".join(words[1:]).islower() for words in sentences)
    counts = collections.Counter(word.lower() for words in sentences for word in words)
    (_, first), (_, second), *_ = ranked = counts.most_common()
    assert first / second == pytest.approx(2, rel=0.05)
    assert first / ranked[9][1] == pytest.approx(10, rel=0.1)
    assert len(counts) > 1_900
