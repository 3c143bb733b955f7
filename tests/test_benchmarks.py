"""Benchmarks still run: the smallest setting of training, in a step that is timed, whatever the time."""

import importlib.util
import sys
from pathlib import Path

import pytest

SMALLEST = "rlm L=1 V=128, 1 layer of 64"


@pytest.fixture
def training(monkeypatch):
    """benchmarks/training.py."""
    path = Path(__file__).parents[1] / "benchmarks" / "training.py"
    spec = importlib.util.spec_from_file_location("benchmarks_training", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


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
