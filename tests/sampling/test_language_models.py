"""A row of a padded batch gives what it gives alone: every architecture's positions, and GRPO's log-probabilities."""

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaModel,
)
from trl import GRPOConfig, GRPOTrainer

import hf_synth.models  # noqa: F401 - the Auto classes know our own models by it
from hf_synth.sampling import WeightedGRPOTrainer
from hf_synth.sampling.language_models import (
    check_causal,
    load_checkpoint,
    most_tokens,
    named_revision,
    positions_from_mask,
    right_padded,
)

POLICIES = ("gpt2", "opt", "llama", "gpt_neox", "bloom", "gpt_neo", "rope_gpt", "rlm_transformer")
ROWS = [[5, 9, 13], [7, 8, 9, 10, 11, 12, 13, 14, 15], [20, 21]]


def policy(kind):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "num_layers": 2, "num_heads": 2}
    size |= {
        "max_position_embeddings": 32,
        "intermediate_size": 32,
        "ffn_dim": 32,
        "attention_types": [[["global", "local"], 1]],
    }
    known = AutoConfig.for_model(kind)
    names = {name: value for name, value in size.items() if hasattr(known, name)}
    if kind == "opt":
        names["word_embed_proj_dim"] = 16
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=67, **names, **special)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # wide enough from the start to tell tokens and positions apart
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return model


@torch.no_grad()
def alone(model, row):
    return model(input_ids=torch.tensor([row])).logits[0]


def left_padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) >= width - torch.tensor([[len(r)] for r in rows])).long(),
    }


@pytest.mark.parametrize("kind", POLICIES)
def test_logits_of_a_padded_row_are_those_of_the_row_alone(kind):
    model = policy(kind)
    with torch.no_grad():
        right = model(**right_padded(ROWS, model.device)).logits
        with positions_from_mask(model):
            left = model(**left_padded(ROWS)).logits
    for number, row in enumerate(ROWS):
        torch.testing.assert_close(right[number, : len(row)], alone(model, row), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(left[number, -len(row) :], alone(model, row), atol=1e-4, rtol=1e-4)


def test_without_positions_the_same_row_differs():
    """What the check above would see: GPT-2 counts padding."""
    model = policy("gpt2")
    with torch.no_grad():
        left = model(**left_padded(ROWS)).logits
        adapted = get_peft_model(model, LoraConfig(target_modules=["c_attn"]))
        with positions_from_mask(adapted):
            right = adapted(**left_padded(ROWS)).logits
    wanted = alone(model, ROWS[0])
    assert (left[0, -3:] - wanted).abs().max() > 0.1
    torch.testing.assert_close(right[0, -3:], wanted, atol=1e-4, rtol=1e-4)
    assert not model._forward_pre_hooks, "nothing is left on the model"


def grpo(kind, tiny, model, folder):
    words = [" ".join(f"w{token - 3}" for token in row) for row in ROWS]
    sizes = {"num_generations": 2, "max_completion_length": 4, "per_device_train_batch_size": 6}
    return kind(
        model,
        tiny.Recorded(),
        args=tiny.arguments(GRPOConfig, folder, max_steps=1, **sizes),
        train_dataset=datasets.Dataset.from_dict({"prompt": words, "sampling_weight": [1.0] * len(words)}),
        processing_class=tiny.tokenizer(),
    )


def log_probs(trainer):
    """The trainer's log-probabilities of completions to prompts padded on the left, and those of each row alone."""
    completions = [[30, 31, 1], [32, 33, 34], [35, 36, 1]]
    prompts = left_padded(ROWS)
    batch = {"input_ids": torch.cat([prompts["input_ids"], torch.tensor(completions)], 1)}
    batch["attention_mask"] = torch.cat([prompts["attention_mask"], torch.ones(3, 3, dtype=torch.long)], 1)
    with torch.no_grad():
        got, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, logits_to_keep=3, compute_entropy=True, **batch
        )
        rows = zip(ROWS, completions, strict=True)
        wanted = torch.stack([alone(trainer.model, row + own).log_softmax(-1)[len(row) - 1 : -1] for row, own in rows])
    return got, entropies, wanted.gather(-1, torch.tensor(completions)[..., None])[..., 0], wanted


@pytest.mark.parametrize("kind", ["gpt2", "llama", "rope_gpt"])
def test_grpo_trains_on_the_log_probabilities_of_each_row_alone(kind, tiny, tmp_path):
    got, entropies, wanted, all_of_them = log_probs(grpo(WeightedGRPOTrainer, tiny, policy(kind), tmp_path))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropies, -(all_of_them.exp() * all_of_them).sum(-1), atol=1e-4, rtol=1e-4)


def test_what_trl_itself_does_to_absolute_positions(tiny, tmp_path):
    """Once this fails, TRL passes positions, and ours need not."""
    got, _, wanted, _ = log_probs(grpo(GRPOTrainer, tiny, policy("gpt2"), tmp_path))
    assert (got - wanted)[0].abs().max() > 0.1
    torch.testing.assert_close(got[1], wanted[1], atol=1e-4, rtol=1e-4)  # the longest has no padding


def test_the_tokens_that_a_model_takes():
    assert most_tokens(policy("gpt2")) == 32
    assert most_tokens(policy("bloom")) is None, "any: its positions are slopes of attention"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    roberta = RobertaModel(RobertaConfig(vocab_size=30, max_position_embeddings=12, pad_token_id=1, **shape)).eval()
    assert most_tokens(roberta) == 10
    roberta(torch.full((1, 10), 5))
    with pytest.raises((IndexError, RuntimeError)):
        roberta(torch.full((1, 11), 5))


def test_large_weights_in_half_precision_are_sound(tmp_path):
    """Their sum is not finite in that type; each of them is."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=16, n_layer=1, n_head=2)).half()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(100.0)
    assert not model.get_input_embeddings().weight.sum().isfinite()
    model.save_pretrained(tmp_path)
    assert load_checkpoint(AutoModelForCausalLM, str(tmp_path), dtype=torch.float16).dtype == torch.float16
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        load_checkpoint(AutoModelForCausalLM, str(tmp_path), dtype=torch.float16)


@pytest.mark.parametrize("kind", [*POLICIES, "mamba", "bert", "roberta"])
def test_what_reads_later_tokens_is_no_causal_model(kind):
    model = policy(kind)
    if kind not in ("bert", "roberta"):
        check_causal(model, AutoModelForCausalLM)
        return
    with pytest.raises(ValueError, match="which reads the tokens that it is to predict"):
        check_causal(model, AutoModelForCausalLM)


def test_a_hub_id_names_its_revision(tmp_path, monkeypatch):
    assert named_revision("owner/model@v1") == ("owner/model", "v1")
    assert named_revision("owner/model@refs/pr/1") == ("owner/model", "refs/pr/1")
    assert named_revision("owner/model") == ("owner/model", None)
    (tmp_path / "model@home").mkdir()
    assert named_revision(str(tmp_path / "model@home")) == (str(tmp_path / "model@home"), None)
    with pytest.raises(ValueError, match="wanted the name of a branch, tag or commit after the @"):
        named_revision("owner/model@")
    asked = []
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **options: asked.append((name, options)))
    load_checkpoint(AutoTokenizer, "owner/model@v1")
    load_checkpoint(AutoTokenizer, "owner/model", revision="v2")
    assert asked == [("owner/model", {"revision": "v1"}), ("owner/model", {"revision": "v2"})]
