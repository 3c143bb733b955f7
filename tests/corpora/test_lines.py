"""JSON lines of which some are broken: the others are read, nothing is lost without a word."""

import gzip
import json
import logging
import re
from pathlib import Path

import pytest

from hf_synth.corpora.text import canonical_text, usable_lines

LINES = b'{"text": "one two"}\nnot json\n\n{"text": "three"}\n{"text": 5}\n{"other": 1}\n[1]\n{"text": "\xff"}\n'
REASONS = [
    (2, "not JSON"),
    (5, "no text in 'text'"),
    (6, "no text in 'text'"),
    (7, "not a JSON object"),
    (8, "not UTF-8"),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_broken_lines_are_left_out_counted_and_kept(name, tmp_path, caplog):
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES) if path.suffix == ".gz" else LINES)
    with caplog.at_level(logging.WARNING, logger="hf_synth"):
        texts = canonical_text(path).read(10)["text"].to_pylist()
    assert sorted(texts) == ["one two", "three"]
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("hf_synth")]
    reasons = "not JSON: 1, no text in 'text': 2, not a JSON object: 1, not UTF-8: 1"
    assert message.startswith(f"5 of 7 lines left out ({reasons}), kept in ")
    rows = [json.loads(line) for line in Path(re.search("kept in (.*)", message)[1]).read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in rows] == REASONS
    assert {row["file"] for row in rows} == {str(path)}
    assert rows[0]["raw"] == "not json"


def test_whole_files_are_read_without_a_word(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "two"}\n')
    assert sorted(canonical_text(tmp_path).read(10)["text"].to_pylist()) == ["one", "two"]
    assert not [record for record in caplog.records if record.name.startswith("hf_synth")]
    assert usable_lines([tmp_path / "a.jsonl"], "text")["text"][:] == ["one", "two"]


def test_files_without_a_usable_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\nno json\n')
    with pytest.raises(ValueError, match=r"cannot be read: no line can be used \(no text in 'body': 1, not JSON: 1\)"):
        canonical_text(tmp_path, text_column="body")
    (tmp_path / "a.jsonl").rename(tmp_path / "a.jsonl.gz")
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be read: .*Not a gzipped file"):
        canonical_text(tmp_path / "a.jsonl.gz")
