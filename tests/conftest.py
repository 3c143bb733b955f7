"""Shared by all tests: no network, no user's cache, no progress bars, and where the real data files lie."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

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

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the recipes first: their files take longest, and a worker that begins one last leaves the others idle."""
    items.sort(key=lambda item: item.path.parent.name != "recipes")


def pytest_collection_finish() -> None:
    """Leave what is loaded out of garbage collections: Trainer calls one in every run, over all that there is."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """The same for what the tests before have loaded."""
    gc.collect()
    gc.freeze()
