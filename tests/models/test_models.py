"""What every model satisfies: its forward pass is the one written out, whatever the backend, padding and precision."""

from fnmatch import fnmatch

import peft
import pytest
import torch
from torch import nn
from transformers import GenerationConfig


def test_forward_equals_the_plain_one(family, tiny, implementation):
    model = family.model(implementation=implementation, hidden_size=16, num_attention_heads=2, initializer_range=0.2)
    for parameter in model.parameters():  # biases and norms start at 0 and 1, which would hide them
        parameter.data += 0.05 * torch.randn_like(parameter)
    row = tiny.tokens(1, 6)
    torch.testing.assert_close(model(row).logits[0], tiny.plain_forward(model, row[0]), atol=1e-5, rtol=1e-5)


def test_eager_equals_sdpa(family, tiny):
    ids, mask = tiny.left_padded()
    eager, sdpa = (
        family.model(implementation=name)(ids, attention_mask=mask).logits[mask == 1] for name in ("eager", "sdpa")
    )
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=1e-5)


def test_flex_attention_equals_sdpa(family, tiny):
    ids, mask = tiny.left_padded()
    torch.compiler.set_stance("force_eager")  # here for what it computes, not for its speed
    try:
        with torch.no_grad():
            flex, sdpa = (
                family.model(implementation=name)(ids, attention_mask=mask).logits[mask == 1]
                for name in ("flex_attention", "sdpa")
            )
    finally:
        torch.compiler.set_stance("default")
    torch.testing.assert_close(flex, sdpa, atol=1e-5, rtol=1e-5)


def test_a_model_that_drafts_with_its_first_layers_writes_the_same(family, tiny):
    model, ids = family.model(num_hidden_layers=3), tiny.tokens(1, 6)
    plain = model.generate(ids, max_new_tokens=16, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=16, do_sample=False, assistant_early_exit=1), plain)
    assert model.config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("adapter", "wanted"),
    [(peft.LoraConfig, {"q_proj", "v_proj"}), (peft.IA3Config, {"k_proj", "v_proj", "down_proj"})],
)
def test_adapters_without_targets_know_where_to_go(family, adapter, wanted):
    adapted = peft.get_peft_model(family.model(), adapter())
    changed = {name for name, part in adapted.named_modules() if hasattr(part, "base_layer")}
    assert {name.rsplit(".", 1)[-1] for name in changed} == wanted
    assert len(changed) == 2 * len(wanted)


@pytest.mark.parametrize("columns", [range(4, 10), range(6), (0, 2, 3, 6, 7, 9)], ids=["left", "right", "between"])
def test_padding_anywhere_changes_nothing(family, tiny, implementation, columns):
    model, ids, columns = family.model(implementation=implementation), tiny.tokens(2, 6), list(columns)
    padded, mask = torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 10, dtype=torch.long)
    padded[:, columns], mask[:, columns] = ids, 1
    got = model(padded, attention_mask=mask).logits[:, columns]
    torch.testing.assert_close(got, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wholly_padded_rows_are_never_nan(family, tiny, implementation, dtype):
    model = family.model(implementation=implementation, initializer_range=0.9).to(dtype).train()
    ids, mask = tiny.left_padded()
    mask[1] = 0
    output = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), skip_logits=False)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bf16_is_close_to_float32(family, tiny):
    ids, mask = tiny.left_padded()
    exact = family.model(initializer_range=0.1)(ids, attention_mask=mask).logits[mask == 1]
    rounded = family.model(initializer_range=0.1).to(torch.bfloat16)(ids, attention_mask=mask).logits[mask == 1]
    assert (exact - rounded.float()).abs().max() < 0.05 * exact.abs().max()


