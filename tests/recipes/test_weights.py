"""Weights by one flag in each recipe that trains; kinds of weights, several rewards and several heads, end to end."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_synth.models  # noqa: F401 (makes the auto classes know RopeGPT)
from hf_synth import get_task

pytestmark = pytest.mark.processes

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
MIXTURE = {
    f"dialect_{n}": {"task": "agreement", "share": share, "task_args": {"dialect": n}}
    for n, share in ((1, 0.75), (2, 0.25))
}
COMMON = {"mixture": MIXTURE, "seed": 0, "use_cpu": True, "bf16": False, "report_to": "none", "num_rows": 80}


@pytest.fixture(scope="module")
def policy(run, tmp_path_factory):
    """The folder of a small SFT policy on two clusters."""
    folder = tmp_path_factory.mktemp("policy")
    done = run("sft.py", "--config", config(folder, new_model=SHAPE, max_steps=2), "--output_dir", "sft", cwd=folder)
    assert done.code == 0, done.err
    return folder / "sft"


@pytest.fixture(scope="module")
def judge(run, policy, tmp_path_factory):
    """The folder of a reward model, which tells even the answers of a fresh policy apart."""
    folder = tmp_path_factory.mktemp("judge")
    return ran(run, "reward.py", folder, model_name_or_path=str(policy), **OF["reward.py"])[1]


def config(folder, **values):
    (folder / "mine.yaml").write_text(json.dumps({**COMMON, **values}))
    return "mine.yaml"


def ran(run, recipe, folder, *flags, out="out", **values):
    """The metrics of a run, and its folder."""
    done = run(recipe, "--config", config(folder, **values), "--output_dir", out, *flags, cwd=folder)
    assert done.code == 0, done.err
    return json.loads((folder / out / "metrics.json").read_text()), folder / out


def parameters(folder):
    return load_file(folder / "model.safetensors")


GRPO = {"max_steps": 4, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8}
GRPO |= {"eval_prompts": 4, "sample_every": 4, "final_samples": 1, "logging_steps": 1}
OF = {
    "sft.py": {"max_steps": 2, "per_device_train_batch_size": 8},
    "reward.py": {"max_steps": 2, "per_device_train_batch_size": 8, "test_share": 0.5},
    "dpo.py": {"max_steps": 2, "per_device_train_batch_size": 8, "test_share": 0.5},
    "grpo.py": GRPO,
}


@pytest.mark.parametrize("recipe", ["sft.py", "reward.py", "dpo.py", "grpo.py"])
def test_one_flag_turns_weights_on_and_off_and_a_seed_says_the_rest(recipe, run, policy, judge, tmp_path):
    values = {"model_name_or_path": str(policy), **OF[recipe]} | (
        {"reward": str(judge)} if recipe == "grpo.py" else {}
    )
    on, first = ran(run, recipe, tmp_path, "--sampling_strength", "1", out="on", **values)
    _, again = ran(run, recipe, tmp_path, "--sampling_strength", "1", out="again", **values)
    off, other = ran(run, recipe, tmp_path, "--sampling_strength", "0", out="off", **values)
    assert on["weights/effective_sample_size"] < 80
    assert off.get("weights/effective_sample_size", 80) == 80
    weights, same, uniform = (parameters(folder) for folder in (first, again, other))
    assert any(not np.array_equal(value, parameters(policy).get(name)) for name, value in weights.items())
    assert all(np.array_equal(weights[name], same[name]) for name in weights), "deterministic after the seed"
    assert any(not np.array_equal(weights[name], uniform[name]) for name in weights)
    log = json.loads((first / "training_log.json").read_text())["history"]
    sizes = {entry["sampling/effective_sample_size"] for entry in log if "loss" in entry}
    assert len(sizes) <= 1
    if sizes:
        assert sizes.pop() == pytest.approx(on["weights/effective_sample_size"])


def test_clusters_get_equal_mass(run, policy, tmp_path):
    flags = ["--sampling_by", "cluster"]
    result, folder = ran(run, "grpo.py", tmp_path, *flags, model_name_or_path=str(policy), **GRPO)
    table = pq.read_table(folder / "prompts.parquet").to_pandas()
    assert table.groupby("cluster")["sampling_weight"].sum().tolist() == pytest.approx([40, 40])
    assert result["weights/effective_share"] == pytest.approx(0.75)
    assert "Sampling: weights by cluster" in (folder / "report.md").read_text()


@pytest.mark.parametrize("form", ["flag", "mapping"])
def test_sources_get_their_fractions_and_the_report_says_so(form, run, policy, tmp_path):
    words, sources = get_task("agreement", dialect=1).vocabulary(), ["code"] * 4 + ["math"] * 10 + ["chat"] * 26
    texts = [f"{words[number % 8]} {words[number // 8]}" for number in range(40)]
    rows = [json.dumps({"prompt": text, "src": source}) for text, source in zip(texts, sources, strict=True)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    (tmp_path / "reward.py").write_text("def length(completions, **columns):\n    return [0.0 for _ in completions]\n")
    own = {"mixture": None, "prompts": "prompts.jsonl", "test_share": 0, "reward": "reward.py:length"}
    shares = {"source_shares": {"code": 0.2, "math": 0.5}} if form == "mapping" else {}
    flags = ["--source_shares", "code=0.2", "math=0.5"] if form == "flag" else []
    values = {"model_name_or_path": str(policy), **GRPO, **own, **shares, "sampling_by": ["source"], "eval_prompts": 0}
    _, folder = ran(run, "grpo.py", tmp_path, *flags, **values)
    table = pq.read_table(folder / "prompts.parquet").to_pandas()
    mass = table.groupby("src")["sampling_weight"].sum().to_dict()
    assert mass == pytest.approx({"code": 8, "math": 20, "chat": 12})
    report = (folder / "report.md").read_text()
    assert [line.split("|")[1:6] for line in report.split("### Sources")[1].splitlines()[4:7]] == [
        [" chat ", " 26 ", " 65.0 % ", " 0.462 ", " 30.0 % "],
        [" math ", " 10 ", " 25.0 % ", " 2.000 ", " 50.0 % "],
        [" code ", " 4 ", " 10.0 % ", " 2.000 ", " 20.0 % "],
    ]


def test_pass_rates_and_a_rising_strength_change_from_round_to_round(run, policy, tmp_path):
    flags = ["--sampling_by", "density", "pass_rate", "--strength_schedule", "rising", "--round_size", "4"]
    result, folder = ran(run, "grpo.py", tmp_path, *flags, model_name_or_path=str(policy), **GRPO)
    assert result["weights/effective_sample_size"] == 80, "at the start nothing is known, and strength is 0"
    log = json.loads((folder / "training_log.json").read_text())["history"]
    sizes = [entry["sampling/effective_sample_size"] for entry in log if "loss" in entry]
    assert sizes[:2] == [80, 80]
    assert sizes[2] == sizes[3] < 80
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert load_file(last / "weight_factors.safetensors")["pass_rate.tried"].sum() > 0


def test_density_is_measured_again_by_the_policy(run, policy, tmp_path):
    flags = ["--density_refresh", "2", "--round_size", "4"]
    _, folder = ran(run, "grpo.py", tmp_path, *flags, model_name_or_path=str(policy), **GRPO)
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = load_file(last / "weight_factors.safetensors")
    assert state["density.measured_at"].tolist() == [2]
    before = pq.read_table(folder / "prompts.parquet")["density"].to_numpy()
    assert not np.allclose(state["density.density"], before)


def test_a_run_too_short_for_its_weights_is_told_so(fail, policy, tmp_path):
    values = {"model_name_or_path": str(policy), **GRPO}
    flags = ["--config", config(tmp_path, **values), "--output_dir", "out", "--sampling_by", "pass_rate"]
    done = fail("grpo.py", *flags, cwd=tmp_path)
    assert "weights by pass_rate change from round to round, and this run of 4 steps ends within its" in done.error


def test_vllm_is_asked_for_where_it_is_missing(fail, policy, tmp_path):
    values = {"model_name_or_path": str(policy), **GRPO, "use_vllm": True}
    done = fail("grpo.py", "--config", config(tmp_path, **values), "--output_dir", "out", cwd=tmp_path)
    assert "use_vllm: got true, and vllm is not installed" in done.error


@pytest.mark.parametrize("recipe", ["reward.py", "dpo.py", "grpo.py"])
def test_lora_goes_with_weights_that_change(recipe, run, policy, tmp_path):
    values = {"model_name_or_path": str(policy), **OF[recipe], "use_peft": True, "max_steps": 2}
    by = {"reward.py": "cluster", "dpo.py": "curriculum", "grpo.py": "density"}[recipe]
    change = ["--density_refresh", "1"] if by == "density" else []
    size = "2" if recipe == "grpo.py" else "8"
    _, folder = ran(run, recipe, tmp_path, "--sampling_by", by, "--round_size", size, *change, **values)
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()


def test_heads_are_trained_by_aspect_and_weighed_in_grpo(run, fail, policy, tmp_path):
    """Each cluster is an aspect; GRPO is paid by a mix of both heads."""
    values = {"model_name_or_path": str(policy), **OF["reward.py"]}
    flags = ["--heads", "dialect_1", "dialect_2", "--aspect_column", "cluster"]
    result, model = ran(run, "reward.py", tmp_path, *flags, out="heads", **values)
    assert {f"accuracy/held_out/dialect_{n}" for n in (1, 2)} <= result.keys()
    labels = AutoModelForSequenceClassification.from_pretrained(model).config.id2label
    assert labels == {0: "dialect_1", 1: "dialect_2"}
    values = {"model_name_or_path": str(policy), "reward_heads": {"dialect_1": 1, "dialect_2": -0.5}, **GRPO}
    result, folder = ran(run, "grpo.py", tmp_path, "--reward", str(model), **values)
    table = pq.read_table(folder / "samples.parquet").to_pandas()
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    for row in table.itertuples():
        ids = tokenizer(f"{row.prompt} {row.completion} <eos>").input_ids
        first, second = classifier(torch.tensor([ids])).logits[0].tolist()
        assert row.reward == pytest.approx(first - 0.5 * second, abs=1e-4)
    done = fail("grpo.py", "--config", "mine.yaml", "--reward_heads", "{}", "--reward", str(model), cwd=tmp_path)
    assert "of 2 labels (dialect_1, dialect_2), wanted 1, or `heads`" in done.error


def test_heads_need_columns_that_tell_them(fail, policy, tmp_path):
    values = {"model_name_or_path": str(policy), **OF["reward.py"]}
    start = ["reward.py", "--config", config(tmp_path, **values), "--output_dir", "out"]
    done = fail(*start, "--heads", "quality", cwd=tmp_path)
    assert "the pairs have no column quality_chosen, quality_rejected, only" in done.error
    done = fail(*start, "--aspect_column", "cluster", cwd=tmp_path)
    assert "aspect_column: got 'cluster' without heads" in done.error


@pytest.mark.parametrize("heads_from", ["scores", "aspect"])
def test_a_file_of_pairs_tells_the_heads_apart(heads_from, run, tmp_path):
    scores = {"warm_chosen": 1, "warm_rejected": 0.5, "short_chosen": 1, "short_rejected": 2}
    columns = [scores, scores] if heads_from == "scores" else [{"about": "warm"}, {"about": "short"}]
    lines = [
        json.dumps({"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No.", **columns[n % 2]})
        for n in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    flags = ["--preferences", "pairs.jsonl", "--heads", "warm", "short", "--max_length", "64"]
    flags += ["--aspect_column", "about"] if heads_from == "aspect" else []
    values = {"new_model": SHAPE, "tokenizer_vocab_size": 300, "sampling_strength": 0, **OF["reward.py"]}
    result, _ = ran(run, "reward.py", tmp_path, *flags, **values)
    assert {f"accuracy/held_out/{head}" for head in ("warm", "short")} <= result.keys()


def test_several_rewards_are_added_by_their_weights(run, policy, judge, tmp_path):
    flags = ["--reward", "verifier", str(judge), "--reward_weights", "2", "0.5"]
    result, folder = ran(run, "grpo.py", tmp_path, *flags, model_name_or_path=str(policy), **GRPO)
    assert result.keys() >= {"validity/final", "sampled_reward/final"}
    table = pq.read_table(folder / "samples.parquet").to_pandas()
    log = json.loads((folder / "training_log.json").read_text())["history"]
    entry = next(entry for entry in log if "rewards/verifier/mean" in entry)
    parts = 2 * entry["rewards/verifier/mean"] + 0.5 * entry["rewards/reward_model_2/mean"]
    assert entry["reward"] == pytest.approx(parts, rel=1e-4)
    assert set(table["truth"]) <= {0.0, 1.0}
    assert (table["reward"] != table["truth"]).any()
