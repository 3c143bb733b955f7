"""Sampled completions and what is told of them: against one at a time, always the same, without a trace outside."""

import copy
import dataclasses

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from hf_synth import build_tokenizer, get_task
from hf_synth.evaluation.generation import Decoding, sample_completions
from hf_synth.evaluation.held_out import HeldOutPrompts, write_samples
from hf_synth.models.modeling_rope_gpt import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.rewards import verifier
from hf_synth.training.callbacks import HeldOutCallback

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


COLD_ONES = Decoding(6, temperature=COLD)
WARM_ONES = Decoding(6, temperature=2.0)


def asked_of(tokenizer, prompts=PROMPTS, groups=GROUPS, sizes=None, rewards=None, **columns):
    rows = Dataset.from_dict({"prompt": prompts, **columns})
    rewards = {"share": even_ones} if rewards is None else rewards
    density = [float(number) for number in range(len(prompts))]
    return HeldOutPrompts(rows, groups, sizes or {}, density, rewards, tokenizer)


def even_ones(prompts, completions, completion_ids, **columns):
    """A reward of 1 for an even number of tokens."""
    return [float(len(ids) % 2 == 0) for ids in completion_ids]


@torch.no_grad()
def greedy(model, tokenizer, prompt, most):
    """The likeliest token again and again, without a cache, without padding, up to and with `<eos>`."""
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    while len(ids) < start + most and ids[-1] != tokenizer.eos_token_id:
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


@torch.no_grad()
def log_probs_one_by_one(model, tokenizer, prompt, ids, temperature):
    """[C, V] of one completion alone, without padding."""
    start = tokenizer(prompt).input_ids
    logits = model(input_ids=torch.tensor([start + ids])).logits[0, len(start) - 1 : -1]
    return (logits.double() / temperature).log_softmax(-1)


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_cold_samples_are_the_greedy_ones_of_each_prompt_alone(batch_size, model, tokenizer):
    """Prompts of unlike length share a batch, so that padding and stopping must not show."""
    decoding = dataclasses.replace(COLD_ONES, batch_size=batch_size)
    result = sample_completions(model, model, PROMPTS, tokenizer, decoding)
    model.eval()
    wanted = [greedy(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    assert [completion.ids for completion in result] == wanted
    assert [completion.text for completion in result] == [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in wanted
    ]
    scores = [float(len(ids) % 2 == 0) for ids in wanted]
    even, odd = sum(scores[::2]) / 5, sum(scores[1::2]) / 4
    means = asked_of(tokenizer).means(result)
    assert {name: means[name] for name in means if name.startswith("share")} == pytest.approx(
        {"share": (even + odd) / 2, "share/even": even, "share/odd": odd}
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_told_of_completions_is_what_each_alone_gives(temperature, model, tokenizer):
    """log-probabilities, entropy and KL against one row at a time, summed over the vocabulary in float64."""
    torch.manual_seed(8)
    other = RopeGPTForCausalLM(model.config).eval()
    result = sample_completions(model, other, PROMPTS, tokenizer, Decoding(6, samples=3, temperature=temperature))
    model.eval()
    assert [(one.row, one.sample) for one in result] == [(row, sample) for row in range(9) for sample in range(3)]
    for one in result:
        own, ref = (log_probs_one_by_one(m, tokenizer, PROMPTS[one.row], one.ids, temperature) for m in (model, other))
        places = (range(len(one.ids)), one.ids)
        assert one.log_prob == pytest.approx(own[places].sum().item(), rel=1e-4, abs=1e-4)
        assert one.reference_log_prob == pytest.approx(ref[places].sum().item(), rel=1e-4, abs=1e-4)
        assert one.entropy == pytest.approx(-(own.exp() * own).sum().item(), rel=1e-4)
        assert one.kl == pytest.approx((own.exp() * (own - ref)).sum().item(), rel=1e-3)
        assert one.finished == (one.ids[-1] == tokenizer.eos_token_id)
    assert sum(one.kl for one in result) > 1
    alike = sample_completions(model, model, PROMPTS, tokenizer, WARM_ONES)
    assert all(one.kl == 0 and one.log_prob == one.reference_log_prob for one in alike)


def test_the_reference_of_an_adapter_is_its_base(model, tokenizer):
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", r=2))
    (same,) = {one.kl for one in sample_completions(adapted, None, PROMPTS[:1], tokenizer, WARM_ONES)}
    assert same == 0  # an adapter begins as nothing
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert sample_completions(adapted, None, PROMPTS[:1], tokenizer, WARM_ONES)[0].kl > 0


def test_samples_end_with_the_first_end_token(model, tokenizer):
    """A model that says `<eos>` now and then: nothing after it is kept, and some are cut off without one."""
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 0.2
    result = sample_completions(model, model, PROMPTS * 20, tokenizer, WARM_ONES)
    end = tokenizer.eos_token_id
    rows = [one.ids for one in result]
    finished = [ids for ids in rows if end in ids]
    assert 0 < len(finished) < len(rows)
    assert all(ids.index(end) == len(ids) - 1 for ids in finished)
    assert all(len(ids) == 6 for ids in rows if end not in ids)


def test_samples_follow_the_model_at_its_temperature(model, tokenizer):
    """The first tokens after one prompt, 2,000 times, against softmax(logits / temperature): within 5 sigma."""
    result = sample_completions(model, model, ["START"], tokenizer, Decoding(1, samples=2000, temperature=3.0))
    first = torch.tensor([one.ids[0] for one in result])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer("START").input_ids])).logits[0, -1]
    wanted = torch.softmax(logits / 3.0, dim=-1)
    share = torch.bincount(first, minlength=len(wanted)) / 2000
    assert ((share - wanted).abs() < 5 * (wanted * (1 - wanted) / 2000).sqrt() + 1e-9).all()
    assert wanted.max() < 0.9