def test_hidden_states_and_attentions_are_recorded(family, tiny):
    ids, mask = tiny.left_padded()
    model = family.model(implementation="eager")
    output = model(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(3, 12, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(3, 4, 12, 12)] * 2
    assert isinstance(model(ids, return_dict=False), tuple)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(family, tiny, reentrant):
    ids, mask = tiny.left_padded()
    gradients = []
    for checkpointing in (False, True):
        model = family.model().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_dropout_acts_in_training_alone(family, tiny):
    model, ids = family.model(dropout=0.5), tiny.tokens(2, 6)
    torch.testing.assert_close(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)


def test_dropout_of_attention_acts_in_training_alone(family, tiny, implementation):
    model, ids = family.model(implementation=implementation, dropout=0.5), tiny.tokens(2, 12)
    for part in model.modules():
        if isinstance(part, nn.Dropout):  # embeddings and residual branches: what is left acts in the attention
            part.p = 0.0
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert (model(ids).logits - model(ids).logits).abs().max() > 0.1


def test_dropout_of_attention_removes_its_share_of_the_weights_and_scales_the_rest(family, tiny):
    model, ids = family.model(implementation="eager", dropout=0.25), tiny.tokens(8, 12)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    weights = model(ids, output_attentions=True).attentions[0]
    dropped = model.train()(ids, output_attentions=True).attentions[0]
    kept = dropped != 0
    torch.testing.assert_close(dropped, torch.where(kept, weights / 0.75, 0.0))
    assert 0.7 < kept[weights > 0].float().mean() < 0.8


def test_texts_packed_in_one_row_do_not_see_each_other(family, tiny, implementation):
    model, texts = family.model(implementation=implementation), [tiny.tokens(1, n, seed=n) for n in (5, 1, 6)]
    packed = {
        "input_ids": torch.cat(texts, dim=1),
        "position_ids": torch.cat([torch.arange(text.shape[1]) for text in texts])[None],
        "use_cache": False,
    }
    alone = torch.cat([model(text).logits for text in texts], dim=1)
    torch.testing.assert_close(model(**packed).logits, alone, atol=1e-5, rtol=1e-5)
    assert (model(packed["input_ids"]).logits - alone).abs().max() > 1e-2  # so wide a start shows what they would see


def test_compiled_equals_eager(family, tiny):
    ids, mask = tiny.left_padded()
    model = family.model()
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


@pytest.mark.nightly
def test_compiled_by_inductor_equals_eager(family, tiny):
    ids, mask = tiny.left_padded()
    batch = {"attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100), "use_cache": False}
    plain, model = family.model().train(), family.model().train()
    plain(ids, **batch).loss.backward()
    torch.compile(model)(ids, **batch).loss.backward()
    for (name, parameter), twin in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_sharding_plans_name_every_block_and_projection(family):
    model = family.model()
    assert {type(layer).__name__ for layer in model.model.layers} == set(model._no_split_modules)
    planned = {f"model.{name}" for name in model.config.base_model_tp_plan} | set(model._tp_plan)
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    assert all(any(fnmatch(name, plan) for plan in planned) for name in linear)


# ---- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, "got hidden_size=30 with num_attention_heads=4"),
        ({"num_layers": 3}, "unknown config key 'num_layers'; wanted 'num_hidden_layers'"),
        ({"hidden_sise": 32}, "unknown config key 'hidden_sise'; wanted 'hidden_size'"),
        ({"vocab_size": 0}, "got vocab_size=0; wanted at least 1"),
        ({"num_hidden_layers": 0}, "got num_hidden_layers=0"),
        ({"num_attention_heads": 0}, "got num_attention_heads=0"),
        ({"intermediate_size": 0}, "got intermediate_size=0"),
        ({"max_position_embeddings": -1}, "got max_position_embeddings=-1"),
        ({"dropout": 1.0}, "wanted 0 <= dropout < 1"),
        ({"initializer_range": 0.0}, "wanted a positive standard deviation"),
        ({"layer_norm_eps": float("nan")}, "got layer_norm_eps=nan; wanted a small positive number"),
        ({"layer_norm_eps": -1.0}, "got layer_norm_eps=-1.0; wanted a small positive number"),
        ({"vocab_size": 2}, "got eos_token_id=2; wanted None or an id below vocab_size=2"),
        ({"pad_token_id": -1}, "got pad_token_id=-1"),
    ],
)
def test_an_illegal_config_is_an_error(family, changes, message):
    with pytest.raises(ValueError, match=message):
        family.config(**changes)


@pytest.mark.parametrize("key", ["n_embd", "n_layer", "num_heads", "n_positions", "attention_dropout"])
def test_names_of_other_architectures_are_errors(family, key):
    with pytest.raises(ValueError, match=f"unknown config key '{key}'; wanted"):
        family.config(**{key: 4})


def test_a_field_of_the_wrong_type_is_an_error(family):
    with pytest.raises(Exception, match="'hidden_size' expected int, got str"):
        family.config(hidden_size="32")


def test_keys_of_transformers_are_no_slips(family):
    names = {*GenerationConfig().to_dict(), "torch_dtype", "attn_implementation", "name_or_path", "output_attentions"}
    names |= {"sep_token_id", "decoder_start_token_id", "head_dim", "num_key_value_heads", "is_decoder", "auto_map"}
    names |= {"quantization_config", "rope_scaling", "tokenizer_class", "finetuning_task"}
    family.config(**dict.fromkeys(names - {"use_cache"}), num_labels=3)


def test_config_defaults(family):
    config = family.config_class()
    assert config.intermediate_size == 4 * config.hidden_size
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert not config.tie_word_embeddings
