"""Tokenizers: the ids that trainers make of a task's views are its rows; and text, against joins in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from hf_synth import build_tokenizer, get_task, list_tasks, load_dataset
from hf_synth.rng import RowRandom
from hf_synth.tasks import Rows, Task, task_class
from hf_synth.tokenization import all_words, render
from hf_synth.views import with_prompts

ROWS = 12
EOS = 2
SPECIAL = ["<pad>", "<bos>", "<eos>", "<sep>"]

# Of the presets by which the reference experiments are run, those that are short.
SHORT = dict.fromkeys(("sort", "reverse", "identity", "set", "union", "delete", "stack"), "8")
TRAINED = [(name, SHORT.get(name)) for name in list_tasks() if task_class(name).verifiable]


@pytest.fixture(params=TRAINED, ids=lambda case: case[0])
def task(request) -> Task:
    return get_task(*request.param)


@pytest.fixture(scope="module", params=list_tasks())
def any_task(request) -> Task:
    return get_task(request.param)


@pytest.fixture
def cut(task) -> Rows:
    """The rows of a task with the prompts that its views have."""
    return with_prompts(task.rows(0, ROWS), random("prompt"))


@pytest.fixture
def wrong(task, cut) -> Rows:
    return task.corrupt(cut, random("corrupt"))


def random(purpose: str) -> RowRandom:
    return RowRandom(seed=0, split="train", purpose=purpose, index=np.arange(ROWS))


def ids(rows: Rows) -> list[list[int]]:
    return [tokens[:length] for tokens, length in zip(rows.tokens.tolist(), rows.lengths, strict=True)]


def ended(rows: list[list[int]]) -> list[list[int]]:
    """With the `<eos>` that TRL puts behind every completion, where a task's rows end without one."""
    return [row if row[-1] == EOS else [*row, EOS] for row in rows]


def heads(rows: Rows) -> list[list[int]]:
    return [tokens[:start] for tokens, start in zip(ids(rows), rows.loss_start, strict=True)]


def tails(rows: Rows) -> list[list[int]]:
    return [tokens[start:] for tokens, start in zip(ids(rows), rows.loss_start, strict=True)]


# What the trainers make of the views


@pytest.fixture
def prepare(task, tmp_path):
    """Build one of TRL's trainers on a view and give it back."""

    def build(trainer_class, config_class, view: str, **arguments):
        tokenizer = build_tokenizer(task)
        shape = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": len(tokenizer), "pad_token_id": 0}
        rewarding = trainer_class.__name__ == "RewardTrainer"
        model_class = GPT2ForSequenceClassification if rewarding else GPT2LMHeadModel
        config = GPT2Config(**shape, num_labels=1) if rewarding else GPT2Config(**shape)
        if trainer_class.__name__ == "DPOTrainer":
            arguments["ref_model"] = model_class(config)
        name, preset = next(pair for pair in TRAINED if pair[0] == task.name)
        return trainer_class(
            model=model_class(config),
            args=config_class(output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, disable_tqdm=True),
            train_dataset=load_dataset(name, preset, split="train", size=ROWS, view=view),
            processing_class=tokenizer,
            **arguments,
        )

    return build


def test_sft_trains_on_the_rows_with_loss_after_the_prompt(prepare, cut):
    from trl import SFTConfig, SFTTrainer

    made = prepare(SFTTrainer, SFTConfig, "prompt_completion").train_dataset
    assert made["input_ids"][:] == ended(ids(cut))
    labels = [[-100] * len(head) + tail for head, tail in zip(heads(cut), ended(tails(cut)), strict=True)]
    assert made["labels"][:] == labels


def test_sft_on_plain_text_trains_on_the_rows(prepare, task):
    from trl import SFTConfig, SFTTrainer

    made = prepare(SFTTrainer, SFTConfig, "text").train_dataset
    assert made["input_ids"][:] == ended(ids(task.rows(0, ROWS)))


def test_dpo_compares_the_rows_with_the_corrupted_rows(prepare, cut, wrong):
    from trl import DPOConfig, DPOTrainer

    made = prepare(DPOTrainer, DPOConfig, "preference").train_dataset
    assert made["prompt_ids"][:] == heads(cut)
    assert made["chosen_ids"][:] == ended(tails(cut))
    assert made["rejected_ids"][:] == ended(tails(wrong))


def test_reward_model_judges_the_rows_and_the_corrupted_rows(prepare, cut, wrong):
    from trl import RewardConfig, RewardTrainer

    made = prepare(RewardTrainer, RewardConfig, "preference").train_dataset
    assert made["chosen_ids"][:] == ended(ids(cut))
    assert made["rejected_ids"][:] == ended(ids(wrong))


def test_grpo_generates_from_the_prompts_of_the_rows(prepare, cut):
    from trl import GRPOConfig, GRPOTrainer

    trainer = prepare(
        GRPOTrainer, GRPOConfig, "prompt", reward_funcs=lambda completions, **_: [0.0] * len(completions)
    )
    result, *_ = trainer._tokenize_prompts(trainer.train_dataset["prompt"][:])
    assert result == heads(cut)


def test_completion_decoded_as_grpo_decodes_it_is_right(task, cut):
    tokenizer = build_tokenizer(task)
    prompts = load_dataset(task.name, split="train", size=ROWS, view="prompt", **vars(task.config))["prompt"]
    completions = tokenizer.batch_decode(tails(cut), skip_special_tokens=True)
    assert [task.verify(*pair) for pair in zip(prompts, completions, strict=True)] == [1.0] * ROWS


# The tokenizer itself


