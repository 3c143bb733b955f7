"""From dialogues in one string to turns and pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences import schemas
from hf_synth.preferences.schemas import (
    Pair,
    RowError,
    find_schema,
    list_schemas,
    parse_dialogue,
    read_hh_rlhf,
    reader,
)

NAMES = {"user": "Human", "assistant": "Assistant"}

# What people write into turns and what no parser may fall for, among any other text.
SNIPPETS = (
    "Human:",
    "Assistant: ",
    "\nHuman: hi",
    "x\n\n Human: y",
    "\n\nHuman:x",
    "\n\n",
    "Human",
    ":",
    "\u2028",
    "🙂",
)
CONTENTS = (
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=8)), min_size=1, max_size=5)
    .map(lambda parts: "".join(parts).replace("\r\n", "\n").strip())
    .filter(lambda text: text and not any(f"\n\n{name}:{end}" in text + "\n" for name in NAMES.values() for end in WS))
)
WS = [chr(code) for code in range(0x3001) if chr(code).isspace()]
DIALOGUES = st.lists(CONTENTS, min_size=1, max_size=6)


def render(turns):
    """The published form, spelt out."""
    return "".join(f"\n\n{NAMES[turn['role']]}: {turn['content']}" for turn in turns)


def alternating(contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


@given(DIALOGUES)
def test_rendered_turns_are_parsed_back(contents):
    turns = alternating(contents)
    assert parse_dialogue(render(turns)) == turns


@given(st.lists(st.tuples(st.sampled_from(sorted(NAMES)), CONTENTS), min_size=1, max_size=6))
def test_turns_of_one_role_in_a_row_stay_apart_when_parsed(turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    assert parse_dialogue(render(messages)) == messages


@given(DIALOGUES, CONTENTS, CONTENTS)
def test_pair_gives_back_prompt_and_both_replies(contents, chosen, rejected):
    prompt = alternating(contents if len(contents) % 2 else [*contents, "And then?"])
    row = {
        side: render([*prompt, {"role": "assistant", "content": reply}])
        for side, reply in (("chosen", chosen), ("rejected", rejected))
    }
    if chosen == rejected:
        with pytest.raises(RowError, match="chosen equals rejected"):
            read_hh_rlhf(row)
    else:
        assert read_hh_rlhf(row) == [Pair(prompt, chosen, rejected)]


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("", []),
        ("no turn at all", []),
        ("Human: hi\n\nAssistant: hello", ["hi", "hello"]),  # stripped by some tool
        ("  \n\n\n\nHuman: hi\n\nAssistant:", ["hi", ""]),
        ("\r\n\r\nHuman: hi\r\n\r\nAssistant: a\r\nb", ["hi", "a\nb"]),
        ("\n\nHuman: hi\nAssistant: still hi\n\nAssistant: hello", ["hi\nAssistant: still hi", "hello"]),
        ("\n\nHuman: hi\n\nAssistant: Human: really? Assistant: yes", ["hi", "Human: really? Assistant: yes"]),
        ("\n\nHuman: see\n\nHuman:1 in the list\n\nAssistant: ok", ["see\n\nHuman:1 in the list", "ok"]),
        ("\n\nHuman:\n\nAssistant: \n\nHuman: \t x \n ", ["", "", "x"]),
    ],
)
def test_odd_texts(text, turns):
    assert [turn["content"] for turn in parse_dialogue(text)] == turns


def test_neighbouring_turns_of_one_role_become_one():
    prompt = "\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant:  d\n\nHuman: e"
    (pair,) = read_hh_rlhf(
        {"chosen": f"{prompt}\n\nAssistant: f\n\nAssistant: g", "rejected": f"{prompt}\n\nAssistant: h"}
    )
    assert pair == Pair(alternating(["a\n\nb", "c\n\nd", "e"]), "f\n\ng", "h", joined=True)


def test_text_before_the_first_turn_is_refused():
    with pytest.raises(RowError, match="text before the first turn"):
        parse_dialogue("Preface\n\nHuman: hi\n\nAssistant: hello")


class TestRegistry:
    @pytest.fixture(autouse=True)
    def _own_registry(self, monkeypatch):
        monkeypatch.setattr(schemas, "_SCHEMAS", dict(schemas._SCHEMAS))

    def test_known_schema(self):
        assert list_schemas() == {"hh-rlhf": ("chosen", "rejected")}
        assert find_schema(["rejected", "chosen", "note"]).name == "hh-rlhf"
        assert find_schema(["chosen"]) is None
        assert find_schema(["prompt", "chosen", "rejected"]) is None

    def test_the_schema_that_asks_for_most_wins(self):
        reader("scored", columns=("chosen", "rejected", "score"))(lambda row: [])
        assert find_schema(["chosen", "rejected", "score"]).name == "scored"
        assert find_schema(["chosen", "rejected"]).name == "hh-rlhf"

    def test_a_name_is_given_once(self):
        with pytest.raises(ValueError, match="'hh-rlhf' has a reader already"):
            reader("hh-rlhf", columns=("a",))(lambda row: [])
