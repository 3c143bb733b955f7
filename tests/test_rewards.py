"""Rewards: the verifier over ids, gold and corrupted views of every task, and the reward model against plain calls."""

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from hf_synth import build_tokenizer, get_task, list_tasks, load_dataset
from hf_synth.models.modeling_rope_gpt import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.rewards import finished_text, reward_model, verifier
from hf_synth.tasks import task_class

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
    found = reward_model(model, tokenizer, max_length=5)([prompt], [completion])
    assert found == pytest.approx([logit(model, end)], abs=1e-5)


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
