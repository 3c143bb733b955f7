"""A small slice of the fuzzer: what nobody would write is taken, or refused in one line."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "count"), [("configs", 700), ("files", 140), ("flags", 14)])
def test_nothing_ends_in_a_traceback(kind, count):
    fuzzer = runpy.run_path(str(Path(__file__).with_name("fuzz.py")))
    findings = fuzzer["fuzz"](kind, count, seed=7)
    assert not findings.keys() - set(fuzzer["EXPECTED"])
    assert sum(findings.values()) == count
