"""Models on the Hub: what the recipe pushes is all that a reader needs, and none of it gives the machine away."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_synth.experiments.arms import ArmsArguments, planned_runs
from hf_synth.hub.model_cards import is_hub_id, is_path, model_card, path_name, without_paths
from hf_synth.hub.publish import files_of
from hf_synth.reports.read import read_run

ROOT = Path(__file__).parents[2]
TINY = {
    "task": "rlm",
    "preset": "v6-l2-b2",
    "model_type": "rope_gpt",
    "new_model": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
    },
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "eval_rows": 8,
    "test_rows": 64,
    "save_steps": 2,
    "learning_rate": 1e-2,
    "logging_steps": 2,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}  # fmt: skip


def test_the_card_is_one_that_the_hub_reads(finished):
    text = model_card(read_run(finished), "user/sorted")
    data = ModelCard(text).data
    assert (data.library_name, data.model_name) == ("transformers", "sorted")
    assert set(data.tags) == {"hf_synth", "synthetic", "sort"}
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {
        "loss": 1.25, "excess_loss": 0.25, "accuracy": 0.75, "exact_match": 0.5, "validity": 0.625,
        "perplexity_ratio": 1.5,
    }  # fmt: skip
    assert "| 0.1250 to 0.3750 |" in text
    assert "One seed is a trial" in text
    assert 'from_pretrained("user/sorted")' in text
    assert "no code of this repository runs" in text
    assert "from a checkpoint: attention. Trained: attention, 30.0 %" in text
    assert "Source: `warm_up`. Their numbers were shuffled first." in text
    assert "{path: warm_up}" in text
    assert "/home/me" not in text


def test_only_what_readers_need_is_pushed(finished):
    run = read_run(finished)
    files = files_of(run, "user/sorted")
    assert {name for name in files if not name.startswith("figures/")} == {
        "model.safetensors", "config.json", "tokenizer.json", "metrics.json", "README.md", "report.md",
    }  # fmt: skip
    assert "figures/learning_curves.png" in files
    (finished / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        files_of(run, "user/sorted")


@pytest.mark.parametrize(
    ("base", "name"), [("/home/me/runs/base", "base"), ("runs/base", "base"), ("org/base", "org/base")]
)
def test_an_adapter_names_its_model_without_the_path(finished, monkeypatch, base, name):
    monkeypatch.chdir(finished.parent)
    Path("runs", "base").mkdir(parents=True)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": base}
    (finished / "adapter_config.json").write_text(json.dumps(adapter))
    (finished / "model.safetensors").rename(finished / "adapter_model.safetensors")
    run = read_run(finished)
    files = files_of(run, "user/sorted")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == name
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "peft"
    assert f'base = AutoModelForCausalLM.from_pretrained("{name}")' in card.text
    assert 'PeftModel.from_pretrained(base, "user/sorted")' in card.text
    assert ("not on the Hub" in card.text) == (name != base)
    assert "An adapter with 2 parameters" in card.text
    assert "no code of this repository runs" not in card.text


@pytest.mark.nightly
@pytest.mark.processes
def test_the_recipe_pushes_and_anyone_loads(hub, client, tmp_path):
    """By the real command and clients; the second process has no hf_synth, and measures the same with it."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, "push_to_hub": True, "hub_model_id": "user/tiny"}))
    client(
        f"""
        import os, runpy, sys

        sys.argv = ["pretrain.py", "--config", {str(config)!r}, "--output_dir", os.path.abspath("my run")]
        runpy.run_path({str(ROOT / "recipes" / "pretrain.py")!r}, run_name="__main__")
        """,
        blocked=(),
    )
    files = hub.files("user/tiny")
    assert set(files) - {".gitattributes"} == {
        "README.md", "report.md", "metrics.json", "dynamics.csv", "config.json", "generation_config.json",
        "model.safetensors", "modeling_rope_gpt.py", "tokenizer.json", "tokenizer_config.json",
        "figures/learning_curves.png",
    }  # fmt: skip
    assert [commit.title for commit in hub.commits("user/tiny")] == ["Model, card and report", "initial commit"]
    for name in ("README.md", "report.md"):
        assert str(tmp_path) not in files[name].decode()
    card = files["README.md"].decode()
    assert ModelCard(card).data.model_name == "tiny"
    load, measure = (part.split("```")[0] for part in card.split("```python\n")[1:])
    show = "print(type(model).__name__, model(**tokenizer('1 2', return_tensors='pt')).logits.shape[-1])"
    said = client(f"{load}\n{show}").stdout
    assert said.splitlines()[-1] == "RopeGPTForCausalLM 10"
    assert "Do you wish" not in said
    again = client(f"{load}\n{measure}", blocked=())
    metrics = yaml.safe_load(files["metrics.json"])
    assert list(map(float, again.stdout.splitlines()[-1].split())) == pytest.approx(
        [metrics["loss/test"], metrics["accuracy/test"]], rel=1e-5
    )


@pytest.mark.processes
def test_each_run_has_a_repository_of_its_own(tmp_path):
    runs = planned_runs(ArmsArguments(arms={"a": {}, "b": {}}, seeds=[0, 1]), tmp_path, 0, {"hub_model_id": "user/x"})
    assert [run.hub_model_id for run in runs] == [f"user/x-{arm}-seed-{seed}" for arm in "ab" for seed in (0, 1)]
    (alone,) = planned_runs(ArmsArguments(), tmp_path, 0, {"hub_model_id": "user/x"})
    assert alone.hub_model_id == "user/x"


def test_paths_of_the_machine_are_taken_out():
    config = {"canonical": "/home/me/text.txt", "init_from": [{"path": "~/runs/warm"}], "task": "user/data", "n": 1}
    text = "from /home/me/text.txt and ~/runs/warm of user/data"
    assert without_paths(text, config) == "from text.txt and warm of user/data"
    assert not is_path("user/data")
    assert is_hub_id("user/data")
    assert not any(map(is_hub_id, ("data/pairs.jsonl", "data/pairs.jsonl.gz", "/home/data", "~/data", "data", None)))
    assert path_name("C:\\runs\\warm") == "warm"
