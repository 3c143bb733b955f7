"""A Hub on this machine, and clients of it in fresh processes."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

# First in every client: libraries that must not be needed are not there, whatever is installed.
_PRELUDE = """\
import sys
class _Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked in this client)", name=name)
sys.meta_path.insert(0, _Blocked())
"""


def _stand_in() -> ModuleType:
    """The package hub_stand_in, one folder up."""
    spec = importlib.util.spec_from_file_location(
        "hub_stand_in", Path(__file__).parents[1] / "hub_stand_in/__init__.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HubStandIn = _stand_in().HubStandIn


class Client(Protocol):
    """Runs Python code in a fresh process whose Hub is the stand-in."""

    def __call__(
        self, code: str, *, blocked: tuple[str, ...] = ("hf_synth",), check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    """An empty Hub of its own for each test."""
    with HubStandIn() as server:
        yield server
    unserved = [f"{request.method} {request.path}" for request in server.seen(status=501)]
    assert not unserved, f"clients asked for what tests/hub_stand_in does not serve: {unserved}"
    unmet = [failure for failure in server.failures if failure.times]
    assert not unmet, f"arranged failures that no request met: {unmet}"


@pytest.fixture
def client(hub: HubStandIn, tmp_path: Path) -> Client:
    """Runs code as a client of `hub`: a fresh process, an empty folder and cache of its own, the Hub's token.

    Libraries in `blocked` cannot be imported; `env` adds to the environment or replaces (HF_TOKEN="" is nobody). A
    client that fails makes the test fail with its standard error, except with check=False.
    """

    def run(
        code: str, *, blocked: tuple[str, ...] = ("hf_synth",), check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / f"client_{len(hub.clients)}"
        folder.mkdir()
        script = folder / "client.py"
        script.write_text(_PRELUDE.format(blocked=blocked) + textwrap.dedent(code))
        process = subprocess.Popen(
            [sys.executable, script.name],
            cwd=folder,
            env=_environment(hub, folder) | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        hub.clients.append(process)
        with process:
            try:
                out, err = process.communicate(timeout=300)
            finally:
                hub.kill_clients()
        if check and process.returncode:
            pytest.fail(f"The client ended with {process.returncode}.\n{out}\n{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


def _environment(hub: HubStandIn, folder: Path) -> dict[str, str]:
    """A client's environment: this process's, without its settings of Hugging Face libraries."""
    theirs = ("HF_", "HUGGING_FACE_", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(folder / "hf_home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def finished(tmp_path):
    """A finished run, made up; see tests/reports/made_up.py."""
    path = Path(__file__).parents[1] / "reports" / "made_up.py"
    spec = importlib.util.spec_from_file_location("reports_made_up", path)
    made_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_up)
    made_up.write_pretraining(tmp_path / "run")
    for name in ("config.json", "tokenizer.json", "training_args.bin", "optimizer.pt", ".lock", "prompts.jsonl"):
        (tmp_path / "run" / name).write_text("{}")
    save_file({"weight": np.zeros(2)}, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "checkpoint-40").mkdir()
    (tmp_path / "run" / "checkpoint-40" / "model.safetensors").touch()
    return tmp_path / "run"