def test_special_tokens_have_the_first_ids_and_words_follow_in_order(any_task):
    tokenizer = build_tokenizer(any_task)
    words = [*SPECIAL, *any_task.vocabulary()]
    assert tokenizer.convert_tokens_to_ids(words) == list(range(len(words)))
    assert len(tokenizer) == len(words)
    assert set(tokenizer.all_special_tokens) == set(SPECIAL)


def test_bos_comes_before_every_text_and_eos_never(any_task):
    tokenizer = build_tokenizer(any_task)
    assert tokenizer("")["input_ids"] == [1]
    assert EOS not in tokenizer(" ".join(any_task.vocabulary()[:5]))["input_ids"]


def test_batches_are_padded_on_the_left(any_task):
    word = any_task.vocabulary()[0]
    batch = build_tokenizer(any_task)([word, f"{word} {word}"], padding=True)
    assert batch["input_ids"] == [[0, 1, 4], [1, 4, 4]]
    assert batch["attention_mask"] == [[0, 1, 1], [1, 1, 1]]
    assert set(batch) == {"input_ids", "attention_mask"}


@given(data=st.data())
def test_decoding_takes_encoding_back(any_task, data):
    words = data.draw(st.lists(st.sampled_from([*any_task.vocabulary(), "<sep>"]), max_size=20))
    tokenizer = build_tokenizer(any_task)
    assert tokenizer.decode(tokenizer(" ".join(words))["input_ids"]) == " ".join(["<bos>", *words])


def test_space_of_any_kind_and_number_separates_words():
    tokenizer = build_tokenizer(get_task("sort", "8"))
    assert tokenizer("  3\n1 \t 2 <sep>")["input_ids"] == [1, 7, 5, 6, 3]


@pytest.mark.parametrize(
    ("glued", "apart"),
    [
        ("<tivari3>FEP NUL", "<tivari3> FEP NUL"),
        ("GOR</tivari3>", "GOR </tivari3>"),
        ("GOR</tivari3><eos>", "GOR </tivari3> <eos>"),
        ("<tivari3></tivari3>", "<tivari3> </tivari3>"),
        ("GOR<sep>FEP", "GOR <sep> FEP"),
    ],
)
def test_tags_are_split_off_where_no_space_stands(glued, apart):
    tokenizer = build_tokenizer(get_task("tivari3"))
    assert tokenizer(glued)["input_ids"] == tokenizer(apart)["input_ids"]


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        *(("100", "100"), ("3x", "3x"), ("31 4 word", "word"), ("</x>", "</x>")),
        *((["3 1", "word<eos>"], "word"), ([["3", "word"]], "word")),
    ],
)
def test_unknown_word_is_named(texts, word):
    tokenizer = build_tokenizer(get_task("sort", "8"))
    with pytest.raises(ValueError, match=f"got the word '{word}'.* such as 0, 1, 2, .*, separated by") as caught:
        tokenizer(texts, is_split_into_words=isinstance(texts[0], list))
    assert "\n" not in str(caught.value)


def test_saved_tokenizer_is_the_library_s_own(tmp_path):
    built = build_tokenizer(get_task("sort", "8"))
    built.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is PreTrainedTokenizerFast
    assert type(loaded).__name__ == type(built).__name__, "cache keys have this name"
    assert loaded.get_vocab() == built.get_vocab()


def test_saved_tokenizer_loads_as_it_was(any_task, tmp_path):
    tokenizer = build_tokenizer(any_task)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = " ".join(["<sep>", *any_task.vocabulary()[:20]])
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded(["", text], padding=True)["input_ids"] == tokenizer(["", text], padding=True)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])
    assert loaded.special_tokens_map == tokenizer.special_tokens_map


def test_several_tasks_share_one_tokenizer_with_every_word_once():
    tasks = [get_task("sort", vocab_size=5), get_task("tivari3"), get_task("sort", vocab_size=9), get_task("tivari")]
    tokenizer = build_tokenizer(*tasks)
    words = {word for task in tasks for word in task.vocabulary()}
    assert set(tokenizer.get_vocab()) == {*SPECIAL, *words}
    assert sorted(tokenizer.get_vocab().values()) == list(range(4 + len(words)))


def test_first_task_of_several_keeps_its_ids():
    first = get_task("tivari3")
    alone, together = build_tokenizer(first), build_tokenizer(first, get_task("sort"), get_task("tivari"))
    assert {word: together.get_vocab()[word] for word in alone.get_vocab()} == alone.get_vocab()


def test_tokenizer_of_no_task_is_an_error():
    with pytest.raises(ValueError, match="got no task, wanted at least one"):
        build_tokenizer()


# Rendering


@given(data=st.data())
def test_render_equals_a_plain_join(data):
    words = data.draw(st.lists(st.text("abλ🙂", min_size=1, max_size=3), min_size=1, max_size=5))
    count, width = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6))
    lead = data.draw(st.sampled_from(["", " ", "é:"]))
    drawn = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=count * width, max_size=count * width))
    spans = [sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2))) for _ in range(count)]
    tokens = np.array(drawn, np.int32).reshape(count, width)
    start, stop = np.array(spans, np.int32).reshape(count, 2).T
    expected = [lead + " ".join(words[t] for t in row[a:b]) for row, (a, b) in zip(tokens, spans, strict=True)]
    assert render(tokens, start, stop, words, lead).to_pylist() == expected


def test_render_of_rows_equals_a_plain_join(any_task):
    rows = any_task.rows(0, 20)
    words = all_words(any_task)
    result = render(rows.tokens, np.zeros(20, np.int32), rows.lengths, words).to_pylist()
    assert result == [" ".join(words[token] for token in tokens) for tokens in ids(rows)]
