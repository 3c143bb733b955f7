"""The registry of schemas: what is known, which one a row is of."""

import pytest

from hf_synth.preferences import reader, readers
from hf_synth.preferences.readers import find_schema


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(readers, "SCHEMAS", dict(readers.SCHEMAS))


def test_known_schemas():
    assert {
        "hh-rlhf",
        "prompt-chosen-rejected",
        "ultrafeedback",
        "hf_synth",
        "stack-exchange",
    } <= readers.SCHEMAS.keys()
    assert readers.SCHEMAS["hh-rlhf"].columns == {"chosen", "rejected"}


PLAIN = ["prompt", "chosen", "rejected"]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["rejected", "chosen", "note"], "hh-rlhf"),
        (PLAIN, "prompt-chosen-rejected"),
        ([*PLAIN, "prompt_id", "messages", "score_chosen", "score_rejected"], "ultrafeedback"),
        (["id", "prompt_id", "src", *PLAIN, "density", "sampling_weight"], "hf_synth"),
        (["qid", "question", "answers", "date", "metadata"], "stack-exchange"),
    ],
)
def test_a_row_is_of_the_schema_that_asks_for_most(columns, name):
    assert find_schema(columns).name == name


@pytest.mark.parametrize(
    "columns", [["chosen"], ["prompt", "chosen"], ["question", "answers"], ["prompt", "completion", "label"], []]
)
def test_columns_of_no_schema(columns):
    assert find_schema(columns) is None


def test_the_schema_that_asks_for_most_wins():
    reader("scored", columns=("chosen", "rejected", "score"))(lambda row: [])
    assert find_schema(["chosen", "rejected", "score"]).name == "scored"
    assert find_schema(["chosen", "rejected"]).name == "hh-rlhf"


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="'hh-rlhf' has a reader already"):
        reader("hh-rlhf", columns=("a",))(lambda row: [])
