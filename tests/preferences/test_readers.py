"""Readers: from one published row to its pairs, and what no reader lets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences import Pair, RowError, read_prompt
from hf_synth.preferences.prompts import is_blank
from hf_synth.preferences.readers import (
    check_scores,
    find_schema,
    parse_dialogue,
    read_hh_rlhf,
    read_messages,
    read_stack_exchange,
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
    .filter(
        lambda text: (
            not is_blank(text) and not any(f"\n\n{name}:{end}" in text + "\n" for name in NAMES.values() for end in WS)
        )
    )
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


# TRL's own formats


def user(text):
    return [{"role": "user", "content": text}]


def answer(text):
    return [{"role": "assistant", "content": text}]


TURNS = [*user("Hi"), *answer("Hello"), *user("Why?")]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, user("Hi")),
        ({"prompt": user("Hi"), "chosen": answer("a"), "rejected": answer("b")}, user("Hi")),
        ({"prompt": TURNS, "chosen": answer("a"), "rejected": "b"}, TURNS),
        ({"prompt": "Hi", "chosen": [*TURNS, *answer("a")], "rejected": [*TURNS, *answer("b")]}, TURNS),
        ({"prompt": [{**user("Hi")[0], "name": "x"}], "chosen": "a", "rejected": "b"}, user("Hi")),
        (
            {"prompt": [{"role": "system", "content": "s"}, *TURNS], "chosen": "a", "rejected": "b"},
            [{"role": "system", "content": "s"}, *TURNS],
        ),
    ],
)
def test_messages_and_texts_are_read_alike(row, prompt):
    assert read_messages(row) == [Pair(prompt, "a", "b")]


def test_dialogues_as_messages_need_no_prompt():
    row = {"chosen": [*TURNS, *answer("a")], "rejected": [*TURNS, *answer("b")]}
    assert read_hh_rlhf(row) == [Pair(TURNS, "a", "b")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "wrong type"),
        ({"prompt": [5]}, "wrong type"),
        ({"prompt": [{"role": "user"}]}, "wrong type"),
        ({"chosen": [{"role": "assistant", "content": None}]}, "wrong type"),
        ({"chosen": []}, "empty reply"),
        ({"chosen": " \n"}, "empty reply"),
        ({"chosen": user("a")}, "last turn is not the assistant's"),
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": []}, "empty prompt"),
        ({"prompt": [*user("Hi"), *answer(" "), *user("?")]}, "empty turn in the prompt"),
        ({"prompt": [*user("Hi"), *answer("Hello")]}, "prompt does not end with the user"),
        ({"chosen": [*user("Ho"), *answer("a")], "rejected": [*user("Hi"), *answer("b")]}, "prompts differ"),
        ({"chosen": "b "}, "chosen equals rejected"),
    ],
)
def test_rows_of_messages_that_are_no_pair(change, reason):
    with pytest.raises(RowError, match=f"^{reason}$"):
        read_messages({"prompt": "Hi", "chosen": "a", "rejected": "b", **change})


# HuggingFaceH4/ultrafeedback_binarized


def ultrafeedback(**change):
    """A row with the published columns."""
    return {
        "prompt": "Hi",
        "prompt_id": "0" * 64,
        "chosen": [*user("Hi"), *answer("good")],
        "rejected": [*user("Hi"), *answer("bad")],
        "messages": [*user("Hi"), *answer("good")],
        "score_chosen": 8.5,
        "score_rejected": 3.0,
        **change,
    }


def test_ultrafeedback():
    assert read_messages(ultrafeedback()) == [Pair(user("Hi"), "good", "bad")]
    check_scores(ultrafeedback())
    check_scores(ultrafeedback(score_chosen=None, score_rejected=None))


# Labels, and what they may not be

SCORES = [
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("reward_chosen", "reward_rejected"),
]


@pytest.mark.parametrize(("better", "worse"), SCORES)
def test_scores_under_any_name(better, worse):
    check_scores({better: 2, worse: 1})
    check_scores({better: "2.5", worse: "-1"})
    check_scores({better: 2})
    for values, reason in [
        ((1, 1.0), "scores are equal"),
        ((1, 2), "the rejected reply has the higher score"),
        ((float("nan"), 1), "a score is missing or NaN"),
        ((1, None), "a score is missing or NaN"),
        (("NaN", "NaN"), "a score is missing or NaN"),
    ]:
        with pytest.raises(RowError, match=f"^{reason}$"):
            check_scores(dict(zip((better, worse), values, strict=True)))


def test_columns_that_score_nothing():
    check_scores({"chosen_model": 1, "rejected_model": 2, "chosen_tokens": 1, "rejected_tokens": 5, "score": 0})


# Turns


def test_a_system_column_is_the_first_turn_unless_it_is_there():
    system = {"role": "system", "content": "Be brief."}
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "system": "Be brief."}
    assert read_messages(row)[0].prompt == [system, *user("Hi")]
    assert read_messages({**row, "prompt": [system, *user("Hi")]})[0].prompt == [system, *user("Hi")]
    with pytest.raises(RowError, match="two different system prompts"):
        read_messages({**row, "prompt": [{**system, "content": "Be long."}, *user("Hi")]})
    dialogues = {side: f"\n\nHuman: Hi\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    assert read_hh_rlhf({**dialogues, "system_prompt": "Be brief."})[0].prompt == [system, *user("Hi")]


@pytest.mark.parametrize(
    ("prompt", "before", "context"),
    [
        (user("Q"), [*answer("a"), *user("R")], [*user("Q"), *answer("a"), *user("R")]),  # goes on
        (
            [{"role": "system", "content": "s"}, *user("Q")],
            user("Q"),
            [{"role": "system", "content": "s"}, *user("Q")],
        ),
        ("R", [*user("Q"), *answer("a"), *user("R")], [*user("Q"), *answer("a"), *user("R")]),  # the last turn alone
        ([*user("Q"), *answer("a")], user("R"), [*user("Q"), *answer("a"), *user("R")]),
        (user("Q  q\n"), user("Q q"), user("Q q")),
    ],
)
def test_replies_repeat_the_prompt_or_go_on_from_it(prompt, before, context):
    row = {"prompt": prompt, "chosen": [*before, *answer("x")], "rejected": [*before, *answer("y")]}
    assert read_messages(row) == [Pair(context, "x", "y")]
    if before[0]["role"] == "user" and prompt != [*user("Q"), *answer("a")]:  # one side may leave it out
        with_context = {**row, "prompt": context, "rejected": answer("y")}
        assert read_messages(with_context) == [Pair(context, "x", "y")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content": None, "tool_calls": [{"function": {"name": "w"}}]}, "tool calls, which are not read"),
        ({"content": [{"type": "image", "image": "x"}]}, "content other than text, which is not read"),
    ],
)
def test_what_no_text_can_stand_for(change, reason):
    row = {"prompt": [*user("Q"), {"role": "assistant", **change}, *user("R")], "chosen": "a", "rejected": "b"}
    with pytest.raises(RowError, match=f"^{reason}$"):
        read_messages(row)
    with pytest.raises(RowError, match=f"^{reason}$"):
        read_prompt({"prompt": row["prompt"]})


def test_text_that_only_looks_like_messages_stays_text():
    for text in (
        '[{"a": 1}] is JSON, "role": too',
        "[1, 2]",
        '{"role": 5',
        "[{'role': x}]",
        "Human: hi",
        "\n\nHuman: x",
    ):
        assert read_prompt({"prompt": text}) == text


@pytest.mark.parametrize("blank", ["\u200b", "\u200d\ufeff \u2060", "\u3164", "\u2800", "\x00", "\u00ad\n"])
def test_characters_of_no_width_are_no_text(blank):
    with pytest.raises(RowError, match="the prompt is empty"):
        read_prompt({"prompt": blank})
    with pytest.raises(RowError, match="empty prompt"):
        read_messages({"prompt": blank, "chosen": "a", "rejected": "b"})
    with pytest.raises(RowError, match="empty reply"):
        read_messages({"prompt": "a", "chosen": blank, "rejected": "b"})
    assert read_prompt({"prompt": f"a{blank}"}) == f"a{blank}"


# HuggingFaceH4/stack-exchange-preferences


def stack_exchange(*answers, question="<p>Why?</p>"):
    """A row with the published columns; answers are (pm_score, text) or (pm_score, text, selected)."""
    person = {"author": "a", "author_id": 1, "author_profile": "https://example.org/1"}
    listed = [
        {"answer_id": number, **person, "pm_score": score, "selected": bool(more), "text": text}
        for number, (score, text, *more) in enumerate(answers)
    ]
    return {
        "qid": 1,
        "question": question,
        "answers": listed,
        "date": "2014/09/18",
        "metadata": ["https://example.org"],
    }


@pytest.mark.parametrize(
    ("answers", "pairs"),
    [
        ([(1, "<p>worse</p>"), (5, "<p>best</p>")], [("best", "worse")]),
        ([(n, f"{n}") for n in range(6)], [("5", "4"), ("5", "3"), ("5", "2")]),
        ([(3, "first"), (3, "accepted", True), (1, "other")], [("accepted", "other")]),
        ([(3, "best"), (1, "one"), (1, "two"), (0, "none")], [("best", "one"), ("best", "none")]),
        ([(3, "best"), (2, "<p> </p>"), (1, "one"), (0, "best")], [("best", "one")]),
        ([(0, "zero"), (-1, "below")], [("zero", "below")]),
    ],
)
def test_pairs_of_a_question(answers, pairs):
    result = read_stack_exchange(stack_exchange(*answers))
    assert [(pair.chosen, pair.rejected) for pair in result] == pairs
    assert all(pair.prompt == user("Why?") for pair in result)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (stack_exchange((1, "a")), "no two answers of different scores"),
        (stack_exchange((2, "a"), (2, "b", True)), "no two answers of different scores"),
        (stack_exchange(), "no two answers of different scores"),
        (stack_exchange((1, "<p></p>"), (0, "b")), "empty reply"),
        (stack_exchange((1, "a"), (0, "")), "empty reply"),
        (stack_exchange((1, "a"), (0, "a")), "chosen equals rejected"),
        (stack_exchange((1, "a"), (0, "b"), question="<p> </p>"), "empty prompt"),
        ({**stack_exchange((1, "a"), (0, "b")), "question": None}, "wrong type"),
        (stack_exchange((1, None), (0, "b")), "wrong type"),
        (stack_exchange((None, "a"), (0, "b")), "wrong type"),
        ({**stack_exchange(), "answers": "none"}, "wrong type"),
    ],
)
def test_questions_that_give_no_pair(row, reason):
    with pytest.raises(RowError, match=f"^{reason}$"):
        read_stack_exchange(row)


def turn(role, content):
    return {"role": role, "content": content}


def test_a_conversation_that_the_assistant_opens_is_not_doubled_where_replies_repeat_it():
    opened = [turn("assistant", "Hello, I am Bo."), turn("user", "Who?")]
    whole, rest = (
        read_messages(
            {"prompt": opened, **{side: [*before, turn("assistant", side)] for side in ("chosen", "rejected")}}
        )
        for before in (opened, [])
    )
    assert whole == rest
    assert whole[0].prompt == opened
    continued = [turn("assistant", "I am Bo."), turn("user", "Why?")]
    (pair,) = read_messages(
        {"prompt": "Who?", **{side: [*continued, turn("assistant", side)] for side in ("chosen", "rejected")}}
    )
    assert pair.prompt == [turn("user", "Who?"), *continued]


@pytest.mark.parametrize(
    "scores",
    [
        {"score_chosen": "5/10", "score_rejected": "7/10"},
        {"score_chosen": "5,5", "score_rejected": "7,5"},
        {"chosenScore": 1, "rejectedScore": 2},
        {"Chosen_Rating": 1, "Rejected_Rating": 2},
    ],
)
def test_scores_of_any_spelling_contradict_a_label(scores):
    with pytest.raises(RowError, match="the rejected reply has the higher score"):
        check_scores(scores)
    check_scores({name: scores[other] for name, other in zip(scores, reversed(scores), strict=True)})


@pytest.mark.parametrize("ambiguous", ["1,000", "12,500", "1,000,000", "1.000,5"])
def test_a_comma_that_may_divide_thousands_is_no_score(ambiguous):
    for scores in ((ambiguous, "2"), ("2", ambiguous), (ambiguous, ambiguous)):
        with pytest.raises(RowError, match="a score is missing or NaN"):
            check_scores(dict(zip(("score_chosen", "score_rejected"), scores, strict=True)))
    check_scores({"score_chosen": "good, clear", "score_rejected": "bad, long"})


@pytest.mark.parametrize(
    ("columns", "votes", "better"),
    [
        (("response_0", "response_1"), {"better_response_id": "1"}, 1),
        (("response_0", "response_1"), {"better_response_id": 0.0}, 0),
        (("response_0", "response_1"), {"better_response_id": True}, 1),
        (("response_1", "response_2"), {"preference_strength": "-2"}, 0),
        (("response_1", "response_2"), {"preference_strength": float("nan")}, None),
        (("response_1", "response_2"), {"preference_strength": 0}, None),
        (("response_a", "response_b"), {"winner_model_a": False, "winner_model_b": True}, 1),
        (("response_a", "response_b"), {"winner_model_a": "1", "winner_model_b": "0"}, 0),
        (("response_a", "response_b"), {"winner_model_a": 1, "winner_model_b": 1}, None),
        (("response_a", "response_b"), {"winner": "model_b"}, 1),
    ],
)
def test_votes_as_text_numbers_and_truth_values(columns, votes, better):
    replies = ["first", "second"]
    row = {"prompt": "q", **dict(zip(columns, replies, strict=True)), **votes}
    read = find_schema(row).read
    if better is None:
        with pytest.raises(RowError, match="no reply is preferred"):
            read(row)
    else:
        (pair,) = read(row)
        assert (pair.chosen, pair.rejected) == (replies[better], replies[1 - better])


def test_messages_as_pandas_writes_them_into_csv():
    pair = "[{{'content': 'hello', 'role': 'user'}}\n {{'content': \"{}, isn't it\", 'role': 'assistant'}}]"
    (result,) = read_messages({"prompt": "hello", "chosen": pair.format("good"), "rejected": pair.format("bad")})
    assert (result.prompt, result.chosen) == ([turn("user", "hello")], "good, isn't it")
    assert read_prompt({"messages": pair.format("good")}) == [turn("user", "hello")]
    with pytest.raises(RowError, match="neither JSON nor Python"):  # cut off, as spreadsheets do
        read_prompt({"prompt": '[{"role": "user", "content": "the beginning of a long'})
    assert read_prompt({"prompt": '{"role": what is it?'}) == '{"role": what is it?'


@pytest.mark.parametrize("role", ["User", "USER", "Human", "prompter"])
def test_roles_in_any_case(role):
    assert read_prompt({"messages": [turn(role, "q"), turn("Model", "a")]}) == [turn("user", "q")]


def test_a_prompt_of_a_system_turn_alone_asks_nothing():
    with pytest.raises(RowError, match="does not end with the user"):
        read_prompt({"messages": [turn("system", "s"), turn("assistant", "a")]})
