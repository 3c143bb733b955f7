"""Hyperdata: blocks against documents joined by hand, text that is never trained on, scores against slow oracles."""

import dataclasses
import json
import math
import os
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from hf_synth import build_tokenizer, get_task
from hf_synth.corpora import StandIn, canonical_text
from hf_synth.corpora import splits as text
from hf_synth.corpora.blocks import KINDS, corpus_blocks, corpus_stream, held_out_blocks
from hf_synth.corpora.splits import CorpusArguments, corpus_tokenizer, held_out_text, source_files, training_text
from hf_synth.evaluation.generation import sample_strings, write_completions
from hf_synth.evaluation.language import labelled_strings, language_scores
from hf_synth.evaluation.model import Measured
from hf_synth.evaluation.scoring import token_log_probs
from hf_synth.online import only_batch
from hf_synth.sampling.language_models import check_vocabulary
from hf_synth.training.arguments import parse_recipe
from hf_synth.training.checkpoints import without_weight_conversions

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def new_gpt_neox(tokenizer, shape, *, seed=0):
    """A tiny GPT-NeoX whose weights follow from the seed."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(GPTNeoXConfig(**{"vocab_size": len(tokenizer), **special, **shape}))


@pytest.fixture(scope="module")
def task():
    return get_task("tivari")


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """300 paragraphs of made-up words, all different."""
    path = tmp_path_factory.mktemp("prose") / "prose.txt"
    path.write_text("\n\n".join(StandIn(3).table(0, 300)["text"].to_pylist()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def arguments(prose):
    return CorpusArguments(
        canonical=str(prose), canonical_eval="0.1", block_size=32, canonical_eval_tokens=640, mix_ratio=0.3
    )


@pytest.fixture(scope="module")
def tokenizer(task, arguments):
    return corpus_tokenizer(task, arguments, vocab_size=420)


@pytest.fixture(scope="module")
def model(tokenizer):
    return new_gpt_neox(tokenizer, {**TINY, "initializer_range": 0.4}, seed=1)


@pytest.fixture
def made(tmp_path):
    """`corpus_blocks` with a cache of the test's own."""
    return lambda *given, **options: corpus_blocks(*given, cache_dir=str(tmp_path / "cache"), **options)


# Arguments


def test_arguments_come_from_flags_and_are_checked():
    (result,) = parse_recipe(
        (CorpusArguments,), ["--canonical", "x.txt", "--canonical_eval", "0.2", "--mix_ratio", "0"]
    )
    assert (result.canonical, result.held_out_share, result.mix_ratio) == ("x.txt", 0.2, 0.0)
    assert CorpusArguments(canonical_eval="test.txt").held_out_share is None
    assert CorpusArguments(canonical_eval=0.2).canonical_eval == "0.2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix_ratio": 1.1}, "mix_ratio: got 1.1"),
        ({"explanation_ratio": -0.1}, "explanation_ratio: got -0.1"),
        ({"mix_unit": "token"}, "mix_unit: got 'token'; did you mean 'tokens'"),
        ({"explanation_form": "blocks"}, "did you mean 'block'"),
        ({"canonical_document": "articles"}, "did you mean 'article'"),
        ({"block_size": 1}, "block_size: got 1, wanted at least 2"),
        ({"block_size": "many"}, "block_size: got 'many', wanted at least 2"),
        ({"block_size": 64, "corpus_tokens": 63}, "corpus_tokens: got 63, wanted at least one block of 64 tokens"),
        ({"canonical_eval": "0"}, "canonical_eval: got the fraction 0"),
        ({"canonical_eval": "1"}, "canonical_eval: got the fraction 1"),
        ({"canonical_eval": "nan"}, "canonical_eval: got the fraction nan"),
    ],
)
def test_illegal_arguments_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        CorpusArguments(**changes)


# Blocks


