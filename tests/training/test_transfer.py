"""Transfer: exactly the named parts are copied, on every architecture, against names written by hand."""

import dataclasses
import json

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    PhiConfig,
    Qwen3Config,
    Trainer,
    TrainingArguments,
)

from hf_synth import build_tokenizer, get_task
from hf_synth.models import RLMTransformerConfig, RopeGPTConfig, RopeGPTForSequenceClassification
from hf_synth.training.arguments import parse_recipe
from hf_synth.training.transfer import (
    Source,
    TransferArguments,
    apply_transfer,
    freeze,
    parts_of,
    transfer,
)

WIDE = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "gpt2": (GPT2Config, {"n_embd": 8, "n_inner": 12, "n_layer": 2, "n_head": 2, "n_positions": 16}),
    "gpt_neox": (GPTNeoXConfig, WIDE),
    "llama": (LlamaConfig, WIDE),
    "rope_gpt": (RopeGPTConfig, WIDE),
    "rlm_transformer": (RLMTransformerConfig, {**WIDE, "max_position_embeddings": 16}),
}


def both(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def weights(*names: str) -> list[str]:
    return [f"{name}.weight" for name in names]


def layers(prefix: str, names: list[str]) -> list[str]:
    return [f"{prefix}.{layer}.{name}" for layer in (0, 1) for name in names]


PROJECTIONS = [f"self_attn.{name}_proj" for name in "qkvo"]
BLOCK_NORMS = ["input_layernorm", "post_attention_layernorm"]
NAMES = {
    "gpt2": {
        "attention": layers("transformer.h", both("attn.c_attn", "attn.c_proj")),
        "mlp": layers("transformer.h", both("mlp.c_fc", "mlp.c_proj")),
        "norms": [*layers("transformer.h", both("ln_1", "ln_2")), *both("transformer.ln_f")],
        "embeddings": ["transformer.wte.weight"],
        "positions": ["transformer.wpe.weight"],
    },
    "gpt_neox": {
        "attention": layers("gpt_neox.layers", both("attention.query_key_value", "attention.dense")),
        "mlp": layers("gpt_neox.layers", both("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")),
        "norms": [*layers("gpt_neox.layers", both(*BLOCK_NORMS)), *both("gpt_neox.final_layer_norm")],
        "embeddings": ["gpt_neox.embed_in.weight"],
        "head": ["lm_head.weight"],
    },
    "llama": {
        "attention": layers("model.layers", weights(*PROJECTIONS)),
        "mlp": layers("model.layers", weights("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
        "norms": [*layers("model.layers", weights(*BLOCK_NORMS)), "model.norm.weight"],
        "embeddings": ["model.embed_tokens.weight"],
        "head": ["lm_head.weight"],
    },
    "rope_gpt": {
        "attention": layers("model.layers", both(*PROJECTIONS)),
        "mlp": layers("model.layers", both("mlp.up_proj", "mlp.down_proj")),
        "norms": [*layers("model.layers", both(*BLOCK_NORMS)), *both("model.norm")],
        "embeddings": ["model.embed_tokens.weight"],
        "head": ["lm_head.weight"],
    },
    "rlm_transformer": {
        "attention": layers("model.layers", weights(*PROJECTIONS)),
        "mlp": layers("model.layers", both("mlp.up_proj", "mlp.down_proj")),
        "norms": [*layers("model.layers", both(*BLOCK_NORMS)), *both("model.norm")],
        "embeddings": ["model.embed_tokens.weight"],
        "positions": ["model.embed_positions.weight"],
        "head": ["lm_head.weight"],
    },
}
PAIRS = [(kind, part) for kind, names in NAMES.items() for part in names]


@pytest.fixture(scope="module")
def tokenizers():
    """Of a warm-up task and of downstream tasks; both have digits, at different ids, and words of their own."""
    return build_tokenizer(get_task("set")), build_tokenizer(get_task("haystack"), get_task("addition"))


def make(kind: str, tokenizer, seed: int, **changes):
    """A model whose every tensor is random, biases and norms included."""
    config, values = CONFIGS[kind]
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(**{**values, "vocab_size": len(tokenizer), **ids, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def save(folder, model, tokenizer=None) -> str:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tokenizers, tmp_path_factory):
    """Architecture -> path of a warm-up's checkpoint."""
    root = tmp_path_factory.mktemp("warm")
    return {kind: save(root / kind, make(kind, tokenizers[0], 1), tokenizers[0]) for kind in CONFIGS}


@pytest.fixture
def gpt2(tokenizers):
    """A fresh GPT-2 for the downstream task."""
    return make("gpt2", tokenizers[1], 2)


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def by_token(tokenizers, old, fresh):
    """Token by token, in plain Python."""
    rows = [row.clone() for row in fresh]
    for token, token_id in tokenizers[1].get_vocab().items():
        if token in tokenizers[0].get_vocab():
            rows[token_id] = old[tokenizers[0].get_vocab()[token]]
    return torch.stack(rows)


def part(report: dict, name: str) -> dict:
    return next(each for each in report["parts"] if each["part"] == name)


# Parts


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_has_the_part_written_by_hand(kind, tokenizers):
    result = parts_of(make(kind, tokenizers[0], 0))
    assert result == {name: part for part, names in NAMES[kind].items() for name in names}


@pytest.mark.parametrize(("kind", "named"), PAIRS)
def test_exactly_the_tensors_of_the_part_are_copied(kind, named, tokenizers, saved):
    model = make(kind, tokenizers[1], 2)
    fresh, old = tensors(model), tensors(make(kind, tokenizers[0], 1))
    report = transfer(model, tokenizers[1], [Source(saved[kind], (named,))])
    for name, value in tensors(model).items():
        expected = old[name] if name in NAMES[kind][named] else fresh[name]
        if name in NAMES[kind][named] and named in ("embeddings", "head"):
            expected = by_token(tokenizers, old[name], fresh[name])
        assert torch.equal(value, expected), name
    assert [each["part"] for each in report["parts"] if each["source"]] == [named]


@pytest.mark.parametrize("kind", CONFIGS)
def test_everything_is_every_part(kind, tokenizers, saved):
    model = make(kind, tokenizers[0], 2)
    report = transfer(model, tokenizers[0], [Source(saved[kind])])
    old = make(kind, tokenizers[0], 1)
    assert all(torch.equal(value, tensors(old)[name]) for name, value in tensors(model).items())
    ids = torch.tensor([tokenizers[0]("3 1 3").input_ids])
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, old.eval()(ids).logits)
    assert all(
        each["tensors"] == each["of_tensors"] and each["parameters"] == each["of_parameters"]
        for each in report["parts"]
    )


def test_names_that_tell_no_part_are_refused():
    mamba = AutoModelForCausalLM.from_config(MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=11))
    with pytest.raises(ValueError, match=r"got parameter 'backbone.layers.0.mixer.A_log' of a mamba model"):
        parts_of(mamba)


def test_norms_of_queries_are_norms_and_a_bias_of_the_head_is_head():
    qwen = AutoModelForCausalLM.from_config(Qwen3Config(**WIDE, num_key_value_heads=1, head_dim=4, vocab_size=11))
    assert parts_of(qwen)["model.layers.0.self_attn.q_norm.weight"] == "norms"
    phi = AutoModelForCausalLM.from_config(PhiConfig(**WIDE, vocab_size=11))
    assert parts_of(phi)["lm_head.bias"] == "head"


# Sources


def test_attention_from_one_and_mlp_from_another(tokenizers, saved, gpt2, tmp_path):
    other = make("gpt2", tokenizers[0], 3)
    sources = [Source(saved["gpt2"], ("attention",)), Source(save(tmp_path, other), ("mlp", "norms"))]
    fresh, first, second = (tensors(each) for each in (gpt2, make("gpt2", tokenizers[0], 1), other))
    transfer(gpt2, tokenizers[1], sources)
    origin = {"attention": first, "mlp": second, "norms": second}
    for name, named in parts_of(gpt2).items():
        assert torch.equal(tensors(gpt2)[name], origin.get(named, fresh)[name]), name


def test_a_part_has_one_source(tokenizers, saved, gpt2):
    before = tensors(gpt2)
    for parts in (("mlp", "attention"), ("everything",)):
        with pytest.raises(ValueError, match=r"got part 'attention' from '.*gpt2' and from '.*gpt2'; wanted it from"):
            transfer(gpt2, tokenizers[1], [Source(saved["gpt2"], ("attention",)), Source(saved["gpt2"], parts)])
    assert all(torch.equal(value, before[name]) for name, value in tensors(gpt2).items())


def test_shuffled_keeps_the_numbers_and_changes_their_order(tokenizers, saved):
    shuffled = Source(saved["rope_gpt"], shuffled=True)
    result = {}
    for seed in (0, 0, 1):
        model = make("rope_gpt", tokenizers[0], 2)
        report = transfer(model, tokenizers[0], [shuffled], seed=seed)
        result.setdefault(seed, []).append(tensors(model))
    assert all(each["shuffled"] for each in report["parts"])
    for name, old in tensors(make("rope_gpt", tokenizers[0], 1)).items():
        first, again, other = (*result[0], *result[1])
        new = first[name]
        assert torch.equal(new.flatten().sort().values, old.flatten().sort().values), name
        assert (new == old).float().mean() < 0.6, name
        assert torch.equal(new, again[name]), "the same seed, the same order"
        assert not torch.equal(new, other[name]), "another seed, another order"
    warm = tensors(make("rope_gpt", tokenizers[0], 1))
    orders = []
    for name in (f"model.layers.0.self_attn.{each}_proj.weight" for each in "qk"):
        rank = first[name].flatten().argsort().argsort()
        orders.append(warm[name].flatten().argsort()[rank])
    assert not torch.equal(*orders), "each tensor has an order of its own"


@pytest.mark.parametrize("noise", ["gaussian", "spectrum"])
def test_noise_keeps_norms_or_singular_values_and_nothing_else(noise, tokenizers, saved):
    warm, drawn = tensors(make("rope_gpt", tokenizers[0], 1)), []
    for seed in (0, 0, 1):
        model = make("rope_gpt", tokenizers[0], 2)
        report = transfer(model, tokenizers[0], [Source(saved["rope_gpt"], noise=noise)], seed=seed)
        drawn.append(tensors(model))
    assert {each["noise"] for each in report["parts"]} == {noise}
    for name, old in warm.items():
        first, again, other = (each[name] for each in drawn)
        torch.testing.assert_close(first.norm(), old.norm())
        assert torch.equal(first, again), "the same seed, the same numbers"
        assert not torch.equal(first, other), "another seed, other numbers"
        if old.dim() == 2:
            singular = [torch.linalg.svdvals(each) for each in (first, old)]
            assert torch.allclose(*singular, rtol=1e-3, atol=1e-5) == (noise == "spectrum"), name
            assert not torch.allclose(first.flatten().sort().values, old.flatten().sort().values, rtol=1e-3), name


def test_shuffled_rows_stay_in_the_rows_that_were_copied(tokenizers, saved, gpt2):
    fresh, plain = tensors(gpt2)["transformer.wte.weight"], make("gpt2", tokenizers[1], 2)
    transfer(plain, tokenizers[1], [Source(saved["gpt2"], ("embeddings",))])
    transfer(gpt2, tokenizers[1], [Source(saved["gpt2"], ("embeddings",), shuffled=True)])
    new, expected = (tensors(model)["transformer.wte.weight"] for model in (gpt2, plain))
    assert torch.equal(new.flatten().sort().values, expected.flatten().sort().values)
    untouched = (fresh == expected).all(-1)
    assert untouched.any()
    assert torch.equal(new[untouched], fresh[untouched])


# Embeddings, head and positions


def test_rows_go_by_token_and_the_rest_stays_fresh(tokenizers, saved):
    warm, task = tokenizers
    shared = warm.get_vocab().keys() & task.get_vocab().keys()
    assert {"<pad>", "7"} <= shared
    assert shared < task.get_vocab().keys()
    assert warm.get_vocab()["7"] != task.get_vocab()["7"]
    model, old = make("rope_gpt", task, 2), make("rope_gpt", warm, 1)
    fresh = tensors(model)
    report = transfer(model, task, [Source(saved["rope_gpt"])])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        new = tensors(model)[name]
        for token, token_id in task.get_vocab().items():
            expected = tensors(old)[name][warm.get_vocab()[token]] if token in shared else fresh[name][token_id]
            assert torch.equal(new[token_id], expected), token
    for named in ("embeddings", "head"):
        assert (part(report, named)["rows"], part(report, named)["of_rows"]) == (len(shared), len(task))
        assert part(report, named)["parameters"] == 8 * len(shared)


@pytest.mark.parametrize(
    ("warm", "task", "shared"),
    [("set", "sort", 104), ("set", "addition", 4 + 10), ("eca", "sort", 4 + 2), ("set", "haystack", 4)],
)
def test_from_task_to_task(warm, task, shared, tmp_path):
    warm_words, words = (build_tokenizer(get_task(name)) for name in (warm, task))
    old, model = make("gpt2", warm_words, 1), make("gpt2", words, 2)
    fresh = model.transformer.wte.weight.detach().clone()
    report = transfer(model, words, [Source(save(tmp_path, old, warm_words))])
    expected = by_token((warm_words, words), old.transformer.wte.weight, fresh)
    assert torch.equal(model.transformer.wte.weight, expected)
    assert part(report, "embeddings")["rows"] == shared


@pytest.mark.parametrize("task", ["eca", "haystack"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_averaged_rows_are_the_mean_of_all_rows(kind, task, tokenizers, saved):
    words = build_tokenizer(get_task(task))
    model, old = make(kind, words, 2), make(kind, tokenizers[0], 1)
    transfer(model, words, [Source(saved[kind])], embeddings="averaged")
    for of in (lambda each: each.get_input_embeddings(), lambda each: each.get_output_embeddings()):
        mean = of(old).weight.mean(0)
        assert torch.equal(of(model).weight, mean.expand(len(words), -1))


@pytest.mark.parametrize("kind", ["gpt2", "rope_gpt"])
def test_by_token_needs_the_tokenizer_of_the_source(kind, tokenizers, tmp_path):
    source = Source(save(tmp_path, make(kind, tokenizers[0], 1)))
    with pytest.raises(ValueError, match=r"got no tokenizer beside the model.*choose averaged or fresh"):
        transfer(make(kind, tokenizers[1], 2), tokenizers[1], [source])


def test_averaged_and_fresh_need_no_tokenizer(tokenizers, gpt2, tmp_path):
    source = Source(save(tmp_path, make("gpt2", tokenizers[0], 1)))
    before = tensors(gpt2)
    report = transfer(gpt2, tokenizers[1], [source], embeddings="fresh")
    moved = {name for name, value in tensors(gpt2).items() if not torch.equal(value, before[name])}
    assert moved == before.keys() - {"transformer.wte.weight"}
    assert part(report, "embeddings")["source"] is None
    assert report["notes"] == [f"{tmp_path}: not used: embeddings"]
    transfer(gpt2, tokenizers[1], [source], embeddings="averaged")
    with pytest.raises(ValueError, match="got part 'embeddings' with fresh embeddings"):
        transfer(gpt2, tokenizers[1], [dataclasses.replace(source, parts=("embeddings",))], embeddings="fresh")


def test_a_tied_model_and_an_untied_one(tokenizers, tmp_path):
    warm = tokenizers[0]
    tied, untied = (make("gpt2", warm, 1, tie_word_embeddings=tie) for tie in (True, False))
    paths = [save(tmp_path / name, model, warm) for name, model in (("tied", tied), ("untied", untied))]
    for tie, path in ((False, paths[0]), (True, paths[1])):
        model = make("gpt2", warm, 2, tie_word_embeddings=tie)
        report = transfer(model, warm, [Source(path)])
        old = untied if tie else tied
        assert torch.equal(model.transformer.wte.weight, old.transformer.wte.weight)
        assert torch.equal(model.lm_head.weight, old.transformer.wte.weight)
        assert (model.lm_head.weight is model.transformer.wte.weight) == tie
        assert report["notes"] == ([f"{path}: not used: head"] if tie else [])
        assert report["sources"][0]["differences"] == {"tie_word_embeddings": [not tie, tie]}
    for call in (lambda: transfer(model, warm, [Source(paths[0], ("head",))]), lambda: freeze(model, ["head"])):
        with pytest.raises(ValueError, match="got part 'head', which this model does not have; it is tied to the"):
            call()


@pytest.mark.parametrize("length", [10, 24])
def test_positions_are_copied_up_to_the_shorter_length(length, tokenizers, saved):
    model = make("gpt2", tokenizers[1], 2, n_positions=length)
    fresh, old = (tensors(each)["transformer.wpe.weight"] for each in (model, make("gpt2", tokenizers[0], 1)))
    report = transfer(model, tokenizers[1], [Source(saved["gpt2"], ("positions",))])
    both_have = min(length, 16)
    assert torch.equal(model.transformer.wpe.weight, torch.cat([old[:both_have], fresh[both_have:]]))
    assert (part(report, "positions")["rows"], part(report, "positions")["of_rows"]) == (both_have, length)
    assert report["notes"] == [f"{saved['gpt2']}: it has 16 positions, the model {length}"]


def test_tokenizers_that_do_not_fit(tokenizers, saved, gpt2, tmp_path):
    path = save(tmp_path / "small", make("gpt2", tokenizers[0], 1, vocab_size=5), tokenizers[0])
    with pytest.raises(ValueError, match=r"got token id \d+ in the source's tokenizer, wanted ids below 5"):
        transfer(gpt2, tokenizers[1], [Source(path, ("embeddings",))])
    with pytest.raises(ValueError, match=r"got token id \d+ in the model's tokenizer"):
        transfer(make("gpt2", tokenizers[0], 1, vocab_size=5), tokenizers[1], [Source(saved["gpt2"])])
    tokenizer = build_tokenizer(get_task("set"))
    tokenizer.get_vocab = lambda: {"elsewhere": 0}
    with pytest.raises(ValueError, match="a tokenizer without a token in common"):
        transfer(gpt2, tokenizer, [Source(saved["gpt2"])])


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"n_embd": 16},
            r"got tensor 'transformer.h.0.attn.c_attn.weight' of shape \[8, 24\], wanted \[16, 48\] as in the model",
        ),
        (
            {"n_layer": 3},
            r"got no tensor 'transformer.h.2.attn.c_attn.weight', wanted one of shape \[8, 24\].*2 layers there, 3",
        ),
        (
            {"n_layer": 1},
            r"got tensor 'transformer.h.1.attn.c_attn.weight' of shape \[8, 24\], which has no.*2 layers there, 1",
        ),
        ({"n_head": 4}, "got num_attention_heads=2, wanted the model's 4"),
    ],
)
def test_shapes_that_do_not_fit(changes, message, tokenizers, saved):
    model = make("gpt2", tokenizers[1], 2, **changes)
    before = tensors(model)
    with pytest.raises(ValueError, match=message):
        transfer(model, tokenizers[1], [Source(saved["gpt2"], ("attention",))])
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())


