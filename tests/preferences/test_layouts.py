"""Every layout of docs/preferences.md: a small file in the schema of its card, and what comes out of it.

Contents are ours. `expected.json` has, for pairs, prompt, chosen and rejected of each, what is dropped and which
fields are not read; for prompts, the prompts.
"""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from hf_synth.preferences import RowError, Source, distinct_prompts, read_preferences, read_prompt, split_by_prompt

FOLDER = Path(__file__).parent / "layouts"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
PAIRS = [name for name in EXPECTED if not name.startswith("prompts-")]


def shown(prompt):
    return prompt if isinstance(prompt, str) else [f"{turn['role']}: {turn['content']}" for turn in prompt]


def pairs(data):
    return [[shown(row["prompt"]), row["chosen"][0]["content"], row["rejected"][0]["content"]] for row in data.dataset]


def test_every_file_is_expected():
    assert sorted(EXPECTED) == sorted(path.stem for path in FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    data = read_preferences(FOLDER / f"{name}.jsonl")
    result = {"schema": data.schema, "pairs": pairs(data), "dropped": data.dropped, "unread": list(data.unread)}
    assert result == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("prompts-")])
def test_prompts(name):
    rows = Source(FOLDER / f"{name}.jsonl").open().rows()
    assert [shown(read_prompt(row.fields)) for row in rows] == EXPECTED[name]["prompts"]


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "tool-calls"])
def test_the_prompts_of_pairs_are_read_without_their_labels(name):
    """Also those of ties: `--prompts` asks for no label."""
    prompts = [read_prompt(row.fields) for row in Source(FOLDER / f"{name}.jsonl").open().rows()]
    conversations = [[f"user: {prompt}"] if isinstance(prompt, str) else shown(prompt) for prompt in prompts]
    last = [turns[-1] for turns in conversations]
    assert all(prompt[-1] in last for prompt, _, _ in EXPECTED[name]["pairs"])
    assert len(prompts) >= len(EXPECTED[name]["pairs"]) - (name == "berkeley-nest+Nectar")


def test_tools_are_no_prompt_either():
    first, *_ = Source(FOLDER / "tool-calls.jsonl").open().rows()
    with pytest.raises(RowError, match="tool calls"):
        read_prompt(first.fields)


@pytest.mark.parametrize("name", PAIRS)
def test_other_files_of_the_same_rows_give_the_same_pairs(name, tmp_path, write):
    """An array, an array with a row a line, Parquet of `datasets`, a folder that `save_to_disk` wrote."""
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]
    (tmp_path / "array.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    (tmp_path / "printed.json").write_text(json.dumps(rows, indent=2))
    table = datasets.load_dataset("json", data_files=str(FOLDER / f"{name}.jsonl"), split="train", cache_dir=tmp_path)
    table.to_parquet(tmp_path / "table.parquet")
    table.save_to_disk(tmp_path / "saved")
    for file in ("array.json", "lines.json", "printed.json", "table.parquet", "saved"):
        assert pairs(read_preferences(tmp_path / file)) == EXPECTED[name]["pairs"], file


def test_a_transcript_and_its_continuation_stay_on_one_side_of_the_split(write):
    """As in Dahoas/full-hh-rlhf: what continues a conversation that is trained on is not tested on."""
    rows = []
    for number in range(60):
        first = f"\n\nHuman: Question {number}?\n\nAssistant:"
        rows += [
            {"prompt": first, "response": " a", "chosen": " a", "rejected": " b"},
            {"prompt": f"{first} a\n\nHuman: More?\n\nAssistant:", "response": " c", "chosen": " c", "rejected": " d"},
        ]
    data = read_preferences(write("static.jsonl", *rows)).dataset
    assert {len(prompt) for prompt in data["prompt"]} == {1, 3}
    parts = split_by_prompt(data, test_share=0.3)
    first = [{prompt[0]["content"] for prompt in part["prompt"]} for part in parts.values()]
    assert not first[0] & first[1]
    assert len(distinct_prompts(data)[0]) == 120


def test_json_that_datasets_stores_as_text_is_parsed(tmp_path):
    """`datasets` 5 writes messages of unequal keys as List(Json())."""
    turns = [[{"role": "user", "content": "Q?"}, {"role": "assistant", "content": text}] for text in ("a", "b")]
    turns[0][1]["name"] = "bot"
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "Q?", "chosen": turns[0], "rejected": turns[1]}) + "\n")
    table = datasets.load_dataset("json", data_files=str(tmp_path / "a.jsonl"), split="train", cache_dir=tmp_path)
    assert table.features["chosen"] == datasets.List(datasets.Json())
    table.to_parquet(tmp_path / "a.parquet")
    assert "arrow.json" in str(pq.read_schema(tmp_path / "a.parquet"))
    assert pairs(read_preferences(tmp_path / "a.parquet")) == [[["user: Q?"], "a", "b"]]


