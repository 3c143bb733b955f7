"""The trainer of pretraining against plain loops: schedules, optimizers, exact means; and how long a run is."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainingArguments, default_data_collator

from hf_synth import build_tokenizer, get_task
from hf_synth.evaluation.scoring import score_rows
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.online import HeldRows, OnlineRows, batch_of
from hf_synth.training.checkpoints import train
from hf_synth.training.pretraining import over_evaluations
from hf_synth.training.pretraining_data import RowsArguments, ScheduleArguments, resolve_max_steps
from hf_synth.training.pretraining_trainer import PretrainingTrainer, cosine_factor, summary

TASK = get_task("tivari3")  # rows of several lengths
STEPS, BATCH, RATE = 4, 6, 0.05


def model():
    torch.manual_seed(0)
    config = RopeGPTConfig(
        vocab_size=4 + len(TASK.vocabulary()), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.1,
    )  # fmt: skip
    return RopeGPTForCausalLM(config)


def arguments(folder, **changes):
    settings = {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": RATE, "save_strategy": "no"}
    settings |= {"lr_scheduler_type": "constant", "max_grad_norm": 0.0, "logging_steps": 1, "disable_tqdm": True}
    settings |= {"use_cpu": True, "bf16": False, "report_to": "none"}
    return TrainingArguments(str(folder), **{**settings, **changes})


def trainer(folder, schedule=None, eval_sets=None, **changes):
    return PretrainingTrainer(
        model(), arguments(folder, **changes), train_dataset=OnlineRows(TASK), eval_dataset=eval_sets or {},
        schedule=schedule or ScheduleArguments(), epoch_steps=STEPS, processing_class=build_tokenizer(TASK),
    )  # fmt: skip


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


# Learning rates


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0), (1, 0.25), (4, 1), (8, 0.775), (12, 0.325), (10, 0.55), (16, 0.1), (17, 0.1), (1000, 0.1)],
)
def test_a_cosine_with_warm_up_and_a_floor(step, wanted):
    """The horizon 16 less the warm-up 4 is 12 steps; a third of a cosine is 3/4, two thirds 1/4 of the way."""
    factor = cosine_factor(step, warmup=4, horizon=16, floor=0.1)
    assert factor == pytest.approx(wanted)


def test_a_cosine_whose_horizon_lies_far_beyond_the_run(tmp_path):
    run = trainer(tmp_path, ScheduleArguments(decay_steps=262_144, decay_to=0.1), max_steps=6, warmup_steps=2)
    train(run)
    rates = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    far = [0.1 + 0.45 * (1 + math.cos(math.pi * done / 262_142)) for done in range(4)]
    assert rates == pytest.approx([0.0, RATE / 2, *(RATE * share for share in far)])
    assert rates[-1] > 0.999999 * RATE


def test_a_cosine_that_ends_before_the_run_or_with_it(tmp_path):
    for schedule, wanted in (
        (ScheduleArguments(decay_steps=2), [1, 0.5, 0, 0]),
        (ScheduleArguments(decay_to=0.5), [1, 0.5 + 0.25 * (1 + math.cos(math.pi / 4)), 0.75, None]),
    ):
        run = trainer(tmp_path, schedule)
        train(run)
        rates = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
        for rate, share in zip(rates, wanted, strict=True):
            assert share is None or rate == pytest.approx(RATE * share)


# Optimizers, against a loop of torch's own


def plain_weights(make, batches=1):
    """The weights after the steps of a loop; each step sums over `batches` and divides by its tokens."""
    plain = model()
    optimizer = make(plain)
    for step in range(STEPS):
        rows = batch_of(TASK.rows(step * BATCH * batches, BATCH * batches))
        logits = plain(rows["input_ids"]).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows["labels"][:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dict(plain.named_parameters())


def matrices_apart(plain, weight_decay):
    """Matrices decay; biases and norms do not."""
    groups = [[p for p in plain.parameters() if (p.ndim > 1) == whether] for whether in (True, False)]
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


CASES = {
    "adam, L2 on all": (
        {"optimizer": "adam", "weight_decay_on": "all"},
        {"weight_decay": 0.1},
        lambda plain: torch.optim.Adam(plain.parameters(), lr=RATE, weight_decay=0.1),
    ),
    "adam, L2 on matrices": (
        {"optimizer": "adam"},
        {"weight_decay": 0.1, "adam_beta2": 0.9, "adam_epsilon": 1e-6},
        lambda plain: torch.optim.Adam(matrices_apart(plain, 0.1), lr=RATE, betas=(0.9, 0.9), eps=1e-6),
    ),
    "adamw on all": (
        {"weight_decay_on": "all"},
        {"weight_decay": 0.1},
        lambda plain: torch.optim.AdamW(plain.parameters(), lr=RATE, weight_decay=0.1),
    ),
    "adamw on matrices": (
        {},
        {"weight_decay": 0.1},
        lambda plain: torch.optim.AdamW(matrices_apart(plain, 0.1), lr=RATE),
    ),
    "sgd with momentum": (
        {},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        lambda plain: torch.optim.SGD(plain.parameters(), lr=RATE, momentum=0.9),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_optimizer_against_a_plain_loop(case, tmp_path):
    schedule, settings, make = CASES[case]
    run = trainer(tmp_path, ScheduleArguments(**schedule), **settings)
    train(run)
    wanted = plain_weights(make)
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], atol=2e-5, rtol=1e-4)


def test_the_cases_are_not_all_one():
    """So that the test above can fail: each optimizer ends elsewhere."""
    ends = [torch.cat([p.flatten() for p in plain_weights(make).values()]) for *_, make in CASES.values()]
    for number, one in enumerate(ends):
        assert all((one - other).abs().max() > 1e-3 for other in ends[:number])


def test_gradients_of_several_batches_are_means_over_all_their_tokens(tmp_path):
    """Batches of rows of other lengths have other numbers of tokens."""
    run = trainer(tmp_path, optim="sgd", gradient_accumulation_steps=3)
    train(run)
    wanted = plain_weights(lambda plain: torch.optim.SGD(plain.parameters(), lr=RATE), batches=3)
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], atol=1e-6, rtol=1e-5)


# Looks


@pytest.mark.parametrize("batch_size", [3, 7, 64])
def test_a_look_gives_means_over_tokens_whatever_the_batches(batch_size, tmp_path):
    rows = TASK.rows(0, 20, split="validation")
    groups = np.where(rows.lengths > np.median(rows.lengths), "long", "short")
    assert set(groups) == {"long", "short"}
    held = HeldRows(rows, TASK.optimal_log_probs(rows), groups)
    run = trainer(tmp_path, eval_sets={"validation": held}, per_device_eval_batch_size=batch_size)
    result = run.evaluate()
    for suffix, chosen in (("", rows), *((f"/{name}", rows.select(groups == name)) for name in ("long", "short"))):
        scores = score_rows(run.model, chosen)
        assert result[f"eval_validation_loss{suffix}"] == pytest.approx(scores.loss, abs=1e-5)
        assert result[f"eval_validation_accuracy{suffix}"] == pytest.approx(scores.token_accuracy)
        assert result[f"eval_validation_row_accuracy{suffix}"] == pytest.approx(scores.row_hits.mean())
        if suffix:
            probabilities = np.exp(scores.log_probs[scores.mask])
            assert result[f"eval_validation_perplexity{suffix}"] == pytest.approx(math.exp(scores.loss), rel=1e-4)
            assert result[f"eval_validation_probability{suffix}"] == pytest.approx(probabilities.mean(), rel=1e-4)
    floor = -TASK.optimal_log_probs(rows).sum() / rows.loss_mask.sum()
    assert result["eval_validation_excess"] == pytest.approx(result["eval_validation_loss"] - floor, abs=1e-9)
    assert result["eval_validation_excess"] > 0


def test_the_first_token_of_a_text_is_given_and_not_predicted(tmp_path):
    """Every loss of Trainer leaves out position 0, and so must ours where labels are the ids themselves."""
    ids = torch.arange(12).reshape(3, 4) % TASK.rows(0, 1).tokens.max()
    text = [{"input_ids": row, "labels": row} for row in ids.tolist()]
    run = trainer(tmp_path, eval_sets={"validation": text})
    run.data_collator = default_data_collator
    result = run.evaluate()
    with torch.no_grad():
        wanted = run.model(input_ids=ids, labels=ids)
    hits = wanted.logits[:, :-1].argmax(-1) == ids[:, 1:]
    assert result["eval_validation_loss"] == pytest.approx(float(wanted.loss), rel=1e-5)
    assert result["eval_validation_accuracy"] == pytest.approx(float(hits.float().mean()))
    assert result["eval_validation_row_accuracy"] == pytest.approx(float(hits.all(1).float().mean()))


# No number that is none


@pytest.mark.parametrize("every", [1, 3])
def test_a_nan_loss_ends_the_run_before_it_is_saved(every, tmp_path):
    """Between two logs nothing is checked; the message says so."""
    run = trainer(tmp_path, max_steps=9, save_strategy="steps", save_steps=1, logging_steps=every)
    step = run.compute_loss

    def compute_loss(*args, **options):
        loss = step(*args, **options)
        return loss * math.nan if run.state.global_step == 4 else loss

    run.compute_loss = compute_loss
    with pytest.raises(ValueError, match="the training loss is nan at step 5 or shortly before; lower learning_rate"):
        train(run)
    assert not (tmp_path / "checkpoint-5").exists()
    assert (tmp_path / "checkpoint-4" / "complete.json").exists()


# How long a run is


@pytest.mark.parametrize(
    ("settings", "rows", "epoch", "steps", "epoch_steps", "eval_steps"),
    [
        ({"max_steps": 7}, {}, None, 7, 7, None),
        ({"max_steps": 7}, {}, 60, 7, 10, None),
        ({"num_train_epochs": 3}, {}, 60, 30, 10, None),
        ({"num_train_epochs": 2.5}, {}, 61, 26, 61 / 6, None),
        ({"num_train_epochs": 3}, {"steps_per_epoch": 5}, None, 15, 5, 5),
        ({"num_train_epochs": 3}, {"steps_per_epoch": 5}, 60, 15, 5, 5),
        ({"max_steps": 8, "eval_strategy": "steps", "eval_steps": 2}, {"steps_per_epoch": 5}, None, 8, 5, 2),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 2}, {}, 60, 10, 5, None),
        ({"num_train_epochs": 2, "eval_strategy": "epoch"}, {}, 60, 20, 10, 10),
        ({"max_steps": 9, "eval_strategy": "epoch"}, {}, None, 9, 9, 9),
    ],
)
def test_steps_epochs_and_evaluations(settings, rows, epoch, steps, epoch_steps, eval_steps, tmp_path):
    args = arguments(tmp_path, **{"max_steps": -1, **settings})
    assert resolve_max_steps(args, RowsArguments(task="sort", **rows), epoch) == pytest.approx(epoch_steps)
    assert args.max_steps == steps
    assert (args.eval_steps if args.eval_strategy == "steps" else None) == eval_steps


def test_what_happens_every_epoch_happens_though_rows_have_no_end(tmp_path):
    eval_sets = {"validation": HeldRows(TASK.rows(0, 4, split="validation"))}
    every = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch")
    run = trainer(tmp_path, eval_sets=eval_sets, max_steps=6, **every)
    resolve_max_steps(run.args, RowsArguments(task="tivari3", steps_per_epoch=2), None)
    train(run)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in (2, 4, 6)]
    history = run.state.log_history
    assert [entry["step"] for entry in history if "eval_validation_loss" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4, 6]


def test_a_rate_that_waits_for_the_validation_loss(tmp_path):
    eval_sets = {name: HeldRows(TASK.rows(0, 4, split=name)) for name in ("train", "validation")}
    patience = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "threshold": 1e3}}
    run = trainer(tmp_path, eval_sets=eval_sets, eval_strategy="steps", eval_steps=1, **patience)
    train(run)
    rates = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    assert rates[0] == RATE > rates[-1]


def test_what_was_learned_and_lost_again():
    name = "eval_validation_accuracy/one"
    history = [{"loss": 1.0}, {name: 0.5}, {name: 1.0, "eval_loss": 0.1}, {name: 1.0}, {name: 0.0}]
    one = {"best/validation/one": 1.0, "mean/validation/one": 0.625, "all_right/validation/one": 0.5}
    assert over_evaluations(history) == one
    all_rows = {"best/validation": 0.25, "mean/validation": 0.25, "all_right/validation": 0.0}
    assert over_evaluations([*history, {"eval_validation_accuracy": 0.25}]) == one | all_rows


def test_a_loss_without_a_perplexity():
    task = get_task("analogy", num_relations=40)
    rows = task.rows(0, 8, split="validation")
    held = HeldRows(rows, groups=rows.columns["fact_type"])
    log_probs = np.full(rows.tokens.shape, -1e5)
    result = summary(log_probs, np.zeros(rows.tokens.shape, bool), rows.loss_mask, held)
    assert {value for name, value in result.items() if name.startswith("perplexity/")} == {math.inf}


def test_fresh_rows_without_an_end(tmp_path):
    with pytest.raises(ValueError, match="got neither max_steps nor steps_per_epoch, and fresh rows never end"):
        resolve_max_steps(arguments(tmp_path, max_steps=-1), RowsArguments(task="sort"), None)
