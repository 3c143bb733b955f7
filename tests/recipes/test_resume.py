"""Runs that are interrupted and killed: the same command again ends with the same weights, to the last bit."""

import hashlib
import json
import signal

import pytest

pytestmark = pytest.mark.processes


def weights(folder):
    """A digest: a difference of megabytes is nothing that pytest should spell out."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_sft_interrupted(quickstart, start, run, quick_flags, tmp_path):
    """The quickstart's warm-up is what recipes/sft.py does on as many rows, so its model is the one to reach."""
    folder = tmp_path / "sft"
    flags = ["--output_dir", folder, *quick_flags[: quick_flags.index("--num_rows") + 2]]
    cut = start("sft.py", *flags, cwd=tmp_path).signal_when(signal.SIGINT, folder / "checkpoint-30" / "complete.json")
    done = cut.wait()
    assert done.code == 130, done.err
    assert "\nsft.py: interrupted; the same command goes on from the last checkpoint\n" in done.err
    assert "Traceback" not in done.err
    assert not (folder / "model.safetensors").exists()
    done = run("sft.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"Resuming from {folder / 'checkpoint-30'}" in done.err
    assert weights(folder) == weights(quickstart / "warmup")


def test_sft_cut_off_before_its_numbers_and_rows_that_changed(run, tmp_path):
    pairs, folder = tmp_path / "pairs.jsonl", tmp_path / "sft"
    text = "".join(
        json.dumps({"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No."}) + "\n" for n in range(20)
    )
    pairs.write_text(text)
    shape = json.dumps({"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2})
    flags = ["--preferences", pairs, "--tokenizer_vocab_size", 300, "--new_model", shape, "--max_steps", 1]
    flags += ["--output_dir", folder, "--save_strategy", "no", "--use_cpu", "true", "--report_to", "none"]
    done = run("sft.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    before = (folder / "metrics.json").read_text()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    (folder / "metrics.json").unlink()
    pairs.write_text(text.replace("Question 3", "Question 33"))
    assert "holds a run that began otherwise (fingerprint: " in run("sft.py", *flags, cwd=tmp_path).error
    pairs.write_text(text)
    done = run("sft.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (folder / "metrics.json").read_text() == before
    assert (folder / "model.safetensors").stat().st_mtime_ns == written, "it was not trained again"


def test_grpo_interrupted_and_killed_with_a_torn_checkpoint(quickstart, start, run, quick_flags, tmp_path):
    """An interruption in the first arm; a kill in the second, whose last checkpoint is torn afterwards."""
    folder, control = tmp_path / "grpo", tmp_path / "grpo" / "control"
    flags = [*quick_flags, "--output_dir", folder]
    cut = start("grpo.py", *flags, cwd=tmp_path).signal_when(signal.SIGINT, folder / "checkpoint-2" / "complete.json")
    done = cut.wait()
    assert done.code == 130, done.err
    assert "interrupted; the same command goes on" in done.err
    assert not (folder / "model.safetensors").exists()
    assert weights(folder / "warmup") == weights(quickstart / "warmup")

    cut = start("grpo.py", *flags, cwd=tmp_path).signal_when(
        signal.SIGKILL, control / "checkpoint-4" / "complete.json"
    )
    done = cut.wait()
    assert done.code == -signal.SIGKILL
    assert f"Resuming from {folder / 'checkpoint-'}" in done.err
    assert weights(folder) == weights(quickstart)
    assert not (control / "model.safetensors").exists()
    for step in (6, 8):
        assert not (control / f"checkpoint-{step}" / "complete.json").exists(), "the kill came too late to tell"
    torn = control / "checkpoint-4" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-1])

    done = run("grpo.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"Skipping checkpoint {control / 'checkpoint-4'}: optimizer.pt is damaged" in done.err
    assert f"Resuming from {control / 'checkpoint-2'}" in done.err
    for arm in (".", "control", "warmup"):
        assert weights(folder / arm) == weights(quickstart / arm)
