"""Models and tokenizers: what counts as a checkpoint, and fresh models that follow from their seed."""

import pytest
import torch

from hf_synth import build_tokenizer, get_task
from hf_synth.models.modeling_rope_gpt import RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.training.arguments import DataArguments, PolicyArguments
from hf_synth.training.models import (
    adapter_config,
    load_classifier,
    load_policy,
    load_tokenizer,
    require_checkpoint,
)

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(get_task("start_mid_end"))


def policy(**values):
    return PolicyArguments(**{"new_model": SHAPE, **values})


@pytest.mark.parametrize("load", [load_policy, load_classifier])
def test_a_fresh_model_follows_from_its_seed(load, tokenizer):
    one, same, other = (load(policy(), tokenizer, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_fresh_model_fits_its_tokenizer(tokenizer):
    model = load_policy(policy(), tokenizer, 0)
    assert isinstance(model, RopeGPTForCausalLM)
    assert model.config.vocab_size == len(tokenizer)
    special = (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id)
    assert special == (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    classifier = load_classifier(policy(), tokenizer, 0)
    assert isinstance(classifier, RopeGPTForSequenceClassification)
    assert classifier.config.num_labels == 1


def test_a_checkpoint_is_loaded_whole(tokenizer, tmp_path):
    model = load_policy(policy(), tokenizer, 3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    saved = PolicyArguments(model_name_or_path=str(tmp_path))
    result = load_policy(saved, tokenizer, 0).state_dict()
    assert all(torch.equal(value, result[name]) for name, value in model.state_dict().items())
    body = load_classifier(saved, tokenizer, 0).model.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in model.model.state_dict().items())
    data = DataArguments(task="sort")
    assert load_tokenizer(saved, data).get_vocab() == tokenizer.get_vocab(), "the checkpoint's, not the task's"


def test_the_tokenizer_of_a_fresh_model_knows_all_words_of_its_tasks():
    mixture = {name: {"task": name, "share": 0.5} for name in ("start_mid_end", "sort")}
    words = load_tokenizer(policy(), DataArguments(mixture=mixture)).get_vocab()
    assert {"START", "MID", "END", "0", "<sep>"} <= words.keys()
    with pytest.raises(ValueError, match="got neither model_name_or_path nor tasks"):
        load_tokenizer(policy(), DataArguments(prompts="mine.jsonl"))


def test_what_is_no_checkpoint_names_the_command_that_makes_it(tmp_path):
    for path in (str(tmp_path), str(tmp_path / "missing"), "./missing", "runs/a/b"):
        with pytest.raises(ValueError, match=r"which holds no model; make it with: make it so"):
            require_checkpoint(path, "make it so")
    require_checkpoint("owner/model", "make it so")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds an adapter and no whole model; merge it"):
        require_checkpoint(str(tmp_path))


def test_models_that_cannot_be_made(tokenizer):
    with pytest.raises(ValueError, match="new_model: got unknown value 'hiden_size'"):
        load_policy(policy(new_model={"hiden_size": 3}), tokenizer, 0)
    for kind in ("rope_gpt", "rlm_transformer", "llama"):
        with pytest.raises(ValueError, match=r"new_model: .*'hidden_size'.* expected int, got str"):
            load_policy(PolicyArguments(model_type=kind, new_model={"hidden_size": "64"}), tokenizer, 0)
    for kind in ("rope_gpt", "llama"):
        for name in ("vocab_size", "eos_token_id", "model_type", "dtype", "use_cache", "architectures"):
            with pytest.raises(ValueError, match=f"new_model: got '{name}', which the recipe sets"):
                load_policy(PolicyArguments(model_type=kind, new_model={name: 3}), tokenizer, 0)
    with pytest.raises(ValueError, match="new_model: got n_embd=0, wanted at least 1"):
        load_policy(PolicyArguments(model_type="gpt2", new_model={"hidden_size": 0}), tokenizer, 0)
    for kind, reason in (
        ("t5", "Unrecognized configuration class"),
        ("bert", "reads the tokens that it is to predict"),
    ):
        with pytest.raises(ValueError, match=f"of model_type '{kind}', which cannot be made: .*{reason}") as caught:
            load_policy(PolicyArguments(model_type=kind), tokenizer, 0)
        assert len(str(caught.value)) < 400
    assert load_policy(PolicyArguments(model_type="bert", new_model={"is_decoder": True}), tokenizer, 0).can_generate()
    assert load_classifier(PolicyArguments(model_type="bert"), tokenizer, 0).num_labels == 1
    with pytest.raises(ValueError, match="got use_peft without model_name_or_path"):
        load_policy(policy(use_peft=True), tokenizer, 0)
    with pytest.raises(ValueError, match="got checkpoint 'owner/model', which is neither here nor on the Hub"):
        load_policy(PolicyArguments(model_name_or_path="owner/model"), tokenizer, 0)


def test_lora_adapts_every_linear_layer_unless_some_are_named():
    assert policy(use_peft=True).lora_target_modules == "all-linear"
    assert policy(use_peft=True, lora_target_modules=["q_proj", "v_proj"]).lora_target_modules == ["q_proj", "v_proj"]
    assert policy().lora_target_modules is None


@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "qwen3", "gpt2"])
def test_models_of_transformers_are_small_unless_told_otherwise(kind, tokenizer):
    model = load_policy(PolicyArguments(model_type=kind), tokenizer, 0)
    assert model.config.model_type == kind
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (128, 4)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    shape = {"hidden_size": 64, "num_hidden_layers": 1}
    assert load_policy(PolicyArguments(model_type=kind, new_model=shape), tokenizer, 0).config.hidden_size == 64


def test_a_size_of_gpt2_is_layers_heads_hidden(tokenizer):
    config = load_policy(PolicyArguments(gpt2_size="3_2_16"), tokenizer, 0).config
    assert (config.n_layer, config.n_head, config.n_embd, config.vocab_size) == (3, 2, 16, len(tokenizer))


@pytest.mark.parametrize("size", ["3_2", "3_2_x", "0_2_16", "2464", "\uff13_2_16"])
def test_what_is_no_size_of_gpt2_is_an_error(size, tokenizer):
    with pytest.raises(ValueError, match=r"gpt2_size: got .*wanted layers_heads_hidden"):
        load_policy(PolicyArguments(gpt2_size=size), tokenizer, 0)


def test_an_unknown_model_type_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="model_type: got 'gpt5'; did you mean"):
        load_policy(PolicyArguments(model_type="gpt5"), tokenizer, 0)


