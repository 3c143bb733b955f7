"""What PretrainingTrainer leaves out of a step changes no result: against the stock Trainer, bit by bit."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainingArguments, set_seed

import hf_synth
from hf_synth.models import RLMTransformerConfig, RLMTransformerForCausalLM
from hf_synth.online import OnlineRows, only_batch
from hf_synth.training.pretraining_data import ScheduleArguments
from hf_synth.training.pretraining_trainer import PretrainingTrainer, cache_missing_import

STEPS = 12
TASK = hf_synth.get_task("sort", "8", length=3, vocab_size=8)
ARGUMENTS = {
    "adamw, clipped": {"learning_rate": 1e-2, "max_grad_norm": 0.1},
    "sgd, not clipped": {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 1e-1, "max_grad_norm": 0.0},
}


def new_model(kind: str) -> PreTrainedModel:
    """A model of two layers; GPT-2 has its dropout, which shows whether random numbers are drawn alike."""
    set_seed(0)
    shape = {"vocab_size": len(TASK.vocabulary()) + 4, "use_cache": False}
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=16, **shape))
        model.loss_type = "ForCausalLM"
        return model
    return RLMTransformerForCausalLM(RLMTransformerConfig(hidden_size=16, num_hidden_layers=2, **shape))


def trained(stock: bool, kind: str, folder: Path, **arguments: Any) -> Trainer:
    """A trainer after its run."""
    args = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        logging_steps=3,
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        **arguments,
    )
    rows = OnlineRows(TASK)
    if stock:
        trainer = Trainer(new_model(kind), args, train_dataset=rows, data_collator=only_batch)
    else:
        trainer = PretrainingTrainer(
            new_model(kind),
            args,
            train_dataset=rows,
            eval_dataset={},
            schedule=ScheduleArguments(),
            epoch_steps=STEPS,
        )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["gpt2", "rlm"])
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_the_weights_and_the_log_are_those_of_the_stock_trainer(
    kind: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    ours, stock = (trained(stock, kind, tmp_path, **arguments) for stock in (False, True))
    start, expected = new_model(kind).state_dict(), stock.model.state_dict()
    assert any(not torch.equal(start[name], expected[name]) for name in expected)
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name in ("loss", "grad_norm", "learning_rate"):
        outcome, wanted = (
            [entry[name] for entry in each.state.log_history if name in entry] for each in (ours, stock)
        )
        assert outcome == wanted
        assert len(outcome) == STEPS // 3
    assert ours.state.total_flos == stock.state.total_flos > 0


def test_sgd_takes_one_kernel(tmp_path: Path) -> None:
    trainer = trained(False, "rlm", tmp_path, **ARGUMENTS["sgd, not clipped"])
    assert all(group["fused"] for group in trainer.optimizer.param_groups)


def test_a_missing_package_is_remembered_for_a_while() -> None:
    name = "no_package_of_this_name"
    with cache_missing_import(name):
        assert name in sys.modules
        assert importlib.util.find_spec(name) is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert name not in sys.modules


def test_a_package_that_is_there_stays_importable() -> None:
    with cache_missing_import("colorsys"):
        assert importlib.util.find_spec("colorsys") is not None
        assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
