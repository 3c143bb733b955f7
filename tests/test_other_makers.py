"""Models of other makers: as reward models and as policies, each text scored as if it were alone, or one line."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

import hf_synth.models  # noqa: F401 - the Auto classes know our own models by it
from hf_synth.evaluation.generation import Decoding, generate, sample_completions, until_end
from hf_synth.rewards import end_token_ids, finished_text, load_rewards, reward_model
from hf_synth.training.models import from_pretrained

WORDS = [f"w{number}" for number in range(40)]
SIZE = {
    "hidden_size": 16, "dim": 16, "num_attention_heads": 2, "n_heads": 2, "num_hidden_layers": 2, "n_layers": 2,
    "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32, "hidden_dim": 32, "ffn_dim": 32,
    "word_embed_proj_dim": 16, "max_position_embeddings": 40, "layer_types": None, "pooler_hidden_size": 16,
}  # fmt: skip
CAUSAL = ("llama", "qwen2", "qwen3", "gemma", "gpt2", "opt", "gpt_neox", "rope_gpt", "rlm_transformer")
ENCODERS = ("bert", "roberta", "distilbert", "deberta", "deberta-v2")
TEXTS = [("w1 w2", "w3"), ("w4 w5 w6 w7 w8 w9 w10 w11", "w12 w13 w14"), ("w15", "w16 w17"), ("w1 w2", "w30")]


def tokenizer(kind="gpt2", **changes):
    """A tokenizer of words with the special tokens of an architecture, and its post-processor."""
    first, last, pad = {
        "bert": ("[CLS]", "[SEP]", "[PAD]"), "distilbert": ("[CLS]", "[SEP]", "[PAD]"),
        "roberta": ("<s>", "</s>", "<pad>"), "deberta": ("[CLS]", "[SEP]", "[PAD]"),
        "deberta-v2": ("[CLS]", "[SEP]", "[PAD]"),
    }.get(kind, (None, "<eos>", None))  # fmt: skip
    words = list(dict.fromkeys(filter(None, [pad or "<unused>", first, last, "<unk>", "<turn>", *WORDS])))
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "pad_token": pad}
    if first:
        ids = [(token, words.index(token)) for token in (first, last)]
        backend.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
        special |= {"cls_token": first, "sep_token": last}
        special |= {} if kind in ("bert", "distilbert") else {"bos_token": first, "eos_token": last}
    else:
        special |= {"eos_token": last}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**special, "padding_side": "left", **changes})


def config(kind, words, **changes):
    known = AutoConfig.for_model(kind)
    size = {name: value for name, value in SIZE.items() if value is not None and hasattr(known, name)}
    return AutoConfig.for_model(kind, **{**size, "vocab_size": words, "pad_token_id": None, **changes})


def saved(auto, kind, folder, tok=None, **changes):
    """A model of large random weights beside its tokenizer, as a checkpoint."""
    tok = tok or tokenizer(kind)
    pad = {} if tok.pad_token_id is None else {"pad_token_id": tok.pad_token_id}
    torch.manual_seed(0)
    model = auto.from_config(config(kind, len(tok), **pad, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def scored(path, texts=TEXTS, **options):
    # By its class: AutoTokenizer would take the words for those of Qwen2's own.
    return reward_model(path, PreTrainedTokenizerFast.from_pretrained(path), **options)(*zip(*texts, strict=True))


@torch.no_grad()
def logits_alone(path, row):
    """Of one row of ids, by the model as it lies in the folder; nothing of ours between."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    return model(input_ids=torch.tensor([row])).logits[0].tolist()


