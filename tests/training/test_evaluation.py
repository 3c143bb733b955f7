"""The sampled score: against one prompt at a time, the same every time, and without a trace outside."""

import dataclasses

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from hf_synth import build_tokenizer, get_task
from hf_synth.models.modeling_rope_gpt import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.rewards import verifier
from hf_synth.training.evaluation import SampledScore, SampledScoreCallback

PROMPTS = ["START" + " MID" * count for count in range(9)]
GROUPS = ["even", "odd"] * 4 + ["even"]
COLD = 1e-5  # logits are divided by it: sampling becomes the largest logit


@pytest.fixture(scope="module")
def grammar():
    return get_task("start_mid_end")


@pytest.fixture(scope="module")
def tokenizer(grammar):
    return build_tokenizer(grammar)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(3)
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = RopeGPTConfig(vocab_size=len(tokenizer), initializer_range=0.3, dropout=0.1, **shape, **special)
    return RopeGPTForCausalLM(config)


class Recorded:
    """A reward of 1 for an even number of tokens, that keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompts, completions, completion_ids, **columns):
        self.asked += zip(prompts, completions, completion_ids, strict=True)
        self.columns = columns
        return [float(len(ids) % 2 == 0) for ids in completion_ids]


def score(tokenizer, reward, prompts=PROMPTS, **changes):
    rows = Dataset.from_dict({"prompt": prompts})
    values = {"name": "share", "prompts": rows, "groups": GROUPS, "reward": reward, "tokenizer": tokenizer}
    return SampledScore(**{**values, "max_new_tokens": 6, **changes})


@torch.no_grad()
def greedy(model, tokenizer, prompt, most):
    """The likeliest token again and again, without a cache, without padding, up to and with `<eos>`."""
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    while len(ids) < start + most and ids[-1] != tokenizer.eos_token_id:
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_cold_samples_are_the_greedy_ones_of_each_prompt_alone(batch_size, model, tokenizer):
    """Prompts of unlike length share a batch, so that padding and stopping must not show."""
    reward = Recorded()
    found = score(tokenizer, reward, temperature=COLD, batch_size=batch_size)(model)
    model.eval()
    wanted = [greedy(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    assert [ids for _, _, ids in reward.asked] == wanted
    assert [prompt for prompt, _, _ in reward.asked] == PROMPTS
    assert [text for _, text, _ in reward.asked] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in wanted]
    scores = [float(len(ids) % 2 == 0) for ids in wanted]
    even, odd = sum(scores[::2]) / 5, sum(scores[1::2]) / 4
    assert found == pytest.approx({"share": (even + odd) / 2, "share/even": even, "share/odd": odd})


def test_samples_end_with_the_first_end_token(model, tokenizer):
    """A model that says `<eos>` now and then: nothing after it is kept, and some are cut off without one."""
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 0.2
    reward = Recorded()
    score(tokenizer, reward, PROMPTS * 20, groups=GROUPS * 20, temperature=2.0)(model)
    end = tokenizer.eos_token_id
    rows = [ids for _, _, ids in reward.asked]
    finished = [ids for ids in rows if end in ids]
    assert 0 < len(finished) < len(rows)
    assert all(ids.index(end) == len(ids) - 1 for ids in finished)
    assert all(len(ids) == 6 for ids in rows if end not in ids)


def test_samples_follow_the_model_at_its_temperature(model, tokenizer):
    """The first tokens after one prompt, 2,000 times, against softmax(logits / temperature): within 5 sigma."""
    reward = Recorded()
    score(tokenizer, reward, ["START"] * 2000, groups=["x"] * 2000, temperature=3.0, max_new_tokens=1)(model)
    first = torch.tensor([ids[0] for _, _, ids in reward.asked])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer("START").input_ids])).logits[0, -1]
    wanted = torch.softmax(logits / 3.0, dim=-1)
    found = torch.bincount(first, minlength=len(wanted)) / 2000
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / 2000).sqrt() + 1e-9).all()
    assert wanted.max() < 0.9


def test_random_state_outside_is_untouched_and_counts_for_nothing(model, tokenizer, grammar):
    measure = score(tokenizer, verifier(grammar, tokenizer), temperature=2.0)
    asked = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        reward = Recorded()
        measured = dataclasses.replace(measure, reward=reward)
        measured(model)
        assert torch.equal(torch.get_rng_state(), before)
        asked.append(reward.asked)
    assert asked[0] == asked[1]
    other = Recorded()
    dataclasses.replace(measure, reward=other, seed=1)(model)
    assert other.asked != asked[0]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_asked_without_dropout_and_left_as_it_was(training, model, tokenizer):
    model.train(training)
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = Recorded(), Recorded()
    for reward in (first, second):
        score(tokenizer, reward, temperature=COLD)(model)
    assert first.asked == second.asked
    assert model.training is training
    assert all(torch.equal(value, parameters[name]) for name, value in model.state_dict().items())


def test_the_task_column_reaches_the_reward(model, tokenizer):
    reward = Recorded()
    rows = Dataset.from_dict({"prompt": PROMPTS, "task": GROUPS})
    score(tokenizer, reward, prompts=PROMPTS)(model)
    assert reward.columns == {}
    SampledScore("share", rows, GROUPS, reward, tokenizer, 2)(model)
    assert reward.columns == {"task": GROUPS}


def test_the_callback_looks_first_now_and_then_and_last(model, tokenizer, grammar, tmp_path):
    """Before the first step, every 2 of 5, and after the last."""
    rows = Dataset.from_dict({"input_ids": [[1, 4, 5, 6, 2]] * 10, "labels": [[1, 4, 5, 6, 2]] * 10})
    args = TrainingArguments(
        str(tmp_path), max_steps=5, per_device_train_batch_size=2, use_cpu=True, report_to="none", save_strategy="no"
    )
    trainer = Trainer(model, args, train_dataset=rows)
    measure = score(tokenizer, verifier(grammar, tokenizer), temperature=2.0)
    trainer.add_callback(SampledScoreCallback(trainer, measure, 2))
    trainer.train()
    looks = [entry for entry in trainer.state.log_history if "share" in entry]
    assert [entry["step"] for entry in looks] == [0, 2, 4, 5]
    assert all(entry.keys() >= {"share", "share/even", "share/odd"} for entry in looks)
    assert looks[-1]["share"] == measure(trainer.model)["share"]