@pytest.mark.parametrize("mix_unit", ["documents", "tokens"])
def test_blocks_are_the_documents_joined_and_counted(task, arguments, tokenizer, made, mix_unit):
    """Document by document, each with its end token, until all blocks are full."""
    chosen = dataclasses.replace(arguments, explanation_ratio=0.2, mix_unit=mix_unit)
    blocks = made(task, chosen, tokenizer, blocks=400)
    flat, counts = [], {f"{unit}/{kind}": 0 for unit in ("tokens", "documents") for kind in KINDS}
    for row in corpus_stream(task, chosen, tokenizer).read(2_000).to_pylist():
        ids = [*tokenizer(row["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        there = min(len(ids), 400 * 32 - len(flat))
        counts[f"tokens/{row['kind']}"] += there
        counts[f"documents/{row['kind']}"] += there == len(ids)
        flat += ids[:there]
    assert blocks.ids().ravel().tolist() == flat
    assert len(flat) == 400 * 32
    share = 1 - counts["tokens/canonical"] / len(flat)
    parts = [blocks.counts([number for number in range(400) if number % 2 == half]) for half in (0, 1)]
    assert {name: sum(part[name] for part in parts) for name in counts} == counts
    assert sum(blocks.counts([7])[f"tokens/{kind}"] for kind in KINDS) == blocks.ids().shape[1]
    assert blocks.counts() == pytest.approx({**counts, "tokens/synthetic_share": share})
    assert counts["documents/explanation"] > 5
    if mix_unit == "tokens":
        assert share == pytest.approx(0.3, abs=0.01)


def test_rows_are_what_trainer_collates(task, arguments, tokenizer, made):
    blocks = made(task, arguments, tokenizer, blocks=10)
    batch = only_batch(blocks.__getitems__([3, 0, 9]))
    assert batch["input_ids"].dtype == torch.int64
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == blocks.ids()[[3, 0, 9]].tolist()
    assert blocks[9]["input_ids"].tolist() == blocks.ids()[9].tolist()
    assert len(blocks) == 10


def test_blocks_are_made_once_for_what_they_depend_on(task, arguments, tokenizer, made, tmp_path):
    def there() -> int:
        return len(list((tmp_path / "cache").rglob("*.arrow")))

    first = made(task, arguments, tokenizer, blocks=10)
    for same in ({}, {"canonical_eval_tokens": 64}):
        again = made(task, dataclasses.replace(arguments, **same), tokenizer, blocks=10)
        assert again.ids().tolist() == first.ids().tolist()
    assert there() == 1
    others = [
        made(task, dataclasses.replace(arguments, explanation_ratio=0.5), tokenizer, blocks=10),
        made(task, arguments, tokenizer, blocks=10, seed=1),
        made(task, arguments, tokenizer, blocks=10, split="validation"),
        made(get_task("tivari", max_middle=3), arguments, tokenizer, blocks=10),
        made(task, arguments, corpus_tokenizer(task, arguments, vocab_size=300), blocks=10),
    ]
    assert there() == 1 + len(others)
    assert len({str(blocks.ids().tolist()) for blocks in (first, *others)}) == 1 + len(others)


def test_a_change_of_the_text_is_noticed(task, arguments, tokenizer, made, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One two three.\n\nFour five six.")
    chosen = dataclasses.replace(arguments, canonical=str(path), canonical_eval="nowhere.txt", mix_ratio=0)
    before = made(task, chosen, tokenizer, blocks=2).ids().tolist()
    path.write_text("Seven eight nine.\n\nTen.")
    assert made(task, chosen, tokenizer, blocks=2).ids().tolist() != before


def test_text_repeats_and_a_corpus_of_some_tokens_has_them(task, arguments, tokenizer, made):
    chosen = dataclasses.replace(arguments, mix_ratio=0, corpus_tokens=100_001)
    blocks = made(task, chosen, tokenizer)
    assert len(blocks) == 100_001 // 32
    counts = blocks.counts()
    assert counts["documents/canonical"] > 2 * 300
    assert counts["documents/example"] == counts["tokens/synthetic_share"] == 0


def test_a_task_is_not_needed_for_natural_text(arguments, tokenizer, made):
    chosen = dataclasses.replace(arguments, mix_ratio=0)
    assert made(None, chosen, tokenizer, blocks=3).counts()["tokens/canonical"] == 96
    with pytest.raises(ValueError, match=r"task: got none and mix_ratio=0.3"):
        made(None, arguments, tokenizer, blocks=3)


def test_text_is_not_needed_for_the_language_alone(task, tokenizer, made):
    alone = CorpusArguments(mix_ratio=1, block_size=32)
    assert made(task, alone, tokenizer, blocks=3).counts()["tokens/example"] == 96
    with pytest.raises(ValueError, match=r"canonical: got none and mix_ratio=0\.5"):
        made(task, dataclasses.replace(alone, mix_ratio=0.5), tokenizer, blocks=3)
    with pytest.raises(ValueError, match="canonical: got none"):
        held_out_blocks(alone, tokenizer)


def test_training_goes_on_with_the_blocks_that_were_next(task, arguments, tokenizer, made, tmp_path):
    """Stopped after 4 of 8 steps, batches and weights are those of a run that was not."""
    blocks, seen = made(task, arguments, tokenizer, blocks=32), []

    def collated(batches):
        seen.append(only_batch(batches)["input_ids"].tolist())
        return only_batch(batches)

    def weights(folder: str, resume: str | None = None) -> list[float]:
        seen.clear()
        args = TrainingArguments(
            str(tmp_path / folder),
            max_steps=8,
            save_steps=4,
            per_device_train_batch_size=4,
            train_sampling_strategy="sequential",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(new_gpt_neox(tokenizer, TINY), args, data_collator=collated, train_dataset=blocks)
        with without_weight_conversions(trainer.model):
            trainer.train(resume_from_checkpoint=resume)
        return [float(value.detach().double().sum()) for value in trainer.model.parameters()]

    whole = weights("whole")
    assert seen == [blocks.ids()[start : start + 4].tolist() for start in range(0, 32, 4)]
    assert weights("resumed", str(tmp_path / "whole" / "checkpoint-4")) == whole
    assert seen == [blocks.ids()[start : start + 4].tolist() for start in range(16, 32, 4)]


# Held-out text


def test_held_out_documents_and_the_others_are_all(arguments, prose):
    every = canonical_text(prose).read(1_000)["text"].to_pylist()
    training = training_text(arguments, seed=5, repeat=False).read(1_000)["text"].to_pylist()
    held_out = held_out_text(arguments).read(1_000)["text"].to_pylist()
    assert sorted(training + held_out) == sorted(every)
    assert 10 < len(held_out) < 60
    more = held_out_text(dataclasses.replace(arguments, canonical_eval="0.5")).read(1_000)["text"].to_pylist()
    assert set(held_out) < set(more)


def test_equal_documents_fall_on_one_side(arguments, tmp_path):
    path = tmp_path / "twice.txt"
    path.write_text("\n\n".join(f"Paragraph {number % 50}." for number in range(100)))
    chosen = dataclasses.replace(arguments, canonical=str(path), canonical_eval="0.4")
    sides = [training_text(chosen, seed=0, repeat=False), held_out_text(chosen)]
    training, held_out = (set(side.read(200)["text"].to_pylist()) for side in sides)
    assert training
    assert held_out
    assert not training & held_out


def test_a_part_of_text_is_resumed_in_the_middle(arguments):
    stream = training_text(arguments, seed=1)
    stream.read(700)
    other = training_text(arguments, seed=1)
    other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert other.read(900).equals(stream.read(900))


def test_held_out_blocks_are_the_first_tokens_of_that_text(arguments, tokenizer, prose, tmp_path):
    end = [tokenizer.eos_token_id]
    texts = held_out_text(arguments).read(100)["text"].to_pylist()
    flat = [number for text in texts for number in [*tokenizer(text, add_special_tokens=False).input_ids, *end]]
    assert held_out_blocks(arguments, tokenizer).ids().ravel().tolist() == flat[:640]
    with pytest.raises(ValueError, match=r"canonical_eval: got .*in common with canonical"):
        held_out_blocks(dataclasses.replace(arguments, canonical_eval=str(prose)), tokenizer)
    apart = tmp_path / "apart.txt"
    apart.write_text(prose.read_text())
    other = dataclasses.replace(arguments, canonical_eval=str(apart), canonical_eval_tokens=10**6)
    total = sum(
        len(ids) + 1
        for ids in tokenizer(canonical_text(prose).read(500)["text"].to_pylist(), add_special_tokens=False)[
            "input_ids"
        ]
    )
    assert len(held_out_blocks(other, tokenizer)) == total // 32


def test_a_file_of_its_own_is_held_out_and_all_else_is_trained_on(arguments, prose):
    chosen = dataclasses.replace(arguments, canonical_eval="elsewhere.txt")
    assert training_text(chosen, seed=0, repeat=False).read(1_000).num_rows == 300


def test_too_little_held_out_text_is_an_error(arguments, tokenizer, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Three words only.")
    with pytest.raises(ValueError, match="which is less than one block of 32 tokens"):
        held_out_blocks(dataclasses.replace(arguments, canonical_eval=str(path)), tokenizer)


def test_a_share_that_leaves_nothing_to_train_on_is_an_error(task, arguments, tokenizer, made, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_MOST_EMPTY_BLOCKS", 3)
    path = tmp_path / "one.txt"
    path.write_text("One paragraph.")
    chosen = dataclasses.replace(arguments, canonical=str(path), canonical_eval="0.999999")
    with pytest.raises(ValueError, match="none of 3,000 documents in a row"):
        made(task, chosen, tokenizer, blocks=3)


def test_text_that_cannot_be_read_is_an_error(task, arguments, tokenizer, made, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "Two.\n{"text": 3}\n')  # single broken lines are left out and kept
    with pytest.raises(ValueError, match=r"canonical text: .*broken.jsonl cannot be read"):
        made(task, dataclasses.replace(arguments, canonical=str(broken)), tokenizer, blocks=3)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"fine\n\n\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"binary.txt cannot be read"):
        made(task, dataclasses.replace(arguments, canonical=str(binary)), tokenizer, blocks=3)
    with pytest.raises(ValueError, match=r"canonical text: got '.*missing/file.txt', which is no file or folder here"):
        made(task, dataclasses.replace(arguments, canonical="/missing/file.txt"), tokenizer, blocks=3)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "One."}\n')
    with pytest.raises(ValueError, match="text_column"):
        made(task, dataclasses.replace(arguments, canonical=str(rows)), tokenizer, blocks=3)


# Tokenizer and model


def test_the_tokenizer_knows_text_and_language_and_is_one_for_all_arms(task, arguments, tokenizer):
    baseline = dataclasses.replace(arguments, mix_ratio=0, explanation_ratio=0.5)
    same = corpus_tokenizer(task, baseline, vocab_size=420)
    assert same.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    text = "<tivari> XAQ ZIV BEK </tivari>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(tokenizer.tokenize(text)) < len(text) / 2


def test_the_tokenizer_of_a_checkpoint_is_its_own(task, arguments, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    result = corpus_tokenizer(task, arguments, pretrained=AutoTokenizer.from_pretrained(tmp_path / "checkpoint"))
    assert result.get_vocab() == tokenizer.get_vocab()


def test_the_tokenizer_of_a_task_cannot_spell_text(task, arguments, tmp_path):
    sort = build_tokenizer(get_task("sort"))
    sort.save_pretrained(tmp_path / "strict")
    sort.backend_tokenizer.model.unk_token = "<pad>"
    sort.unk_token = "<pad>"
    sort.save_pretrained(tmp_path / "lenient")
    for name in ("strict", "lenient"):
        (tmp_path / name / "config.json").write_text("{}")
        with pytest.raises(
            ValueError, match=r"tokenizer: got one that cannot spell '.*wanted that of a model of text"
        ):
            corpus_tokenizer(task, arguments, pretrained=AutoTokenizer.from_pretrained(tmp_path / name))


@pytest.mark.parametrize("content", ["", " \n\n\t\n"])
def test_blank_text_is_named(content, task, arguments, tokenizer, tmp_path):
    path = tmp_path / "blank.txt"
    path.write_text(content)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    blank = dataclasses.replace(arguments, canonical=str(path))
    for checkpoint in (None, str(tmp_path)):
        with pytest.raises(ValueError, match=r"canonical: got '.*blank\.txt', which has no text to train on"):
            corpus_tokenizer(task, blank, pretrained=checkpoint and AutoTokenizer.from_pretrained(checkpoint))


def test_files_of_either_kind_of_names_load(tokenizer, model, tmp_path):
    model.save_pretrained(tmp_path / "old")
    with without_weight_conversions(model):
        model.save_pretrained(tmp_path / "own")
    assert not hasattr(model, "_weight_conversions")
    names = [set(load_file(tmp_path / kind / "model.safetensors")) for kind in ("old", "own")]
    assert names[0] ^ names[1] == {"embed_out.weight", "lm_head.weight"}
    for kind in ("old", "own"):
        again = GPTNeoXForCausalLM.from_pretrained(tmp_path / kind)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_vocabulary_larger_than_the_models_is_an_error(task, tokenizer):
    small = new_gpt_neox(tokenizer, {**TINY, "vocab_size": len(tokenizer) - 1})
    with pytest.raises(ValueError, match=f"ids go up to {len(tokenizer) - 1}.*vocabulary has {len(tokenizer) - 1}"):
        language_scores(Measured(small, tokenizer), task)
    check_vocabulary(new_gpt_neox(tokenizer, {**TINY, "vocab_size": len(tokenizer) + 5}), tokenizer)


# Scores


@torch.no_grad()
def alone(model, ids) -> list[float]:
    """Ln P of each token after the first, one sequence by itself."""
    model.eval()
    logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [float(logits[at - 1, number]) for at, number in enumerate(ids) if at]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batched_log_probs_are_those_of_each_sequence_alone(model, batch_size):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 300, length).tolist() for length in (2, 17, 5, 5, 40, 3)]
    result = token_log_probs(model, sequences, batch_size=batch_size)
    for values, ids in zip(result, sequences, strict=True):
        assert values == pytest.approx(alone(model, ids), abs=2e-5)


def test_scores_of_strings_are_those_of_each_alone(model, task, tokenizer):
    """Perplexities, the floor and the completion tests of a byte-level tokenizer, one string at a time."""
    result = language_scores(Measured(model, tokenizer, 5), task, rows=12, samples=4)
    end = tokenizer.eos_token_id
    strings = labelled_strings(task, task.rows(0, 12, split="test"), 0, "test")

    def of(text: str) -> list[float]:
        return alone(model, [end, *tokenizer(text, add_special_tokens=False).input_ids, end])

    scored = {text: of(text) for text in set(strings.texts)}
    for wanted, kind in ((True, "valid"), (False, "invalid")):
        chosen = [scored[text] for text, valid in zip(strings.texts, strings.valid, strict=True) if valid == wanted]
        loss = -sum(map(sum, chosen)) / sum(map(len, chosen))
        assert result[f"perplexity/{kind}"] == pytest.approx(math.exp(loss), rel=1e-4)
    kept = [
        scored[text]
        for text, kind in zip(strings.texts, strings.kinds, strict=True)
        if kind not in ("valid", "missing_middle")
    ]
    assert result["perplexity/same_length/invalid"] == pytest.approx(
        math.exp(-sum(map(sum, kept)) / sum(map(len, kept))), rel=1e-4
    )
    opening = len(tokenizer("<tivari>", add_special_tokens=False).input_ids)
    loss = -np.mean([sum(scored[text][opening:]) for text in strings.texts[:12]])
    assert result["string/loss"] == pytest.approx(loss, rel=1e-4)
    for point in task.decision_points():
        chances = {}
        start = [end, *tokenizer(point.prefix, add_special_tokens=False).input_ids]
        for word in (*point.valid, *point.invalid):
            ids = [*start, *tokenizer(f" {word}", add_special_tokens=False).input_ids]
            chances[word] = math.exp(sum(alone(model, ids)[len(start) - 1 :]))
        share = sum(chances[word] for word in point.valid) / sum(chances.values())
        assert result[f"completion/{point.name}/p_valid"] == pytest.approx(share, rel=1e-4)


class Perfect(GPTNeoXForCausalLM):
    """The best predictor of a task whose rows are `<bos> ... <eos>`, by the task's own floor; `blind`: uniform."""

    task, blind = None, False

    def forward(self, input_ids=None, past_key_values=None, **given):
        vocabulary = self.config.vocab_size
        logits = torch.full((*input_ids.shape, vocabulary), -30.0)
        if self.blind:
            return CausalLMOutput(logits=logits)
        for row, ids in enumerate(input_ids.tolist()):
            for at in range(len(ids)):
                logits[row, at] = self.next_token(tuple(ids[1 : at + 1]))
        return CausalLMOutput(logits=logits)

    def next_token(self, prefix):
        """Ln P of each next token, the share of all rows that go on with it."""
        following = [
            row[len(prefix)] for row in self.language if row[: len(prefix)] == prefix and len(row) > len(prefix)
        ]
        result = torch.full((self.config.vocab_size,), -30.0)
        for number in set(following):
            result[number] = math.log(following.count(number) / len(following))
        return result

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **given):
        return {"input_ids": input_ids}


@pytest.fixture(scope="module")
def language():
    """The ten strings of start_mid_end, a perfect model of them, a uniform one, and the language's own tokenizer."""
    task = get_task("start_mid_end")
    own = build_tokenizer(task)
    config = new_gpt_neox(own, TINY).config
    perfect, blind = Perfect(config), Perfect(config)
    rows = task.rows(0, 400)
    perfect.language = sorted(
        {tuple(ids[1:length]) for ids, length in zip(rows.tokens.tolist(), rows.lengths.tolist(), strict=True)}
    )
    blind.blind = True
    assert len(perfect.language) == 10
    return task, own, perfect, blind


def test_every_measure_tells_a_perfect_model_from_a_blind_one(language):
    task, own, perfect, blind = language
    options = {"rows": 60, "samples": 40, "trained": 100}
    good, bad = (language_scores(Measured(model, own, 64), task, **options) for model in (perfect, blind))
    assert good["perplexity/valid"] < bad["perplexity/valid"] == pytest.approx(len(own))
    assert good["perplexity/ratio"] > 10
    assert bad["perplexity/ratio"] == pytest.approx(1)
    assert bad["perplexity/gap"] == pytest.approx(0, abs=1e-4)
    assert good["perplexity/same_length/ratio"] > 10
    assert good["auroc"] == good["auroc/same_length"] == 1
    assert bad["auroc"] == pytest.approx(0.5, abs=1e-3)
    assert good["completion"] == good["completion/strict"] == 1
    assert bad["completion/after start/p_valid"] == pytest.approx(1 / 3)
    assert good["validity"] == good["in_training"] == 1
    assert good["valid_and_new"] == 0
    assert bad["validity"] < 0.1
    assert good["excess"] == pytest.approx(0, abs=1e-6)
    assert good["string/excess"] == pytest.approx(0, abs=1e-6)
    assert good["string/floor"] == pytest.approx(
        -task.optimal_log_probs(task.rows(0, 60, split="test")).sum(axis=1).mean()
    )
    assert bad["excess"] == pytest.approx(math.log(len(own)) - bad["floor"], rel=1e-5)
    assert good["coverage"] == pytest.approx(good["distinct"] * 40 / 10)
    assert good["coverage"] > 0.8 > bad["coverage"]
    assert good["coverage/of_rows"] > 0.8


def test_samples_follow_the_model_and_nothing_outside(model, task, tokenizer):
    """Cut at the closing delimiter, the same for a seed, and random state as it was."""
    options = {"closing": "e", "start_token_id": tokenizer.eos_token_id, "max_new_tokens": 12}
    torch.manual_seed(4)
    before = torch.get_rng_state()
    model.train()
    one, same, other = (
        sample_strings(Measured(model, tokenizer, 7), ["<tivari>"] * 20, **options, seed=seed) for seed in (0, 0, 1)
    )
    assert model.training
    model.eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert one == same != other
    finished = [text for text in one if text is not None]
    assert 0 < len(finished) < 20
    assert all(text.startswith("<tivari>") and text.count("e") == 1 and text.endswith("e") for text in finished)


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_samples_come_from_the_likeliest_tokens_alone(model, tokenizer, top_p):
    """Of the smallest set of them that has the probability `top_p`, each as often as the model says."""
    prompt = tokenizer("<tivari>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        chances = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).tolist()
    kept, total = [], 0.0
    for token in sorted(range(len(chances)), key=lambda token: -chances[token]):
        if total < top_p:
            kept.append(token)
            total += chances[token]
    assert (len(kept) == len(chances)) == (top_p == 1)
    draws = 20_000
    measured = Measured(model, tokenizer, 5_000, top_p)
    written = Counter(token for [token] in write_completions(measured, [prompt] * draws, [1] * draws, ends=[], seed=0))
    assert written.keys() <= set(kept)
    for token in kept:
        share = chances[token] / total
        assert abs(written[token] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5 + 1 / draws


def test_a_string_without_a_delimiter_is_finished_by_the_end_token(language):
    task, own, perfect, _ = language
    options = {"closing": None, "start_token_id": own.bos_token_id, "seed": 1}
    assert sample_strings(Measured(perfect, own), ["START"] * 5, max_new_tokens=1, **options) == [None] * 5
    strings, likeliest = (
        sample_strings(Measured(perfect, own, top_p=top_p), ["START"] * 30, max_new_tokens=20, **options)
        for top_p in (1.0, 0.001)
    )
    assert all(task.verify("", text) == 1 for text in [*strings, *likeliest])
    assert len(set(likeliest)) == 1 < len(set(strings))


def test_labelled_strings_are_what_they_say(task):
    result = labelled_strings(get_task("tivari3"), get_task("tivari3").rows(0, 30, split="test"), 0, "test")
    verify = get_task("tivari3").verify
    assert [verify("", text) for text in result.texts] == result.valid.astype(float).tolist()
    assert result.words.tolist() == [len(text.split()) + 2 for text in result.texts]


def test_a_task_that_is_not_a_formal_language_is_an_error(model, tokenizer):
    with pytest.raises(ValueError, match="task sort is not a formal language"):
        language_scores(Measured(model, tokenizer), get_task("sort", "8"))


def test_blocks_are_of_what_a_file_holds(tmp_path):
    """Whatever its size and its time say."""
    path = tmp_path / "a.txt"
    path.write_text("one")
    arguments = CorpusArguments(canonical=str(path), block_size=2)
    before, times = source_files(arguments), path.stat()
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source_files(arguments).keys() == before.keys() == {str(path)}
    assert source_files(arguments) != before
