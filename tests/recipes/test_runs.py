"""Every shipped config once, with fewer rows and steps: what a run leaves behind, and what its numbers are called."""

import json
import math

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import hf_synth.models  # noqa: F401 (makes the auto classes know RopeGPT)

pytestmark = pytest.mark.processes

CONFIGS = {
    *("hh_rlhf_dpo", "hh_rlhf_grpo", "hh_rlhf_reward", "hh_rlhf_sft", "own_prompts", "quickstart", "quickstart_sft"),
    *("preferences_compare", "preferences_reward", "preferences_sft"),
    *("testbed_grpo", "testbed_reward", "testbed_sft"),
    *("testbed_budget", "testbed_coverage", "testbed_proxy", "testbed_verifier"),  # test_compare.py
    *("smollm2_grpo", "smollm2_reward"),  # test_compare.py, on a small model
    "agreement",  # test_density.py
}
MOMENTS = ["warmup", "warmup_head", "warmup_tail", "final", "final_head", "final_tail"]
WEIGHTS = [
    "effective_sample_size",
    "effective_share",
    "intrinsic_dimension",
    "largest",
    "median",
    "prompts",
    "recall",
    "repeated_share",
    "smallest",
]
LINES = ["distinct", "lines", "most_lines", "repeated"]


def metrics(folder):
    """The numbers of a run, all of them finite."""
    result = json.loads((folder / "metrics.json").read_text())
    assert all(isinstance(value, float | int) and math.isfinite(value) for value in result.values()), result
    return result


def check_left_behind(folder):
    """What every recipe promises to leave in its output directory; nothing half-written beside it."""
    for name in ("metrics.json", "resolved_config.yaml", "training_log.json", "report.md", "report.html"):
        assert (folder / name).stat().st_size > 0, name
    assert any((folder / "figures").glob("*.png"))
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"
    assert not [*folder.rglob("*.draft")]
    assert yaml.safe_load((folder / "resolved_config.yaml").read_text())["seed"] == 0


def test_every_shipped_config_of_these_recipes_is_launched_here(recipes):
    assert {path.stem for path in (recipes / "configs" / "density").glob("*.yaml")} == CONFIGS


def test_quickstart_leaves_what_it_promises(quickstart):
    check_left_behind(quickstart)
    assert AutoModelForCausalLM.from_pretrained(quickstart / "control").num_parameters() > 0
    assert AutoModelForCausalLM.from_pretrained(quickstart).num_parameters() > 0
    result = metrics(quickstart)
    promised = [f"validity/{moment}" for moment in MOMENTS] + [f"weights/{name}" for name in WEIGHTS]
    assert result.keys() >= {*promised, *(f"control/{name}" for name in promised), "seconds/total"}
    assert all(0 <= result[f"{arm}validity/{moment}"] <= 1 for arm in ("", "control/") for moment in MOMENTS)


def test_quickstart_and_control_differ_in_their_weights_alone(quickstart):
    result = metrics(quickstart)
    assert result["control/weights/effective_sample_size"] == result["weights/prompts"] == 200
    assert 20 < result["weights/effective_sample_size"] < 190
    assert result["control/weights/smallest"] == result["control/weights/largest"] == 1
    for moment in MOMENTS[:3]:
        assert result[f"validity/{moment}"] == result[f"control/validity/{moment}"], "one policy to begin with"
    tables = [pq.read_table(folder / "prompts.parquet") for folder in (quickstart, quickstart / "control")]
    assert tables[0].drop(["sampling_weight"]).equals(tables[1].drop(["sampling_weight"]))


def test_quickstart_weighs_the_rare_clusters_up(quickstart):
    """Head is the largest of four clusters, tail the smallest; the density of a prompt grows with its cluster."""
    table = pq.read_table(quickstart / "prompts.parquet").to_pandas()
    sizes = table["cluster"].value_counts()
    assert sizes.to_dict() == {"dialect_1": 120, "dialect_2": 50, "dialect_3": 20, "dialect_4": 10}
    assert table["sampling_weight"].mean() == pytest.approx(1)
    weights = table.groupby("cluster")["sampling_weight"].mean()
    assert weights["dialect_4"] > weights["dialect_3"] > weights["dialect_1"]
    log = json.loads((quickstart / "training_log.json").read_text())["history"]
    looks = [entry for entry in log if "validity" in entry]
    assert [entry["step"] for entry in looks] == [0, 4, 8]
    result = metrics(quickstart)
    assert result["validity/final_head"] == looks[-1]["validity/dialect_1"]
    assert result["validity/final_tail"] == looks[-1]["validity/dialect_4"]
    assert result["validity/final"] == pytest.approx(sum(looks[-1][f"validity/dialect_{n}"] for n in (1, 2, 3, 4)) / 4)


