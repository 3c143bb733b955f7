"""datasets_scripts/: what they declare, the same bytes by any number of processes, and what a kill leaves."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hf_synth import get_task, list_tasks
from hf_synth.corpora.arms import RATIOS
from hf_synth.hub.command import chosen, main, row_numbers
from hf_synth.hub.publication import Choices
from hf_synth.io import directory_lock
from hf_synth.tasks import task_class

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets_scripts"
NOT_PUBLISHED: tuple[str, ...] = ()  # tasks that no script publishes, on purpose
NAMES = ("procedural", "grammars", "rlm", "analogy")
LANGUAGES = ("start_mid_end", "color_shape", "palindrome", "tivari", "tivari3")
ACCELERATE = Path(sys.executable).with_name("accelerate")
UNKNOWN = """
import runpy, sys
sys.argv = ["procedural.py", "--configs", "xyzzy"]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as ended:
    assert ended.code == 2
loaded = {{"accelerate", "datasets", "torch", "transformers"}} & sys.modules.keys()
assert not loaded, loaded
"""
LONGEST = 240  # seconds
FLAGS = ("--configs", "sort-64", "sort-8", "--rows", "train=70000", "validation=100", "test=100")


def module(name: str):
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


def tiny(publication) -> dict:
    """Every config of a publication, with few rows."""
    choices = Choices(rows={"train": 30, "validation": 10, "test": 10})
    return dict(zip(publication.offers(), chosen(publication, None, choices), strict=True))


def command(*words: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=LONGEST, env=environment)


def python(*words: object) -> subprocess.CompletedProcess:
    return command(sys.executable, *words)


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, the card as it were anywhere: it names the folder that it loads from."""
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(folder.as_posix().encode(), b"FOLDER")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict[str, bytes]:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("one")
    done = python(SCRIPTS / "procedural.py", *FLAGS, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'README.md'}\n"
    return files(folder)


# What is declared


def test_every_task_is_published_by_one_script_in_each_of_its_presets():
    offered = [name for script in NAMES for name in module(script).PUBLICATION.offers()]
    twice = sorted({name for name in offered if offered.count(name) > 1})
    assert not twice, f"in more than one script of datasets_scripts/: {twice}"
    corpora = {f"{task}-{arm}" for task in LANGUAGES for arm in RATIOS}
    presets = {task: {f"{task}-{preset}" for preset in task_class(task).presets} for task in list_tasks()}
    missing = [task for task, names in presets.items() if task not in NOT_PUBLISHED and not names <= set(offered)]
    assert not missing, f"add {missing} to a script of datasets_scripts/, or to NOT_PUBLISHED in {__file__}"
    pairs = {f"{name}-preference" for task, names in presets.items() for name in names if get_task(task).verifiable}
    assert pairs == {name for name in offered if name.endswith("-preference")}
    unknown = sorted(set(offered) - corpora - pairs - set().union(*presets.values()))
    assert not unknown, f"no task has these presets any more: {unknown}"
    both = [task for task in NOT_PUBLISHED if task not in presets or presets[task] & set(offered)]
    assert not both, f"remove {both} from NOT_PUBLISHED: they are published, or are no tasks"


@pytest.mark.parametrize("name", NAMES)
def test_script_and_publication_have_one_name(name):
    publication = module(name).PUBLICATION
    assert publication.name == name
    assert all(config.name == offered for offered, config in tiny(publication).items())


@pytest.mark.parametrize("name", NAMES)
def test_every_config_has_the_columns_that_it_declares(name):
    for config in tiny(module(name).PUBLICATION).values():
        for split in config.splits:
            rows = min(5, config.splits[split])  # fewer where there are fewer contents
            table = config.table(split, 0, rows)
            assert table.num_rows == rows
            assert table.schema.equals(config.features.arrow_schema)
            columns = {"input_ids", "labels", "text", "prompt", "completion", "task", "floor"}
            columns = {"text", "kind"} if config.group.endswith(" corpora") else columns
            columns = {"prompt", "chosen", "rejected"} if config.name.endswith("-preference") else columns
            assert columns <= set(table.column_names)
            assert set(config.content.split("+")) <= columns


@pytest.mark.parametrize("name", ["sort-64", "sort-16-to-64", "dyck-k2-l16"])
def test_splits_are_kept_apart_unless_told_otherwise(name):
    publication = module("procedural").PUBLICATION
    assert chosen(publication, [name], Choices())[0].task.config.holdout == "content"
    assert chosen(publication, [name], Choices(holdout="none"))[0].task.config.holdout == "none"


def test_finite_task_has_its_own_sizes():
    config = chosen(module("analogy").PUBLICATION, ["analogy-e10"], Choices(rows={"train": 5}))[0]
    assert config.splits == {
        split: get_task("analogy", "e10").size(split) for split in ("train", "validation", "test")
    }


# The command line


