"""What every task promises (hf_synth/checks.py), held against every task and preset that discovery finds."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.checks import Promise, Samples, configured, promises_of
from hf_synth.tasks import Task, get_task, list_tasks, task_class
from hf_synth.tasks.base import TaskConfig, bounded, choice
from hf_synth.views import view_table

SMALL = "small"  # beside the presets of a task: its first with every whole number above 6 lowered to 6, where legal
EXPENSIVE = {  # seconds each, where most presets take tenths of one
    "dyck-k64-l2048",
    "dyck_shuffle-k64-l2048",
    "dyck_shuffle-k64-l2048-truncated",
    "rlm-v128-l10-b2",
}
CASES = [
    pytest.param(
        (name, preset), marks=[pytest.mark.nightly] if f"{name}-{preset}" in EXPENSIVE else [], id=f"{name}-{preset}"
    )
    for name in list_tasks()
    for preset in task_class(name).presets
]
MAKE_GOLDEN = Path(__file__).with_name("make_golden.py")
ROWS = 32  # of each split


def pytest_generate_tests(metafunc):
    """Each promise is a test for every preset and the small config of every task that makes it."""
    if "promise" in metafunc.fixturenames:
        cases = [
            pytest.param(case.values[0], promise, marks=case.marks, id=f"{case.id}-{promise.problems.__name__}")
            for case in [*CASES, *(pytest.param((name, SMALL), id=f"{name}-{SMALL}") for name in list_tasks())]
            for promise in promises_of(task_class(case.values[0][0]))
            if promise.problems is not configured or case.values[0][1] == SMALL  # it is about the class, not a preset
        ]
        metafunc.parametrize(("samples", "promise"), cases, indirect=["samples"], scope="module")


@pytest.fixture(scope="module")
def samples(request) -> Samples:
    """Rows of a (task, preset), shared by the promises."""
    name, preset = request.param
    return Samples(small(name) if preset == SMALL else get_task(name, preset), ROWS)


def small(name: str) -> Task:
    task = task_class(name)
    config = next(iter(task.presets.values()))
    for field in dataclasses.fields(config):
        if type(value := getattr(config, field.name)) is int and value > 6:
            try:
                config = config.replace(**{field.name: 6})
            except ValueError as error:
                if field.name not in str(error):
                    raise
    return task(config)


def test_task_keeps_its_promise(samples, promise: Promise):
    assert next(promise.problems(samples), None) is None


@pytest.mark.parametrize("case", CASES)
def test_golden_hash_pins_the_rows(case):
    golden = json.loads(MAKE_GOLDEN.with_name("golden.json").read_text())
    task, key = get_task(*case), "-".join(case)
    if key not in golden:
        pytest.skip(f"{key} is not pinned in golden.json")
    assert task.version == golden[key]["version"], "version raised: run make_golden.py"
    row_hash = runpy.run_path(str(MAKE_GOLDEN))["row_hash"](task)
    assert row_hash == golden[key]["rows"], "rows changed: raise the task's version and run make_golden.py"


@pytest.mark.nightly
@pytest.mark.processes
def test_another_process_makes_the_same_rows():
    program = f"import json, runpy; print(json.dumps(runpy.run_path({str(MAKE_GOLDEN)!r})['all_hashes']()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(MAKE_GOLDEN.with_name("golden.json").read_text())


@given(data=st.data())
@pytest.mark.parametrize("name", [name for name in list_tasks() if task_class(name).verifiable])
def test_verify_of_any_text_is_zero_or_one(name, data):
    task = get_task(name)
    text = st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*task.vocabulary(), "<sep>"])).map(" ".join))
    prompt, completion = data.draw(text), data.draw(text)
    score = task.verify(prompt, completion)
    assert isinstance(score, float)
    assert score in (0.0, 1.0)


# Addresses and views


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 0, "count": 1, "split": "dev"}, "got split 'dev'; Known: test, train, validation."),
        ({"start": -1, "count": 1}, "got start=-1, count=1"),
        ({"start": 0, "count": -1}, "got start=0, count=-1"),
    ],
)
def test_rows_refuses_an_illegal_address(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_task("sort", "8").rows(**arguments)


def test_violations_of_the_labelled_view_are_made_independently_of_their_kind():
    """`odd_count` of tivari3 puts TAS or WEJ into the middle, each as often as the other."""
    table = view_table(get_task("tivari3"), "labelled", 0, 8_000, split="train", seed=0).to_pylist()
    middles = [row["text"].split() for row in table if row["violation"] == "odd_count"]
    share = sum(words[len(words) // 2] == "TAS" for words in middles) / len(middles)
    assert len(middles) > 600
    assert abs(share - 0.5) < 4 * 0.5 / len(middles) ** 0.5


# Configs


@pytest.mark.parametrize("name", list_tasks())
def test_unknown_field_error_names_the_nearest(name):
    field = dataclasses.fields(task_class(name).config_class)[-1].name
    with pytest.raises(ValueError, match=f"unknown field '{field}x'; did you mean '{field}'"):
        get_task(name, **{f"{field}x": 1})


@dataclasses.dataclass(frozen=True)
class _Example(TaskConfig):
    share: float = bounded(0.5, 0.0, 1.0)
    kind: str = choice("one", "two")
    flag: bool = False


def test_canonical_json_is_the_same_for_equal_configs():
    assert _Example(share=1).to_json() == _Example(share=1.0).to_json()


def test_canonical_json_holds_every_field():
    assert json.loads(_Example(kind="two").to_json()) == {
        "holdout": "none",
        "share": 0.5,
        "kind": "two",
        "flag": False,
    }


@pytest.mark.parametrize("changes", [{"share": True}, {"share": float("inf")}, {"kind": "three"}, {"flag": 1}])
def test_config_refuses_an_illegal_value(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"_Example.{name}: got"):
        _Example(**changes)


@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_config_says_what_range_it_wanted(value):
    with pytest.raises(ValueError, match=f"_Example.share: got {value}, wanted a value from 0.0 to 1.0"):
        _Example(share=value)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _Example().share = 0.1


def test_task_refuses_the_config_of_another():
    with pytest.raises(ValueError, match="task sort: got a _Example as config, wanted a SequenceConfig"):
        task_class("sort")(_Example())
