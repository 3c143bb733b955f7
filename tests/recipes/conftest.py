"""Runs that several tests look at, with settings that take seconds."""

import gzip
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"


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
