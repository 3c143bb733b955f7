"""How the tests start recipes: as processes, in folders of their own, with settings that take seconds."""

import dataclasses
import gzip
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
def start(tmp_path_factory) -> Iterator[Callable[..., Running]]:
    """Start a recipe with flags in a folder, on one process or several as torchrun would; one at a time."""
    logs = tmp_path_factory.mktemp("logs")
    environment = {**os.environ, **ENVIRONMENT}
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    server = subprocess.Popen([sys.executable, str(ROOT / "tests" / "warm.py"), *LIBRARIES], **options)

    def launch(recipe: str, *flags: object, cwd: Path, processes: int = 1, **env: str) -> Running:
        argv = [str(RECIPES / recipe), *map(str, flags)]
        files = {name: str(logs / name) for name in ("stdout", "stderr")}
        return Running(server, {"argv": argv, "cwd": str(cwd), "env": env, "processes": processes, **files})

    yield launch
    server.stdin.close()
    server.wait(timeout=60)


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


@pytest.fixture(scope="session")
def quick_flags() -> list[str]:
    """The quickstart with fewer rows and steps; nothing else is changed."""
    sizes = "--num_rows 200 --eval_prompts 8 --per_device_train_batch_size 16 --num_generations 4"
    return f"{sizes} --max_steps 8 --save_steps 2 --sample_every 4".split()


@pytest.fixture(scope="session")
def quickstart(command, quick_flags, tmp_path_factory) -> Path:
    """The finished quickstart, started as the README says."""
    folder = tmp_path_factory.mktemp("quickstart")
    accelerate = Path(sys.executable).with_name("accelerate")
    done = command(accelerate, "launch", "--quiet", RECIPES / "grpo.py", *quick_flags, cwd=folder)
    assert done.code == 0, done.err
    assert f"Report: {Path('runs/quickstart/report.html')}" in done.out
    return folder / "runs" / "quickstart"


@pytest.fixture(scope="session")
def hh_pairs(shared_data, tmp_path_factory) -> Path:
    """The first 60 real pairs, and two that nothing can be learnt from."""
    source = shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(60)]
    same = "\n\nHuman: Which?\n\nAssistant: Either."
    lines += [json.dumps({"chosen": same, "rejected": same}) + "\n", "no JSON\n"]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="session")
def hh_runs(run, hh_pairs, tmp_path_factory) -> Path:
    """The folder in which density/hh_rlhf_*.yaml ran one after the other, each by its default paths."""
    folder = tmp_path_factory.mktemp("hh")
    shape = json.dumps({**TINY, "max_position_embeddings": 1024})
    flags = {
        "sft": ["--max_steps", 3, "--per_device_train_batch_size", 4, "--new_model", shape],
        "reward": ["--max_steps", 3, "--per_device_train_batch_size", 4, "--test_share", 0.3],
        "dpo": ["--max_steps", 3, "--per_device_train_batch_size", 4, "--test_share", 0.3],
        "grpo": [
            *("--max_steps", 3, "--save_steps", 2, "--per_device_train_batch_size", 8, "--num_generations", 4),
            *("--max_completion_length", 6, "--sample_every", 2, "--test_share", 0.3),
        ],
    }
    for recipe, changes in flags.items():
        config = RECIPES / "configs" / "density" / f"hh_rlhf_{recipe}.yaml"
        done = run(
            f"{recipe}.py", "--config", config, "--preferences", hh_pairs, "--use_cpu", "true", *changes, cwd=folder
        )
        assert done.code == 0, done.err
    return folder
