"""RoPE-GPT's own: its config, how it starts, its tied head, and the scores of rows that make it a reward model."""

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForSequenceClassification, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification


@pytest.fixture
def family(tiny):
    return tiny.ROPE_GPT


@pytest.fixture
def scorer(family):
    """A tiny reward model."""
    return family.model(RopeGPTForSequenceClassification, num_labels=1)


# ---- config and start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 12}, "even size"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "got rope_theta=-1.0"),
    ],
)
def test_an_illegal_config_is_an_error(family, changes, message):
    with pytest.raises(ValueError, match=message):
        family.config(**changes)


def test_rope_parameters_have_a_default_and_stay_the_callers():
    mine = {"rope_type": "default"}
    assert RopeGPTConfig().rope_parameters == {"rope_type": "default", "rope_theta": 100.0}
    RopeGPTConfig(rope_parameters=mine)
    assert mine == {"rope_type": "default"}
    assert RopeGPTConfig(rope_theta=50.0).rope_parameters["rope_theta"] == 50.0


def test_initialisation(family):
    model = family.model(hidden_size=128, initializer_range=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert abs(parameter.std().item() - 0.02) < 0.001, name
    assert model.lm_head.weight is not model.model.embed_tokens.weight


def test_tied_head_survives_a_round_trip(family, tiny, tmp_path):
    model, ids = family.model(tie_word_embeddings=True), tiny.tokens(2, 6)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(RopeGPTForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


# ---- positions ------------------------------------------------------------------------------------------------------

FAR = {"factor": 4.0, "original_max_position_embeddings": 16}
SCALED = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": FAR,
    "llama3": FAR | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": FAR | {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 4.0, 5.0]},
}


@pytest.mark.parametrize("length", [16, 48])
@pytest.mark.parametrize("kind", SCALED)
def test_scaled_rope_turns_by_the_angles_of_transformers(family, tiny, kind, length):
    rope = {"rope_type": kind, "rope_theta": 100.0, **SCALED[kind]}
    shape = {"max_position_embeddings": 64 if "original_max_position_embeddings" in rope else 32}
    model = family.model(rope_parameters=rope, **shape)
    theirs = LlamaRotaryEmbedding(LlamaConfig(hidden_size=32, num_attention_heads=4, rope_parameters=rope, **shape))
    ids, positions = tiny.tokens(1, length), torch.arange(length)[None]
    logits = model(ids).logits  # before: dynamic angles follow the longest row so far
    for got, wanted in zip(
        *(rotary(torch.zeros(1), positions) for rotary in (model.model.rotary_emb, theirs)), strict=True
    ):
        torch.testing.assert_close(got, wanted)
    if (kind, length) != ("dynamic", 16):  # below the limit dynamic is plain
        assert (logits - family.model(**shape)(ids).logits).abs().max() > 1e-2


def test_linear_scaling_divides_positions(family, tiny):
    ids, positions = tiny.tokens(2, 12), torch.arange(12)[None]
    scaled = family.model(rope_parameters={"rope_type": "linear", "factor": 2.0})
    got = scaled(ids, position_ids=2 * positions, use_cache=False, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(got, family.model()(ids).logits, atol=1e-5, rtol=1e-5)


def test_dynamic_scaling_raises_the_base_beyond_the_limit_alone(family, tiny):
    ids = tiny.tokens(2, 24)
    scaled = family.model(rope_parameters={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=12)
    torch.testing.assert_close(scaled(ids[:, :12]).logits, family.model()(ids[:, :12]).logits)
    base = 100.0 * (2.0 * 24 / 12 - 1.0) ** (8 / (8 - 2))
    torch.testing.assert_close(scaled(ids).logits, family.model(rope_theta=base)(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cast", ["after", "before"])
def test_angles_of_far_positions_are_exact_in_bf16(family, tiny, tmp_path, cast):
    ids, far = tiny.tokens(2, 12), 1001 + torch.arange(12)[None]  # bf16 knows only every fourth of these
    exact = family.model(initializer_range=0.1, max_position_embeddings=1024)
    exact.save_pretrained(tmp_path)
    model = RopeGPTForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16 if cast == "before" else torch.float32)
    cos, sin = model.to(torch.bfloat16).model.rotary_emb(torch.zeros(1, dtype=torch.bfloat16), far)
    angles = far[0, :, None].double() * 100.0 ** -(torch.arange(0, 8, 2).double() / 8)
    torch.testing.assert_close(cos[0].double(), angles.cos().repeat(1, 2), atol=2**-8, rtol=2**-8)
    torch.testing.assert_close(sin[0].double(), angles.sin().repeat(1, 2), atol=2**-8, rtol=2**-8)
    wanted = exact(ids, position_ids=far).logits
    assert (model(ids, position_ids=far).logits.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


# ---- scores of rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_mask", [True, False])
def test_score_is_that_of_the_last_real_token(scorer, tiny, with_mask):
    ids = tiny.tokens(2, 6)
    alone = scorer(ids).logits
    assert alone.shape == (2, 1)
    hidden = scorer.model(ids).last_hidden_state[:, -1]
    torch.testing.assert_close(alone, scorer.score(hidden))
    pad, real = torch.zeros(2, 3, dtype=torch.long), torch.ones_like(ids)
    right = scorer(torch.cat((ids, pad), 1), attention_mask=torch.cat((real, pad), 1) if with_mask else None).logits
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=1e-5)
    if with_mask:  # without one, padding on the left is read as text: nothing says that it is not
        left = scorer(torch.cat((pad, ids), 1), attention_mask=torch.cat((pad, real), 1)).logits
        torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-5)


def test_a_padding_token_that_the_mask_keeps_is_scored(scorer):
    ids = torch.tensor([[5, 6, 0, 0]])
    kept = scorer(ids, attention_mask=torch.tensor([[1, 1, 1, 0]])).logits
    torch.testing.assert_close(kept, scorer(ids[:, :3], attention_mask=torch.ones(1, 3)).logits)


def test_classification_loss(family, tiny):
    model, ids = family.model(RopeGPTForSequenceClassification, num_labels=3), tiny.tokens(4, 6)
    labels = torch.tensor([0, 2, 1, 2])
    output = model(ids, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))


def test_regression_loss(family, tiny):
    ids, numbers = tiny.tokens(4, 6), torch.tensor([0.5, -1.0, 2.0, 0.0])
    model = family.model(RopeGPTForSequenceClassification, num_labels=1)
    output = model(ids, labels=numbers)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - numbers).square().mean())
    model = family.model(RopeGPTForSequenceClassification, num_labels=3, problem_type="regression")
    output = model(ids, labels=numbers[:, None] * torch.arange(3))
    torch.testing.assert_close(output.loss, (output.logits - numbers[:, None] * torch.arange(3)).square().mean())


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_loss_of_several_labels_a_row(family, tiny, problem):
    model = family.model(RopeGPTForSequenceClassification, num_labels=3, problem_type=problem)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    output = model(tiny.tokens(4, 6), labels=labels)
    chances = torch.where(labels == 1, output.logits.sigmoid(), 1 - output.logits.sigmoid())
    torch.testing.assert_close(output.loss, -chances.log().mean())


