"""Pretraining of every kind, on models that take seconds, and how the tests kill it again and again.

Loaded by path, by the tests beside it.
"""

import hashlib
import json
import os
import random
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 240  # seconds
_ROPE = '{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}'
_RLM = '{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}'
_COMMON = """--per_device_train_batch_size 8 --per_device_eval_batch_size 64 --eval_rows 32 --test_rows 64
    --warmup_steps 2 --learning_rate 1e-2 --save_steps 1 --save_total_limit 2 --logging_steps 1 --eval_steps 2
    --gpt2_size 1_2_16"""
_SORT = """--task sort --task_args '{"length": 6, "vocab_size": 10}'"""
_KINDS = {
    # GPT-2 has dropout: random state counts.
    "curriculum": f"""{_SORT} --curriculum_field length --curriculum_start 2 --curriculum_every 4 --curriculum_delay 3
        --curriculum_threshold 0.15 --snapshots_per_doubling 1""",
    "finite": f"""--task analogy --task_args '{{"num_relations": 40}}' --gpt2_size= --new_model '{_ROPE}'
        --optimizer adam --weight_decay_on all --final_model best --learning_rate 5e-2""",
    "corpus": """--canonical stand_in --task tivari3 --task_args {} --mix_ratio 0.2 --block_size 32
        --canonical_eval_tokens 640 --tokenizer_vocab_size 300 --test_rows 8""",
    "rlm": f"""--task rlm --preset v6-l2-b2 --gpt2_size= --model_type rlm_transformer --new_model '{_RLM}'
        --optim sgd --optim_args momentum=0.9 --max_grad_norm 0 --decay_steps 16 --decay_to 0.1
        --snapshots_per_doubling 1 --snapshots_linear_after 8""",
    "transfer": f"""{_SORT} --init_from whole/curriculum --init_embeddings averaged --train_parts mlp --train_rows 20
        --decay_to 0.1 --optim sgd --optim_args momentum=0.9""",
}
KINDS = tuple(_KINDS)


def flags(kind: str, folder: str, steps: int) -> list[str]:
    """Of a run of so many steps; the kind with patience stops before."""
    words = [*shlex.split(_COMMON), *shlex.split(_KINDS[kind]), "--max_steps", str(steps), "--output_dir", folder]
    return [*words, "--patience", str(steps // 4)] if kind == "finite" else words


def killed(launch: Callable[[], Any], folder: Path, kills: int, seed: int) -> None:
    """Launch a run and kill it soon after one of its next steps, so many times.

    launch: starts a process; what it returns has `pid`, and `wait()`, which returns something with `code`. The step,
    whether its checkpoint is torn, and how much later the kill comes are drawn with `seed`.
    """
    draw = random.Random(seed)
    for _ in range(kills):
        step = _last_whole(folder) + draw.randint(1, 3)
        name = draw.choice(("", "model.safetensors", "optimizer.pt", "complete.json"))
        began = time.time_ns()
        process = launch()
        _wait_for(folder / f"checkpoint-{step}" / name, began)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait().code == -signal.SIGKILL
        assert not (folder / "training_log.json").exists(), "the kill came too late to tell"


def left_behind(folder: Path) -> dict[str, Any]:
    """What a run or a comparison may leave in one way only: models, samples, histories but for times, numbers."""
    result: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "checkpoint-" in name or name.startswith(".") or "/." in name:
            continue
        if path.suffix in (".safetensors", ".parquet", ".csv"):
            result[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "training_log.json":
            result[name] = [_timeless(entry) for entry in json.loads(path.read_text())["history"]]
        elif path.name == "metrics.json":
            result[name] = numbers(path.parent)
    return result


def numbers(folder: Path) -> dict[str, float]:
    """The numbers that a run or a comparison ended with, but for times."""
    result = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in result.items() if "seconds/" not in name}


def _last_whole(folder: Path) -> int:
    result = folder.glob("checkpoint-*/complete.json")
    return max((int(path.parent.name.removeprefix("checkpoint-")) for path in result), default=0)


def _wait_for(path: Path, began: int) -> None:
    end = time.monotonic() + LONGEST
    while True:
        try:
            if path.stat().st_mtime_ns > began:
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < end, f"no {path} after {LONGEST} s"
        time.sleep(0.001)


def _timeless(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if not name.endswith(("runtime", "_per_second", "step_time"))}
