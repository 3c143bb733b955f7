"""Shared by all tests: no network, no user's cache, no progress bars, where the real data lie, how recipes start."""

import atexit
import dataclasses
import gc
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SCRATCH = tempfile.mkdtemp(prefix="hf_synth_tests_")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)

# Before any import of the libraries that read them, and inherited by the processes that tests start.
os.environ.update(
    HF_HOME=_SCRATCH,
    HF_DATASETS_CACHE=str(Path(_SCRATCH) / "datasets"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# How long an example takes says how busy the machine is.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("daily", max_examples=30, **UNTIMED)
settings.register_profile("nightly", max_examples=300, **UNTIMED)
settings.load_profile("daily")

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
LIBRARIES = (
    "accelerate",
    "datasets",
    "evaluate",
    "hf_synth.hub.publish",
    "hf_synth.preferences",
    "hf_synth.sampling.trainers",
    "hf_synth.training.models",
    "hf_synth.training.pretraining_trainer",
    "hf_synth.training.transfer",
    "hf_synth.training.weighting",
    "matplotlib.pyplot",
    "numba",
    "peft",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.neighbors",
    "torch",
    "transformers",
    "trl.trainer.dpo_trainer",
    "trl.trainer.grpo_trainer",
    "trl.trainer.reward_trainer",
    "trl.trainer.sft_trainer",
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
LONGEST = 240  # seconds

_DATA = ROOT.parent / "shared" / "data"


# Shells let background jobs ignore Ctrl-C, and what those start inherits it: some tests are about Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files beside the repository; a test that needs it is skipped only outside CI."""
    if not _DATA.is_dir():
        missing = f"needs the real data files in {_DATA}"
        if os.environ.get("CI"):
            pytest.fail(f"{missing}, and CI must not skip it")
        pytest.skip(missing)
    return _DATA


FIRST = ("recipes", "hub", "test_notebooks.py", "test_readme.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take longest: a worker that begins one of them last leaves the others idle."""

    def rank(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT).parts
        return next((number for number, name in enumerate(FIRST) if name in parts), len(FIRST))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Leave what is loaded out of garbage collections: Trainer calls one in every run, over all that there is."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """The same for what the tests before have loaded."""
    gc.collect()
    gc.freeze()


@dataclasses.dataclass
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a user's mistake; nothing but warnings may stand before it."""
        assert self.code == 2, self
        assert "Traceback" not in self.err, self.err
        last = self.err.rstrip("\n").split("\n")[-1]
        assert self.err.count(": error: ") == last.count(": error: ") == 1, self.err
        return last


class Running:
    """A recipe at work."""

    def __init__(self, server: subprocess.Popen, order: dict) -> None:
        self.server, self.order = server, order
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def signal_when(self, number: int, path: Path) -> "Running":
        """Send a signal as soon as a file is there."""
        end = time.monotonic() + LONGEST
        while not path.exists():
            assert time.monotonic() < end, f"no {path} after {LONGEST} s"
            time.sleep(0.002)
        os.kill(self.pid, number)
        return self

    def wait(self) -> Done:
        """Its end."""
        code = int(self.server.stdout.readline())
        texts = [Path(self.order[name]).read_text(errors="replace") for name in ("stdout", "stderr")]
        return Done(code, *texts)


@pytest.fixture(scope="session")
def start_script(tmp_path_factory) -> Iterator[Callable[..., Running]]:
    """Start a script with flags in a folder, on one process or several as torchrun would; one script at a time."""
    logs = tmp_path_factory.mktemp("logs")
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": {**os.environ, **ENVIRONMENT}}
    server = subprocess.Popen([sys.executable, str(ROOT / "tests" / "warm.py"), *LIBRARIES], **options)

    def launch(script: Path, *flags: object, cwd: Path, processes: int = 1, **env: str) -> Running:
        files = {name: str(logs / name) for name in ("stdout", "stderr")}
        order = {"argv": [str(script), *map(str, flags)], "cwd": str(cwd), "env": env, "processes": processes}
        return Running(server, {**order, **files})

    yield launch
    server.stdin.close()
    server.wait(timeout=60)


@pytest.fixture(scope="session")
def start(start_script) -> Callable[..., Any]:
    """Start a recipe with flags in a folder, on one process or several as torchrun would; one at a time."""
    return lambda recipe, *flags, **options: start_script(RECIPES / recipe, *flags, **options)


@pytest.fixture(scope="session")
def run(start) -> Callable[..., Done]:
    """Run a recipe to its end."""
    return lambda *flags, **options: start(*flags, **options).wait()


@pytest.fixture
def fail(monkeypatch, capsys) -> Callable[..., Done]:
    """Run a recipe in this process up to the mistake that ends it: a process takes seconds to say one line."""

    def launch(recipe: str, *flags: object, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [str(RECIPES / recipe), *map(str, flags)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(sys.argv[0], run_name="__main__")
        return Done(ended.value.code, *capsys.readouterr())

    return launch


@pytest.fixture(scope="session")
def command() -> Callable[..., Done]:
    """Run any command to its end, in the shell's way: nothing is imported before."""

    def launch(*words: object, cwd: Path) -> Done:
        done = subprocess.run(
            [*map(str, words)],
            cwd=cwd,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return launch


@pytest.fixture(scope="session")
def recipes() -> Path:
    """The folder of the recipes."""
    return RECIPES
