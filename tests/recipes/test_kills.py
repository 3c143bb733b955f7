"""Every recipe, killed at random moments, ends with the weights, history and numbers of a run that was not.

    KILLS=100 python -m pytest -m nightly tests/recipes/test_kills.py -s

KILLS: how many kills, spread over the kinds; by default ten of each. Each kind says how many came, and when. Moments
are drawn in the processor time of the process, from when its folder is there to its end: so they fall into the work
and not into loading, however busy the machine is.
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = [pytest.mark.nightly, pytest.mark.processes]

_SPEC = importlib.util.spec_from_file_location("kills", Path(__file__).with_name("kills.py"))
kills = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kills)

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.1}
COMMON = {"use_cpu": True, "bf16": False, "report_to": "none", "per_device_train_batch_size": 8, "max_steps": 30}
COMMON |= {"save_steps": 2, "save_total_limit": 2, "logging_steps": 7, "learning_rate": 1e-2, "task": "agreement"}
LOOKS = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "test_share": 0.5}
SYNC = {"sync_ref_model": True, "ref_model_sync_steps": 3, "ref_model_mixup_alpha": 0.5, "beta": 0.5}
ANSWERS = {"num_generations": 4, "max_completion_length": 4, "eval_prompts": 4, "sample_every": 3, "final_samples": 2}
SMALL = {name: COMMON[name] for name in COMMON if name not in ("task", "save_steps")}
RECIPES = {
    "sft": {**COMMON, "num_rows": 60, "new_model": SHAPE, "sampling_strength": 1},
    "reward": {**COMMON, **LOOKS, "num_rows": 60, "new_model": SHAPE},
    "dpo": {**COMMON, **LOOKS, **SYNC, "num_rows": 60, "model_name_or_path": "whole/sft"},
    "grpo": {
        **{**COMMON, **SYNC, **ANSWERS, "max_steps": 12},
        **{"num_rows": 24, "model_name_or_path": "whole/sft", "sampling_strength": [1, 0], "density_k": 3},
        **{"sampling_by": ["density", "pass_rate"], "round_size": 4, "gradient_accumulation_steps": 1},
    },
    "compare": {
        **{**SMALL, "max_steps": 6, "save_steps": 2, "task": "agreement", "num_rows": 60, "new_model": SHAPE},
        **{"recipe": "reward", "arms": {"uniform": {"sampling_strength": 0}, "density": {}}, "seeds": 2},
        **{"primary": "accuracy/held_out", "test_share": 0.5},
    },
    "evaluation": {"model_name_or_path": "whole/sft", "rows": 64, "samples": 64, "completions": 32},
    "density": {"task": "agreement", "num_rows": 2000},
}
FROM = {"dpo": "sft", "grpo": "sft", "evaluation": "sft", "transfer": "curriculum"}
KINDS = {
    **{name: (f"{name}.py", f"{name}.yaml") for name in RECIPES},
    **dict.fromkeys(kills.KINDS, ("pretrain.py", "")),
}
EACH = -(-int(os.environ.get("KILLS", 10 * len(KINDS))) // len(KINDS))


def argv(kind, folder):
    """The flags of a kind's command that writes to a folder."""
    config = KINDS[kind][1]
    return ["--config", config, "--output_dir", folder] if config else kills.flags(kind, folder, 60)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the configs."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, values in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


def wait(process, reached):
    """The processor seconds that a process has spent when `reached` says so of them, or at its end."""
    seconds = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        while not reached(seconds := sum(process.cpu_times()[:4])):  # of its children, too
            time.sleep(0.002)
    return seconds


def whole(kind, root, start):
    """Run a kind without interruption, which leaves whole/KIND, and what it starts from before.

    Returns the processor seconds at which its folder is there, and those at its end: of the second time, since the
    first fills caches.
    """
    if kind in FROM and not (root / "whole" / FROM[kind]).exists():
        whole(FROM[kind], root, start)
    for _ in range(2):
        shutil.rmtree(root / "whole" / kind, ignore_errors=True)
        process = start(KINDS[kind][0], *argv(kind, f"whole/{kind}"), cwd=root)
        watched = psutil.Process(process.pid)
        loaded = wait(watched, lambda seconds: (root / "whole" / kind).exists())
        total, done = wait(watched, lambda seconds: False), process.wait()
        assert done.code == 0, done.err
    return loaded, total


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random(kind, root, start):
    loaded, total = whole(kind, root, start)
    draw, folder, wanted = random.Random(kind), root / "killed" / kind, kills.left_behind(root / "whole" / kind)
    moments, ended = [], 0
    while len(moments) < EACH or not ended:
        process, share = start(KINDS[kind][0], *argv(kind, f"killed/{kind}"), cwd=root), draw.random()
        if len(moments) < EACH:
            moment = loaded + share * (total - loaded)
            wait(psutil.Process(process.pid), lambda seconds, moment=moment: seconds >= moment)
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process.pid, signal.SIGKILL)
        done = process.wait()
        if done.code == -signal.SIGKILL:
            moments.append(f"{share:.0%}")
            continue
        assert done.code == 0, done.err
        assert kills.left_behind(folder) == wanted
        shutil.rmtree(folder)
        ended += 1
    shares = ", ".join(moments)
    print(
        f"\n{kind}: {len(moments)} kills at {shares} of {total - loaded:.1f} s of work after {loaded:.1f} s of loading"
    )
    print(f"{kind}: {ended} runs to the end, none with other weights, history or numbers")