def test_the_same_command_again_trains_nothing(quickstart, run, quick_flags):
    """Finished arms are read back: the same numbers, the same model, and no checkpoint written again."""
    before = metrics(quickstart)
    files = {path: path.stat().st_mtime_ns for path in quickstart.rglob("*.safetensors")}
    done = run("grpo.py", *quick_flags, cwd=quickstart.parents[1])
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in quickstart.rglob("*.safetensors")} == files
    after = metrics(quickstart)
    assert {**after, "seconds/total": 0} == {**before, "seconds/total": 0}


def test_real_pairs_from_sft_to_grpo(hh_runs):
    runs = {name: hh_runs / "runs" / "hh_rlhf" / name for name in ("sft", "reward", "dpo", "grpo")}
    for folder in runs.values():
        check_left_behind(folder)
    assert metrics(runs["sft"]).keys() == {
        *("loss/final", "prompts/too_long", "rows", "rows/dropped", "rows/refused", "seconds/total"),
    }
    wanted = {"accuracy/held_out", "accuracy/standard_error", "loss/held_out", "seconds/total"}
    wanted |= {"rows/dropped", "rows/refused"}
    assert metrics(runs["reward"]).keys() == wanted | {
        *(f"pairs/{name}" for name in ("train", "held_out", "too_long")),
        *(f"weights/{name}" for name in WEIGHTS),
        *(f"prompts/{name}" for name in LINES),
    }
    assert metrics(runs["dpo"]).keys() == metrics(runs["reward"]).keys() | {"margin/held_out"}
    assert "# DPO: learning from compared answers" in (runs["dpo"] / "report.md").read_text()
    assert AutoModelForSequenceClassification.from_pretrained(runs["reward"]).config.num_labels == 1
    result = metrics(runs["grpo"])
    assert result.keys() >= {f"sampled_reward/{moment}" for moment in MOMENTS}
    assert not any(name.startswith("control/") for name in result)


def test_real_pairs_that_cannot_be_used_are_kept_and_counted(hh_runs):
    for name in ("sft", "reward", "dpo", "grpo"):
        folder = hh_runs / "runs" / "hh_rlhf" / name
        rejected = [json.loads(line) for line in (folder / "rejected_rows.jsonl").read_text().splitlines()]
        assert [(row["line"], row["reason"]) for row in rejected] == [(61, "chosen equals rejected"), (62, "not JSON")]
        assert "2" in (folder / "report.md").read_text()
        assert (metrics(folder)["rows/dropped"], metrics(folder)["rows/refused"]) == (2, 0)
    result = metrics(hh_runs / "runs" / "hh_rlhf" / "reward")
    assert sum(result[f"pairs/{name}"] for name in ("train", "held_out", "too_long")) == 60