def test_sources_that_hand_on_nothing(tokenizers, saved, gpt2, tmp_path):
    with pytest.raises(ValueError, match="got model_type='llama', wanted the model's 'gpt2'"):
        transfer(gpt2, tokenizers[1], [Source(saved["llama"])])
    with pytest.raises(ValueError, match=r"got checkpoint '.*nowhere', which holds no model"):
        transfer(gpt2, tokenizers[1], [Source(str(tmp_path / "nowhere"))])
    with pytest.raises(ValueError, match=r"got part 'positions', which this model does not have. It has attention"):
        transfer(make("llama", tokenizers[1], 2), tokenizers[1], [Source(saved["llama"], ("positions",))])
    with pytest.raises(ValueError, match="got unknown part 'atention'; did you mean 'attention'"):
        Source("x", ("atention",))
    for parts in ((), ("mlp", "mlp"), ("everything", "mlp")):
        with pytest.raises(ValueError, match="wanted 'everything' alone, or one or more different parts"):
            Source("x", parts)
    with pytest.raises(ValueError, match="embeddings: got 'by_tokens'; did you mean 'by_token'"):
        transfer(gpt2, tokenizers[1], [], embeddings="by_tokens")


def test_a_tensor_that_the_checkpoint_lacks_is_not_made_up(tokenizers, tmp_path):
    model = make("rope_gpt", tokenizers[0], 1)
    reward = RopeGPTForSequenceClassification(model.config)
    source = save(tmp_path, reward, tokenizers[0])
    with pytest.raises(ValueError, match=r"got no tensor 'lm_head.weight'"):
        transfer(model, tokenizers[0], [Source(source)])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    transfer(model, tokenizers[0], [Source(source, ("attention",), shuffled=True)])
    assert torch.equal(torch.rand(3), expected), "global random state is left alone"
    transfer(model, tokenizers[0], [Source(source, ("attention",))])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(model.get_parameter(name), reward.get_parameter(name))


