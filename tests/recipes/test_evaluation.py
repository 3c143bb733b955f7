"""recipes/evaluation.py as its users start it."""

import json
import sys
from pathlib import Path

import evaluation
import pytest
import yaml
from transformers import GPT2Config, GPT2LMHeadModel, set_seed

from hf_synth import get_task
from hf_synth.tokenization import build_tokenizer

SIZES = ["--rows", 40, "--completions", 20, "--samples", 24, "--batch_size", 8]
DYCK = {"k": 2, "length": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of brackets with the config of the run that would have made it; its weights are random."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = build_tokenizer(get_task("dyck", **DYCK))
    set_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    size = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 16}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "resolved_config.yaml").write_text(yaml.safe_dump({"task": "dyck", "task_args": DYCK}))
    return folder


def metrics_of(folder: Path) -> dict[str, float]:
    result = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in result.items() if not name.startswith("seconds/")}


@pytest.mark.nightly
@pytest.mark.processes
def test_two_processes_give_the_numbers_of_one(run, command, recipes, model, tmp_path):
    """Started anew, too: metrics find the library `evaluate`."""
    flags = ["--model_name_or_path", model, "--lengths", 4, 6, *SIZES, "--output_dir"]
    done = run("evaluation.py", *flags, "one", cwd=tmp_path)
    assert done.code == 0, done.err
    accelerate = Path(sys.executable).with_name("accelerate")
    launch = [accelerate, "launch", "--quiet", "--cpu", "--num_processes", 2, "--main_process_port", 0]
    done = command(*launch, recipes / "evaluation.py", *flags, "two", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.count(f"Report: {Path('two/report.html')}") == 1
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert one == two
    assert {"loss/4", "verified/6", "language/6/coverage"} <= one.keys()
    assert (tmp_path / "one" / "report.md").read_text() == (tmp_path / "two" / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "reverse", "--preset", "8"], "lacks 100 of the 104 words of task reverse: '0', '1'"),
        (["--lengths", "4", "--length_field", "size"], "length_field: task dyck got 'size'"),
        (["--lenghts", "4"], "did you mean 'lengths'?"),
        (["--lengths", "32"], "got rows of 34 tokens, and a model of 16 positions"),
    ],
)
def test_mistakes(fail, model, tmp_path, flags, message):
    assert message in fail("evaluation.py", "--model_name_or_path", model, *flags, cwd=tmp_path).error
    assert not (model / "evaluation" / "metrics.json").exists()


@pytest.mark.processes
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path):
    assert run("evaluation.py", cwd=tmp_path).error.startswith("evaluation.py: error: got no model_name_or_path")


def test_counts_fit_the_size_of_the_model(model, monkeypatch, tmp_path):
    """A large model gets fewer rows, completions and samples, but for those that are asked for."""
    result = []

    def measured(*given):
        result.append(given[4])
        raise ValueError("enough")

    monkeypatch.setattr(evaluation, "_measured", measured)
    for large in (30_000_000, 1):
        monkeypatch.setattr(evaluation, "LARGE", large)
        with pytest.raises(ValueError, match="enough"):
            evaluation.main(["--model_name_or_path", str(model), "--output_dir", str(tmp_path), "--samples", "7"])
    assert [(one.rows, one.completions, one.samples) for one in result] == [(4096, 1024, 7), (512, 128, 7)]