def test_a_reward_model_from_nothing_on_pairs_of_a_task(run, tmp_path):
    """It needs no checkpoint; its tokenizer is the task's, and its held-out prompts are not trained on."""
    shape = "{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}"
    lines = ["task: agreement", "num_rows: 60", "test_share: 0.5", f"new_model: {shape}", "max_steps: 2", "seed: 0"]
    (tmp_path / "mine.yaml").write_text("\n".join([*lines, "use_cpu: true", "bf16: false", "report_to: none"]))
    done = run("reward.py", "--config", "mine.yaml", "--output_dir", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    check_left_behind(tmp_path / "out")
    result = metrics(tmp_path / "out")
    assert result["pairs/train"] == 60
    assert 0 < result["pairs/held_out"] <= 30
    assert 0 <= result["accuracy/held_out"] <= 1


def test_own_prompts_with_bad_lines(hh_runs, run, recipes, tmp_path):
    """Two rewards: a model, and a function that gets the prompts' column while training and on held-out prompts."""
    rows = ({"prompt": [{"role": "user", "content": f"What is {n}?"}], "answer": str(n)} for n in range(40))
    (tmp_path / "mine.jsonl").write_text("\n".join([*map(json.dumps, rows), "not JSON", '{"prompt": ""}']) + "\n")
    (tmp_path / "mine.py").write_text(
        "def score(prompts, answer, **columns):\n"
        "    return [float(own in prompt[0]['content']) for prompt, own in zip(prompts, answer, strict=True)]\n"
    )
    models = {name: hh_runs / "runs" / "hh_rlhf" / name for name in ("sft", "reward")}
    flags = ["--prompts", "mine.jsonl", "--model_name_or_path", models["sft"]]
    flags += ["--reward", models["reward"], "mine.py:score", "--reward_weights", 0, 1]
    small = "--max_steps 2 --num_generations 4 --gradient_accumulation_steps 1 --max_completion_length 4"
    config = recipes / "configs" / "density" / "own_prompts.yaml"
    done = run("grpo.py", "--config", config, *flags, *small.split(), "--use_cpu", "true", cwd=tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "own_prompts"
    check_left_behind(folder)
    assert "2 of 42 rows left out" in done.err
    held_out = metrics(folder)["prompts/evaluated"]
    got = f"eval_prompts: got {held_out:.0f} held-out prompts, wanted 128; the others are too long, or not in"
    assert done.out.count(f"{got} the fraction held out (test_share=0.") == 1
    assert f"{held_out:.0f} held out for evaluation, fewer than the 128 of" in (folder / "report.md").read_text()
    assert len((folder / "rejected_rows.jsonl").read_text().splitlines()) == 2
    assert metrics(folder)["weights/prompts"] + metrics(folder)["prompts/evaluated"] == 40
    assert metrics(folder)["sampled_reward/final"] == 1
    (tmp_path / "mine.py").write_text("def score(prompts, **columns):\n    return [0.5] * len(prompts)\n")
    (folder / "metrics.json").unlink()
    again = run("grpo.py", "--config", config, *flags, *small.split(), "--use_cpu", "true", cwd=tmp_path)
    assert "holds a run that began otherwise (code: " in again.error


def test_lora_leaves_an_adapter(hh_runs, hh_pairs, run, recipes):
    """It fits any architecture without naming layers; a later recipe is told to merge it first."""
    config = recipes / "configs" / "density" / "hh_rlhf_sft.yaml"
    flags = ["--model_name_or_path", "runs/hh_rlhf/sft", "--use_peft", "true", "--output_dir", "runs/lora"]
    common = ["--preferences", hh_pairs, "--use_cpu", "true", "--max_steps", 2, "--per_device_train_batch_size", 4]
    done = run("sft.py", "--config", config, *common, *flags, cwd=hh_runs)
    assert done.code == 0, done.err
    assert (hh_runs / "runs" / "lora" / "adapter_model.safetensors").exists()
    assert not (hh_runs / "runs" / "lora" / "model.safetensors").exists()
    again = ["--model_name_or_path", "runs/lora", "--output_dir", "runs/on_lora"]
    done = run("sft.py", "--config", config, *common, *again, cwd=hh_runs)
    assert "'runs/lora', which holds an adapter and no whole model; merge it" in done.error


def test_two_processes_train_one_model_and_write_once(quickstart, run, tmp_path):
    """Groups are whole: of the 16 completions of a generation each prompt has 4, whichever process made them."""
    sizes = "--num_rows 100 --eval_prompts 4 --sample_every 2 --max_steps 3 --save_steps 2 --logging_steps 1"
    batch = "--per_device_train_batch_size 8 --num_generations 4 --sampling_strength 1 --log_completions true"
    model = ["--warm_up", "", "--model_name_or_path", quickstart / "warmup", "--output_dir", "two"]
    done = run("grpo.py", *sizes.split(), *batch.split(), *model, cwd=tmp_path, processes=2)
    assert done.code == 0, done.err
    assert done.out.count("Report: ") == 1
    folder = tmp_path / "two"
    check_left_behind(folder)
    assert metrics(folder).keys() >= {f"validity/{moment}" for moment in MOMENTS}
    log = json.loads((folder / "training_log.json").read_text())
    assert log["steps"] == 3
    assert [entry["step"] for entry in log["history"] if "validity" in entry] == [0, 2, 3]
    sealed = json.loads((folder / "checkpoint-2" / "complete.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= sealed.keys()
    for step in (1, 2, 3):
        prompts = pq.read_table(folder / "completions" / f"completions_{step:05d}.parquet")["prompt"].to_pylist()
        assert len(prompts) == 16
        groups = [set(prompts[start : start + 4]) for start in range(0, 16, 4)]
        assert [len(group) for group in groups] == [1, 1, 1, 1]