def test_keys_of_messages_that_are_not_read_are_named_once(write, caplog):
    """Not those that say nothing: `tool_calls` of a message without tool calls, as Parquet has it."""
    turn = {
        "role": "assistant",
        "content": [{"type": "text", "text": "a", "cache_control": {"x": 1}}],
        "tool_calls": [],
    }
    row = {"prompt": [{"role": "user", "content": "Q?", "name": "Ann", "weight": 0}], "rejected": "b", "lang": "en"}
    row |= {"chosen": [turn | {"reasoning_content": "Hm.", "function_call": None}]}
    spelt = row | {"prompt": json.dumps([{"role": "user", "content": "R?", "date": "now"}])}
    data = read_preferences(write("a.jsonl", row, row, spelt))
    names = [f"{name} (of messages)" for name in ("cache_control", "date", "name", "reasoning_content", "weight")]
    assert list(data.unread) == sorted([*names, "lang"])
    assert caplog.text.count("name (of messages)") == 1
    assert [turns[0]["content"] for turns in data.dataset["prompt"]] == ["Q?", "Q?", "R?"]


U, A, B = ({"role": role, "content": text} for role, text in (("user", "Q?"), ("assistant", "a"), ("assistant", "b")))
SPELLINGS = {
    "JSON in JSON": {
        "prompt": "Q?",
        **{s: json.dumps(json.dumps([U, t])) for s, t in (("chosen", A), ("rejected", B))},
    },
    "lists in a struct": {
        "prompt": "Q?",
        **{s: {"role": ["user", "assistant"], "content": ["Q?", t]} for s, t in (("chosen", "a"), ("rejected", "b"))},
    },
    "axolotl, replies": {"messages": [U], "chosen": A, "rejected": B},
    "axolotl, texts": {"conversation": [U], "chosen": "a", "rejected": "b"},
    "messages that are chosen, too": {"messages": [U, A], "chosen": [U, A], "rejected": [U, B]},
    "ShareGPT with its answer": {
        "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "a"}],
        "chosen": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "a"}],
        "rejected": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "b"}],
    },
    "ShareGPT with a system turn and its answer": {
        "conversations": [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "Q?"},
            {"from": "gpt", "value": "a"},
        ],
        "chosen": [U, A],
        "rejected": [U, B],
    },
    "no words in the system turn": {
        "prompt": [{"role": "system", "content": " "}, U],
        "chosen": [{"role": "system", "content": ""}, U, A],
        "rejected": [B],
    },
    "Dolly": {"instruction": "S", "context": "Q?", "chosen": "a", "rejected": "b"},
    "OpenAI": {"input": {"messages": [U], "tools": []}, "preferred_output": [A], "non_preferred_output": [B]},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_pair(write, spelling):
    prompt = {"Dolly": ["user: S\n\nQ?"]}.get(
        spelling, ["system: S", "user: Q?"] if "a system" in spelling else ["user: Q?"]
    )
    assert pairs(read_preferences(write("a.jsonl", SPELLINGS[spelling]))) == [[prompt, "a", "b"]]


def test_tools_beside_messages_are_refused(write):
    row = SPELLINGS["OpenAI"]
    tools = row | {"input": {"messages": [U], "tools": [{"type": "function"}]}}
    data = read_preferences(write("a.jsonl", row, tools))
    assert (len(data.dataset), data.dropped) == (1, {"tools, which are not read": 1})


def test_replies_without_an_order(write):
    """Equal scores are never compared; a list of texts is no conversation."""
    scored = [{"response": text, "overall_score": score} for text, score in zip("abcd", (5, 5, 3, 3), strict=True)]
    rows = [{"instruction": "Q?", "completions": scored}, {"instruction": "R?", "completions": scored[:2]}]
    data = read_preferences(write("a.jsonl", *rows))
    assert (pairs(data), data.dropped) == ([[["user: Q?"], "a", "c"]], {"no two answers of different scores": 1})
    rows = [
        {"prompt": "Q?", "chosen": ["a", "b"], "rejected": ["c"]},
        {"prompt": "Q?", "chosen": "a", "rejected": "b"},
    ]
    assert read_preferences(write("b.jsonl", *rows)).dropped == {"wrong type": 1}


ANSWERS = [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 0}]
SCORED = {"prompt": "Q?", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 1}
ODD_ROWS = [  # a row, what is wrong with it, and the reason as a pair and as a prompt
    ({"qid": 1, "question": "Q?", "answers": ANSWERS}, {"question": ["Q?"]}, "wrong type", "wrong type"),
    (
        {"instruction": "Q?", "chosen": "a", "rejected": "b"},
        {"instruction": '{"role": "user", "messages": []}'},
        "empty prompt",
        "the prompt is empty",
    ),
    (SCORED, {"score_chosen": 10**400}, "a score is missing or NaN", None),
]


@pytest.mark.parametrize(("row", "wrong", "of_pair", "of_prompt"), ODD_ROWS)
def test_values_of_another_type_cost_their_row_alone(write, row, wrong, of_pair, of_prompt):
    data = read_preferences(write("a.jsonl", row, row | wrong))
    assert (len(data.dataset), data.dropped) == (1, {of_pair: 1})
    if of_prompt:
        with pytest.raises(RowError, match=of_prompt):
            read_prompt(row | wrong)


def test_scores_of_ranked_replies_may_be_graded_as_text(write):
    """As those of two replies; a number that no float holds is none."""
    replies = [{"response": text, "overall_score": score} for text, score in (("a", "7/10"), ("b", "9/10"), ("c", 8))]
    rows = [{"instruction": "Q?", "completions": replies}]
    rows.append({"instruction": "R?", "completions": [*replies, {"response": "d", "overall_score": 10**400}]})
    data = read_preferences(write("a.jsonl", *rows))
    assert (pairs(data), data.dropped) == ([[["user: Q?"], "b", "c"], [["user: Q?"], "b", "a"]], {"wrong type": 1})
