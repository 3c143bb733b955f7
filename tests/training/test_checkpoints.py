"""Checkpoints: only whole ones are resumed from, torn ones are named, and files are whole or absent."""

import copy
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, GRPOConfig, RewardConfig, SFTConfig

from hf_synth import build_tokenizer, get_task
from hf_synth.io import write_json
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.sampling import WeightedDPOTrainer, WeightedGRPOTrainer, WeightedSFTTrainer
from hf_synth.training.checkpoints import MANIFEST, TRAINING_LOG, last_complete_checkpoint, read_training_log, train
from hf_synth.training.models import HeadedRewardTrainer


def seal(folder: Path) -> None:
    """The manifest as documented: a digest of every file, by its path in the checkpoint."""
    (folder / MANIFEST).unlink(missing_ok=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    (folder / MANIFEST).write_text(json.dumps({path.relative_to(folder).as_posix(): digest(path) for path in files}))


def digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory with whole checkpoints of 9, 50 and 100 steps: by name, 9 would be the last."""
    for step in (9, 50, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "deep").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * step)
        (folder / "deep" / "state.json").write_text("{}")
        (folder / "trainer_state.json").write_text("{}")
        seal(folder)
    return tmp_path


def remove_file(folder: Path) -> None:
    (folder / "deep" / "state.json").unlink()


def truncate_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x")


def empty_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def lengthen_file(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def zero_tail(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x" * 90 + bytes(10))


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def truncate_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:20])


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("")


def binary_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00\x01")


def other_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[1, 2]")


def nameless_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("{}")


def remove_all(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


TORN = {
    remove_file: "deep/state.json is missing",
    truncate_file: "model.safetensors is damaged",
    empty_file: "model.safetensors is damaged",
    lengthen_file: "model.safetensors is damaged",
    zero_tail: "model.safetensors is damaged",
    remove_manifest: "it was not finished",
    truncate_manifest: "its complete.json is damaged",
    empty_manifest: "its complete.json is damaged",
    binary_manifest: "its complete.json is damaged",
    other_manifest: "its complete.json is damaged",
    nameless_manifest: "its complete.json names no trainer_state.json",
    remove_all: "it was not finished",
}


def test_the_checkpoint_of_the_most_steps(run, caplog):
    assert last_complete_checkpoint(run) == run / "checkpoint-100"
    assert last_complete_checkpoint(str(run)) == run / "checkpoint-100"
    assert not caplog.records


@pytest.mark.parametrize("tear", TORN, ids=lambda tear: tear.__name__)
def test_a_torn_checkpoint_is_skipped_and_named(tear, run, caplog):
    tear(run / "checkpoint-100")
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(run) == run / "checkpoint-50"
    assert [record.getMessage() for record in caplog.records] == [
        f"Skipping checkpoint {run / 'checkpoint-100'}: {TORN[tear]}"
    ]


def test_where_all_are_torn_there_is_none(run, caplog):
    for step in (9, 50, 100):
        remove_manifest(run / f"checkpoint-{step}")
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(run) is None
    assert len(caplog.records) == 3


def test_what_is_no_checkpoint_is_not_looked_at(tmp_path, caplog):
    for name in ("checkpoint-", "checkpoint-x", "checkpoint-5-old", "my-checkpoint-7", "control"):
        (tmp_path / name).mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "nothing") is None
    assert not caplog.records


# JSON files


def test_json_is_read_back_and_leaves_no_draft(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": [1.5, None]})
    assert json.loads(path.read_text()) == {"b": [1.5, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    """The new bytes go to a draft; only a rename, which is one step, puts them in place."""
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def die(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_run_without_a_log_is_not_finished(tmp_path):
    assert read_training_log(tmp_path) is None
    write_json(tmp_path / TRAINING_LOG, {"steps": 3})
    assert read_training_log(tmp_path) == {"steps": 3}


# Training to the end


class Line(nn.Module):
    """y = w x with noise in the gradient, so that random state counts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)

    def forward(self, x, labels):
        loss = (self.layer(x[:, None]) * torch.rand(1) - labels[:, None]).square().mean()
        return {"loss": loss}