def test_random_state_outside_is_untouched_and_counts_for_nothing(model, tokenizer):
    result = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        result.append(sample_completions(model, model, PROMPTS, tokenizer, WARM_ONES))
        assert torch.equal(torch.get_rng_state(), before)
    assert result[0] == result[1]
    other = sample_completions(model, model, PROMPTS, tokenizer, dataclasses.replace(WARM_ONES, seed=1))
    assert [one.ids for one in other] != [one.ids for one in result[0]]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_asked_without_dropout_and_left_as_it_was(training, model, tokenizer):
    model.train(training)
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (sample_completions(model, model, PROMPTS, tokenizer, COLD_ONES) for _ in range(2))
    assert first == second
    assert model.training is training
    assert all(torch.equal(value, parameters[name]) for name, value in model.state_dict().items())


def test_the_task_column_reaches_the_reward(model, tokenizer):
    seen = []

    def reward(prompts, completions, completion_ids, **columns):
        seen.append(columns)
        return [0.0] * len(prompts)

    result = sample_completions(model, model, PROMPTS, tokenizer, COLD_ONES)
    asked_of(tokenizer, rewards={"it": reward}).score(result)
    asked_of(tokenizer, rewards={"it": reward}, task=GROUPS).score(result)
    assert seen == [{}, {"task": GROUPS}]


def test_halves_are_means_over_the_larger_and_the_smaller_clusters(model, tokenizer):
    """Five clusters of one or two prompts each: the middle one is in neither half."""
    groups = ["a", "a", "b", "b", "c", "c", "d", "d", "e"]
    sizes = {"a": 1, "b": 50, "c": 20, "d": 30, "e": 10, "never asked": 99}
    held_out = asked_of(tokenizer, groups=groups, sizes=sizes)
    result = sample_completions(model, model, PROMPTS, tokenizer, WARM_ONES)
    means = held_out.means(result)
    assert means["halves/share/common"] == pytest.approx((means["share/b"] + means["share/d"]) / 2)
    assert means["halves/share/rare"] == pytest.approx((means["share/e"] + means["share/a"]) / 2)
    assert not any(name.startswith("halves") for name in asked_of(tokenizer).means(result))


def test_the_table_has_a_row_for_each_completion(model, tokenizer, grammar, tmp_path):
    rewards = {"sampled_reward": even_ones, "validity": verifier(grammar, tokenizer)}
    held_out = asked_of(tokenizer, sizes={"even": 5, "odd": 4}, rewards=rewards)
    result = sample_completions(model, model, PROMPTS, tokenizer, Decoding(6, samples=2))
    write_samples(tmp_path, held_out.table(result))
    table = pq.read_table(tmp_path / "samples.parquet")
    assert table.column("prompt").to_pylist() == [PROMPTS[one.row] for one in result]
    assert table.column("completion").to_pylist() == [one.text for one in result]
    assert table.column("tokens").to_pylist() == [len(one.ids) for one in result]
    assert table.column("reward").to_pylist() == even_ones(None, None, [one.ids for one in result])
    assert table.column("cluster").to_pylist() == [GROUPS[one.row] for one in result]
    assert table.column("density").to_pylist() == [float(one.row) for one in result]
    scores = held_out.score(result)
    assert table.column("truth").to_pylist() == scores["validity"]
    plain = asked_of(tokenizer).table(result)
    assert set(plain.column("truth").to_pylist()) == set(plain.column("cluster").to_pylist()) == {None}


def test_the_callback_looks_first_now_and_then_and_last(model, tokenizer, tmp_path):
    """Before the first step, every 2 of 5, and after the last."""
    rows = Dataset.from_dict({"input_ids": [[1, 4, 5, 6, 2]] * 10, "labels": [[1, 4, 5, 6, 2]] * 10})
    args = TrainingArguments(
        str(tmp_path), max_steps=5, per_device_train_batch_size=2, use_cpu=True, report_to="none", save_strategy="no"
    )
    reference = copy.deepcopy(model).eval()
    trainer = Trainer(model, args, train_dataset=rows)
    held_out = asked_of(tokenizer)
    trainer.add_callback(HeldOutCallback(trainer, held_out, reference, WARM_ONES, 2))
    trainer.train()
    looks = [entry for entry in trainer.state.log_history if "share" in entry]
    assert [entry["step"] for entry in looks] == [0, 2, 4, 5]
    assert all(
        entry.keys() >= {"share", "share/even", "share/odd", "held_out/kl", "held_out/entropy"} for entry in looks
    )
    assert looks[0]["held_out/kl"] == pytest.approx(0, abs=1e-6)
    assert looks[-1]["held_out/kl"] > 0
    last = held_out.means(held_out.sample(trainer.model, reference, WARM_ONES))
    assert looks[-1]["share"] == last["share"]
