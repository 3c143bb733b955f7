"""Canonical text streamed from the Hub: in order, by config and split, and resumed after an interruption."""

import json

PUSH = """
import datasets
for config, split in (("en", "train"), ("en", "validation"), ("de", "train")):
    rows = datasets.Dataset.from_dict({"body": [f"{config} {split} {number}" for number in range(2_500)]})
    rows.push_to_hub("user/text", config, split=split, max_shard_size="10KB")
"""

READ = """
import itertools, json
from hf_synth.corpora import canonical_text

def text(**options):
    return canonical_text("user/text", config="en", text_column="body", **options)

whole = text().read(9_000)["text"].to_pylist()
stream = text()
stream.read(1_234)
other = text()
other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
parts = [text().shard(3, index).read(9_000)["text"].to_pylist() for index in range(3)]
errors = []
for options in ({"config": "fr"}, {"config": "en", "split": "test"}, {"config": "en", "revision": "v9"}):
    try:
        canonical_text("user/text", text_column="body", **options).read(1)
    except ValueError as error:
        errors.append(str(error))
print(json.dumps({
    "whole": whole,
    "rest": other.read(9_000)["text"].to_pylist(),
    "parts": sorted(itertools.chain(*parts)),
    "validation": text(split="validation").read(2)["text"].to_pylist(),
    "errors": errors,
}))
"""


def test_text_is_streamed_resumed_and_sharded(client):
    client(PUSH)
    result = json.loads(client(READ, blocked=()).stdout.splitlines()[-1])
    assert result["whole"] == [f"en train {number}" for number in range(2_500)]
    assert result["rest"] == result["whole"][1_234:]
    assert result["parts"] == sorted(result["whole"])
    assert result["validation"] == ["en validation 0", "en validation 1"]
    assert len(result["errors"]) == 3
    assert all(
        "got 'user/text', which is no file or folder here, and the Hub says: " in error for error in result["errors"]
    )
    assert not any("\n" in error for error in result["errors"])