def trainer(folder: Path, **changes) -> Trainer:
    """Eight steps of an epoch of sixteen, so that the last step lies inside it."""
    rows = Dataset.from_dict({"x": [float(x) for x in range(32)], "labels": [2.0 * x for x in range(32)]})
    settings = {"max_steps": 8, "save_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01}
    settings |= {"logging_steps": 1, **changes}
    args = TrainingArguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True, bf16=False, **settings)
    return Trainer(Line(), args, train_dataset=rows, eval_dataset=rows.select(range(8)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(trainer(folder))
    return folder


def test_every_checkpoint_is_sealed_with_its_files(whole):
    result = sorted(int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*"))
    assert result == [2, 4, 6, 8]
    for folder in whole.glob("checkpoint-*"):
        sealed = json.loads((folder / MANIFEST).read_text())
        assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= sealed.keys()
        assert sealed == {path.name: digest(path) for path in folder.iterdir() if path.name != MANIFEST}


def test_the_log_says_how_long_and_how_far(whole):
    log = read_training_log(whole)
    assert log["steps"] == 8
    assert log["seconds"] > 0
    assert [entry["step"] for entry in log["history"] if "loss" in entry] == [*range(1, 9)]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("save_total_limit", 1, "1"),
        ("save_only_model", True, "true"),
        ("ignore_data_skip", True, "true"),
        ("train_sampling_strategy", "group_by_length", "group_by_length"),
        ("accelerator_config", {"use_seedable_sampler": False}, "use_seedable_sampler false"),
    ],
)
def test_what_could_not_be_resumed_exactly_is_refused(name, value, named, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: got {named}, wanted"):
        train(trainer(tmp_path, **{name: value}))
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("strategy", ["steps", "no"])
def test_weights_with_nan_or_inf_are_never_gone_on_from_nor_left(strategy, tmp_path):
    """A gradient can overflow where the loss did not."""
    run = trainer(tmp_path, save_strategy=strategy, save_steps=1)
    step = run.training_step

    def training_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        if run.state.global_step == 3:
            run.model.layer.weight.data[0, 0] = float("inf")
        return loss

    run.training_step = training_step
    with pytest.raises(ValueError, match=f"NaN or inf in the weights after step {4 if strategy == 'steps' else 8}; "):
        train(run)
    kept = sorted(path.parent.name for path in tmp_path.rglob("model.safetensors"))
    assert kept == (["checkpoint-1", "checkpoint-2", "checkpoint-3"] if strategy == "steps" else [])
    last = last_complete_checkpoint(tmp_path)
    assert last == (tmp_path / "checkpoint-3" if strategy == "steps" else None)


class KilledError(Exception):
    """Stands for the end of the process."""


def kill(*args, **kwargs):
    raise KilledError


def cut_off(run: Trainer, batches: int) -> None:
    """Train for so many batches, then die."""
    step, done = run.training_step, []

    def training_step(*args, **kwargs):
        done.append(1)
        return kill() if len(done) > batches else step(*args, **kwargs)

    run.training_step = training_step
    with pytest.raises(KilledError):
        train(run, finish=kill)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights and all that was logged, but for times."""
    wanted, result = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert wanted.keys() == result.keys()
    assert all(torch.equal(wanted[name], result[name]) for name in wanted)
    logs = [read_training_log(folder) for folder in (one, other)]
    assert logs[0]["steps"] == logs[1]["steps"]
    histories = [
        [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in log["history"]]
        for log in logs
    ]
    assert histories[0] == histories[1]


TIMES = ("runtime", "_per_second", "step_time")


@pytest.mark.parametrize("moment", ["before the end", "after the last checkpoint", "torn last checkpoint"])
def test_a_run_cut_off_ends_as_one_that_was_not(moment, whole, tmp_path):
    """Cut off after the last checkpoint there is nothing left to train: not one step more is taken."""
    cut_off(trainer(tmp_path), 5 if moment == "before the end" else 8)
    if moment == "torn last checkpoint":
        truncate_file(tmp_path / "checkpoint-8")
    train(trainer(tmp_path))
    assert_same_run(whole, tmp_path)


LOOKS = {"eval_strategy": "steps", "eval_steps": 2}
# Seventeen steps of an epoch of eight: the run ends inside its third.
KINDS = {
    "means over several checkpoints": {"logging_steps": 7},
    "means over an epoch": {"logging_strategy": "epoch"},
    "evaluated at the end of an epoch": {"eval_strategy": "epoch"},
    "evaluated before it begins": {"eval_on_start": True, **LOOKS},
    "saved at the end of an epoch": {"save_strategy": "epoch", "eval_strategy": "epoch", "logging_steps": 3},
    "the best model": {"load_best_model_at_end": True, "learning_rate": 0.3, **LOOKS},
    "only the best is saved": {"save_strategy": "best", "load_best_model_at_end": True, "learning_rate": 0.3, **LOOKS},
    "a short last batch": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "logging_steps": 5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_between_steps_is_the_same_after_kills(kind, tmp_path):
    """Killed within an epoch, at its end, at its beginning, before anything was saved, and after the last step."""
    settings = {"max_steps": 17, "save_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1} | KINDS[kind]
    train(trainer(tmp_path / "whole", **settings))
    for batches in (1, 5, 4, 3, 8, 40):
        cut_off(trainer(tmp_path / "cut", **settings), batches)
    train(trainer(tmp_path / "cut", **settings))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def length_of_words(completions, **columns):
    """A reward that has no state."""
    return [float(len(completion) % 7) for completion in completions]


def preference_trainer(kind: str, folder: Path) -> Trainer:
    """One of the trainers of the recipes, on eight pairs, with means over more steps than lie between checkpoints."""
    tokenizer = build_tokenizer(get_task("start_mid_end"))
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RopeGPTConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=2, dropout=0.1, **shape)
    chosen = [" MID" * row + " END" for row in range(8)]
    columns = {"prompt": ["START"] * 8, "sampling_weight": [1.0 + row for row in range(8)]}
    columns |= {"chosen": chosen, "rejected": [" END MID"] * 8}
    settings = {"max_steps": 9, "save_steps": 2, "logging_steps": 5, "per_device_train_batch_size": 4, "seed": 0}
    settings |= {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "learning_rate": 1e-2}
    sync = {"sync_ref_model": True, "ref_model_sync_steps": 3, "ref_model_mixup_alpha": 0.5, "beta": 0.5}
    model = RopeGPTForCausalLM(config)
    options = {"processing_class": tokenizer}
    if kind == "dpo":
        args = DPOConfig(str(folder), **settings, **sync)
        return WeightedDPOTrainer(
            model, copy.deepcopy(model), args, train_dataset=Dataset.from_dict(columns), **options
        )
    if kind == "sft":
        columns["completion"] = columns.pop("chosen")
        del columns["rejected"]
        return WeightedSFTTrainer(
            model, SFTConfig(str(folder), **settings), train_dataset=Dataset.from_dict(columns), **options
        )
    if kind == "grpo":
        model.save_pretrained(folder.parent / "policy")
        model = RopeGPTForCausalLM.from_pretrained(folder.parent / "policy")
        args = GRPOConfig(
            str(folder), **settings, **sync, num_generations=2, max_completion_length=4, num_iterations=2
        )
        rows = Dataset.from_dict({name: columns[name] for name in ("prompt", "sampling_weight")})
        return WeightedGRPOTrainer(model, length_of_words, args, train_dataset=rows, **options)
    config.id2label, config.label2id = {0: "long", 1: "early"}, {"long": 0, "early": 1}
    columns["signs"] = [[1, 0], [0, -1], [1, 1], [0, 0]] * 2
    return HeadedRewardTrainer(
        RopeGPTForSequenceClassification(config),
        RewardConfig(str(folder), **settings),
        train_dataset=Dataset.from_dict(columns),
        **options,
    )


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo", "reward"])
def test_every_recipes_trainer_goes_on_as_if_it_had_not_been_cut_off(kind, tmp_path):
    """References that follow the policy, means since the last log, tokens so far, accuracies of heads."""
    train(preference_trainer(kind, tmp_path / "whole"))
    for batches in (3, 4, 40):
        cut_off(preference_trainer(kind, tmp_path / "cut"), batches)
    train(preference_trainer(kind, tmp_path / "cut"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_reference_that_is_gone_is_an_error(tmp_path):
    cut_off(preference_trainer("dpo", tmp_path), 5)
    (tmp_path / "checkpoint-4" / "reference.safetensors").unlink()
    seal(tmp_path / "checkpoint-4")
    with pytest.raises(ValueError, match=r"checkpoint-4 holds no reference.safetensors, which sync_ref_model needs"):
        train(preference_trainer("dpo", tmp_path))


def test_the_best_model_is_found_where_the_folder_has_moved_and_missed_where_it_is_gone(tmp_path):
    settings = {"max_steps": 6, "load_best_model_at_end": True, "learning_rate": 5.0, **LOOKS}  # it diverges
    train(trainer(tmp_path / "whole", **settings))
    cut_off(trainer(tmp_path / "before", **settings), 5)
    (tmp_path / "before").rename(tmp_path / "after")
    train(trainer(tmp_path / "after", **settings))
    assert_same_run(tmp_path / "whole", tmp_path / "after")
    (tmp_path / "after" / TRAINING_LOG).unlink()
    truncate_file(tmp_path / "after" / "checkpoint-4")
    with pytest.raises(ValueError, match=r"checkpoint-4 is the best model so far.*model.safetensors is damaged"):
        train(trainer(tmp_path / "after", **settings))


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors"])
def test_an_output_directory_that_is_removed_meanwhile_is_named(name, tmp_path):
    run = trainer(tmp_path / "run")
    write = "_save_optimizer_and_scheduler" if name == "optimizer.pt" else "save_model"
    stock = getattr(run, write)

    def without_folder(*args, **kwargs):
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("somebody else's")
        stock(*args, **kwargs)

    setattr(run, write, without_folder)
    with pytest.raises(ValueError, match="run is gone, and the run was writing to it"):
        train(run)


def test_seconds_are_those_of_all_commands_together(tmp_path):
    cut_off(trainer(tmp_path), 5)
    path = tmp_path / "checkpoint-4" / "since_log_0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1000.0}))
    seal(tmp_path / "checkpoint-4")
    train(trainer(tmp_path))
    log = read_training_log(tmp_path)
    assert 1000 < log["seconds"] < 1100
    assert 1000 < log["history"][-1]["train_runtime"] < 1100
