"""Pretraining on one process, on two, and with loader workers: the same rows, and so the same losses."""

import hashlib
import json
import shlex
import sys

import pytest

pytestmark = pytest.mark.processes

SHAPE = '{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}'  # no dropout
COMMON = f"""--task_args '{{"length": 6, "vocab_size": 10}}' --gpt2_size= --new_model '{SHAPE}' --max_steps 20
    --eval_steps 5 --save_steps 10 --logging_steps 1 --warmup_steps 2 --learning_rate 1e-2
    --eval_rows 20 --test_rows 20 --per_device_eval_batch_size 8 --final_model best
    --curriculum_field length --curriculum_every 4 --curriculum_threshold 0.15"""
FLAGS = shlex.split(COMMON)  # 20 rows are no whole number of batches


def log(folder):
    return json.loads((folder / "training_log.json").read_text())


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def stages(folder):
    names = ("step", "curriculum/next_stage", "curriculum/first_row")
    return [[entry[name] for name in names] for entry in log(folder)["history"] if "curriculum/next_stage" in entry]


@pytest.fixture(scope="module")
def one(run, tmp_path_factory):
    """One process that makes its rows itself."""
    folder = tmp_path_factory.mktemp("processes")
    done = run("pretrain.py", *FLAGS, "--per_device_train_batch_size", 8, "--output_dir", "one", cwd=folder)
    assert done.code == 0, done.err
    assert len(stages(folder / "one")) == 2
    return folder / "one"


def test_loader_workers_change_nothing(one, run):
    flags = [*FLAGS, "--per_device_train_batch_size", 8, "--dataloader_num_workers", 2, "--output_dir", "workers"]
    done = run("pretrain.py", *flags, cwd=one.parent)
    assert done.code == 0, done.err
    assert weights(one.parent / "workers") == weights(one)
    assert stages(one.parent / "workers") == stages(one)


def test_two_processes_see_the_rows_of_one(one, run):
    batch = ["--per_device_train_batch_size", "4", "--use_cpu", "true", "--output_dir", "two"]
    done = run("pretrain.py", *FLAGS, *batch, cwd=one.parent, processes=2)
    assert done.code == 0, done.err
    assert done.out.count("Report: ") == 1
    two = one.parent / "two"
    assert stages(two) == stages(one)
    left_out = ("runtime", "_per_second", "grad_norm")
    for wanted, result in zip(log(one)["history"], log(two)["history"], strict=True):
        assert wanted.keys() == result.keys()
        for name in wanted.keys() - {"train_loss", "total_flos"}:
            if not name.endswith(left_out):
                assert result[name] == pytest.approx(wanted[name], abs=1e-5), (wanted, result)
    finals = [log(folder)["final"] for folder in (one, two)]
    assert finals[1] == pytest.approx(finals[0], abs=1e-5)
    assert finals[0]["rows/test"] == 20
    assert finals[0]["rows/trained"] == 20 * 8


@pytest.mark.nightly
def test_the_config_for_sharding_launches_and_learns_the_same(one, run, command, recipes):
    """Two processes by it, against one. Without an accelerator it shards nothing and is plain data parallelism."""
    flags = [word for word in FLAGS if "curriculum" not in word and word not in ("length", "4", "0.15")]
    whole = run("pretrain.py", *flags, "--per_device_train_batch_size", 8, "--output_dir", "whole", cwd=one.parent)
    assert whole.code == 0, whole.err
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--config_file"]
    batch = ["--per_device_train_batch_size", "4", "--use_cpu", "true", "--output_dir", "launched"]
    config = recipes / "configs" / "accelerate" / "fsdp2.yaml"
    done = command(*accelerate, config, recipes / "pretrain.py", *flags, *batch, cwd=one.parent)
    assert done.code == 0, done.err
    finals = [log(one.parent / name)["final"] for name in ("whole", "launched")]
    assert finals[1]["loss/test"] == pytest.approx(finals[0]["loss/test"], abs=1e-4)
    assert (one.parent / "launched" / "model.safetensors").is_file()
