"""Small models trained until they stop improving end just above each task's exact floor, and never below it.

`make nightly` runs it, and writes what it saw to docs/floors.md. The floor and the model's loss are taken on the same
rows, so that their difference is far less noisy than either.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, set_seed

from hf_synth import build_tokenizer, get_task, list_tasks
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.tasks import Task

ROOT = Path(__file__).parents[2]
MOST_ABOVE = 0.02  # as a share of the floor
TEST_ROWS = 8_192


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained on, and by how large a model."""

    config: dict = dataclasses.field(default_factory=dict)
    hidden_size: int = 64
    layers: int = 2
    learning_rate: float = 2e-3
    most_steps: int = 12_000


CASES = {
    "agreement": Case(),
    "color_shape": Case(),
    "dyck": Case({"k": 2, "length": 16}),
    "dyck_shuffle": Case({"k": 2, "length": 16}),
    "eca": Case({"width": 8, "steps": 3}, layers=3),
    "palindrome": Case(layers=3),
    "rlm": Case({"vocab_size": 8, "depth": 2, "loss": "all"}),
    "start_mid_end": Case(),
    "tivari": Case(),
    "tivari3": Case({"max_half": 4}, layers=3),
}


class FreshRows(Dataset):
    """Rows made as they are asked for, a whole batch a call."""

    def __init__(self, task: Task, split: str, size: int) -> None:
        self.task, self.split, self.size = task, split, size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: list[int]) -> list[dict]:
        rows = self.task.rows(indices[0], indices[-1] - indices[0] + 1, split=self.split)
        tokens = torch.from_numpy(rows.tokens).long()
        labels = torch.where(torch.from_numpy(rows.loss_mask), tokens, -100)
        return [{"input_ids": tokens, "labels": labels, "attention_mask": (tokens != 0).long()}]


def train(task: Task, case: Case, folder: Path) -> tuple[RopeGPTForCausalLM, int]:
    """The best model of a run that went on until no smaller learning rate brought an improvement, and its steps."""
    set_seed(0)
    config = RopeGPTConfig(
        vocab_size=len(build_tokenizer(task)), hidden_size=case.hidden_size, num_hidden_layers=case.layers,
        num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    args = TrainingArguments(
        str(folder), max_steps=case.most_steps, per_device_train_batch_size=256, per_device_eval_batch_size=2_048,
        learning_rate=case.learning_rate, weight_decay=0.0, adam_beta2=0.99, warmup_steps=100,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"factor": 0.3, "patience": 0, "threshold": 1e-3, "min_lr": 3e-3 * case.learning_rate},
        eval_strategy="steps", eval_steps=200, save_steps=200, save_total_limit=1, load_best_model_at_end=True,
        metric_for_best_model="eval_loss", greater_is_better=False, train_sampling_strategy="sequential",
        remove_unused_columns=False, prediction_loss_only=True, use_cpu=True, report_to="none", disable_tqdm=True,
        logging_steps=200, seed=0,
    )  # fmt: skip
    trainer = Trainer(
        RopeGPTForCausalLM(config), args, data_collator=lambda batches: batches[0],
        train_dataset=FreshRows(task, "train", 2**40), eval_dataset=FreshRows(task, "validation", 8_192),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=6, early_stopping_threshold=1e-5)],
    )  # fmt: skip
    trainer.train()
    return trainer.model, trainer.state.global_step


def losses(model: RopeGPTForCausalLM, task: Task) -> tuple[np.ndarray, np.ndarray, int]:
    """Of each test row the model's loss and the floor, in nats [rows], and how many tokens carry loss in all."""
    rows = task.rows(0, TEST_ROWS, split="test")
    tokens = torch.from_numpy(rows.tokens).long()
    found = []
    with torch.inference_mode():
        for part in tokens.split(1_024):
            logits = model(input_ids=part, attention_mask=(part != 0).long()).logits[:, :-1].double()
            found.append(logits.log_softmax(-1).gather(-1, part[:, 1:, None])[..., 0])
    loss = -np.where(rows.loss_mask[:, 1:], torch.cat(found).numpy(), 0.0).sum(axis=1)
    floor = -np.where(rows.loss_mask, task.optimal_log_probs(rows), 0.0).sum(axis=1)
    return loss, floor, int(rows.loss_mask.sum())


@pytest.fixture(scope="module")
def page():
    """The lines of docs/floors.md, written when all cases are through."""
    lines: dict[str, str] = {}
    yield lines
    if set(lines) == set(CASES):
        head = (ROOT / "tests" / "stress" / "floors_head.md").read_text(encoding="utf-8")
        (ROOT / "docs" / "floors.md").write_text(head + "".join(lines[name] for name in sorted(lines)), "utf-8")


@pytest.mark.nightly
@pytest.mark.parametrize("name", CASES)
def test_trained_model_ends_just_above_the_floor(name, page, tmp_path):
    case = CASES[name]
    task = get_task(name, **case.config)
    start = time.perf_counter()
    model, steps = train(task, case, tmp_path)
    loss, floor, tokens = losses(model, task)
    above = (loss - floor).sum() / floor.sum()
    error = (loss - floor).std() * TEST_ROWS**0.5 / floor.sum()
    page[name] = (
        f"| {name} {json.dumps(case.config) if case.config else ''} | {floor.sum() / tokens:.4f} "
        f"| {loss.sum() / tokens:.4f} | {100 * above:+.2f} ± {100 * error:.2f} % | {steps:,} "
        f"| {time.perf_counter() - start:.0f} |\n"
    )
    print(page[name], end="")
    assert above <= MOST_ABOVE
    assert above >= -3 * error


def test_every_task_whose_rows_cannot_be_predicted_is_trained():
    tasks = [get_task(name) for name in list_tasks()]
    uncertain = {task.name for task in tasks if task.optimal_log_probs(task.rows(0, 20)).min() < 0}
    assert uncertain == set(CASES)