# Report


def test_the_report_counts_what_was_copied(tokenizers, saved, gpt2):
    fresh = tensors(gpt2)
    report = transfer(gpt2, tokenizers[1], [Source(saved["gpt2"], ("attention",))], seed=4)
    result = json.loads(json.dumps(report))
    assert (result["embeddings"], result["seed"], result["trained"]) == ("by_token", 4, None)
    assert result["sources"][0]["parts"] == ["attention"]
    attention = next(each for each in result["parts"] if each["part"] == "attention")
    numbers = 2 * (8 * 24 + 24 + 8 * 8 + 8)
    assert (attention["tensors"], attention["parameters"], attention["of_parameters"]) == (8, numbers, numbers)
    flat = [
        torch.cat([each[name].flatten() for name in NAMES["gpt2"]["attention"]]) for each in (fresh, tensors(gpt2))
    ]
    assert attention["norm_before"] == pytest.approx(flat[0].norm().item())
    assert attention["norm_after"] == pytest.approx(flat[1].norm().item())
    assert attention["change"] == pytest.approx(((flat[1] - flat[0]).norm() / flat[0].norm()).item())
    assert (attention["source"], attention["shuffled"], attention["rows"]) == (saved["gpt2"], False, None)
    rest = [each for each in result["parts"] if each["part"] != "attention"]
    assert {each["part"] for each in rest} == {"mlp", "norms", "embeddings", "positions"}
    assert all(each["source"] is None and each["tensors"] == 0 and each["change"] == 0 for each in rest)
    assert sum(each["of_parameters"] for each in result["parts"]) == sum(value.numel() for value in fresh.values())


