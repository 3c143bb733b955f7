"""Prompts: one identity on all machines, and splits that share none."""

import hashlib
import unicodedata

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences import (
    distinct_prompts,
    message_texts,
    read_preferences,
    split_by_prompt,
)
from hf_synth.preferences.prompts import normalise, prompt_id


def conversation(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


@given(st.text())
def test_normalise(text):
    once = normalise(text)
    assert normalise(once) == once == unicodedata.normalize("NFC", once) == once.strip()
    assert normalise(f" {unicodedata.normalize('NFD', text)}\n\t") == once


def test_prompt_id_is_pinned():
    assert prompt_id("Why  is\n the sky\u00a0blue? ") == hashlib.md5(b"Why is the sky blue?").hexdigest()[:16]
    assert prompt_id("cafe\u0301") == prompt_id("caf\u00e9") == hashlib.md5("café".encode()).hexdigest()[:16]
    turns = '[["user", "Hi"], ["assistant", "Hello"], ["user", "Why?"]]'
    expected = hashlib.md5(turns.encode()).hexdigest()[:16]
    assert prompt_id(conversation("Hi", " Hello", "Why?\n")) == expected == "d9aaf0aa845f5e1d"


def test_indentation_is_part_of_a_prompt():
    """Programs that differ in indentation are all kept; line ends and spaces at the ends of lines say nothing."""
    program = "if x:\n    a()\n    b()"
    others = [
        "if x:\n    a()\nb()",
        "if x:\n\ta()\n\tb()",
        "if x:\n  a()\n  b()",
        "if x:\n a()\n b()",
        "if x:\na()\nb()",
    ]
    assert len({prompt_id(text) for text in (program, *others)}) == 6
    assert prompt_id(program) == prompt_id("if x:  \r\n    a()\r\n    b()\n\n") == prompt_id(conversation(program))
    assert len(distinct_prompts(Dataset.from_dict({"prompt": [program, *others, program]}))[0]) == 6
    programs = [f"{program}\n# {number}" for number in range(100)]
    other = [text.replace("    b()", "b()") for text in programs]
    train = set(split_by_prompt(Dataset.from_dict({"prompt": programs + other}), test_share=0.3)["train"]["prompt"])
    assert [text in train for text in programs] == [text in train for text in other], "they stay on one side"


def test_one_user_turn_has_the_id_of_its_text():
    assert prompt_id(conversation(" Hi\n")) == prompt_id("Hi")
    assert prompt_id([{"role": "assistant", "content": "Hi"}]) != prompt_id("Hi")


@given(st.lists(st.text(max_size=3), min_size=2, max_size=4))
def test_text_cannot_pass_for_a_turn(contents):
    joined = conversation(" ".join(contents))
    assert prompt_id(conversation(*contents)) != prompt_id(joined)


def test_distinct_prompts():
    dataset = Dataset.from_dict({"prompt": ["b", "a", " b ", "c", "a", "b"], "other": range(6)})
    distinct, lines = distinct_prompts(dataset)
    assert distinct.to_dict() == {"prompt": ["b", "a", "c"], "other": [0, 1, 3]}
    assert list(lines.items()) == [(prompt_id("b"), 3), (prompt_id("a"), 2), (prompt_id("c"), 1)]


def test_distinct_prompts_uses_ids_that_are_there_and_needs_a_prompt():
    dataset = Dataset.from_dict({"prompt": ["a", "b"], "prompt_id": ["same", "same"]})
    assert distinct_prompts(dataset)[1] == {"same": 2}
    for function in (distinct_prompts, split_by_prompt):
        with pytest.raises(ValueError, match=r"has the columns text: wanted a column 'prompt'"):
            function(Dataset.from_dict({"text": ["a"]}))


def dialogues(rows):
    """Conversations that share first turns (40 of them) in several spellings and lengths."""
    for row in range(rows):
        first = f"Question  {row * 7 % 40}" if row % 3 else f" Question {row * 7 % 40}\n"
        yield conversation(first, *(["Well?", f"Detail {row % 5}"] * (row % 3)))


def first_turn(prompt):
    return " ".join(prompt[0]["content"].split())


def test_split_against_the_plain_definition():
    prompts = list(dialogues(400))
    parts = split_by_prompt(Dataset.from_dict({"prompt": prompts, "row": range(400)}), test_share=0.3, seed=5)
    expected = {"train": [], "test": []}
    for row, prompt in enumerate(prompts):
        digest = hashlib.md5(f'[5, "{first_turn(prompt)}"]'.encode()).hexdigest()
        expected["test" if int(digest[:16], 16) / 2**64 < 0.3 else "train"].append(row)
    assert {side: part["row"][:] for side, part in parts.items()} == expected
    assert {first_turn(p) for p in parts["train"]["prompt"]}.isdisjoint(first_turn(p) for p in parts["test"]["prompt"])


def test_split_moves_no_row_when_rows_are_added_or_reordered():
    prompts = list(dialogues(300))
    small = split_by_prompt(Dataset.from_dict({"prompt": prompts[:100]}), test_share=0.3)
    large = split_by_prompt(Dataset.from_dict({"prompt": prompts[::-1]}), test_share=0.3)
    for side in ("train", "test"):
        assert {prompt_id(p) for p in small[side]["prompt"]} <= {prompt_id(p) for p in large[side]["prompt"]}


def test_seeds_give_other_splits_of_about_the_share():
    dataset = Dataset.from_dict({"prompt": [f"prompt {i}" for i in range(4000)]})
    tests = [set(split_by_prompt(dataset, test_share=0.2, seed=seed)["test"]["prompt"]) for seed in (0, 1)]
    for test in tests:
        assert abs(len(test) - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5
    assert abs(len(tests[0] & tests[1]) - 160) < 5 * (4000 * 0.04 * 0.96) ** 0.5  # independent, not nested


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, float("nan")])
def test_split_refuses_a_share_out_of_range(share):
    with pytest.raises(ValueError, match=r"test_share is .* wanted a number above 0 and below 1"):
        split_by_prompt(Dataset.from_dict({"prompt": ["a", "b"]}), test_share=share)


def test_split_refuses_an_empty_side():
    with pytest.raises(ValueError, match="none of the 3 rows is in 't"):
        split_by_prompt(Dataset.from_dict({"prompt": ["a", "a", "a"]}), test_share=0.5)


def test_message_texts():
    rows = {"prompt": [conversation("a", "b", "c")], "chosen": [conversation("d")], "rejected": [conversation("e")]}
    assert list(message_texts(Dataset.from_dict({**rows, "src": ["x"]}))) == list("abcde")
    assert list(message_texts(Dataset.from_dict({"completion": ["z"], "prompt": ["y"]}))) == ["y", "z"]


def test_the_real_file_splits_without_a_leak(hh_file):
    dataset = read_preferences(hh_file).dataset
    parts = split_by_prompt(dataset, test_share=0.1)
    assert {side: len(part) for side, part in parts.items()} == {"train": 2075, "test": 233}
    for key in (prompt_id, first_turn):
        assert {key(p) for p in parts["train"]["prompt"]}.isdisjoint(key(p) for p in parts["test"]["prompt"])
    prompts, lines = distinct_prompts(dataset)
    assert (len(prompts), len(lines), lines.total()) == (2306, 2306, 2308)