NAN = float("nan")
PROBLEMS = {  # labels of eight rows, of which batches know unequally many
    "classes": (torch.tensor([0, 1, -100, 0, -100, -100, 2, 1]), {"num_labels": 3}),
    "a number": (torch.tensor([0.5, NAN, -100, NAN, -1.0, 2.0, 0.0, 1.0]), {"num_labels": 1}),
    "numbers": (
        torch.tensor([[0.5, NAN], [NAN, NAN], [-100, 1.0], [0.0, 2.0]]).repeat(2, 1),
        {"num_labels": 2, "problem_type": "regression"},
    ),
    "several labels": (
        torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN], [-100, 1.0, -100], [0.0, 1.0, 1.0]]).repeat(2, 1),
        {"num_labels": 3},
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_missing_labels_have_no_loss(family, tiny, problem):
    labels, shape = PROBLEMS[problem]
    model, ids = family.model(RopeGPTForSequenceClassification, **shape), tiny.tokens(8, 6)
    output = model(ids, labels=labels)
    terms = []
    for scores, row in zip(output.logits, labels.reshape(8, -1), strict=True):
        for number, label in enumerate(row):
            if label == -100 or label.isnan():
                continue
            if problem == "classes":
                terms.append(-scores.log_softmax(-1)[label])
            elif problem == "several labels":
                terms.append(-(scores[number] if label else -scores[number]).sigmoid().log())
            else:
                terms.append((scores[number] - label).square())
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())
    assert model(ids, labels=torch.full_like(labels, -100)).loss == 0


@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradient_accumulation_is_exact(family, tiny, tmp_path, problem):
    labels, shape = PROBLEMS[problem]
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(tiny.tokens(8, 6), labels, strict=True)]

    def weights(batch, batches):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": batches}
        return tiny.trained_weights(family.model(RopeGPTForSequenceClassification, **shape), tmp_path, rows, **sizes)

    whole = weights(8, 1)
    for batch, batches in ((4, 2), (2, 4), (1, 8)):
        for name, weight in weights(batch, batches).items():
            torch.testing.assert_close(weight, whole[name], atol=1e-6, rtol=1e-5, msg=name)


def test_a_reward_model_is_saved_and_loaded(scorer, tiny, tmp_path):
    ids = tiny.tokens(2, 6)
    scorer.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is RopeGPTForSequenceClassification
    torch.testing.assert_close(loaded(ids).logits, scorer(ids).logits, rtol=0, atol=0)


def test_a_reward_model_takes_over_the_decoder(family, tiny, tmp_path):
    model, ids = family.model(), tiny.tokens(2, 6)
    model.save_pretrained(tmp_path)
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    assert scorer(ids).logits.shape == (2, 1)
    torch.testing.assert_close(scorer.model(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_reward_trainer_steps(scorer, tiny, tmp_path):
    from trl import RewardConfig, RewardTrainer

    rows = Dataset.from_list([{"chosen": "<bos> 1 2 <sep> 2 1", "rejected": "<bos> 1 2 <sep> 3"}] * 4)
    before = scorer.score.weight.detach().clone()
    args = tiny.arguments(RewardConfig, tmp_path, max_length=16, learning_rate=0.1)
    RewardTrainer(scorer, args=args, train_dataset=rows, processing_class=tiny.tokenizer()).train()
    assert not torch.equal(before, scorer.score.weight)
