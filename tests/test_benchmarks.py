"""Benchmarks still run: the smallest setting of training, whatever the time; and the comparison of two revisions."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

SMALLEST = "rlm L=1 V=128, 1 layer of 64"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a file of benchmarks/."""

    def load(name):
        path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def training(benchmark):
    """benchmarks/training.py."""
    return benchmark("training")


def test_a_pair_does_the_same_work_and_is_timed(training):
    setting = training.settings()[SMALLEST]
    sides = training.trainer_side(setting), training.bare_side(setting)
    _, name, *times, _, _, _ = training.Pair(SMALLEST, *sides, pace=1, promised=0.0).line(2, 1).split("|")
    assert name.strip() == SMALLEST
    assert all(float(time) > 0 for time in times)
    idle = training.Pair(SMALLEST, sides[1], lambda steps: training.Turn(1.0, 0.0), pace=1, promised=0.0)
    with pytest.raises(SystemExit, match="are not those of the same work"):
        idle.line(2, 1)


def test_the_parts_of_a_step_are_told_apart(training):
    line = training.shares(SMALLEST, training.settings()[SMALLEST], 2)
    assert line.count(" %") == len(training.PARTS) + 2


def result(folder, *, loss=0.5, seconds=1.0, answer="b", weight=2.0, tensor=1.0, nested="control"):
    """Results as a run leaves them."""
    (folder / "sft" / nested).mkdir(parents=True)
    metrics = {"loss/final": loss, "gap": float("nan"), "seconds/total": seconds, "control/seconds/total": seconds}
    (folder / "sft" / "metrics.json").write_text(json.dumps(metrics))
    pq.write_table(pa.table({"completion": ["a", answer]}), folder / "sft" / "samples.parquet")
    pq.write_table(pa.table({"sampling_weight": [1.0, weight]}), folder / "sft" / nested / "prompts.parquet")
    save_file({"layer": np.array([0.0, tensor], np.float32)}, folder / "sft" / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seconds": 2.0}, "equal"),
        ({"loss": 0.5 + 2**-53}, "metrics.json loss/final: 0.5 -> 0.5000000000000001 (+1.11e-16)"),
        ({"answer": "c"}, "samples.parquet completion: 1 rows, first row 1: 'b' -> 'c'"),
        ({"weight": 2.5}, "control/prompts.parquet sampling_weight: 1 rows, first row 1: 2.0 -> 2.5 (+0.5)"),
        ({"tensor": 1.5}, "model.safetensors layer: by up to 0.5"),
    ],
)
def test_a_difference_of_two_revisions_is_named(benchmark, tmp_path, capsys, change, line):
    result(tmp_path / "before")
    result(tmp_path / "after", **change)
    command = ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--only", "sft"]
    assert benchmark("same_results").main(command) == (line != "equal")
    assert capsys.readouterr().out == f"sft: {line}\n"


def test_a_missing_file_or_run_is_a_difference(benchmark, tmp_path, capsys):
    result(tmp_path / "before")
    result(tmp_path / "after", nested="uniform")
    command = ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--only", "sft", "dpo"]
    assert benchmark("same_results").main(command) == 1
    moved, missing = capsys.readouterr().out.splitlines()
    assert "control/prompts.parquet is not in" in moved
    assert "uniform/prompts.parquet is not in" in moved
    assert missing.startswith("dpo: no results in")