# Freezing


@pytest.mark.parametrize("kind", CONFIGS)
def test_frozen_parameters_do_not_move_in_training(kind, tokenizers, tmp_path):
    model = make(kind, tokenizers[1], 2)
    trained = ("attention", "norms")
    counts = freeze(model, trained)
    before = tensors(model)
    names = {name for part in trained for name in NAMES[kind][part]}
    assert counts == {
        "trained_parameters": sum(before[name].numel() for name in names),
        "frozen_parameters": sum(value.numel() for name, value in before.items() if name not in names),
    }
    rows = Dataset.from_dict({"input_ids": [[1, 5, 6, 7]] * 4, "labels": [[1, 5, 6, 7]] * 4})
    options = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 0.1, "weight_decay": 0.5}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    Trainer(model, TrainingArguments(str(tmp_path), **options, **quiet), train_dataset=rows).train()
    moved = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert moved == names


def test_freezing_again_starts_from_all(gpt2):
    freeze(gpt2, ["mlp"])
    assert freeze(gpt2, ["everything"])["frozen_parameters"] == 0
    assert all(parameter.requires_grad for parameter in gpt2.parameters())


# Arguments


def parse(tmp_path, text: str, *flags: str) -> TransferArguments:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return parse_recipe([TransferArguments], ["--config", str(path), *flags])[0]


