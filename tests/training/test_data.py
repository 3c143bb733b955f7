"""Data of the recipes: shares, distinct prompts, held-out prompts that training never sees, and bad lines."""

import gzip
import json
import logging
from statistics import mean
from types import SimpleNamespace

import pytest
from datasets import Dataset

from hf_synth import build_tokenizer, get_task
from hf_synth.evaluation.generation import prompt_ids
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.training.arguments import DataArguments
from hf_synth.training.data import (
    REJECTED_ROWS,
    accepted_by_template,
    clusters,
    evaluate_pairs,
    fitting_pairs,
    imitation_rows,
    pair_length,
    preference_split,
    prompt_split,
    unread_fields,
    usable_prompts,
    without_long_prompts,
)

MIXTURE = {
    "big": {"task": "agreement", "share": 0.7, "task_args": {"dialect": 1}},
    "small": {"task": "agreement", "share": 0.2, "task_args": {"dialect": 2}},
    "sorted": {"task": "sort", "share": 0.1, "preset": "8"},
}


@pytest.fixture
def write(tmp_path):
    """A file of lines: text as it is, anything else as JSON."""

    def write_lines(*lines, name="prompts.jsonl"):
        path = tmp_path / name
        raw = b"".join(
            line if isinstance(line, bytes) else f"{line if isinstance(line, str) else json.dumps(line)}\n".encode()
            for line in lines
        )
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write_lines


def user(text):
    return [{"role": "user", "content": text}]


def pair(prompt, chosen="yes", rejected="no"):
    """A row of Anthropic's schema."""
    sides = {"chosen": chosen, "rejected": rejected}
    return {side: f"\n\nHuman: {prompt}\n\nAssistant: {answer}" for side, answer in sides.items()}


# Tasks and mixtures


def test_a_task_is_a_mixture_of_one_named_after_itself():
    result = clusters(DataArguments(task="sort", preset="8", task_args={"length": 5}))
    assert list(result) == ["sort"]
    assert result["sort"].build().config == get_task("sort", "8", length=5).config


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"share": 0.5}, "got shares that sum to 0.8, wanted positive ones that sum to 1"),
        ({"share": -0.7}, "wanted positive ones"),
        ({"share": float("nan")}, "got shares that sum to nan"),
        ({"share": "most"}, "mixture.big.share: got 'most', wanted a number"),
        ({"task": 5}, "mixture.big.task: got 5, wanted a task's name"),
        ({"task_args": 5}, "mixture.big.task_args: got 5, wanted a mapping"),
        ({"preset": 8}, "mixture.big.preset: got 8, wanted a preset's name in quotes"),
        ({"taks_args": {}}, "mixture.big: got unknown key 'taks_args'; did you mean 'task_args'?"),
    ],
)
def test_mixtures_that_are_none(change, wanted):
    with pytest.raises(ValueError, match=wanted.replace("?", r"\?")):
        clusters(DataArguments(mixture={**MIXTURE, "big": MIXTURE["big"] | change}))


@pytest.mark.parametrize("values", [None, "agreement", {"task": "agreement"}, {"share": 0.7}])
def test_a_cluster_needs_task_and_share(values):
    with pytest.raises(ValueError, match=r"mixture.big: got .* wanted a mapping with at least task and share"):
        clusters(DataArguments(mixture={**MIXTURE, "big": values}))


def test_rows_to_imitate_come_by_their_shares_and_are_right(tmp_path):
    data = DataArguments(mixture=MIXTURE, num_rows=200)
    rows = imitation_rows(data, tmp_path)
    names = list(rows["cluster"])
    assert {name: names.count(name) for name in MIXTURE} == {"big": 140, "small": 40, "sorted": 20}
    assert len(set(names[:30])) > 1, "shuffled"
    tasks = {name: cluster.build() for name, cluster in clusters(data).items()}
    assert all(tasks[row["cluster"]].verify(row["prompt"], row["completion"]) == 1.0 for row in rows)
    assert rows.to_list() == imitation_rows(data, tmp_path).to_list()
    assert (
        rows.to_list() != imitation_rows(DataArguments(mixture=MIXTURE, num_rows=200, rows_seed=1), tmp_path).to_list()
    )


