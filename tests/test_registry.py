"""Finding tasks: by name, by entry point, by the path of a file; and what is said where that fails."""

import os
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import hf_synth.tasks
from hf_synth import get_task, list_tasks, load_dataset
from hf_synth.builder import dataset_spec
from hf_synth.kernels import prepare_cache
from hf_synth.tasks import task_class
from hf_synth.tasks.sort import Sort

MY_TASK = '''
"""Each row counts on from a random number."""

import dataclasses

import numpy as np

from hf_synth.tasks import Rows, Task, TaskConfig
from hf_synth.tasks.base import bounded


@dataclasses.dataclass(frozen=True)
class CountConfig(TaskConfig):
    length: int = bounded(3, 1, 10)


class Count(Task[CountConfig]):
    name = "count"
    version = 1
    config_class = CountConfig
    presets = {"three": CountConfig(), "one": CountConfig(length=1)}
    source = "a test"

    def vocabulary(self):
        return tuple(map(str, range(20)))

    def generate(self, rng):
        first = rng.integers(4, 10, 1)
        return Rows.transduction(first, first + 1 + np.arange(self.config.length) * STEP)

    def verify(self, prompt, completion):
        return 1.0

    def corrupt(self, rows, rng):
        return rows

    def optimal_log_probs(self, rows):
        return np.zeros(rows.tokens.shape)
'''


