"""What a tracker is told is what the run's own table has; each arm and seed is a run of its own, named by them."""

import csv
import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from tensorboardX.proto.event_pb2 import Event
from transformers import TrainingArguments
from transformers.integrations import WandbCallback

from hf_synth.training.callbacks import WANDB_RUN, WandbRun, names_for_trackers, tracked_run

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def events(path: Path) -> Iterator[Event]:
    """The records of a file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


@pytest.mark.processes
def test_tensorboard_has_the_numbers_of_the_dynamics(run, tmp_path):
    flags = "--max_steps 4 --eval_steps 2 --logging_steps 1 --eval_rows 8 --test_rows 8 --gpt2_size 1_2_16"
    done = run("pretrain.py", *flags.split(), "--report_to", "tensorboard", "--output_dir", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("out/runs/*/events.*")
    logged = {(event.step, value.tag): value.simple_value for event in events(path) for value in event.summary.value}
    with (tmp_path / "out" / "dynamics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["step"]) for row in rows] == [2, 4]
    for row in rows:
        for name in ("train_loss", "validation_loss", "validation_accuracy", "validation_excess"):
            assert logged[int(row["step"]), f"eval/{name}"] == pytest.approx(float(row[name]), abs=1e-5)
    assert (3, "train/learning_rate") in logged


@pytest.fixture(autouse=True)
def no_names(monkeypatch):
    """No name of a run comes from outside."""
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def arguments(folder, **values):
    return TrainingArguments(output_dir=str(folder), seed=3, use_cpu=True, report_to="none", **values)


def test_a_run_is_named_after_its_directory_arm_and_seed(tmp_path):
    assert tracked_run(arguments(tmp_path / "sort")) == ("sort", "seed-3", "sort")
    assert tracked_run(arguments(tmp_path, project="mine", run_name="low-seed-3")) == ("mine", "low-seed-3", "low")
    several = names_for_trackers(tmp_path / "sort", "low", 5)
    assert several == {"project": "sort", "run_name": "low-seed-5"}
    given = names_for_trackers(tmp_path, "low", 5, project="mine", run_name="try")
    assert given == {"project": "mine", "run_name": "try-low-seed-5"}


class Wandb:
    """As much of the module as a run is opened by."""

    def __init__(self):
        self.run, self.begun, self.finished = None, [], 0

    def init(self, **options):
        self.begun.append(options)
        self.run = object()
        return self.run

    def finish(self):
        self.run, self.finished = None, self.finished + 1


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Begin a run as Trainer does; returns what W&B was asked for."""
    monkeypatch.setattr(WandbCallback, "setup", lambda *args, **kwargs: None)
    monkeypatch.setattr(WandbRun, "opened", None)
    module = Wandb()

    def setup(args, step=0):
        callback = WandbRun.__new__(WandbRun)
        callback._wandb = module
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        callback.setup(args, SimpleNamespace(is_world_process_zero=True, global_step=step), None)
        return module

    return setup


def test_one_run_ends_where_the_next_begins(begin, tmp_path):
    module = begin(arguments(tmp_path / "a:1#2", run_name="low-seed-0"))
    assert module.begun[0]["project"] == "a-1-2"
    module = begin(arguments(tmp_path / "b", run_name="low-seed-1"))
    assert module.finished == 1
    assert [(run["name"], run["group"]) for run in module.begun] == [("low-seed-0", "low"), ("low-seed-1", "low")]
    assert len({run["id"] for run in module.begun}) == 2
    module.run = own = object()  # which the user has opened
    begin(arguments(tmp_path / "c"))
    assert module.run is own
    assert len(module.begun) == 2


def test_a_run_that_goes_on_from_a_checkpoint_is_the_same_run(begin, tmp_path):
    begin(arguments(tmp_path))
    first, again, anew = (begin(arguments(tmp_path), step=step).begun[-1]["id"] for step in (2, 4, 0))
    assert first == again != anew
    assert json.loads((tmp_path / WANDB_RUN).read_text())["id"] == anew


def test_the_environment_takes_precedence_over_flags_and_yaml(begin, monkeypatch, tmp_path):
    given = arguments(tmp_path, project="flag", run_name="flag-seed-3")
    values = {"WANDB_PROJECT": "outside", "WANDB_NAME": "name", "WANDB_RUN_GROUP": "all", "WANDB_RUN_ID": "abc"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    run = begin(given).begun[-1]
    # None: W&B reads the environment itself.
    assert (run["project"], run["name"], run["group"], run["id"]) == ("outside", "name", None, None)
    several = names_for_trackers(tmp_path, "low", 5, run_name="flag")["run_name"]
    assert several == "name-low-seed-5"
    assert begin(arguments(tmp_path, run_name=several)).begun[-1]["name"] == several


TINY = {
    "task": "sort", "preset": "8", "seeds": [0, 1], "output_dir": "out/mine", "max_steps": 4,
    "eval_strategy": "steps", "eval_steps": 2,
    "logging_steps": 1, "eval_rows": 8, "test_rows": 8, "gpt2_size": "1_2_16", "use_cpu": True, "bf16": False,
}  # fmt: skip


def told_wandb(path: Path) -> tuple[str, str, str, int]:
    """Project, name, group and number of points of an offline run; a log of records as in LevelDB, of one block."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, points, run = path.read_bytes()[7:], 0, None
    while len(content) > 7:
        (length,) = struct.unpack("<H", content[4:6])
        record = Record.FromString(content[7 : 7 + length])
        run = record.run if record.HasField("run") else run
        points += record.HasField("history")
        content = content[7 + length :]
    return run.project, run.display_name, run.run_group, points


@pytest.mark.processes
@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_two_seeds_are_two_runs(tracker, tmp_path):
    pytest.importorskip(tracker, reason=f'{tracker} is not installed: pip install -e ".[trackers]"')
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**TINY, "report_to": tracker}))
    outside = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(tmp_path / "trackio")}
    # A process of its own, which ends as a user's does: the last run is closed then.
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "pretrain.py"), "--config", "my.yaml"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, **outside},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if tracker == "wandb":
        logged = sorted(told_wandb(path) for path in tmp_path.glob("wandb/offline-run-*/*.wandb"))
        assert [(project, name, group) for project, name, group, _ in logged] == [
            ("mine", "seed-0", "mine"), ("mine", "seed-1", "mine"),
        ]  # fmt: skip
        points = [count for *_, count in logged]
    else:
        (path,) = tmp_path.glob("trackio/*.db")
        assert path.stem == "mine"
        with sqlite3.connect(path) as table:
            logged = table.execute(
                "select run_name, count(*) from metrics group by run_id order by run_name"
            ).fetchall()
        assert [name for name, _ in logged] == ["seed-0", "seed-1"]
        points = [count for _, count in logged]
    assert min(points) >= 6  # four steps, two evaluations


def test_the_versions_of_make_fit_the_trackers():
    """A pin that a tracker's newest version refuses gives one of years ago."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {"wandb", "trackio"} <= set(pins)
    assert int(pins["pillow"].split(".")[0]) < 13  # as trackio 0.43 wants it
    for tracker in ("wandb", "trackio"):
        pytest.importorskip(tracker, reason=f"{tracker} is not installed, and its requirements are not known")
        for wanted in map(Requirement, requires(tracker) or ()):
            name = next((pin for pin in pins if pin.lower().replace("_", "-") == wanted.name.lower()), None)
            if name and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                assert wanted.specifier.contains(pins[name], prereleases=True), f"{tracker} wants {wanted}"