def test_prompts_are_distinct_and_held_out_ones_are_never_trained_on(tmp_path):
    training, held_out, _ = prompt_split(DataArguments(mixture=MIXTURE, num_rows=200), tmp_path, 16)
    counts = [{name: list(part["cluster"]).count(name) for name in MIXTURE} for part in (training, held_out)]
    assert counts == [{"big": 140, "small": 40, "sorted": 20}, dict.fromkeys(MIXTURE, 16)]
    seen, fresh = list(training["prompt"]), list(held_out["prompt"])
    assert len(set(seen)) == len(seen) == 200
    assert len(set(fresh)) == len(fresh) == 48
    assert not set(seen) & set(fresh)
    assert list(training["task"]) == list(training["cluster"]), "the verifier is asked by the cluster's name"


def test_nothing_held_out_is_an_empty_part(tmp_path):
    training, held_out, _ = prompt_split(DataArguments(mixture=MIXTURE, num_rows=50), tmp_path, 0)
    assert (len(training), len(held_out)) == (50, 0)
    assert training.features == held_out.features


def test_a_task_with_too_few_prompts_says_so(tmp_path):
    """START MID{n} END with at most 3 middles has the prompts START, START MID ... START MID MID MID."""
    data = DataArguments(task="start_mid_end", task_args={"max_middle": 3}, num_rows=4)
    training, held_out, _ = prompt_split(data, tmp_path, 0)
    assert sorted(training["prompt"]) == ["START" + " MID" * n for n in range(4)]
    assert len(held_out) == 0
    with pytest.raises(ValueError, match="got 0 distinct test prompts in 200 rows, wanted 1; lower"):
        prompt_split(data, tmp_path, 1)
    data.num_rows = 5
    with pytest.raises(ValueError, match="got 4 distinct train prompts in 1000 rows, wanted 5; lower"):
        prompt_split(data, tmp_path, 0)


# Preference pairs


def test_pairs_of_tasks_share_no_prompt(tmp_path):
    data = DataArguments(task="agreement", num_rows=60, test_share=0.5)
    training, held_out = preference_split(data, tmp_path)
    assert len(training) == 60
    assert 0 < len(held_out) <= 30
    assert not set(training["prompt"]) & set(held_out["prompt"])
    task = get_task("agreement")
    for row in [*training, *held_out]:
        assert task.verify(row["prompt"], row["chosen"]) == 1.0
        assert task.verify(row["prompt"], row["rejected"]) == 0.0


def test_where_every_held_out_prompt_is_trained_on(tmp_path):
    data = DataArguments(task="start_mid_end", task_args={"max_middle": 2}, num_rows=100)
    with pytest.raises(ValueError, match="got 10 held-out pairs, all of them with a prompt that is trained on"):
        preference_split(data, tmp_path)


def test_pairs_of_a_file_are_split_by_prompt_and_bad_ones_kept(write, tmp_path, caplog):
    rows = [pair(f"question {number % 40}", f"yes {number}") for number in range(80)]
    bad = [pair("question", "same", "same"), {"chosen": "a"}, "not JSON"]
    data = DataArguments(preferences=str(write(*rows, *bad, name="pairs.jsonl")), test_share=0.3)
    with caplog.at_level(logging.WARNING):
        training, held_out = preference_split(data, tmp_path)
    assert len(training) + len(held_out) == 80
    first, second = ({row["prompt"][0]["content"] for row in part} for part in (training, held_out))
    assert len(first) + len(second) == 40
    assert not first & second
    rejected = [json.loads(line) for line in (tmp_path / REJECTED_ROWS).read_text().splitlines()]
    assert [row["line"] for row in rejected] == [81, 82, 83]
    assert caplog.text.count("3 of 83 rows left out") == 1


def test_columns_that_tell_heads_apart_can_be_kept(write, tmp_path):
    rows = [{**pair(f"question {number}"), "q_chosen": number, "aspect": "q"} for number in range(20)]
    rows += [pair("no score"), {**pair("no number"), "q_chosen": "best"}]
    data = DataArguments(preferences=str(write(*rows, name="pairs.jsonl")), test_share=0.0)
    keep = {"q_chosen": float, "aspect": str, "src": str, "nowhere": float}
    pairs, _ = preference_split(data, tmp_path, keep=keep)
    assert pairs["q_chosen"] == [*map(float, range(20)), None]
    assert pairs["aspect"] == ["q"] * 20 + [None]
    assert set(pairs["src"]) == {"pairs.jsonl"}
    assert "nowhere" not in pairs.column_names
    (rejected,) = (tmp_path / REJECTED_ROWS).read_text().splitlines()
    assert json.loads(rejected)["reason"] == "wrong type of q_chosen"
    assert "q_chosen" not in preference_split(data, tmp_path)[0].column_names