def test_arguments_from_yaml_and_from_flags(tmp_path):
    entry = {"path": "a", "parts": ["attention", "norms"], "shuffled": True, "revision": "step1"}
    yaml = f"init_from: [{json.dumps(entry)}, b]\ninit_embeddings: averaged\ntrain_parts: [attention, mlp]\n"
    flags = ["--init_from", json.dumps([entry, "b"]), "--init_embeddings", "averaged"]
    expected = [Source("a", ("attention", "norms"), "step1", True), Source("b")]
    result = parse(tmp_path, yaml)
    by_flags = parse(tmp_path, "{}", *flags, "--train_parts", "attention", "mlp")
    for arguments in (result, by_flags):
        assert arguments.sources() == expected
        assert (arguments.init_embeddings, arguments.train_parts) == ("averaged", ["attention", "mlp"])
    assert TransferArguments(**dataclasses.asdict(result)) == result
    assert parse(tmp_path, yaml, "--init_from", "c").sources() == [Source("c")]
    assert parse(tmp_path, yaml, "--init_from", "").sources() == []
    one = parse(tmp_path, "init_from: {path: a, parts: mlp}\ntrain_parts: mlp\n")
    assert (one.sources(), one.train_parts) == ([Source("a", ("mlp",))], ["mlp"])
    default = parse(tmp_path, "{}")
    assert (default.sources(), default.train_parts) == ([], ["everything"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"init_from": [{"path": "a", "part": "mlp"}]},
            r"init_from\[0\]: got unknown key 'part'; did you mean 'parts",
        ),
        (
            {"init_from": ["a", {"parts": "mlp"}]},
            r"init_from\[1\]: got .*wanted a path or a mapping",
        ),
        ({"init_from": [{"path": "a", "shuffled": "no"}]}, r"init_from\[0\].shuffled: got 'no', wanted true or false"),
        (
            {"init_from": [{"path": "a", "noise": "white"}]},
            "noise: got 'white', wanted gaussian, spectrum or shuffled alone",
        ),
        (
            {"init_from": [{"path": "a", "noise": "gaussian", "shuffled": True}]},
            "noise: got 'gaussian', wanted gaussian, spectrum or shuffled alone",
        ),
        ({"init_from": [3]}, r"init_from\[0\]: got 3, wanted a path"),
        ({"init_from": 3}, r"init_from\[0\]: got 3, wanted a path"),
        ({"init_from": "[{"}, "init_from: got .*wanted JSON"),
        ({"init_from": [{"path": "a", "parts": "mpl"}]}, "source 'a': parts: got unknown part 'mpl'; did you mean"),
        ({"init_embeddings": "average"}, "init_embeddings: got 'average'; did you mean 'averaged'"),
        ({"train_parts": ["head", "normss"]}, "train_parts: got unknown part 'normss'; did you mean 'norms'"),
    ],
)
def test_arguments_that_mean_nothing(values, message):
    with pytest.raises(ValueError, match=message):
        TransferArguments(**values)


