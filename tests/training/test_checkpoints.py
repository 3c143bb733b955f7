"""Checkpoints: only whole ones are resumed from, torn ones are named, and files are whole or absent."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_synth.io import write_json
from hf_synth.training import checkpoints
from hf_synth.training.checkpoints import MANIFEST, TRAINING_LOG, last_complete_checkpoint, read_training_log, train


def seal(folder: Path) -> None:
    """The manifest as documented: a digest of every file, by its path in the checkpoint."""
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
    settings = {"max_steps": 8, "save_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01, **changes}
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1, bf16=False, **settings
    )
    return Trainer(Line(), args, train_dataset=rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(trainer(folder))
    return folder


def test_every_checkpoint_is_sealed_with_its_files(whole):
    found = sorted(int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*"))
    assert found == [2, 4, 6, 8]
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
    ("name", "value"), [("save_total_limit", 1), ("save_only_model", True), ("ignore_data_skip", True)]
)
def test_what_could_not_be_resumed_exactly_is_refused(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: got {str(value).lower()}, wanted"):
        train(trainer(tmp_path, **{name: value}))
    assert not list(tmp_path.glob("checkpoint-*"))


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["before the end", "after the last checkpoint", "torn last checkpoint"])
def test_a_run_cut_off_ends_as_one_that_was_not(moment, whole, tmp_path, monkeypatch):
    """Cut off after the last checkpoint there is nothing left to train: not one step more is taken."""
    cut = trainer(tmp_path)
    steps = []

    def kill(*args):
        raise KilledError

    if moment == "before the end":
        step = cut.training_step

        def training_step(*args, **kwargs):
            steps.append(1)
            return kill() if len(steps) == 6 else step(*args, **kwargs)

        cut.training_step = training_step
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_finish", kill)
        with pytest.raises(KilledError):
            train(cut)
    if moment == "torn last checkpoint":
        truncate_file(tmp_path / "checkpoint-8")
    train(trainer(tmp_path))
    wanted, found = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    logs = [read_training_log(folder) for folder in (whole, tmp_path)]
    assert logs[0]["steps"] == logs[1]["steps"] == 8
    losses = [[(entry["step"], entry["loss"]) for entry in log["history"] if "loss" in entry] for log in logs]
    assert losses[0] == losses[1]
