"""The planted faults can be planted: their text is in the code once, and the tests that must catch them exist.

Whether they are caught is for `python tests/faults/run.py`, which takes minutes.
"""

import ast
import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("faults_run", Path(__file__).with_name("run.py"))
run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run)

FAULTS = run.read_faults()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_can_be_planted_and_its_tests_exist(name):
    fault = FAULTS[name]
    assert set(fault) == {"name", "file", "old", "new", "tests", "why"}
    sound = ast.parse((run.ROOT / fault["file"]).read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(run.planted(fault))) != ast.dump(sound)
    assert fault["tests"]
    for test in fault["tests"]:
        path, *parts = test.split("[")[0].split("::")
        inside = ast.parse((run.ROOT / path).read_text(encoding="utf-8")).body
        for part in parts:
            inside = next(each.body for each in inside if getattr(each, "name", None) == part)


def test_there_are_at_least_25():
    assert len(FAULTS) >= 25


@pytest.mark.parametrize(("old", "count"), [("nowhere in the code", 0), ("import", 2)])
def test_a_text_that_does_not_occur_once_is_an_error(old, count, tmp_path):
    (tmp_path / "a.py").write_text("import os\nimport re\n")
    with pytest.raises(ValueError, match=f"fault x: its old text occurs {count} times in a.py"):
        run.planted({"name": "x", "file": "a.py", "old": old, "new": ""}, tmp_path)