@pytest.mark.parametrize("kind", [kind for kind in CAUSAL + ENCODERS if kind != "rlm_transformer"])
def test_a_score_does_not_depend_on_who_shares_the_batch(kind, tmp_path):
    path = saved(AutoModelForSequenceClassification, kind, tmp_path, num_labels=1)
    together, alone = scored(path), [score for text in TEXTS for score in scored(path, [text])]
    assert together == pytest.approx(alone, abs=1e-5)
    assert scored(path, batch_size=3) == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 3) for score in alone}) == len(TEXTS)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_reads_one_cls_and_one_sep(kind, tmp_path):
    path, tok = saved(AutoModelForSequenceClassification, kind, tmp_path, num_labels=1), tokenizer(kind)
    row = [tok.cls_token_id, *tok("w1 w2 w3", add_special_tokens=False).input_ids, tok.sep_token_id]
    assert scored(path, TEXTS[:1]) == pytest.approx(logits_alone(path, row), abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_of_a_text_longer_than_the_positions_the_end_is_scored_after_the_cls(kind, tmp_path, caplog):
    path = saved(AutoModelForSequenceClassification, kind, tmp_path, num_labels=1, max_position_embeddings=12)
    tok, most = tokenizer(kind), 12 if kind == "bert" else 11  # RoBERTa's begin after the id of its padding, 0 here
    body = tok(" ".join(WORDS[:30]), add_special_tokens=False).input_ids
    row = [tok.cls_token_id, *body[len(body) - (most - 2) :], tok.sep_token_id]
    with caplog.at_level("WARNING", logger="hf_synth"):
        assert scored(path, [(" ".join(WORDS[:20]), " ".join(WORDS[20:30]))]) == pytest.approx(
            logits_alone(path, row), abs=1e-5
        )
    assert f"reads {most} tokens" in caplog.text
    shorter = [row[0], *row[-4:]]
    long = [(" ".join(WORDS[:20]), " ".join(WORDS[20:30]))]
    assert scored(path, long, max_length=5) == pytest.approx(logits_alone(path, shorter), abs=1e-5)


def test_a_reward_model_without_a_pad_token_is_scored_as_trl_trains_it(tmp_path):
    """TRL pads with `<eos>`, and its classifier then reads the last token that is none."""
    path = saved(AutoModelForSequenceClassification, "llama", tmp_path, num_labels=1)
    assert tokenizer("llama").pad_token_id is None
    row = tokenizer("llama")("w1 w2 w3").input_ids  # without <eos>: what is read stands before it
    assert scored(path, TEXTS[:1]) == pytest.approx(logits_alone(path, row), abs=1e-5)


def test_without_any_pad_or_end_texts_are_read_one_by_one(tmp_path):
    path = saved(AutoModelForSequenceClassification, "llama", tmp_path, tokenizer(eos_token=None), num_labels=1)
    rows = [tokenizer()(f"{prompt} {answer}").input_ids for prompt, answer in TEXTS]
    assert scored(path) == pytest.approx([logits_alone(path, row)[0] for row in rows], abs=1e-5)


@pytest.mark.parametrize("labels", [2, 3])
def test_heads_of_a_classifier_of_several_labels(labels, tmp_path):
    path = saved(AutoModelForSequenceClassification, "bert", tmp_path, num_labels=labels)
    with pytest.raises(ValueError, match=rf"classifier of {labels} labels"):
        scored(path)
    tok = tokenizer("bert")
    wanted = logits_alone(path, tok("w1 w2 w3").input_ids)
    got = scored(path, TEXTS[:1], heads={"LABEL_0": -1.0, "LABEL_1": 2.0})
    assert got == pytest.approx([2 * wanted[1] - wanted[0]], abs=1e-5)


def test_one_line_that_names_the_model(tmp_path):
    chat = [([{"role": "user", "content": "w1"}], [{"role": "assistant", "content": "w2"}])]
    path = saved(AutoModelForSequenceClassification, "bert", tmp_path / "bert", num_labels=1)
    with pytest.raises(ValueError, match=r"got .*/bert, whose tokenizer has no chat template"):
        scored(path, chat)
    path = saved(AutoModelForSequenceClassification, "t5", tmp_path / "t5", num_labels=1, d_model=16, d_kv=8, d_ff=16)
    with pytest.raises(ValueError, match=r"got .*/t5, a t5 of an encoder and a decoder"):
        scored(path)
    path = saved(AutoModelForSequenceClassification, "gpt2", tmp_path / "small", num_labels=1)
    larger = tokenizer()
    larger.add_tokens([f"x{number}" for number in range(9)])
    larger.save_pretrained(path)
    with pytest.raises(ValueError, match=r"go up to 52, but the model's vocabulary has 44; give .*/small,"):
        scored(path)


# Checkpoints that are not whole


def test_a_base_model_is_no_reward_model_and_no_policy(tmp_path):
    base = saved(AutoModel, "qwen2", tmp_path / "base", tie_word_embeddings=False)
    for load in (reward_model, lambda path: from_pretrained(AutoModelForCausalLM, path)):
        with pytest.raises(ValueError, match=r"base', which lacks 1 weights of a Qwen2For.*, such as (score|lm_head)"):
            load(base)
    assert from_pretrained(AutoModelForSequenceClassification, base, new_head=True, num_labels=1).num_labels == 1
    policy = saved(AutoModelForCausalLM, "gpt2", tmp_path / "policy")
    with pytest.raises(ValueError, match=r"which lacks 1 weights of a GPT2ForSequenceClassification"):
        load_rewards([policy], {}, tokenizer())


def test_half_a_checkpoint_is_refused_with_a_new_head_too(tmp_path):
    from safetensors.torch import load_file, save_file

    path = saved(AutoModelForCausalLM, "llama", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "layers.1" not in name}, tmp_path / "model.safetensors"
    )
    for auto, head in ((AutoModelForCausalLM, False), (AutoModelForSequenceClassification, True)):
        with pytest.raises(ValueError, match=r"lacks 9 weights of a Llama.*, such as model.layers.1"):
            from_pretrained(auto, path, new_head=head)
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has NaN or infinite weights"):
        from_pretrained(AutoModelForCausalLM, path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="which cannot be loaded: SafetensorError"):
        from_pretrained(AutoModelForCausalLM, path)


def test_an_encoder_and_decoder_is_no_policy(tmp_path):
    path = saved(AutoModel, "t5", tmp_path, d_model=16, d_kv=8, d_ff=16)
    with pytest.raises(ValueError, match="which cannot be loaded: ValueError: Unrecognized configuration"):
        from_pretrained(AutoModelForCausalLM, path)