def test_arguments_are_applied(tokenizers, saved, gpt2):
    before = tensors(gpt2)
    assert apply_transfer(TransferArguments(), gpt2, tokenizers[1], 0) is None
    assert all(torch.equal(value, before[name]) for name, value in tensors(gpt2).items())
    arguments = TransferArguments(init_from=saved["gpt2"], init_embeddings="fresh", train_parts=["mlp"])
    report = apply_transfer(arguments, gpt2, tokenizers[1], 0)
    assert part(report, "mlp")["source"] == saved["gpt2"]
    assert torch.equal(gpt2.transformer.wte.weight, before["transformer.wte.weight"])
    trained = {name for name, parameter in gpt2.named_parameters() if parameter.requires_grad}
    assert trained == set(NAMES["gpt2"]["mlp"])
    assert report["trained"]["parts"] == ["mlp"]
    assert report["trained"]["trained_parameters"] == part(report, "mlp")["of_parameters"]
    only_frozen = apply_transfer(TransferArguments(train_parts="norms"), gpt2, tokenizers[1], 0)
    assert all(each["source"] is None for each in only_frozen["parts"])
    whole = apply_transfer(
        TransferArguments(init_from=saved["gpt2"]), make("gpt2", tokenizers[1], 2), tokenizers[1], 0
    )
    assert whole["trained"] is None
