"""What the real trainers make of the pairs and the chat template: ids and masks, from their own preprocessing."""

import pytest
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template, is_chat_template_stop_token_trained

from hf_synth.preferences import message_texts, read_preferences, train_bpe_tokenizer

OPTIONS = {"report_to": [], "use_cpu": True, "per_device_train_batch_size": 2, "max_steps": 1, "disable_tqdm": True}
OPTIONS |= {"save_strategy": "no", "bf16": False}
TURNS = "\n\nHuman: Who sat on the {}?\n\nAssistant: The cat did.\n\nHuman: Are you sure?\n\nAssistant: "


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    rows = [
        {"chosen": (TURNS + "Yes.").format(place), "rejected": (TURNS + "No!").format(place)}
        for place in ("mat", "sofa")
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    Dataset.from_list(rows).to_parquet(path)
    return read_preferences(path).dataset


@pytest.fixture(scope="module")
def tokenizer(pairs):
    return train_bpe_tokenizer(message_texts(pairs), vocab_size=300)


@pytest.fixture
def config(tokenizer):
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def words(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def prompt_text(place):
    return f"<bos><user>Who sat on the {place}?<assistant>The cat did.<eos><user>Are you sure?<assistant>"


def test_trl_takes_the_template_as_it_is(tokenizer):
    assert get_training_chat_template(tokenizer) is None
    assert is_chat_template_stop_token_trained(tokenizer)


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, "Yes.<eos>"),  # prompt and completion: loss on the completion alone
        ({"completion_only_loss": False, "assistant_only_loss": True}, "The cat did.<eos>Yes.<eos>"),
    ],
)
def test_sft(pairs, tokenizer, config, tmp_path, options, trained):
    dataset = pairs.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    trainer = SFTTrainer(
        LlamaForCausalLM(config),
        args=SFTConfig(output_dir=str(tmp_path), **OPTIONS, **options),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    assert words(tokenizer, ids) == prompt_text("mat") + "Yes.<eos>"
    assert words(tokenizer, ids[labels != -100]) == trained
    trainer.train()


def test_reward(pairs, tokenizer, config, tmp_path):
    config.num_labels = 1
    trainer = RewardTrainer(
        LlamaForSequenceClassification(config),
        args=RewardConfig(output_dir=str(tmp_path), **OPTIONS),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[1]
    assert words(tokenizer, row["chosen_ids"]) == prompt_text("sofa") + "Yes.<eos>"
    assert words(tokenizer, row["rejected_ids"]) == prompt_text("sofa") + "No!<eos>"
    trainer.train()


def test_dpo(pairs, tokenizer, config, tmp_path):
    trainer = DPOTrainer(
        LlamaForCausalLM(config),
        ref_model=LlamaForCausalLM(config),
        args=DPOConfig(output_dir=str(tmp_path), **OPTIONS),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    assert words(tokenizer, row["prompt_ids"]) == prompt_text("mat")
    assert words(tokenizer, row["chosen_ids"]) == "Yes.<eos>"
    assert words(tokenizer, row["rejected_ids"]) == "No!<eos>"
    trainer.train()


def test_grpo(pairs, tokenizer, config, tmp_path):
    seen = []

    def reward(prompts, completions, prompt_id, **columns):
        seen.extend(zip(prompts, completions, prompt_id, strict=True))
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = GRPOTrainer(
        LlamaForCausalLM(config),
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(tmp_path), num_generations=2, max_completion_length=4, **OPTIONS),
        train_dataset=pairs.select_columns(["prompt", "prompt_id"]),
        processing_class=tokenizer,
    )
    prompt_ids = trainer._tokenize_prompts(list(pairs["prompt"]))[0]
    assert [words(tokenizer, ids) for ids in prompt_ids] == [prompt_text("mat"), prompt_text("sofa")]
    trainer.train()
    rows = {row["prompt_id"]: row["prompt"] for row in pairs}
    assert len(seen) == 2
    for prompt, completion, identity in seen:
        assert prompt == rows[identity]
        assert [message["role"] for message in completion] == ["assistant"]