def test_chosen_answers_are_imitated_and_held_out_prompts_are_not(write, tmp_path):
    rows = [pair(f"question {number}", f"yes {number}") for number in range(50)]
    data = DataArguments(preferences=str(write(*rows, name="pairs.jsonl")), test_share=0.3)
    imitated = imitation_rows(data, tmp_path)
    training, held_out, _ = prompt_split(data, tmp_path, 5)
    assert imitated.column_names == ["prompt", "completion", "src"]
    assert set(imitated["src"]) == {"pairs.jsonl"}, "weights by source read it"
    assert list(imitated["prompt"]) == list(training["prompt"])
    assert all(row["completion"][0]["content"].startswith("yes") for row in imitated)
    assert 5 < len(held_out) < 25
    asked = [{message["content"] for prompt in part["prompt"] for message in prompt} for part in (training, held_out)]
    assert not asked[0] & asked[1]


# A file of prompts


def own(path, **values):
    return DataArguments(prompts=str(path), **values)


def test_own_prompts_are_distinct_and_split(write, tmp_path):
    lines = [{"prompt": f"Question {number % 60}?", "more": number} for number in range(100)]
    training, held_out, counts = prompt_split(own(write(*lines), test_share=0.3), tmp_path, 1000)
    assert counts.total() - len(counts) == 40
    assert sorted(counts.values()) == [1] * 20 + [2] * 40
    assert not (tmp_path / REJECTED_ROWS).exists()
    assert sorted([*training["prompt"], *held_out["prompt"]]) == sorted(f"Question {number}?" for number in range(60))
    assert 5 < len(held_out) < 35
    assert list(prompt_split(own(write(*lines), test_share=0.3), tmp_path, 2)[1]["prompt"]) == list(held_out["prompt"])


def test_columns_of_own_prompts_stay_beside_them(write, tmp_path, caplog):
    """Those that Arrow cannot hold, or whose name is taken, are left out and named."""
    lines = [
        {"prompt": f"Question {n % 30}?", "answer": n, "mixed": n if n % 2 else str(n), "completion": "x", "count": n}
        for n in range(60)
    ]
    parts = prompt_split(own(write(*lines), test_share=0.3), tmp_path, 1000)[:2]
    for part in parts:
        assert part.column_names == ["prompt", "answer", "count"]
        assert [f"Question {answer}?" for answer in part["answer"]] == list(part["prompt"])
    assert [name for name in ("answer", "mixed", "completion") if f"the column {name} does not" in caplog.text] == [
        "mixed",
        "completion",
    ]


def test_fields_that_are_not_read_are_named_and_kept_for_the_report(write, tmp_path, caplog):
    """A reward gets the columns; density.py reads none of them."""
    message = {"role": "user", "content": "Hi", "name": "Ann"}
    path = write({"prompt": [message], "answer": 1, "completion": "x"})
    prompt_split(own(path, test_share=0.0), tmp_path, 0)
    assert unread_fields(tmp_path) == ["completion", "name (of messages)"]
    assert f"{path}: for the reward, not for the prompt: answer\n" in caplog.text
    assert f"{path}: not read: name (of messages)\n" in caplog.text
    assert "the column completion does not go to the reward: the name is taken" in caplog.text
    list(usable_prompts(str(path), tmp_path))
    assert f"{path}: not read: answer, completion, name (of messages)\n" in caplog.text
    assert unread_fields(tmp_path) == ["answer", "completion", "name (of messages)"]
    row = {"instruction": "Hi", "context": "Ho", "system": "S", "answer": None}
    assert [prompt[-1]["content"] for prompt, _ in usable_prompts(str(write(row)), tmp_path)] == ["Hi\n\nHo"]
    assert unread_fields(tmp_path) == []


