"""Hidden states of a real model, batched, against one text at a time; padding never counts."""

import copy
import functools

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_synth.sampling import embed_texts
from hf_synth.sampling.embeddings import embed_hidden_states, fingerprint_model

WORDS = [f"w{number}" for number in range(40)]
TEXTS = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9", "w1 w2", "w30 w31 w32", "w1", "w9 w8 w7 w6 w5"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=42,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def tokenizer():
    plain = Tokenizer(models.WordLevel({"<unk>": 0, **{word: row + 1 for row, word in enumerate(WORDS)}}, "<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")  # no padding token: none is needed


def one_by_one(model, tokenizer, texts, layer):
    model.eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(torch.tensor([tokenizer(text).input_ids]), output_hidden_states=True).hidden_states[layer][
                0
            ]
        rows.append(torch.nn.functional.normalize(states.mean(dim=0), dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("layer", [0, 1, 2, -1])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_batches_equal_one_text_at_a_time(model, tokenizer, layer, batch_size):
    got = embed_hidden_states(model, tokenizer, TEXTS, layer=layer, batch_size=batch_size)
    np.testing.assert_allclose(got, one_by_one(model, tokenizer, TEXTS, layer), atol=1e-5)
    np.testing.assert_array_equal(got[0], got[4])
    assert got.dtype == np.float32


def test_a_mean_over_padding_would_be_seen(model, tokenizer, monkeypatch):
    right = embed_hidden_states(model, tokenizer, TEXTS)
    pad = torch.nn.utils.rnn.pad_sequence
    ones = functools.partial(pad, padding_value=1)  # every place counts, padding included
    monkeypatch.setattr(torch.nn.utils.rnn, "pad_sequence", ones)
    assert np.abs(embed_hidden_states(model, tokenizer, TEXTS) - right).max() > 0.05


def test_dropout_is_off_and_the_mode_comes_back(model, tokenizer):
    model.train()
    first, second = (embed_hidden_states(model, tokenizer, TEXTS) for _ in range(2))
    assert model.training
    np.testing.assert_array_equal(first, second)
    model.eval()
    embed_hidden_states(model, tokenizer, TEXTS)
    assert not model.training


def test_long_texts_keep_their_last_tokens(model, tokenizer):
    got = embed_hidden_states(model, tokenizer, ["w1 w2 w3 w4", "w3"], max_length=2)
    np.testing.assert_allclose(got, one_by_one(model, tokenizer, ["w3 w4", "w3"], -1), atol=1e-5)


def test_errors(model, tokenizer):
    with pytest.raises(ValueError, match=r"1 of 3 have no tokens: rows \[1\]"):
        embed_hidden_states(model, tokenizer, ["w1", "", "w2"])
    with pytest.raises(ValueError, match=r"layer=3: the model has 3"):
        embed_hidden_states(model, tokenizer, ["w1"], layer=3)
    assert embed_hidden_states(model, tokenizer, []).shape == (0, 16)


def test_a_policy_on_disk_is_an_embedder_with_a_cache(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    for _ in range(2):
        got = embed_texts(TEXTS, f"policy:{tmp_path / 'policy'}", layer=1, cache=tmp_path / "cache")
        np.testing.assert_allclose(got, embed_hidden_states(model, tokenizer, TEXTS, layer=1), atol=1e-6)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_any_changed_weight_changes_the_fingerprint(model):
    before = fingerprint_model(model)
    assert fingerprint_model(model) == before
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.bias[3] += 1e-3
    assert fingerprint_model(model) != before


@pytest.mark.parametrize("changed", ["weights", "config", "tokenizer"])
def test_a_policy_that_changed_at_its_path_is_embedded_anew(model, tokenizer, tmp_path, changed):
    """Whatever of it changed: what is cached is of these weights, settings and ids."""
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    embedder = f"policy:{tmp_path / 'policy'}"
    before = embed_texts(TEXTS, embedder, cache=tmp_path / "cache")
    if changed == "weights":
        other = copy.deepcopy(model)
        other.get_input_embeddings().weight.data[5:] += 0.5
        other.save_pretrained(tmp_path / "policy")
    elif changed == "config":
        path = tmp_path / "policy/config.json"
        path.write_text(path.read_text().replace('"layer_norm_epsilon": 1e-05', '"layer_norm_epsilon": 0.5'))
    else:
        path = tmp_path / "policy/tokenizer.json"
        swapped = path.read_text().replace('"w1":', '"w?":').replace('"w2":', '"w1":').replace('"w?":', '"w2":')
        path.write_text(swapped)
    after = embed_texts(TEXTS, embedder, cache=tmp_path / "cache")
    np.testing.assert_array_equal(after, embed_texts(TEXTS, embedder))
    assert not np.array_equal(after, before)


def test_of_a_text_longer_than_the_models_positions_the_end_is_read(model, tokenizer):
    long = " ".join(WORDS)
    for most in (None, 100):
        got = embed_hidden_states(model, tokenizer, [long], max_length=most)
        np.testing.assert_allclose(got, embed_hidden_states(model, tokenizer, [" ".join(WORDS[-32:])]), atol=1e-6)


def test_a_policy_that_lacks_weights_embeds_nothing(model, tokenizer, tmp_path):
    state = model.state_dict()
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if "h.1." not in k})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"which lacks \d+ weights of a GPT2LMHeadModel"):
        embed_texts(["w1"], f"policy:{tmp_path}")
