"""A checkpoint on the Hub by its revision, to train on and to measure."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from hf_synth import build_tokenizer, get_task
from hf_synth.evaluation.scoring import score_rows

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
ARGS = {"length": 4, "vocab_size": 10}
TASK = get_task("sort", **ARGS)
# At a rate of 0 the model stays what it was.
FLAGS = {
    "pretrain.py": "--gpt2_size= --max_steps 1 --learning_rate 0 --per_device_train_batch_size 2 --eval_strategy no "
    "--logging_steps 1 --test_rows 40 --use_cpu true --bf16 false --report_to none --disable_tqdm true",
    "evaluation.py": "--rows 40 --completions 0",
}
CLIENT = """
import runpy, sys

for recipe, flags in {flags!r}.items():
    for name, revision in {revisions!r}.items():
        chosen = ["--model_name_or_path", "user/small", "--model_revision", revision]
        task = ["--task", "sort", "--task_args", {args!r}, "--output_dir", f"{{recipe}}-{{name}}"]
        sys.argv = [recipe, *flags.split(), *chosen, *task]
        runpy.run_path(f"{recipes}/{{recipe}}", run_name="__main__")
"""


@pytest.fixture
def revisions(hub, tmp_path):
    """The first and the last commit of a model, and the folders in which they were made."""
    tokenizer, result = build_tokenizer(TASK), {}
    for seed, name in enumerate(("first", "last")):
        torch.manual_seed(seed)
        folder = tmp_path / name
        size = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 16, "initializer_range": 0.5}
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ids)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        result[name] = (hub.put("user/small", files, repo_type="model"), folder)
    return result


def test_recipes_take_the_revision_that_is_asked_for(hub, client, revisions, tmp_path):
    commits = {name: commit for name, (commit, _) in revisions.items()}
    client(CLIENT.format(flags=FLAGS, revisions=commits, args=json.dumps(ARGS), recipes=ROOT / "recipes"), blocked=())
    (work,) = tmp_path.glob("client_*")
    for name, (_, folder) in revisions.items():
        wanted, result = (load_file(path / "model.safetensors") for path in (folder, work / f"pretrain.py-{name}"))
        assert all(torch.equal(wanted[key], result[key]) for key in wanted)
        scores = score_rows(GPT2LMHeadModel.from_pretrained(folder), TASK.rows(0, 40, split="test"))
        for recipe in FLAGS:
            metrics = json.loads((work / f"{recipe}-{name}" / "metrics.json").read_text())
            assert metrics["loss/test"] == pytest.approx(scores.loss, rel=1e-4), recipe
    assert (work / "pretrain.py-first" / "dynamics.csv").read_text().startswith("step,grad_norm,learning_rate,loss")
