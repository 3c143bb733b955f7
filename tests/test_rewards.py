"""Rewards: the verifier over ids, gold and corrupted views of every task, and the reward model against plain calls."""

import json
import re

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from hf_synth import build_tokenizer, get_task, list_tasks, load_dataset
from hf_synth.models.modeling_rope_gpt import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.rewards import finished_text, is_function, load_rewards, own_reward, reward_model, verified, verifier
from hf_synth.tasks import task_class, task_from_json

ROWS = 24
TEXTS = [
    ("START", "MID MID END"),
    ("START MID", "MID END"),
    ("START MID MID", "END"),
    ("START", "END"),
    ("START MID MID MID MID MID MID", "MID MID END START"),
]
CHATS = [
    ([{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hello there, how are you?"}]),
    (
        [
            {"role": "user", "content": "What is a tree?"},
            {"role": "assistant", "content": "A plant."},
            {"role": "user", "content": "And a forest?"},
        ],
        [{"role": "assistant", "content": "Many."}],
    ),
    ([{"role": "user", "content": "Bye"}], [{"role": "assistant", "content": ""}]),
]


@pytest.fixture(scope="module")
def grammar():
    return get_task("start_mid_end")


@pytest.fixture(scope="module")
def tokenizer(grammar):
    return build_tokenizer(grammar)


@pytest.fixture(scope="module")
def chat_tokenizer():
    texts = [message["content"] for prompt, completion in CHATS for message in prompt + completion]
    return train_bpe_tokenizer([text for text in texts if text], vocab_size=300)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def classifier(tokenizer, **changes):
    """A classifier whose logits differ clearly from text to text: its weights are large."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    values = {"vocab_size": len(tokenizer), "initializer_range": 0.3, "num_labels": 1, **shape, **special, **changes}
    return RopeGPTForSequenceClassification(RopeGPTConfig(**values)).eval()


@torch.no_grad()
def logit(model, row):
    return model(input_ids=torch.tensor([row])).logits[0, 0].item()


# The verifier


def judged(reward, tokenizer, prompt, completion, **columns):
    return reward(prompts=[prompt], completions=[None], completion_ids=[ids(tokenizer, completion)], **columns)


@pytest.mark.parametrize(
    ("prompt", "completion", "wanted"),
    [
        ("START", "MID END <eos>", 1.0),
        ("START MID", "MID MID MID END <eos>", 1.0),
        ("START", "MID END", 0.0),
        ("START", "MID END <eos> <eos>", 0.0),
        ("START", "MID END MID <eos>", 0.0),
        ("START", "MID <sep> END <eos>", 0.0),
        ("START", "<bos> MID END <eos>", 0.0),
        ("START", "MID <pad> END <eos>", 0.0),
        ("START", "<eos>", 0.0),
        ("START", "", 0.0),
        ("START MID END", "<eos>", 1.0),
        ([{"role": "user", "content": "START MID"}], "END <eos>", 1.0),
        ([{"role": "user", "content": "START MID"}], "START <eos>", 0.0),
        ([{"role": "user", "content": "END"}, {"role": "user", "content": "START"}], "MID END <eos>", 1.0),
    ],
)
def test_verifier_wants_a_right_and_finished_completion(prompt, completion, wanted, grammar, tokenizer):
    assert judged(verifier(grammar, tokenizer), tokenizer, prompt, completion) == [wanted]


def test_finished_text_is_what_stands_before_the_last_token(tokenizer):
    assert finished_text(ids(tokenizer, "MID <sep> END <eos>"), tokenizer) == "MID <sep> END"
    assert finished_text(ids(tokenizer, "<eos>"), tokenizer) == ""
    assert finished_text(ids(tokenizer, "MID END"), tokenizer) is None
    assert finished_text([], tokenizer) is None


def test_verifier_of_several_tasks_asks_the_one_in_the_task_column():
    """Either text is right in its own dialect and wrong in the other."""
    tasks = {f"dialect_{n}": get_task("agreement", dialect=n) for n in (1, 2)}
    tokenizer = build_tokenizer(*tasks.values())
    reward = verifier(tasks, tokenizer)
    completions = [ids(tokenizer, f"d{n}v3 </d{n}> <eos>") for n in (1, 2, 1, 2)]
    prompts = [f"<d{n}> d{n}n3" for n in (1, 2, 1, 2)]
    names = ["dialect_1", "dialect_2", "dialect_2", "dialect_1"]
    assert reward(prompts, [None] * 4, completions, task=names) == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(
        ValueError, match="got task 'dialect_3' in the `task` column, wanted one of dialect_1, dialect_2"
    ):
        reward(prompts[:1], [None], completions[:1], task=["dialect_3"])
    with pytest.raises(ValueError, match="got task ''"):
        reward(prompts[:1], [None], completions[:1])


def test_verifier_refuses_lists_of_unequal_length(grammar, tokenizer):
    with pytest.raises(ValueError, match="zip"):
        verifier(grammar, tokenizer)(["START", "START"], [None, None], [ids(tokenizer, "MID END <eos>")])


@pytest.mark.parametrize("name", [name for name in list_tasks() if task_class(name).verifiable])
def test_every_task_rewards_its_gold_view_and_nothing_else(name):
    """Gold completions with `<eos>` get 1.0; without it, or corrupted, or a jumble of words, 0.0."""
    task = get_task(name)
    tokenizer = build_tokenizer(task)
    reward = verifier(task, tokenizer)
    gold = load_dataset(name, split="train", size=ROWS, view="prompt_completion")
    right = [ids(tokenizer, text) for text in gold["completion"]]
    end = [tokenizer.eos_token_id]
    none = [None] * ROWS
    assert reward(gold["prompt"], none, [row + end for row in right]) == [1.0] * ROWS
    assert reward(gold["prompt"], none, right) == [0.0] * ROWS
    assert reward(gold["prompt"], none, [[*row, tokenizer.sep_token_id, *end] for row in right]) == [0.0] * ROWS
    pairs = load_dataset(name, split="train", size=ROWS, view="preference")
    wrong = [ids(tokenizer, text) + end for text in pairs["rejected"]]
    assert reward(pairs["prompt"], none, wrong) == [0.0] * ROWS


# The verifier by its dotted path


def texts_and_ids(tokenizer, *completions):
    """What TRL passes: texts without special tokens, and ids with them."""
    rows = [ids(tokenizer, completion) for completion in completions]
    return tokenizer.batch_decode(rows, skip_special_tokens=True), rows


def test_verified_reads_the_ids_of_the_tasks_own_tokenizer(grammar, tokenizer):
    """As the verifier does: a text without its end, or with a special token inside, is wrong."""
    answers = ["MID END <eos>", "MID END", "MID <sep> END <eos>", "MID MID <eos>", "<eos>"]
    wanted = [1.0, 0.0, 0.0, 0.0, 0.0]
    texts, rows = texts_and_ids(tokenizer, *answers)
    assert texts[:3] == ["MID END"] * 3
    task = [grammar.to_json()] * 5
    assert verified(["START"] * 5, texts, task=task, completion_ids=rows, trainer_state=None) == wanted
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    asked = [[{"role": "system", "content": "END"}, {"role": "user", "content": "START"}]] * 5
    assert verified(asked, chats, task=task, completion_ids=rows) == wanted
    assert verified(["START MID END"], [""], task=task[:1], completion_ids=[[tokenizer.eos_token_id]]) == [1.0]
    with pytest.raises(ValueError, match="zip"):
        verified(["START"] * 5, texts, task=task, completion_ids=rows[:4])


def test_verified_reads_the_text_of_another_tokenizer(grammar):
    """Its ids are other words, or none, of the task: an end is not asked for, TRL masks what is unfinished."""
    other = train_bpe_tokenizer(["START MID END"] * 3, vocab_size=300)
    answers = ["MID END", " MID MID END", "END", "MID", "END MID", ""]
    wanted = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    rows = [ids(other, text) for text in answers]
    task = [grammar.to_json()] * 6
    assert verified(["START"] * 6, answers, task, rows) == wanted
    assert verified(["START"] * 6, answers, task, [[*row, other.eos_token_id] for row in rows]) == wanted
    assert verified(["START"] * 6, answers, task) == wanted
    chats = [[{"role": "assistant", "content": text}] for text in answers]
    assert verified(["START"] * 6, chats, task, rows) == wanted
    assert verified(["START"], [[{"role": "assistant", "content": None}]], task[:1]) == [0.0]


def test_verified_and_the_verifier_agree_on_what_the_view_publishes():
    """Each row by its own task and config, by the JSON in the view's column or by a name."""
    tasks = {f"dialect_{n}": get_task("agreement", dialect=n) for n in (1, 2)}
    tokenizer = build_tokenizer(*tasks.values())
    columns = [load_dataset("agreement", split="train", size=1, view="prompt", dialect=n)["task"][0] for n in (1, 2)]
    assert [task_from_json(column).config for column in columns] == [task.config for task in tasks.values()]
    prompts = [f"<d{n}> d{n}n3" for n in (1, 2, 1, 2)]
    answers = [f"d{n}v3 </d{n}>" for n in (1, 2, 1, 2)]
    rows = [ids(tokenizer, f"{text} <eos>") for text in answers]
    named = ["dialect_1", "dialect_2", "dialect_2", "dialect_1"]
    described = [columns[0], columns[1], columns[1], columns[0]]
    for task in (named, described, [named[0], *described[1:]]):
        assert verifier(tasks, tokenizer)(prompts, answers, rows, task=task) == [1.0, 1.0, 0.0, 0.0]
    assert verified(prompts, answers, described, rows) == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", [name for name in list_tasks() if task_class(name).verifiable])
def test_verified_rewards_the_gold_view_of_every_task(name):
    task = get_task(name)
    tokenizer, described = build_tokenizer(task), [task.to_json()] * ROWS
    gold = load_dataset(name, split="train", size=ROWS, view="prompt_completion")
    texts, rows = texts_and_ids(tokenizer, *(f"{text} <eos>" for text in gold["completion"]))
    assert verified(gold["prompt"], texts, described, rows) == [1.0] * ROWS
    assert verified(gold["prompt"], texts, described, [row[:-1] for row in rows]) == [0.0] * ROWS
    assert verified(gold["prompt"], gold["completion"], described) == [1.0] * ROWS
    pairs = load_dataset(name, split="train", size=ROWS, view="preference")
    assert verified(pairs["prompt"], pairs["rejected"], described) == [0.0] * ROWS


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("sort", "task: got 'sort', wanted JSON"),
        ("[]", r"task: got '\[\]', wanted the JSON of a task's name and config"),
        (None, "task: got None, wanted the JSON of a task's name and config"),
        ('{"name": "sort"}', "wanted the JSON of a task's name and config"),
        ('{"name": "sort", "config": 8}', "wanted the JSON of a task's name and config"),
        ('{"name": "sort", "config": {"length": 8, "length": 9}}', "got a key of .* twice"),
        ('{"name": "sotr", "config": {}}', "got 'sotr', which is no installed task; did you mean 'sort'"),
        ('{"name": ["sort"], "config": {}}', "which is no installed task"),
        ('{"name": "sort", "config": {"lenght": 8}}', "unknown field 'lenght'; did you mean 'length'"),
        ('{"name": "sort", "config": {"self": 8}}', "unknown field 'self'"),
        ('{"name": "sort", "config": {"length": 0}}', "length: got 0"),
        ('{"name": "rlm", "config": {}}', "task rlm: got no right or wrong texts to tell apart"),
    ],
)
def test_verified_refuses_what_no_view_writes(described, message):
    with pytest.raises(ValueError, match=message):
        verified(["1 <sep>"], ["1"], [described])


def test_no_dataset_names_code_to_run(tmp_path):
    """Neither the path of a file nor that of an installed module is a task's name."""
    file = tmp_path / "my_task.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    for name in (str(file), str(file)[:-3], "hf_synth.tasks.sort", "families", "base", "../tasks/sort.py"):
        with pytest.raises(ValueError, match="which is no installed task"):
            verified(["1 <sep>"], ["1"], [json.dumps({"name": name, "config": {}})])
    assert not (tmp_path / "ran").exists()


# The reward model


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_scores_equal_those_of_one_text_at_a_time_without_padding(side, batch_size, tokenizer):
    """Whatever the order of lengths and the side of padding."""
    padded = build_tokenizer(get_task("start_mid_end"))
    padded.padding_side = side
    model = classifier(padded)
    wanted = [logit(model, padded(f"{prompt} {completion} <eos>").input_ids) for prompt, completion in TEXTS]
    assert len({round(value, 3) for value in wanted}) == 3, "the first three texts are one, cut at other places"
    reward = reward_model(model, padded, batch_size=batch_size)
    prompts, completions = zip(*TEXTS, strict=True)
    assert reward(prompts, completions) == pytest.approx(wanted, abs=1e-5)
    assert reward(prompts[::-1], completions[::-1]) == pytest.approx(wanted[::-1], abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_conversations_are_scored_as_the_template_renders_them(side, chat_tokenizer):
    chat_tokenizer.padding_side = side
    model = classifier(chat_tokenizer)
    template = {"tokenize": True, "return_dict": True}
    rendered = [chat_tokenizer.apply_chat_template(p + c, **template)["input_ids"] for p, c in CHATS]
    reward = reward_model(model, chat_tokenizer, batch_size=2)
    prompts, completions = zip(*CHATS, strict=True)
    assert reward(prompts, completions) == pytest.approx([logit(model, row) for row in rendered], abs=1e-5)


def trained_on(tokenizer, rows, folder):
    """The ids that TRL's RewardTrainer makes of the chosen side."""
    args = RewardConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", max_length=None)
    trainer = RewardTrainer(classifier(tokenizer), args, train_dataset=rows, processing_class=tokenizer)
    return list(trainer.train_dataset["chosen_ids"])


@pytest.mark.parametrize("name", ["start_mid_end", "sort"])
def test_answers_of_a_policy_are_scored_as_the_texts_trained_on(name, tmp_path):
    """A decoded completion has lost the space before its first word, and its `<eos>`; the trained text had both."""
    tokenizer = build_tokenizer(get_task(name))
    rows = load_dataset(name, split="train", size=8, view="preference")
    answers = [tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) for text in rows["chosen"]]
    assert not any(text.startswith(" ") for text in answers)
    model = classifier(tokenizer, max_position_embeddings=256)
    wanted = [logit(model, row) for row in trained_on(tokenizer, rows, tmp_path)]
    assert reward_model(model, tokenizer)(rows["prompt"], answers) == pytest.approx(wanted, abs=1e-5)


def test_text_that_keeps_its_spaces_is_glued_as_it_is(chat_tokenizer, tmp_path):
    """A byte-level tokenizer loses nothing, so that half a word goes on where it was cut."""
    pairs = [("What is a tr", "ee?"), ("What is", " a tree?"), ("What is ", "a tree?"), ("Hi", "")]
    rows = [{"prompt": prompt, "chosen": answer, "rejected": "no"} for prompt, answer in pairs]
    model = classifier(chat_tokenizer)
    wanted = [logit(model, row) for row in trained_on(chat_tokenizer, Dataset.from_list(rows), tmp_path)]
    assert wanted[0] == pytest.approx(wanted[1], abs=1e-5)
    prompts, answers = zip(*pairs, strict=True)
    assert reward_model(model, chat_tokenizer)(prompts, answers) == pytest.approx(wanted, abs=1e-5)


def test_of_a_long_text_the_end_is_scored(tokenizer):
    model = classifier(tokenizer)
    prompt, completion = TEXTS[-1]
    end = tokenizer(f"{prompt} {completion} <eos>").input_ids[-5:]
    result = reward_model(model, tokenizer, max_length=5)([prompt], [completion])
    assert result == pytest.approx([logit(model, end)], abs=1e-5)


def test_a_path_holds_model_and_tokenizer(tokenizer, tmp_path):
    model = classifier(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts, completions = zip(*TEXTS, strict=True)
    wanted = reward_model(model, tokenizer)(prompts, completions)
    assert reward_model(str(tmp_path))(prompts, completions) == pytest.approx(wanted, abs=1e-6)


def test_a_policy_with_another_tokenizer_is_scored_by_its_text(chat_tokenizer, tmp_path):
    """In a real GRPO trainer: not one id of the policy means the same to the reward model."""
    policy_tokenizer = train_bpe_tokenizer(["Zebras quietly jump over boxes.", "0123456789"] * 3, vocab_size=280)
    prompts = [prompt for prompt, _ in CHATS for _ in range(2)]
    text = "What is a tree?"
    assert policy_tokenizer(text).input_ids != chat_tokenizer(text).input_ids
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    special = {name: getattr(policy_tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    policy = RopeGPTForCausalLM(RopeGPTConfig(vocab_size=len(policy_tokenizer), **shape, **special))
    model = classifier(chat_tokenizer)
    judge, seen = reward_model(model, chat_tokenizer), []

    def reward(prompts, completions, **columns):
        seen.extend(zip(prompts, completions, judge(prompts, completions, **columns), strict=True))
        return [score for _, _, score in seen[-len(prompts) :]]

    options = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    sizes = {"max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 8}
    GRPOTrainer(
        policy,
        reward,
        args=GRPOConfig(str(tmp_path), **options, **sizes),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=policy_tokenizer,
    ).train()
    assert len(seen) == 16
    assert len({score for _, _, score in seen}) > 8
    for prompt, completion, score in seen:
        template = {"tokenize": True, "return_dict": True}
        row = chat_tokenizer.apply_chat_template(prompt + completion, **template)["input_ids"]
        assert score == pytest.approx(logit(model, row), abs=1e-5)


def test_the_model_is_frozen_and_in_evaluation_mode(tokenizer):
    model = classifier(tokenizer, dropout=0.5).train()
    reward = reward_model(model, tokenizer)
    assert reward(["START"], ["MID END"]) == reward(["START"], ["MID END"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_no_reward_model_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"classifier of 2 labels \(.*\), wanted 1, or `heads`"):
        reward_model(classifier(tokenizer, num_labels=2), tokenizer)
    with pytest.raises(ValueError, match="a model without a tokenizer"):
        reward_model(classifier(tokenizer))
    with pytest.raises(ValueError, match="neither here nor on the Hub"):
        reward_model(str(tmp_path / "nothing"))


def test_verifier_of_a_task_in_which_nothing_is_right_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="task rlm: got no right or wrong texts to tell apart, wanted a task with"):
        verifier(get_task("rlm"), tokenizer)
    with pytest.raises(ValueError, match="task rlm"):
        verifier({"one": get_task("sort"), "other": get_task("rlm")}, tokenizer)


# A function of one's own


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mine.py:score", True),
        ("/a b/mine.py:score", True),
        ("mine.score", True),
        ("my_lib.rewards.score", True),
        ("mine.py", False),
        ("org/model-1.5", False),
        ("gpt2", False),
        ("runs/mine.v1", False),
        ("here.v1", False),
    ],
)
def test_names_of_functions(name, function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.v1").mkdir()
    assert is_function(name) is function


OWN = """
import numpy as np
from beside import HALF

def score(prompts, completions, completion_ids, answer, trainer_state, log_metric, **columns):
    log_metric("seen", 1.0)
    assert trainer_state.global_step == 0 and completion_ids == [[1], [2]]
    return np.array([HALF * (right in text) for text, right in zip(completions, answer)])

async def later(completions, **columns):
    return [None, True]

def strict(completions, answer, **columns):
    return [1 / len(text) for text in completions]

def short(completions, **columns):
    return [1.0]

def wordy(completions, **columns):
    return ["good", 1.0]

def closed(completions):
    return [1.0, 1.0]

constant = 5
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_reward_file.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("HALF = 0.5")
    return "own_reward_file.py"


BATCH = {
    "prompts": ["one and one", "two and\ntwo"],
    "completions": ["2", ""],
    "completion_ids": [[1], [2]],
    "answer": ["2", "4"],
}


def test_own_rewards_are_called_as_trl_calls_them(own_file, monkeypatch):
    monkeypatch.setattr("sys.path", [""])
    by_path, by_module = own_reward(f"{own_file}:score"), own_reward("own_reward_file.score")
    assert by_path(**BATCH) == by_module(**BATCH) == [0.5, 0.0]
    assert own_reward(f"{own_file}:later")(**BATCH) == [None, 1.0]
    both = load_rewards([f"{own_file}:score", "own_reward_file.score", f"{own_file}:later"], {}, None)
    assert [reward.__name__ for reward in both] == ["score", "own_reward_file.score", "later"]  # one column each


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("none.py:score", "the file 'none.py', which does not exist"),
        ("no_such_module.score", "finds no module 'no_such_module'"),
        ("own_reward_file.py:scores", "no 'scores' in own_reward_file.py"),
        ("own_reward_file.py:constant", "a value that cannot be called"),
        ("broken.py:score", "broken.py: line 1"),
        ("failing.py:score", "failing.py: line 1: ZeroDivisionError"),
    ],
)
def test_own_rewards_that_cannot_be_loaded(name, wanted, own_file, tmp_path):
    (tmp_path / "broken.py").write_text("def score(:")
    (tmp_path / "failing.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=f"reward: got '{re.escape(name)}'.*{re.escape(wanted)}"):
        own_reward(name)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "strict",
            "own_reward_file.py: line 14: ZeroDivisionError: division by zero .the row that begins 'two and two'",
        ),
        ("short", "got 1 rewards for 2 completions"),
        ("wordy", "could not convert string to float: 'good'"),
        ("closed", r".*closed\(\) got an unexpected keyword argument"),
    ],
)
def test_own_rewards_that_fail_name_themselves_and_the_row(name, wanted, own_file):
    reward = own_reward(f"{own_file}:{name}")
    with pytest.raises(ValueError, match=f"^reward {own_file}:{name}: {wanted}"):
        reward(**BATCH)


def test_a_missing_column_is_named(own_file):
    with pytest.raises(ValueError, match=r"score\(\) missing 1 required positional argument: 'answer'"):
        own_reward(f"{own_file}:score")(**{name: values for name, values in BATCH.items() if name != "answer"})