@pytest.mark.processes
@pytest.mark.parametrize("name", NAMES)
def test_help_and_list_run_alone(name):
    done = python(SCRIPTS / f"{name}.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--repo_id USER/REPO" in done.stdout
    assert f"default: published/{name}" in done.stdout


def test_list_names_what_would_be_published(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(module("procedural").PUBLICATION, ["--list", "--configs", "sort-8", "--rows", "train=60000"])
    line = capsys.readouterr().out
    assert line.startswith("sort-8: train 60,000, validation 10,000, test 10,000; 4 shards, about ")
    row = 2 * (19 * 4 + 4) + (49 + 4) + (26 + 4) + (25 + 4) + (118 + 4) + 4  # ids, labels, four texts and a floor
    assert float(line.split()[-4]) == pytest.approx(80_000 * row / 1e6, rel=0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--configs", "sort-65"], "configs: got unknown config 'sort-65'; did you mean sort-64, "),
        (
            ["--configs", "dyck"],
            "configs: got unknown config 'dyck'; did you mean dyck-k8-l64, dyck-k64-l2048, dyck-k2-l16, dyck-k4-l32, "
            "dyck-k4-l16-to-l64? --list names all",
        ),
        (["--configs", "haystack-"], "configs: got unknown config 'haystack-'; did you mean haystack-30, haystack-"),
        (["--configs", "xyzzy"], "configs: got unknown config 'xyzzy'; known: sort-64, sort-32, "),
        (
            ["--rows", "trian=5"],
            "rows: got unknown split 'trian'; did you mean 'train'? Known: test, train, validation.",
        ),
        (["--rows", "train=many"], "rows: got 'train=many', wanted SPLIT=NUMBER, such as train=100000, with "),
        (
            ["--rows", "train=0"],
            "rows: got 'train=0', wanted SPLIT=NUMBER, such as train=100000, with a number of at ",
        ),
        (["--rows", "train=99999999999"], "rows: got 'train=99999999999', wanted SPLIT=NUMBER, such as train=1"),
        (
            ["--rows", "train=5", "train=6"],
            "rows: got 'train=6', wanted SPLIT=NUMBER, such as train=100000, with a num",
        ),
        (["--rows", "100"], "rows: got '100', wanted SPLIT=NUMBER, such as train=100000, with a number of at least 1"),
        (["--repo_id", "repo"], "repo_id: got 'repo', wanted user/name"),
        (["--repo_id", "user/re po", "--configs", "sort-8"], "Repo id must use"),
    ],
)
def test_user_s_error_is_one_line(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(module("procedural").PUBLICATION, flags)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert f": error: {message}" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_many_configs_are_not_listed_on_one_line():
    with pytest.raises(ValueError, match=r"known: (\S+, ){8}\.\.\. \(\d+ more\); --list names all$") as error:
        chosen(module("procedural").PUBLICATION, ["xyzzy"], Choices())
    assert len(str(error.value)) < 200


@pytest.mark.processes
def test_unknown_config_is_told_without_heavy_libraries():
    done = python("-c", UNKNOWN.format(script=str(SCRIPTS / "procedural.py")))
    assert done.returncode == 0, done.stderr


def test_rows_are_read_split_by_split():
    assert row_numbers(["train=100", "test=7"]) == {"train": 100, "test": 7}
    assert row_numbers([]) == {}


def test_changed_seed_does_not_take_the_shards_of_before(capsys, tmp_path):
    publication = module("procedural").PUBLICATION
    flags = ["--configs", "sort-8", "--rows", "train=20", "validation=5", "test=5", "--output_dir", str(tmp_path)]
    main(publication, flags)
    before = files(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(publication, [*flags, "--seed", "1"])
    assert ended.value.code == 2
    assert "was made by other arguments (seed: 0 there, 1 now)" in capsys.readouterr().err
    assert files(tmp_path) == before


# The same bytes by any number of processes, and after a kill


@pytest.mark.processes
def test_two_processes_make_what_one_makes(one, tmp_path):
    launch = (ACCELERATE, "launch", "--quiet", "--multi_gpu", "--num_processes", "2")
    done = command(*launch, SCRIPTS / "procedural.py", *FLAGS, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == one
    assert len([path for path in one if path.endswith(".parquet")]) == 8


@pytest.mark.nightly
@pytest.mark.processes
def test_killed_it_goes_on_to_the_same_bytes(one, tmp_path):
    """SIGKILL once some shards lie there; what lies under a final name is whole, and is not made again."""
    words = [sys.executable, str(SCRIPTS / "procedural.py"), *FLAGS, "--output_dir", str(tmp_path)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + LONGEST
    while len(list(tmp_path.glob("*/*.parquet"))) < 2 or not list(tmp_path.glob("*/.*.part")):
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    left = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.parquet")}
    assert 2 <= len(left) < 8
    assert not (tmp_path / "README.md").exists()
    assert all(path.read_bytes() == one[str(path.relative_to(tmp_path))] for path in left)

    done = command(ACCELERATE, "launch", "--quiet", SCRIPTS / "procedural.py", *FLAGS, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == one, "and nothing half-written is left beside it"
    assert {path: path.stat().st_mtime_ns for path in left} == left


def test_two_at_once_are_refused(tmp_path, capsys):
    with directory_lock(str(tmp_path)), pytest.raises(SystemExit, match="2"):
        main(module("procedural").PUBLICATION, [*FLAGS, "--output_dir", str(tmp_path)])
    assert "is locked by another process" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.processes
def test_shards_hold_the_rows_of_the_task(one, tmp_path):
    path = tmp_path / "shard.parquet"
    path.write_bytes(one["sort-8/train-00001-of-00002.parquet"])
    rows = get_task("sort", "8", holdout="content").rows(50_000, 20_000)
    assert pq.read_table(path)["input_ids"].to_pylist() == rows.tokens.tolist()
