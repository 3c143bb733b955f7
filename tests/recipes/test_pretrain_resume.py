"""Pretraining that is killed ends with the same weights, history and numbers as pretraining that is not."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

_SPEC = importlib.util.spec_from_file_location("kills", Path(__file__).with_name("kills.py"))
kills = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kills)

STEPS = 24


@pytest.fixture(scope="module")
def workdir(run, tmp_path_factory):
    """A folder in which every kind ran without interruption, in whole/KIND."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in kills.KINDS:
        done = run("pretrain.py", *kills.flags(kind, f"whole/{kind}", STEPS), cwd=folder)
        assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize("kind", kills.KINDS)
def test_killed_twice(kind, workdir, start, run):
    words = kills.flags(kind, f"killed/{kind}", STEPS)
    folder = workdir / "killed" / kind
    kills.killed(lambda: start("pretrain.py", *words, cwd=workdir), folder, kills=2, seed=sum(kind.encode()))
    done = run("pretrain.py", *words, cwd=workdir)
    assert done.code == 0, done.err
    assert kills.left_behind(folder) == kills.left_behind(workdir / "whole" / kind)


def test_a_comparison_killed_in_its_last_run(workdir, start, run):
    """All that it leaves is that of one that was not killed: the numbers over arms and seeds, and each run."""
    arms = ["--arms", '{"small": {"learning_rate": 1e-3}, "large": {}}', "--seeds", 0, 1]
    whole, killed = ([*kills.flags("rlm", f"arms/{name}", 12), *arms] for name in ("whole", "killed"))
    done = run("pretrain.py", *whole, cwd=workdir)
    assert done.code == 0, done.err
    last = workdir / "arms" / "killed" / "large" / "seed-1"
    kills.killed(lambda: start("pretrain.py", *killed, cwd=workdir), last, kills=1, seed=0)
    assert not (workdir / "arms" / "killed" / "metrics.json").exists()
    done = run("pretrain.py", *killed, cwd=workdir)
    assert done.code == 0, done.err
    result = {name: kills.numbers(workdir / "arms" / name) for name in ("whole", "killed")}
    assert result["killed"] == result["whole"]
    assert {"small/loss/test", "large/loss/test_low"} <= result["whole"].keys()
    for path in ("small/seed-0", "small/seed-1", "large/seed-0", "large/seed-1"):
        assert kills.left_behind(workdir / "arms" / "killed" / path) == kills.left_behind(
            workdir / "arms" / "whole" / path
        )


def test_the_table_over_the_steps_is_what_the_log_tells(workdir):
    """By a plain reading of each cell: of a look, of a stage, and empty where a step had none."""
    folder = workdir / "whole" / "curriculum"
    history = json.loads((folder / "training_log.json").read_text())["history"]
    with (folder / "dynamics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"step", "train_loss", "validation_row_accuracy", "validation_excess", "learning_rate"} <= rows[0].keys()
    logged = {}
    for entry in history:
        logged.setdefault(entry["step"], {}).update(entry)
    looks = [step for step, entry in logged.items() if "eval_validation_loss" in entry or "curriculum/stage" in entry]
    assert [int(row.pop("step")) for row in rows] == sorted(looks)
    for step, row in zip(sorted(looks), rows, strict=True):
        for name, cell in row.items():
            spelt = f"eval_{name}" if name.startswith(("train_", "validation_")) else name
            assert cell == str(logged[step].get(spelt, "")), (step, name)


def test_the_kinds_are_what_they_are_called(workdir):
    """Stages began, a best model came before the end, patience ended a run, parts were copied and others stayed."""
    result = {kind: kills.left_behind(workdir / "whole" / kind) for kind in kills.KINDS}
    name, history = "curriculum/next_stage", result["curriculum"]["training_log.json"]
    stages = [entry[name] for entry in history if name in entry]
    assert stages == [1.0, 2.0]
    assert sum(name.startswith("snapshots/") for name in result["curriculum"]) == 6
    snapshots = [int(name.split("-")[1][:8]) for name in result["rlm"] if name.startswith("snapshots/")]
    assert snapshots == [1, 2, 4, 8, 12, 16, 20, 24]
    assert result["finite"]["metrics.json"]["steps"] < STEPS
    assert result["finite"]["best/model.safetensors"] == result["finite"]["model.safetensors"]
    assert result["transfer"]["training_log.json"][-1]["epoch"] == pytest.approx(STEPS * 8 / 20)
    assert result["corpus"]["metrics.json"]["documents/example"] > 0
    assert (workdir / "whole" / "transfer" / "transfer.json").is_file()
    assert all((workdir / "whole" / kind / "report.md").is_file() for kind in kills.KINDS)


def test_a_finished_run_is_not_trained_again(workdir, run):
    folder = workdir / "whole" / "finite"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    done = run("pretrain.py", *kills.flags("finite", "whole/finite", STEPS), cwd=workdir)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == before