# Answers


@pytest.mark.parametrize("kind", CAUSAL)
def test_what_is_known_of_an_answer_is_that_of_its_row_alone(kind, tmp_path):
    """Greedy answers, log-probabilities, entropy and KL of prompts of unlike length in one batch."""
    policy, other = (
        AutoModelForCausalLM.from_pretrained(saved(AutoModelForCausalLM, kind, tmp_path / name)).eval()
        for name in ("policy", "reference")
    )
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(0.7)
    tok, prompts = tokenizer(), [prompt for prompt, _ in TEXTS]
    together = sample_completions(policy, other, prompts, tok, Decoding(5, options={"do_sample": False}))
    for number, one in enumerate(together):
        [alone] = sample_completions(
            policy, other, prompts[number : number + 1], tok, Decoding(5, options={"do_sample": False})
        )
        assert one.ids == alone.ids
        for name in ("log_prob", "reference_log_prob", "entropy", "kl"):
            assert getattr(one, name) == pytest.approx(getattr(alone, name), abs=2e-4)
        ids = tok(prompts[number]).input_ids
        with torch.no_grad():
            logits = policy(torch.tensor([ids + one.ids])).logits.log_softmax(-1)[0, len(ids) - 1 : -1]
        assert one.log_prob == pytest.approx(logits[range(len(one.ids)), one.ids].sum().item(), abs=2e-4)


def talker(**generation):
    torch.manual_seed(0)
    tok = tokenizer()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=16, n_layer=1, n_head=2, n_positions=32)).eval()
    model.generation_config = GenerationConfig(**generation)
    return model, tok


def test_answers_end_at_every_end_that_the_model_declares():
    model, tok = talker(eos_token_id=[tokenizer().eos_token_id, 9, 12])
    ends = end_token_ids(tok, model.generation_config)
    assert ends == [tok.eos_token_id, 9, 12]
    answers = sample_completions(model, model, ["w1"] * 200, tok, Decoding(20, seed=1))
    finished = [one for one in answers if one.finished]
    assert {one.ids[-1] for one in finished} == set(ends)
    assert not any(set(one.ids[:-1]) & set(ends) for one in answers)
    assert finished_text([8, 9], tok, ends) == tok.decode([8])
    assert finished_text([8, 9], tok) is None


def test_the_model_s_own_options_do_not_count_where_the_whole_distribution_is_asked_for():
    model, tok = talker(eos_token_id=1, repetition_penalty=50.0, top_k=1, no_repeat_ngram_size=1)
    own = model.generation_config
    plain = talker(eos_token_id=1)[0]
    prompts = [tok("w1 w2").input_ids] * 8

    def drawn(one):
        torch.manual_seed(5)
        return generate(one, prompts, 12, ends=[1], pad=0, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)

    assert torch.equal(drawn(model), drawn(plain))
    assert model.generation_config is own
    assert until_end(torch.tensor([[4, 1, 7, 9]]), [9, 1]).tolist() == [[True, True, False, False]]


def test_held_out_answers_are_decoded_as_the_trainer_decodes(tmp_path):
    """The same draws from one seed: top_k, penalties, generation_kwargs, several ends, options of the template."""
    from datasets import Dataset
    from trl import GRPOConfig

    from hf_synth.sampling import WeightedGRPOTrainer

    model, tok = talker(eos_token_id=[9, 12], no_repeat_ngram_size=3)
    tok.chat_template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if thinking %}<turn>{% else %}w39{% endif %}"
    )
    options = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "max_steps": 1}
    options |= {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 6, "seed": 3}
    options |= {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.4, "min_p": 0.01}
    options |= {"generation_kwargs": {"suppress_tokens": [6, 7]}, "chat_template_kwargs": {"thinking": True}}
    chats = [[{"role": "user", "content": text}] for text, _ in TEXTS]
    trainer = WeightedGRPOTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(str(tmp_path), **options),
        train_dataset=Dataset.from_dict({"prompt": chats, "sampling_weight": [1.0] * len(chats)}),
        processing_class=tok,
    )
    decoding = Decoding.of_trainer(trainer, samples=2)
    wanted_ids, *_ = trainer._tokenize_prompts([chat for chat in chats for _ in range(2)])
    assert {row[-1] for row in wanted_ids} == {tok.convert_tokens_to_ids("<turn>")}
    torch.manual_seed(3)
    trainer.model.eval()
    wanted, _ = trainer._generate_single_turn(wanted_ids, None, {}, 2)
    result = sample_completions(trainer.model, trainer.model, chats, tok, decoding)
    assert [one.ids for one in result] == wanted
    assert {json.dumps(one.ids[-1:]) for one in result if one.finished} <= {"[9]", "[12]", f"[{tok.eos_token_id}]"}
    for name in ("tools", "rollout_func", "environment_factories"):  # which held-out answers would not call
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(trainer, name, [len])
            with pytest.raises(ValueError, match=f"^{name}: got a trainer"):
                Decoding.of_trainer(trainer, samples=2)