@pytest.mark.parametrize("load", [load_policy, load_classifier])
def test_a_new_model_has_the_dtype_and_attention_asked_for(load, tokenizer):
    made = load(policy(dtype="bfloat16", attn_implementation="eager"), tokenizer, 0)
    assert (made.dtype, made.config._attn_implementation) == (torch.bfloat16, "eager")
    made = load(policy(dtype="auto"), tokenizer, 0)
    assert (made.dtype, made.config._attn_implementation) == (torch.float32, "sdpa")


def test_a_chat_template_counts_before_lengths_do(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "mine.jinja").write_text("{% for turn in messages %}{{ turn['content'] }} {% endfor %}")
    options = policy(model_name_or_path=str(tmp_path)), DataArguments(task="sort"), None
    (tmp_path / "config.json").write_text("{}")
    loaded = load_tokenizer(*options, str(tmp_path / "mine.jinja"))
    assert loaded.apply_chat_template([{"role": "user", "content": "1 2"}], tokenize=False) == "1 2 "
    for none in (str(tmp_path), str(tmp_path / "none.jinja"), "user/model"):
        with pytest.raises(ValueError, match=r"chat_template_path: got .*wanted a file"):
            load_tokenizer(*options, none)


def test_an_adapter_knows_the_revision_that_it_is_for():
    assert adapter_config(policy(use_peft=True, model_name_or_path="a/b", model_revision="v2")).revision == "v2"
    assert adapter_config(policy(use_peft=True, model_name_or_path="a/b")).revision is None
    assert adapter_config(policy()) is None


def test_a_folder_has_no_revisions(tmp_path):
    with pytest.raises(ValueError, match="model_revision: got 'v2' of the folder"):
        policy(model_name_or_path=str(tmp_path), model_revision="v2")
