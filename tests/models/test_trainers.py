"""Every model inside Trainer, TRL's trainers and PEFT: one step each, with a value that is known beforehand."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments


def test_gradient_accumulation_is_exact(family, tiny, tmp_path):
    ids = tiny.tokens(4, 8)
    labels = ids.masked_fill(torch.arange(8) < torch.tensor([[1], [6], [3], [7]]), -100)  # 7, 2, 5 and 1 targets
    rows = [{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)]
    whole = tiny.trained_weights(family.model(), tmp_path, rows)
    for batch in (2, 1):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 4 // batch}
        parts = tiny.trained_weights(family.model(), tmp_path, rows, **sizes)
        for name, weight in whole.items():
            torch.testing.assert_close(parts[name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_trainer_evaluates_with_logits(family, tiny, tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in tiny.tokens(4, 8).tolist()]
    args = tiny.arguments(TrainingArguments, tmp_path, per_device_eval_batch_size=2)
    trainer = Trainer(
        model=family.model(), args=args, eval_dataset=rows, compute_metrics=lambda p: {"n": p[0].shape[0]}
    )
    measured = trainer.evaluate()
    wanted = tiny.dense_loss(family.model(), tiny.tokens(4, 8), None, tiny.tokens(4, 8))
    assert measured["eval_n"] == 4
    assert measured["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_lora_trains_its_adapter_alone(family, tiny, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    ids = tiny.tokens(4, 8)
    rows = [{"input_ids": row, "labels": row} for row in ids]
    model = get_peft_model(family.model(), LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    after = tiny.trained_weights(model, tmp_path, rows)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_B" in name}  # A moves from the second step on: B starts at 0
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(family.model(), tmp_path / "adapter").merge_and_unload()
    torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits, atol=1e-5, rtol=1e-5)


def test_sft_trainer_steps(family, tiny, tmp_path):
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>", "completion": " 2 1 <eos>"}] * 4)
    model = family.model()
    args = tiny.arguments(SFTConfig, tmp_path, max_length=16, eval_strategy="steps", eval_steps=1)
    trainer = SFTTrainer(model, args=args, train_dataset=rows, eval_dataset=rows, processing_class=tiny.tokenizer())
    ids = torch.tensor([[1, 5, 6, 3, 6, 5, 2]])
    wanted = tiny.dense_loss(model, ids, None, ids.masked_fill(torch.arange(7) < 4, -100)).item()
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["loss"] == pytest.approx(wanted, rel=1e-4)
    assert {"mean_token_accuracy", "entropy", "eval_loss"} <= set(logged)


def test_dpo_trainer_steps(family, tiny, tmp_path):
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>", "chosen": " 2 1 <eos>", "rejected": " 3 <eos>"}] * 4)
    args = tiny.arguments(DPOConfig, tmp_path, max_length=16)
    trainer = DPOTrainer(
        family.model(),
        ref_model=family.model(),
        args=args,
        train_dataset=rows,
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)


def test_grpo_trainer_steps(family, tiny, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    rows = Dataset.from_list([{"prompt": "<bos> 1 2 <sep>"}, {"prompt": "<bos> 1 2 3 4 <sep>"}] * 2)
    args = tiny.arguments(GRPOConfig, tmp_path, num_generations=4, max_completion_length=6, learning_rate=0.1)
    model = family.model()
    before = model.lm_head.weight.detach().clone()
    trainer = GRPOTrainer(
        model,
        args=args,
        train_dataset=rows,
        processing_class=tiny.tokenizer(),
        reward_funcs=lambda completions, **columns: [float(len(set(text.split()))) for text in completions],
    )
    trainer.train()
    assert not torch.equal(before, model.lm_head.weight)