@pytest.fixture
def my_task(tmp_path) -> Path:
    """A task's file outside the package; its rows count in steps of 1."""
    path = tmp_path / "my_task.py"
    path.write_text(MY_TASK.replace("STEP", "1"))
    return path


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other packages registered the given (name, value) pairs as entry points."""

    def install(*pairs: tuple[str, str]) -> None:
        entries = EntryPoints(EntryPoint(name, value, "hf_synth.tasks") for name, value in pairs)
        monkeypatch.setattr(hf_synth.tasks, "entry_points", lambda group: entries.select(group=group))

    return install


# By name


def test_list_is_sorted_and_holds_each_file_of_the_folder_once():
    folder = Path(hf_synth.tasks.__file__).parent
    assert list_tasks() == sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "base"))


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_is_called_as_its_file(name):
    assert task_class(name).name == name


def test_first_preset_is_the_default():
    for name in list_tasks():
        assert get_task(name).config == next(iter(task_class(name).presets.values()))


def test_config_is_put_over_the_preset():
    assert get_task("sort", "8", vocab_size=7).config == Sort.config_class(length=8, vocab_size=7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("sorts",),
            r"got unknown task 'sorts'; did you mean 'sort'\? Known: .*sort, stack, start_mid_end, .*my_task.py",
        ),
        (("qqqq",), r"got unknown task 'qqqq'; Known: .*sort"),
        (("base",), r"got unknown task 'base'"),
        (("",), r"got unknown task ''"),
        (("../sort",), r"got unknown task '../sort'"),
        (
            ("tivari3", "shot"),
            r"task tivari3: got unknown preset 'shot'; did you mean 'short'\? Known: default, short",
        ),
    ],
)
def test_unknown_name_is_an_error_that_names_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_task(*arguments)


# By entry point


def test_task_of_another_package_is_found(installed):
    installed(("other_sort", "hf_synth.tasks.sort:Sort"))
    assert "other_sort" in list_tasks()
    assert list_tasks() == sorted(list_tasks())
    assert type(get_task("other_sort", "8")) is Sort


def test_two_packages_with_one_name_are_an_error(installed):
    installed(("mine", "one:Task"), ("mine", "two:Task"))
    for find in (list_tasks, lambda: get_task("mine")):
        with pytest.raises(ValueError, match="task 'mine' is registered twice, again by two:Task; rename or remove"):
            find()


def test_package_that_takes_the_name_of_a_task_here_is_an_error(installed):
    installed(("sort", "elsewhere:Sort"))
    with pytest.raises(ValueError, match="task 'sort' is registered twice, again by elsewhere:Sort"):
        list_tasks()


# By path


def test_file_gives_its_task_with_presets_and_config(my_task):
    assert get_task(str(my_task)).config.length == 3
    assert get_task(str(my_task), "one").config.length == 1
    assert get_task(str(my_task), length=5).config.length == 5
    with pytest.raises(ValueError, match="did you mean 'length'"):
        get_task(str(my_task), lenght=5)


def test_file_found_by_a_relative_path_gives_the_same_rows(my_task, monkeypatch):
    expected = load_dataset(str(my_task), split="train", size=5)[:]
    monkeypatch.chdir(my_task.parent)
    assert load_dataset("my_task.py", split="train", size=5)[:] == expected


def test_file_streams_what_it_maps(my_task):
    mapped = load_dataset(str(my_task), split="train", size=50)
    assert list(load_dataset(str(my_task), split="train", size=50, streaming=True)) == mapped.to_list()


@pytest.mark.processes
def test_file_is_read_in_worker_processes_too(my_task):
    rows = load_dataset(str(my_task), split="train", size=50_001, num_proc=2)
    task = get_task(str(my_task))
    assert len(rows) == 50_001
    for at in (0, 49_999, 50_000):
        assert rows[at]["input_ids"] == task.rows(at, 1).tokens[0].tolist()


@pytest.mark.parametrize("streaming", [False, True])
def test_edited_file_gives_new_rows(my_task, streaming, monkeypatch):
    """Even with bytecode on, for an edit that leaves the file's size and its time as they were."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    times = my_task.stat()

    def differences() -> set[int]:
        rows = load_dataset(str(my_task), split="train", size=20, streaming=streaming)
        return {row["input_ids"][4] - row["input_ids"][3] for row in rows}

    assert differences() == {1}
    my_task.write_text(MY_TASK.replace("STEP", "2"))
    os.utime(my_task, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert differences() == {2}


@pytest.fixture
def helped_task(tmp_path) -> Path:
    """A task's file that takes its step from a module beside it, which takes it from a package beside both."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "__init__.py").write_text("")
    (tmp_path / "deep" / "numbers_of_mine.py").write_text("STEP = 1\n")
    (tmp_path / "steps.py").write_text("from deep import numbers_of_mine\nSTEP = numbers_of_mine.STEP\n")
    path = tmp_path / "my_task.py"
    path.write_text(MY_TASK.replace("import numpy as np", "import numpy as np\nfrom steps import STEP"))
    return path


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("edited", ["steps.py", "deep/numbers_of_mine.py", "deep/__init__.py"])
def test_an_edit_of_a_module_beside_the_file_gives_new_rows(helped_task, edited, streaming, monkeypatch):
    """Though the file itself is the same, and the edit leaves the module's size and its time."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def differences() -> set[int]:
        rows = load_dataset(str(helped_task), split="train", size=20, streaming=streaming)
        return {row["input_ids"][4] - row["input_ids"][3] for row in rows}

    assert differences() == {1}
    path = helped_task.parent / edited
    times = path.stat()
    if edited == "deep/__init__.py":
        path.write_text("class numbers_of_mine: STEP = 2\n")
        (helped_task.parent / "deep" / "numbers_of_mine.py").unlink()
    else:
        path.write_text(path.read_text().replace("numbers_of_mine.STEP", "2").replace("STEP = 1", "STEP = 2"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert differences() == {2}


def test_an_edit_of_a_kernel_beside_the_file_is_compiled_into_the_task(helped_task):
    """Numba's cache on disk looks at the file of the outer kernel alone."""
    kernel = "from numba import njit\n\n\n@njit(cache=True)\ndef step():\n    return 1\n"
    (helped_task.parent / "kernels.py").write_text(kernel)
    outer = "from numba import njit\nfrom kernels import step\n\n\n@njit(cache=True)\ndef one():\n    return step()\n"
    helped_task.write_text(outer + MY_TASK.replace("STEP", "one()"))

    def step() -> int:
        tokens = get_task(str(helped_task)).rows(0, 1).tokens[0]
        return int(tokens[4] - tokens[3])

    assert step() == 1
    (helped_task.parent / "kernels.py").write_text(kernel.replace("return 1", "return 2"))
    assert step() == 2


def test_compiled_kernels_are_forgotten_where_a_shared_file_changed(tmp_path):
    for name in ("rng.py", "tasks/base.py", "tasks/families/trees.py", "tasks/__pycache__/sort.nbi"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("A = 1")
    index = tmp_path / "tasks/__pycache__/sort.nbi"
    prepare = prepare_cache.__wrapped__
    prepare(tmp_path)
    for name in ("rng.py", "tasks/families/trees.py"):
        index.write_text("")
        prepare(tmp_path)
        assert index.exists(), "nothing changed"
        (tmp_path / name).write_text("A = 2")
        prepare(tmp_path)
        assert not index.exists()


def test_two_folders_may_have_a_module_of_one_name(helped_task, tmp_path):
    def step(path: Path) -> int:
        tokens = get_task(str(path)).rows(0, 1).tokens[0]
        return int(tokens[4] - tokens[3])

    other = tmp_path / "other"
    other.mkdir()
    (other / "their_task.py").write_text(helped_task.read_text())
    (other / "steps.py").write_text("STEP = 3\n")
    assert [step(helped_task), step(other / "their_task.py"), step(helped_task)] == [1, 3, 1]


def test_an_edit_of_a_plugin_changes_the_cache_key(tmp_path, installed, monkeypatch):
    """Of its module or of another in its package, installed where packages are."""
    package = tmp_path / "site-packages" / "plugin_of_mine"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    installed(("plugin", "plugin_of_mine.count:Count"))
    helped = MY_TASK.replace("import numpy as np", "import numpy as np\nfrom .steps import STEP")
    files = {"__init__.py": "", "steps.py": "STEP = 1\n", "count.py": helped}

    def key(**changed: str) -> str:
        """As a new process has it."""
        for name in [name for name in sys.modules if name.startswith("plugin_of_mine")]:
            del sys.modules[name]
        for name, text in files.items():
            (package / name).write_text(changed.get(name.removesuffix(".py"), text))
        task = get_task("plugin")
        return dataset_spec("plugin", task, split="train", size=1, seed=0, view="tokens")["source"]

    assert key() == key()
    assert len({key(), key(steps="STEP = 2\n"), key(count=helped + "\n"), key(__init__="A = 1\n")}) == 4


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"got the file '.*none.py', which does not exist"):
        get_task(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got 0 Task classes, wanted exactly one in a task's file"),
        (MY_TASK + "\n\nclass Two(Count):\n    pass\n", "got 2 Task classes, wanted exactly one in a task's file"),
        (MY_TASK.replace("def vocabulary(self)", "def vocabulary(self"), r"line 24: '\(' was never closed"),
        (MY_TASK.replace("    version = 1\n", ""), "class Count lacks version; see 'Add a task' in the README"),
        (
            MY_TASK.replace("def verify", "def check")
            .replace("def corrupt", "def spoil")
            .replace("source =", "origin ="),
            "class Count lacks corrupt, verify, source; see 'Add a task' in the README",
        ),
        (
            MY_TASK.replace("presets = {", "presets = {} and {"),
            "Count.presets: got {}, wanted at least one CountConfig",
        ),
        (
            MY_TASK.replace("CountConfig(length=1)", "3"),
            r"Count.presets: got {.*'one': 3}, wanted at least one CountConfig, and nothing else",
        ),
    ],
)
def test_mistake_in_a_file_is_one_line_that_names_the_file(tmp_path, monkeypatch, text, message):
    (tmp_path / "wrong.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^wrong.py: {message}"):
        get_task("wrong.py")


@pytest.mark.parametrize(
    ("line", "error"), [("import no_such_module", ModuleNotFoundError), ("nmae", NameError), ("int('x')", ValueError)]
)
def test_what_a_file_raises_itself_keeps_its_traceback(tmp_path, line, error):
    path = tmp_path / "wrong.py"
    path.write_text(f"{MY_TASK}\n{line}\n")
    with pytest.raises(error) as raised:
        get_task(str(path))
    assert Path(raised.traceback[-1].path) == path


def test_class_of_another_package_that_is_no_whole_task_is_an_error(installed):
    installed(("half", "hf_synth.tasks.base:Task"))
    with pytest.raises(
        ValueError, match=r"^hf_synth.tasks.base:Task: class Task lacks corrupt, generate, .*, source; see"
    ):
        get_task("half")