def test_the_split_of_own_prompts(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.jsonl").write_text(json.dumps({"prompt": f"of {split}"}))
    read = prompt_split(own(tmp_path / "mine", test_share=0.0, prompts_split="test"), tmp_path, 0)[0]
    assert list(read["prompt"]) == ["of test"]


def test_without_a_share_nothing_is_held_out(write, tmp_path):
    lines = [{"prompt": f"Question {number}?"} for number in range(9)]
    training, held_out, _ = prompt_split(own(write(*lines), test_share=0.0), tmp_path, 5)
    assert (len(training), len(held_out)) == (9, 0)


def test_conversations_compressed(write, tmp_path):
    """Further keys of a message are dropped: a template could read them in some rows and not in others."""
    lines = [{"prompt": user("Hi")}, {"prompt": [{"role": "user", "content": "Ho", "name": "x"}]}]
    path = write(*lines, name="prompts.jsonl.gz")
    training, _, _ = prompt_split(own(path, test_share=0.0), tmp_path, 0)
    assert list(training["prompt"]) == [user("Hi"), user("Ho")]


BAD_LINES = [
    ("not JSON", "not JSON"),
    ('{"prompt": "half', "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ('"text"', "not a JSON object"),
    (b'{"prompt": "\xff"}\n', "not UTF-8"),
    ({"title": "x"}, "there is no `prompt`"),
    ({"prompt": None}, "there is no `prompt`"),
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": " \n\t"}, "the prompt is empty"),
    ({"prompt": 5}, "wrong type"),
    ({"prompt": []}, "the prompt is empty"),
    ({"prompt": ["x"]}, "wrong type"),
    ({"prompt": [{"role": "user"}]}, "wrong type"),
    ({"prompt": [{"role": 5, "content": "x"}]}, "wrong type"),
    ({"prompt": user("  ")}, "the prompt is empty"),
    ({"prompt": [*user("  "), *user("x")]}, "a message is empty"),
    ({"prompt": "\u200b"}, "the prompt is empty"),
    ({"prompt": user(None)}, "wrong type"),
    ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "content other than text, which is not read"),
    ({"prompt": [*user("x"), *user("y")]}, "the prompt is a list of messages among texts"),
    ('{"prompt": "\\ud800"}', "not valid Unicode"),
]


def test_bad_lines_are_counted_kept_and_do_not_stop_the_run(write, tmp_path, caplog):
    """The lines are numbered as an editor numbers them, blank ones included."""
    path = write({"prompt": "first"}, "", *(line for line, _ in BAD_LINES), {"prompt": "last"})
    with caplog.at_level(logging.WARNING):
        training, _, _ = prompt_split(own(path, test_share=0.0), tmp_path, 0)
    assert list(training["prompt"]) == ["first", "last"]
    rejected = [json.loads(line) for line in (tmp_path / REJECTED_ROWS).read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in rejected] == [
        (number, reason) for number, (_, reason) in enumerate(BAD_LINES, start=3)
    ]
    assert {row["file"] for row in rejected} == {"prompts.jsonl"}
    assert rejected[0]["row"] == "not JSON"
    assert f"{len(BAD_LINES)} of {len(BAD_LINES) + 2} rows left out" in caplog.text


def test_files_without_one_usable_line(write, tmp_path):
    column = "wanted a column prompt, messages or instruction, of texts or messages"
    for lines, reason in [
        (["a,b", "1,2"], f"not JSON.*; {column}; line 1, not JSON: a,b"),
        ([{"prompt": ""}] * 3, "the prompt is empty"),
        ([{"Prompt": "a"}, {"prompt": 1}], f'{column}; line 1, there is no `prompt`: {{"Prompt": "a"}}'),
        ([], "empty"),
    ]:
        with pytest.raises(ValueError, match=f"got no usable row in .*{reason}"):
            prompt_split(own(write(*lines)), tmp_path, 4)
    with pytest.raises(ValueError, match="There is no file or folder"):
        prompt_split(own(tmp_path / "missing.jsonl"), tmp_path, 4)


def test_texts_among_messages_are_turns_of_the_user(write, tmp_path):
    lines = [{"prompt": user("Hi"), "system": "Be brief."}, {"prompt": "Ho"}]
    training, *_ = prompt_split(own(write(*lines), test_share=0.0), tmp_path, 0)
    assert list(training["prompt"]) == [[{"role": "system", "content": "Be brief."}, *user("Hi")], user("Ho")]


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.json", "folder/prompts.jsonl"])
def test_other_files_and_folders_of_prompts(write, tmp_path, name):
    (tmp_path / "folder").mkdir()
    lines = ["prompt,more", "Hi,1", "Ho,2"] if "csv" in name else ['[{"prompt": "Hi"},', '{"prompt": "Ho"}]']
    path = write(*lines, name=name)
    training, *_ = prompt_split(own(path.parent if "/" in name else path, test_share=0.0), tmp_path, 0)
    assert list(training["prompt"]) == ["Hi", "Ho"]


# The chat template

CHATS = [
    user("Hi"),
    [{"role": "tool", "content": "22"}, *user("Hi")],
    [{"role": "developer", "content": "Be brief."}, *user("Ho")],
    [{"role": "system", "content": "Be brief."}, *user("Ho")],
]


def test_rows_that_the_template_refuses_are_counted_with_its_words(tmp_path, caplog):
    tokenizer = train_bpe_tokenizer(["some text"], vocab_size=263)
    reply = [{"role": "assistant", "content": "a"}]
    pairs = Dataset.from_dict({"prompt": CHATS, "chosen": [reply] * 4, "rejected": [reply] * 4})
    for rows in (pairs, pairs.select_columns("prompt"), pairs.select_columns(["prompt", "chosen"])):
        (tmp_path / REJECTED_ROWS).unlink(missing_ok=True)
        with caplog.at_level(logging.WARNING):
            assert list(accepted_by_template(rows, tokenizer, tmp_path)["prompt"]) == [CHATS[0], CHATS[3]]
        rejected = [json.loads(line) for line in (tmp_path / REJECTED_ROWS).read_text().splitlines()]
        wanted = "Unknown role {}: wanted system, user or assistant"
        assert [(row["line"], row["reason"]) for row in rejected] == [
            (2, wanted.format("tool")),
            (3, wanted.format("developer")),
        ]
        assert "2 of 4 rows left out, which the chat template refuses" in caplog.text
    (tmp_path / REJECTED_ROWS).write_text(json.dumps({"file": "pairs.jsonl", "reason": "not JSON"}) + "\n")
    counts = fitting_pairs(pairs, pairs, tokenizer, None, tmp_path)[2]
    assert (counts["pairs/train"], counts["rows/dropped"], counts["rows/refused"]) == (2.0, 1.0, 4.0)
    with pytest.raises(ValueError, match=r"got 2 rows, all of them refused by the chat template: .*Unknown role tool"):
        accepted_by_template(pairs.select([1, 1]), tokenizer, tmp_path)


def test_a_template_that_refuses_a_system_turn(tmp_path):
    tokenizer = train_bpe_tokenizer(["some text"], vocab_size=263)
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer.chat_template = refuses + tokenizer.chat_template
    rows = Dataset.from_dict({"prompt": CHATS})
    assert list(accepted_by_template(rows, tokenizer, tmp_path)["prompt"]) == [CHATS[0]]
    texts = Dataset.from_dict({"prompt": ["a"]})
    assert accepted_by_template(texts, tokenizer, tmp_path) is texts, "text has no template"


# Lengths


def test_ids_and_lengths_are_those_of_the_tokenizer():
    tokenizer = build_tokenizer(get_task("start_mid_end"))
    assert tokenizer.convert_ids_to_tokens(prompt_ids("START MID", tokenizer)) == ["<bos>", "START", "MID"]
    row = {"prompt": "START", "chosen": " MID END", "rejected": " MID MID MID END"}
    assert pair_length(row, tokenizer) == 7, "<bos> START MID MID MID END <eos>"
    assert pair_length({**row, "rejected": " END"}, tokenizer) == 5, "the longer side"


def test_long_prompts_are_left_out():
    tokenizer = build_tokenizer(get_task("start_mid_end"))
    prompts = Dataset.from_dict({"prompt": ["START" + " MID" * count for count in range(6)]})
    kept = without_long_prompts(prompts, tokenizer, 4)
    assert list(kept["prompt"]) == ["START", "START MID", "START MID MID"]
    assert len(without_long_prompts(prompts, tokenizer, None)) == 6
    assert len(without_long_prompts(prompts.select([]), tokenizer, 4)) == 0
    with pytest.raises(ValueError, match="got 6 prompts, all longer than 1 tokens, which is what max_prompt_tokens"):
        without_long_prompts(prompts, tokenizer, 1)


def test_each_held_out_pair_counts_once():
    """TRL averages over batches: 8 wrong pairs in two batches and a right one alone would be 1/3 right, not 1/9."""

    class Trainer:
        args = SimpleNamespace(eval_batch_size=4, world_size=1)
        eval_dataset = Dataset.from_dict({"right": [0.0] * 8 + [1.0]})

        def evaluate(self, name):
            pairs = self.eval_dataset[name]
            batches = [pairs[start : start + 4]["right"] for start in range(0, len(pairs), 4)]
            return {"eval_accuracy": mean(map(mean, batches))}

    whole = Trainer()
    whole.eval_dataset = {"all": Trainer.eval_dataset}
    assert whole.evaluate("all")["eval_accuracy"] == pytest.approx(1 / 3)
    assert evaluate_pairs(Trainer())["eval_accuracy"] == pytest.approx(1 / 9)
