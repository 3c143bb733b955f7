"""RoPE-GPT against a forward pass written out, against itself (cached, padded, checkpointed), and inside trainers."""

import json
import math
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    GenerationConfig,
    PreTrainedTokenizerFast,
    StaticCache,
    Trainer,
    TrainingArguments,
)
from transformers.cache_utils import DynamicLayer

import hf_synth.models.modeling_rope_gpt as module
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification, RopeGPTModel

VOCAB = 40
IMPLEMENTATIONS = ("eager", "sdpa")


def tiny_config(**changes):
    """Small, and started so wide (0.3) that attention looks at something: at 0.02 a broken cache goes unseen."""
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return RopeGPTConfig(**{**shape, "initializer_range": 0.3, **changes})


def tiny_model(cls=RopeGPTForCausalLM, implementation="sdpa", seed=0, **changes):
    torch.manual_seed(seed)
    return cls._from_config(tiny_config(**changes), attn_implementation=implementation).eval()


def tokens(rows, length, seed=0):
    return torch.randint(4, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def left_padded():
    """Three rows of 12 columns: 12, 7 and 1 real tokens."""
    ids, mask = tokens(3, 12), torch.ones(3, 12, dtype=torch.long)
    for row, padding in enumerate((0, 5, 11)):
        ids[row, :padding], mask[row, :padding] = 0, 0
    return ids, mask


# ---- the forward pass -----------------------------------------------------------------------------------------------


def plain_forward(model, row):
    """Logits [T, V] of one row, from the weights alone: one position, one head, one pair at a time."""
    config, weights = model.config, model.state_dict()
    size, theta = config.hidden_size // config.num_attention_heads, config.rope_parameters["rope_theta"]

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean()
        scaled = centred / (centred.pow(2).mean() + config.layer_norm_eps).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def rotate(x, position):
        turned = x.clone()
        for i in range(size // 2):
            angle = position * theta ** (-2 * i / size)
            first, second = x[i], x[i + size // 2]
            turned[i] = first * math.cos(angle) - second * math.sin(angle)
            turned[i + size // 2] = second * math.cos(angle) + first * math.sin(angle)
        return turned

    stream = [weights["model.embed_tokens.weight"][token] for token in row]
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}"
        normed = [norm(f"{name}.input_layernorm", x) for x in stream]
        queries, keys, values = (
            [linear(f"{name}.self_attn.{kind}_proj", x).split(size) for x in normed] for kind in "qkv"
        )
        for t in range(len(row)):
            heads = []
            for h in range(config.num_attention_heads):
                query = rotate(queries[t][h], t)
                scores = torch.stack([query @ rotate(keys[s][h], s) / math.sqrt(size) for s in range(t + 1)])
                shares = scores.exp() / scores.exp().sum()
                heads.append(sum(share * values[s][h] for s, share in enumerate(shares)))
            stream[t] = stream[t] + linear(f"{name}.self_attn.o_proj", torch.cat(heads))
            inner = linear(f"{name}.mlp.up_proj", norm(f"{name}.post_attention_layernorm", stream[t]))
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            stream[t] = stream[t] + linear(f"{name}.mlp.down_proj", inner)
    return torch.stack([weights["lm_head.weight"] @ norm("model.norm", x) for x in stream])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forward_equals_the_plain_one(implementation):
    model = tiny_model(implementation=implementation, hidden_size=16, num_attention_heads=2, initializer_range=0.2)
    for parameter in model.parameters():  # biases and norms start at 0 and 1, which would hide them
        parameter.data += 0.05 * torch.randn_like(parameter)
    row = tokens(1, 6)
    torch.testing.assert_close(model(row).logits[0], plain_forward(model, row[0]), atol=1e-5, rtol=1e-5)


def test_eager_equals_sdpa():
    ids, mask = left_padded()
    eager, sdpa = (tiny_model(implementation=name)(ids, attention_mask=mask).logits for name in IMPLEMENTATIONS)
    torch.testing.assert_close(eager[mask == 1], sdpa[mask == 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_on_either_side_changes_nothing(implementation):
    model, ids = tiny_model(implementation=implementation), tokens(2, 6)
    alone = model(ids).logits
    pad = torch.zeros(2, 4, dtype=torch.long)
    real = torch.ones_like(ids)
    left = model(torch.cat((pad, ids), 1), attention_mask=torch.cat((pad, real), 1)).logits[:, 4:]
    right = model(torch.cat((ids, pad), 1), attention_mask=torch.cat((real, pad), 1)).logits[:, :6]
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_wholly_padded_rows_are_never_nan(implementation, dtype):
    model = tiny_model(implementation=implementation, initializer_range=0.9).to(dtype).train()
    ids, mask = left_padded()
    mask[1] = 0
    output = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), skip_logits=False)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bf16_is_close_to_float32():
    ids, mask = left_padded()
    exact = tiny_model(initializer_range=0.1)(ids, attention_mask=mask).logits[mask == 1]
    rounded = tiny_model(initializer_range=0.1).to(torch.bfloat16)(ids, attention_mask=mask).logits[mask == 1]
    assert (exact - rounded.float()).abs().max() < 0.05


def test_hidden_states_and_attentions_are_recorded():
    ids, mask = left_padded()
    output = tiny_model(implementation="eager")(
        ids, attention_mask=mask, output_hidden_states=True, output_attentions=True
    )
    assert [tuple(state.shape) for state in output.hidden_states] == [(3, 12, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(3, 4, 12, 12)] * 2
    assert isinstance(tiny_model()(ids, return_dict=False), tuple)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    ids, mask = left_padded()
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_dropout_acts_in_training_alone():
    model, ids = tiny_model(dropout=0.5), tokens(2, 6)
    torch.testing.assert_close(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)


def test_compiled_equals_eager():
    ids, mask = left_padded()
    model = tiny_model()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(ids, attention_mask=mask, use_cache=False).logits,
        model(ids, attention_mask=mask, use_cache=False).logits,
    )
    model.train()  # the number of labels depends on the data: the graph breaks at the head, the decoder stays whole
    labelled = {"attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100), "use_cache": False}
    torch.testing.assert_close(
        torch.compile(model, backend="eager")(ids, **labelled).loss, model(ids, **labelled).loss
    )


# ---- the cache ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def cached_logits(model, ids, mask, chunk, cache=None):
    """Logits [B, T, V], `chunk` tokens at a time, each chunk on the cache of those before."""
    cache, parts = cache if cache is not None else DynamicCache(config=model.config), []
    for start in range(0, ids.shape[1], chunk):
        stop = min(start + chunk, ids.shape[1])
        parts.append(model(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache).logits)
    return torch.cat(parts, dim=1)


@torch.no_grad()
def cache_error(model, chunk):
    """Largest difference of a logit with and without the cache, over the real tokens of a left-padded batch."""
    ids, mask = left_padded()
    whole = model(ids, attention_mask=mask, use_cache=False).logits
    return (cached_logits(model, ids, mask, chunk) - whole)[mask == 1].abs().max().item()


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cached_logits_equal_uncached_ones(implementation, chunk):
    assert cache_error(tiny_model(implementation=implementation), chunk) < 1e-5


def test_a_faulty_cache_is_noticed(monkeypatch):
    original = DynamicLayer.update

    def forget_half_of_the_past(layer, keys, values, *args, **kwargs):
        past = layer.get_seq_length()
        all_keys, all_values = (states.clone() for states in original(layer, keys, values, *args, **kwargs))
        all_keys[..., : past // 2, :] = 0
        all_values[..., : past // 2, :] = 0
        return all_keys, all_values

    monkeypatch.setattr(DynamicLayer, "update", forget_half_of_the_past)
    assert cache_error(tiny_model(), chunk=1) > 1e-2
    assert cache_error(tiny_model(), chunk=5) > 1e-2


def test_positions_that_forget_the_cache_are_noticed(monkeypatch):
    monkeypatch.setattr(module, "positions_from_mask", lambda mask, past, embeds: torch.arange(embeds.shape[1])[None])
    assert cache_error(tiny_model(), chunk=1) > 1e-2


def test_static_cache_equals_no_cache():
    model = tiny_model()
    ids, mask = left_padded()
    cached = cached_logits(model, ids, mask, 1, cache=StaticCache(config=model.config, max_cache_len=16))
    torch.testing.assert_close(
        cached[mask == 1], model(ids, attention_mask=mask).logits[mask == 1], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_generate_equals_a_loop_without_cache(implementation):
    model = tiny_model(implementation=implementation)
    ids, mask = left_padded()
    steps = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    wanted = []
    for row, real in zip(ids, mask, strict=True):
        text = row[real == 1][None]
        for _ in range(8):
            text = torch.cat((text, model(text, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)), dim=1)
        wanted.append(text[0, -8:])
    for extra in ({}, {"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}):
        got = model.generate(ids, attention_mask=mask, **steps, **extra)
        assert got[:, -8:].tolist() == torch.stack(wanted).tolist(), extra


def test_a_mask_without_the_cached_tokens_is_an_error():
    model = tiny_model()
    cache = model(tokens(1, 4)).past_key_values
    with pytest.raises(ValueError, match="got an attention_mask of 1 columns for 4 cached and 1 new tokens"):
        model(tokens(1, 1), attention_mask=torch.ones(1, 1, dtype=torch.long), past_key_values=cache)


# ---- loss and logits ------------------------------------------------------------------------------------------------


def labelled_batch():
    """Tokens, mask and labels; the labels leave out the padding and every third token."""
    ids, mask = left_padded()
    labels = ids.masked_fill((mask == 0) | (torch.arange(12) % 3 == 0), -100)
    return ids, mask, labels


def dense_loss(model, ids, mask, labels, count=None):
    """The loss from all logits, as the textbook has it."""
    logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1].flatten(0, 1)
    targets = labels[:, 1:].flatten()
    reduction = "mean" if count is None else "sum"
    return nn.functional.cross_entropy(logits, targets, reduction=reduction) / (1 if count is None else count)


@pytest.mark.parametrize("count", [None, 7, torch.tensor(7)])
@pytest.mark.parametrize("skip_logits", [None, False, True])
@pytest.mark.parametrize("training", [False, True])
def test_loss_equals_the_dense_cross_entropy(training, skip_logits, count):
    ids, mask, labels = labelled_batch()
    one, other = tiny_model().train(training), tiny_model().train(training)
    output = one(ids, attention_mask=mask, labels=labels, skip_logits=skip_logits, num_items_in_batch=count)
    reference = dense_loss(other, ids, mask, labels, count)
    torch.testing.assert_close(output.loss, reference)
    assert (output.logits is None) == (training if skip_logits is None else skip_logits)
    output.loss.backward()
    reference.backward()
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_the_head_sees_only_tokens_that_carry_loss():
    ids, mask, labels = labelled_batch()
    model, seen = tiny_model().train(), []
    model.lm_head.register_forward_hook(lambda head, inputs, output: seen.append(output.shape))
    model(ids, attention_mask=mask, labels=labels)
    assert seen == [((labels[:, 1:] != -100).sum(), VOCAB)]


def test_shifted_labels_are_taken_as_they_are():
    ids, mask, labels = labelled_batch()
    shifted = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    model = tiny_model().train()
    one = model(ids, attention_mask=mask, shift_labels=shifted).loss
    torch.testing.assert_close(one, model(ids, attention_mask=mask, labels=labels).loss)


def test_no_label_gives_zero_loss_and_gradients():
    model, ids = tiny_model().train(), tokens(2, 6)
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss.item() == 0
    assert model.lm_head.weight.grad.abs().sum() == 0


def test_logits_to_keep_selects_logits_and_leaves_the_loss():
    ids, mask, labels = labelled_batch()
    model = tiny_model()
    whole = model(ids, attention_mask=mask, labels=labels)
    for keep, wanted in [(2, whole.logits[:, -2:]), (torch.tensor([0, 5]), whole.logits[:, [0, 5]])]:
        kept = model(ids, attention_mask=mask, labels=labels, logits_to_keep=keep)
        torch.testing.assert_close(kept.logits, wanted)
        torch.testing.assert_close(kept.loss, whole.loss)


# ---- scores of rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_mask", [True, False])
def test_score_is_that_of_the_last_real_token(with_mask):
    model, ids = tiny_model(RopeGPTForSequenceClassification, num_labels=1), tokens(2, 6)
    alone = model(ids).logits
    assert alone.shape == (2, 1)
    hidden = model.model(ids).last_hidden_state[:, -1]
    torch.testing.assert_close(alone, model.score(hidden))
    pad, real = torch.zeros(2, 3, dtype=torch.long), torch.ones_like(ids)
    right = model(torch.cat((ids, pad), 1), attention_mask=torch.cat((real, pad), 1) if with_mask else None).logits
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=1e-5)
    if with_mask:  # without one, padding on the left is read as text: nothing says that it is not
        left = model(torch.cat((pad, ids), 1), attention_mask=torch.cat((pad, real), 1)).logits
        torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-5)


def test_a_padding_token_that_the_mask_keeps_is_scored():
    model = tiny_model(RopeGPTForSequenceClassification, num_labels=1)
    ids = torch.tensor([[5, 6, 0, 0]])
    kept = model(ids, attention_mask=torch.tensor([[1, 1, 1, 0]])).logits
    torch.testing.assert_close(kept, model(ids[:, :3], attention_mask=torch.ones(1, 3)).logits)


def test_classification_loss():
    model, ids = tiny_model(RopeGPTForSequenceClassification, num_labels=3), tokens(4, 6)
    labels = torch.tensor([0, 2, 1, 2])
    output = model(ids, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))


# ---- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, "got hidden_size=30 with num_attention_heads=4"),
        ({"hidden_size": 12}, "even size"),
        ({"num_layers": 3}, "unknown config key 'num_layers'; wanted 'num_hidden_layers'"),
        ({"vocab_size": 0}, "got vocab_size=0; wanted at least 1"),
        ({"num_hidden_layers": 0}, "got num_hidden_layers=0"),
        ({"num_attention_heads": 0}, "got num_attention_heads=0"),
        ({"intermediate_size": 0}, "got intermediate_size=0"),
        ({"max_position_embeddings": -1}, "got max_position_embeddings=-1"),
        ({"dropout": 1.0}, "wanted 0 <= dropout < 1"),
        ({"initializer_range": 0.0}, "wanted a positive standard deviation"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "got rope_theta=-1.0"),
        ({"vocab_size": 2}, "got eos_token_id=2; wanted None or an id below vocab_size=2"),
        ({"pad_token_id": -1}, "got pad_token_id=-1"),
    ],
)
def test_an_illegal_config_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_a_field_of_the_wrong_type_is_an_error():
    with pytest.raises(Exception, match="'hidden_size' expected int, got str"):
        tiny_config(hidden_size="32")


def test_keys_of_transformers_are_no_slips():
    names = {*GenerationConfig().to_dict(), "torch_dtype", "attn_implementation", "name_or_path", "output_attentions"}
    names |= {"sep_token_id", "decoder_start_token_id", "head_dim", "num_key_value_heads", "is_decoder", "auto_map"}
    names |= {"quantization_config", "rope_scaling", "tokenizer_class", "finetuning_task"}
    tiny_config(**dict.fromkeys(names - {"use_cache"}), rope_theta=50.0, num_labels=3)


def test_config_defaults():
    config, mine = RopeGPTConfig(), {"rope_type": "default"}
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 100.0}
    assert config.intermediate_size == 4 * config.hidden_size
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    RopeGPTConfig(rope_parameters=mine)
    assert mine == {"rope_type": "default"}


def test_initialisation():
    model = tiny_model(hidden_size=128, initializer_range=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert abs(parameter.std().item() - 0.02) < 0.001, name
    assert model.lm_head.weight is not model.model.embed_tokens.weight


def test_tensor_parallel_plan_names_every_projection():
    model = tiny_model()
    planned = {f"model.{name}" for name in model.config.base_model_tp_plan} | set(model._tp_plan)
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    assert all(any(fnmatch(name, plan) for plan in planned) for name in linear)


# ---- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "auto"),
    [
        (RopeGPTModel, AutoModel),
        (RopeGPTForCausalLM, AutoModelForCausalLM),
        (RopeGPTForSequenceClassification, AutoModelForSequenceClassification),
    ],
)
def test_saved_and_loaded_through_auto_classes(cls, auto, tmp_path):
    model, ids = tiny_model(cls), tokens(2, 6)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*")} >= {"model.safetensors", "modeling_rope_gpt.py"}
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is cls
    assert type(AutoConfig.from_pretrained(tmp_path)) is RopeGPTConfig
    torch.testing.assert_close(loaded(ids)[0], model(ids)[0], rtol=0, atol=0)


def test_a_reward_model_takes_over_the_decoder(tmp_path):
    model, ids = tiny_model(), tokens(2, 6)
    model.save_pretrained(tmp_path)
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    assert scorer(ids).logits.shape == (2, 1)
    torch.testing.assert_close(scorer.model(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_tied_head_survives_a_round_trip(tmp_path):
    model, ids = tiny_model(tie_word_embeddings=True), tokens(2, 6)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(RopeGPTForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


CLEAN_PROCESS = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_synth":
            raise ModuleNotFoundError("hf_synth is blocked here", name=name)

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

causal_path, score_path, again_path = sys.argv[1:]
ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
mask = (ids != 0).long()
causal = AutoModelForCausalLM.from_pretrained(causal_path, trust_remote_code=True)
score = AutoModelForSequenceClassification.from_pretrained(score_path, trust_remote_code=True)
causal.save_pretrained(again_path)
again = AutoModelForCausalLM.from_pretrained(again_path, trust_remote_code=True)
assert not any(name.split(".")[0] == "hf_synth" for name in sys.modules)
assert torch.equal(again(ids, attention_mask=mask).logits, causal(ids, attention_mask=mask).logits)
print(json.dumps({
    "logits": causal(ids, attention_mask=mask).logits[mask == 1].tolist(),
    "tokens": causal.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False).tolist(),
    "scores": score(ids, attention_mask=mask).logits.tolist(),
}))
"""


@pytest.mark.processes
def test_checkpoints_load_where_hf_synth_is_not_installed(tmp_path):
    causal, score = tiny_model(), tiny_model(RopeGPTForSequenceClassification, num_labels=1)
    paths = [tmp_path / "causal", tmp_path / "score", tmp_path / "again"]
    causal.save_pretrained(paths[0])
    score.save_pretrained(paths[1])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", CLEAN_PROCESS, *map(str, paths)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = (ids != 0).long()
    wanted = causal(ids, attention_mask=mask).logits[mask == 1]
    torch.testing.assert_close(torch.tensor(got["logits"]), wanted, atol=1e-5, rtol=1e-5)
    wanted_tokens = causal.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert got["tokens"] == wanted_tokens.tolist()
    wanted_scores = score(ids, attention_mask=mask).logits
    torch.testing.assert_close(torch.tensor(got["scores"]), wanted_scores, atol=1e-5, rtol=1e-5)


def test_the_file_imports_nothing_of_hf_synth():
    source = Path(module.__file__).read_text()
    imported = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not [name for name in imported if name.startswith(("hf_synth", "."))]


# ---- trainers -------------------------------------------------------------------------------------------------------


def tiny_tokenizer():
    names = ["<pad>", "<bos>", "<eos>", "<sep>", *map(str, range(VOCAB - 4))]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    )


def arguments(cls, folder, **changes):
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none"}
    settings |= {"save_strategy": "no", "logging_steps": 1, "bf16": False, "disable_tqdm": True}
    return cls(output_dir=str(folder), **{**settings, **changes})


def trained_weights(model, folder, rows, collate, **changes):
    """The weights after one plain SGD step over all rows."""
    settings = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    args = arguments(TrainingArguments, folder, **settings, train_sampling_strategy="sequential", **changes)
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=collate)
    trainer.train()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("cls", [RopeGPTForCausalLM, RopeGPTForSequenceClassification])
def test_gradient_accumulation_is_exact(cls, tmp_path):
    ids = tokens(4, 8)
    labels = ids.masked_fill(torch.arange(8) < torch.tensor([[1], [6], [3], [7]]), -100)  # 7, 2, 5 and 1 targets
    if cls is RopeGPTForSequenceClassification:
        labels = torch.tensor([0, 1, 1, 0])
    rows = [{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)]

    def collate(batch):
        return {name: torch.stack([row[name] for row in batch]) for name in ("input_ids", "labels")}

    whole = trained_weights(tiny_model(cls), tmp_path, rows, collate)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    parts = trained_weights(tiny_model(cls), tmp_path, rows, collate, **sizes)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_trainer_evaluates_with_logits(tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in tokens(4, 8).tolist()]
    args = arguments(TrainingArguments, tmp_path, per_device_eval_batch_size=2)
    trainer = Trainer(model=tiny_model(), args=args, eval_dataset=rows, compute_metrics=lambda p: {"n": p[0].shape[0]})
    measured = trainer.evaluate()
    wanted = dense_loss(tiny_model(), torch.tensor([row["input_ids"] for row in rows]), None, tokens(4, 8))
    assert measured["eval_n"] == 4
    assert measured["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_sft_trainer_steps(tmp_path):
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>", "completion": " 2 1 <eos>"}] * 4)
    model = tiny_model()
    args = arguments(SFTConfig, tmp_path, max_length=16, eval_strategy="steps", eval_steps=1)
    trainer = SFTTrainer(model, args=args, train_dataset=rows, eval_dataset=rows, processing_class=tiny_tokenizer())
    ids = torch.tensor([[1, 5, 6, 3, 6, 5, 2]])
    wanted = dense_loss(model, ids, None, ids.masked_fill(torch.arange(7) < 4, -100)).item()
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["loss"] == pytest.approx(wanted, rel=1e-4)
    assert {"mean_token_accuracy", "entropy", "eval_loss"} <= set(logged)


def test_reward_trainer_steps(tmp_path):
    from trl import RewardConfig, RewardTrainer

    rows = Dataset.from_list([{"chosen": "<bos> 1 2 <sep> 2 1", "rejected": "<bos> 1 2 <sep> 3"}] * 4)
    model = tiny_model(RopeGPTForSequenceClassification, num_labels=1)
    before = model.score.weight.detach().clone()
    args = arguments(RewardConfig, tmp_path, max_length=16, learning_rate=0.1)
    RewardTrainer(model, args=args, train_dataset=rows, processing_class=tiny_tokenizer()).train()
    assert not torch.equal(before, model.score.weight)


def test_dpo_trainer_steps(tmp_path):
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>", "chosen": " 2 1 <eos>", "rejected": " 3 <eos>"}] * 4)
    args = arguments(DPOConfig, tmp_path, max_length=16)
    trainer = DPOTrainer(
        tiny_model(), ref_model=tiny_model(), args=args, train_dataset=rows, processing_class=tiny_tokenizer()
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)


def test_grpo_trainer_steps(tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>"}, {"prompt": "<bos> 1 2 3 4 <sep>"}] * 2)
    args = arguments(GRPOConfig, tmp_path, num_generations=4, max_completion_length=6, learning_rate=0.1)
    model = tiny_model()
    before = model.lm_head.weight.detach().clone()
    trainer = GRPOTrainer(
        model,
        args=args,
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
        reward_funcs=lambda completions, **columns: [float(len(set(text.split()))) for text in completions],
    )
    trainer.train()
    assert not torch.equal(before, model.lm_head.weight)


def test_a_saved_language_model_names_every_class_of_its_file(tmp_path):
    RopeGPTForCausalLM(RopeGPTConfig(vocab_size=9, hidden_size=8)).save_pretrained(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert found["AutoModelForSequenceClassification"] == "modeling_rope_gpt.RopeGPTForSequenceClassification"
    assert sorted(found) == ["AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification"]


@pytest.mark.parametrize("key", ["n_embd", "n_layer", "num_heads", "attention_dropout"])
def test_names_of_other_architectures_are_errors(key):
    with pytest.raises(ValueError, match=f"unknown config key '{key}'; wanted"):
        RopeGPTConfig(**{key: 4})
