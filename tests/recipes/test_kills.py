"""Every recipe, killed at random moments, ends with the weights, history and numbers of a run that was not.

    KILLS=100 python -m pytest -m nightly tests/recipes/test_kills.py -s

KILLS: how many kills, spread over the kinds; by default ten of each. Each kind says how many came.
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import time
from pathlib import Path

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
}
FROM = {"dpo": "sft", "grpo": "sft", "evaluation": "sft", "transfer": "curriculum"}
KINDS = {
    **{name: (f"{name}.py", f"{name}.yaml") for name in RECIPES},
    **dict.fromkeys(kills.KINDS, ("pretrain.py", "")),
}
EACH = -(-int(os.environ.get("KILLS", 10 * len(KINDS))) // len(KINDS))


def words(kind, folder):
    """The flags of a kind's command that writes to a folder."""
    config = KINDS[kind][1]
    return ["--config", config, "--output_dir", folder] if config else kills.flags(kind, folder, 60)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the configs."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, values in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


def whole(kind, place, run):
    """How long a kind takes without interruption, which leaves whole/KIND, once what it starts from is there."""
    if kind in FROM and not (place / "whole" / FROM[kind]).exists():
        whole(FROM[kind], place, run)
    began = time.monotonic()
    done = run(KINDS[kind][0], *words(kind, f"whole/{kind}"), cwd=place)
    assert done.code == 0, done.err
    return time.monotonic() - began


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random(kind, place, start, run):
    seconds, draw = whole(kind, place, run), random.Random(kind)
    folder, wanted, landed, ended = place / "killed" / kind, kills.left_behind(place / "whole" / kind), 0, 0
    while landed < EACH or not ended:
        process = start(KINDS[kind][0], *words(kind, f"killed/{kind}"), cwd=place)
        if landed < EACH:
            time.sleep(draw.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process.pid, signal.SIGKILL)
        done = process.wait()
        if done.code == -signal.SIGKILL:
            landed += 1
            continue
        assert done.code == 0, done.err
        assert kills.left_behind(folder) == wanted
        shutil.rmtree(folder)
        ended += 1
    print(f"\n{kind}: {landed} kills, {ended} runs to the end, none with other weights, history or numbers")
