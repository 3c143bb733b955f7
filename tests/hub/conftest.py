"""A Hub on this machine, and clients of it in processes of their own."""

import contextlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

# What a client that knows nothing of hf_synth has loaded before it starts, and one that may use it.
_LOADED = {("hf_synth",): ("datasets",), (): ("datasets", "accelerate", "hf_synth.hub.command", "hf_synth.views")}
_READ_LATE = {"HF_TOKEN", "OMP_NUM_THREADS", "RANK"}  # what libraries read when they need it, not when they load


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
    """Runs Python code in a process of its own whose Hub is the stand-in."""

    def __call__(
        self,
        code: str,
        *,
        blocked: tuple[str, ...] = ("hf_synth",),
        check: bool = True,
        processes: int = 1,
        **env: str,
    ) -> subprocess.CompletedProcess[str]: ...


class Process:
    """One order that a process of tests/warm.py carries out."""

    def __init__(self, server: subprocess.Popen[str], order: dict[str, Any]) -> None:
        self.server, self.order, self.code = server, order, None
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        """The exit code, None while it runs: `wait` is what learns of the end."""
        return self.code

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end."""
        self.code = int(self.server.stdout.readline())
        texts = [Path(self.order[name]).read_text(errors="replace") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(self.order["argv"], self.code, *texts)


class Machine:
    """Where the clients of a session run: one address of the Hub, one path for a cache that is another one each time.

    Libraries read both when they load, and clients are forks of a process that has loaded them.
    """

    def __init__(self, folder: Path) -> None:
        self.port, self.servers = 0, {}
        self.home = folder / "home"
        self.home.symlink_to(folder)

    def hub(self) -> HubStandIn:
        """A Hub on the port of before, where nothing else has taken it; the clients of another port are new ones."""
        while True:
            with contextlib.suppress(OSError):
                if self.port:
                    return HubStandIn(self.port)
            self.close()
            self.port = random.randrange(20_000, 32_000)  # below those that connections get

    def close(self) -> None:
        """End the processes that fork clients."""
        for server in self.servers.values():
            server.stdin.close()
            server.wait(timeout=60)
        self.servers = {}

    def server(self, hub: HubStandIn, blocked: tuple[str, ...]) -> subprocess.Popen[str]:
        """The process that forks the clients of a kind."""
        if blocked not in self.servers:
            command = [sys.executable, str(Path(__file__).parents[1] / "warm.py"), *_LOADED[blocked]]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.servers[blocked] = subprocess.Popen(command, env=_environment(hub, self.home), **pipes)
        return self.servers[blocked]

    def move(self, folder: Path) -> None:
        """Let the path of the cache be a folder that is still empty."""
        self.home.unlink()
        self.home.symlink_to(folder)


@pytest.fixture(scope="session")
def machine(tmp_path_factory) -> Iterator[Machine]:
    """The machine of all clients."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


@pytest.fixture
def hub(machine: Machine) -> Iterator[HubStandIn]:
    """An empty Hub of its own for each test."""
    with machine.hub() as server:
        yield server
    unserved = [f"{request.method} {request.path}" for request in server.seen(status=501)]
    assert not unserved, f"clients asked for what tests/hub_stand_in does not serve: {unserved}"
    unmet = [failure for failure in server.failures if failure.times]
    assert not unmet, f"arranged failures that no request met: {unmet}"


@pytest.fixture
def client(hub: HubStandIn, machine: Machine, tmp_path: Path) -> Client:
    """Runs code as a client of `hub`: a process, an empty folder and cache of its own, the Hub's token.

    Libraries in `blocked` cannot be imported; `env` adds to the environment or replaces (HF_TOKEN="" is nobody). A
    client that fails makes the test fail with its standard error, except with check=False.
    """

    def run(
        code: str,
        *,
        blocked: tuple[str, ...] = ("hf_synth",),
        check: bool = True,
        processes: int = 1,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        assert env.keys() <= _READ_LATE, "wanted a process that loads its libraries itself"
        folder = tmp_path / f"client_{len(hub.clients)}"
        folder.mkdir()
        (folder / "client.py").write_text(textwrap.dedent(code))
        server = machine.server(hub, blocked)
        machine.move(folder)
        files = {name: str(tmp_path / name) for name in ("stdout", "stderr")}
        order = {"argv": ["client.py"], "cwd": str(folder), "env": env, "blocked": blocked, "session": True}
        process = Process(server, {**order, "processes": processes, **files})
        hub.clients.append(process)
        done = process.wait()
        if check and done.returncode:
            pytest.fail(f"The client ended with {done.returncode}.\n{done.stdout}\n{done.stderr}")
        return done

    return run


def _environment(hub: HubStandIn, folder: Path) -> dict[str, str]:
    """A client's environment: this process's, without its settings of Hugging Face libraries."""
    theirs = ("HF_", "HUGGING_FACE_", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
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
