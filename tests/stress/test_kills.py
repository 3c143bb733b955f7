"""Pretraining of every kind, killed ten times, ends with the weights, history and numbers of a run that was not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.processes]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 100

_SPEC = importlib.util.spec_from_file_location("kills", ROOT / "tests" / "recipes" / "kills.py")
kills = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kills)


class Process:
    """A recipe in a fresh interpreter."""

    def __init__(self, flags, cwd):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, str(ROOT / "recipes" / "pretrain.py"), *flags]
        self._log = cwd / "log.txt"
        with self._log.open("w") as file:
            self._process = subprocess.Popen(words, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT)
        self.pid = self._process.pid

    def wait(self):
        self.code = self._process.wait()
        self.err = self._log.read_text(errors="replace")
        return self


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kinds")


def finished(flags, cwd):
    done = Process(flags, cwd).wait()
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", kills.KINDS)
def test_killed_ten_times(kind, place):
    """The first kind's whole run is what the last kind starts from."""
    finished(kills.flags(kind, f"whole/{kind}", STEPS), place)
    flags, folder = kills.flags(kind, f"killed/{kind}", STEPS), place / "killed" / kind
    kills.killed(lambda: Process(flags, place), folder, kills=10, seed=sum(kind.encode()))
    finished(flags, place)
    assert kills.left_behind(folder) == kills.left_behind(place / "whole" / kind)
