"""What a finished run sends to the Hub: its first arm with card, report and numbers; no token, no prompt unasked."""

import importlib
import json
import os
import random
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from hf_synth.experiments.arms import CompareArguments, compared_runs
from hf_synth.hub.publish import PublishArguments
from hf_synth.training.arguments import check_honoured, parse_recipe

ROOT = Path(__file__).parents[2]
RECIPES = ("sft", "reward", "dpo", "grpo", "pretrain")
COMMON = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "seed": 0, "max_steps": 2,
          "save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 4}  # fmt: skip
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128}
SAMPLED = {"num_generations": 4, "max_completion_length": 4, "eval_prompts": 4, "sample_every": 2, "final_samples": 2,
           "learning_rate": 1e-2, "per_device_train_batch_size": 16}  # fmt: skip
WORDS = ["red", "green", "blue", "big", "small", "cat", "dog", "runs", "sleeps", "very", "quickly", "today", "never"]
MODEL = {"config.json", "model.safetensors", "modeling_rope_gpt.py", "tokenizer.json", "tokenizer_config.json"}
ALWAYS = {".gitattributes", "README.md", "report.md", "metrics.json", *MODEL}


@pytest.fixture
def here(hub, monkeypatch, tmp_path):
    """Be a client of the Hub in an empty folder, with the recipes importable, and with nobody logged in."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(constants, name, True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "recipes")])
    monkeypatch.chdir(tmp_path)
    yield hub
    for name in (*RECIPES, "compare"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Pairs and prompts of one's own, of which each text is there once."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    pairs = [
        {name: " ".join(draw.choices(WORDS, k=9)) for name in ("prompt", "chosen", "rejected")} for _ in range(40)
    ]
    for name, rows in (("pairs", pairs), ("prompts", [{"prompt": pair["prompt"]} for pair in pairs])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def models(texts, tmp_path_factory):
    """A policy and a reward model on those pairs, neither of which was uploaded."""
    folder = tmp_path_factory.mktemp("models")
    before = sys.path
    sys.path = [*sys.path, str(ROOT / "recipes")]
    try:
        for name in ("sft", "reward"):
            flags = words(config(texts, folder / "sft")[name], folder / name)
            importlib.import_module(name).main(flags)
            sys.modules.pop(name)
    finally:
        sys.path = before
    return folder


def config(texts: Path, policy: Path) -> dict[str, dict]:
    """The values of a tiny run of each recipe: the user's own texts, and for pretraining a task."""
    pairs = {"preferences": str(texts / "pairs.jsonl"), "test_share": 0.3}
    start = {"model_name_or_path": str(policy), "sampling_strength": 0}
    new = {"model_type": "rope_gpt", "new_model": TINY}
    prompts = {"prompts": str(texts / "prompts.jsonl"), "test_share": 0.3, "density_k": 3, **SAMPLED}
    return {
        "sft": {"preferences": pairs["preferences"], "tokenizer_vocab_size": 300, **new},
        "reward": {**pairs, **start},
        "dpo": {**pairs, **start, "sampling_strength": 1, "density_k": 3},
        "grpo": {**prompts, **start, "sampling_strength": [1, 0], "reward": str(policy.with_name("reward"))},
        "pretrain": {"task": "sort", "preset": "8", **new, "eval_rows": 8, "test_rows": 16},
    }


def words(values: dict, output_dir: Path, *more: str) -> list[str]:
    """A config as a file, and the command line that reads it."""
    path = output_dir.with_suffix(".yaml")
    path.write_text(json.dumps({**COMMON, **values}))
    return ["--config", str(path), "--output_dir", str(output_dir), *more]


def published(hub, name: str, values: dict, output_dir: Path, *more: str) -> Path:
    """Run a recipe that is to be uploaded as user/NAME with the Hub's token as a flag; returns its folder."""
    flags = ["--push_to_hub", "true", "--hub_model_id", f"user/{name}", "--hub_token", hub.token, *more]
    return importlib.import_module(name).main(words(values, output_dir, *flags))


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "pretrain"])
def test_no_recipe_keeps_a_token_or_uploads_a_prompt(here, texts, models, tmp_path, name):
    run = published(here, name, config(texts, models / "sft")[name], tmp_path / "run")
    check_published(here, name, run, texts)


def test_the_first_arm_is_published_and_others_when_asked_for(here, texts, models, tmp_path):
    values = config(texts, models / "sft")["grpo"]
    run = published(here, "grpo", values, tmp_path / "run")
    check_published(here, "grpo", run, texts)
    weights = {arm: (run / arm / "model.safetensors").read_bytes() for arm in ("", "control")}
    assert weights[""] != weights["control"]
    assert here.files("user/grpo")["model.safetensors"] == weights[""]
    with pytest.raises(ValueError, match="user/grpo-control"):
        here.files("user/grpo-control")
    published(here, "grpo", values, tmp_path / "run", "--push_arms", "true", "--push_samples", "true")
    assert here.files("user/grpo")["model.safetensors"] == weights[""]
    control = here.files("user/grpo-control")
    assert control["model.safetensors"] == weights["control"]
    assert set(control) == ALWAYS - {"report.md"} | {
        "chat_template.jinja", "generation_config.json", "prompts.parquet", "samples.parquet",
    }  # fmt: skip
    assert json.loads(control["metrics.json"]) == json.loads((run / "control" / "metrics.json").read_text())
    assert ModelCard(control["README.md"].decode()).data.model_name == "grpo-control"
    files = here.files("user/grpo")
    assert files["samples.parquet"] == (run / "samples.parquet").read_bytes()
    assert "Prompts of the lowest density" in files["report.md"].decode()


def check_published(hub, name: str, run: Path, texts: Path) -> None:
    """Check that user/NAME has what readers need of a run, and that neither has the token, nor the Hub a prompt."""
    files = hub.files(f"user/{name}")
    assert [commit.title for commit in hub.commits(f"user/{name}")] == ["Model, card and report", "initial commit"]
    kept = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert any(path.endswith("checkpoint-2/training_args.bin") for path in kept)
    assert not [path for path, content in (files | kept).items() if hub.token.encode() in content]
    assert not [path for path in kept if path.endswith("README.md")]
    natural = {"chat_template.jinja"} if name != "pretrain" else {"dynamics.csv"}
    generating = {"generation_config.json"} if name != "reward" else set()
    figures = {path for path in files if path.startswith("figures/")}
    assert set(files) - figures == ALWAYS | natural | generating
    assert files["model.safetensors"] == kept["model.safetensors"]
    prompts = [json.loads(line)["prompt"].encode() for line in (texts / "prompts.jsonl").read_text().splitlines()]
    assert not [path for path, content in files.items() if any(prompt in content for prompt in prompts)]
    assert not [path for path, content in files.items() if str(run.parent.parent).encode() in content]
    card = ModelCard(files["README.md"].decode())
    assert card.data.model_name == name
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == ("text-classification" if name == "reward" else "text-generation")
    assert {"hf_synth", "custom_code"} <= set(card.data.tags)
    assert ("synthetic" in card.data.tags) == (name == "pretrain")
    assert f'from_pretrained("user/{name}", trust_remote_code=True)' in card.text
    assert f"recipes/{name}.py" in card.text
    assert not [path for path in figures if path not in card.text + files["report.md"].decode()]


def test_a_warm_up_is_not_uploaded(here, texts, models, tmp_path):
    warm_up = tmp_path / "sft.yaml"
    uploading = {"push_to_hub": True, "hub_model_id": "user/mine", "hub_token": here.token}
    tiny = {"task": "sort", "preset": "8", "num_rows": 20, "new_model": TINY}
    warm_up.write_text(json.dumps({**COMMON, **tiny, **uploading}))
    values = {"task": "sort", "preset": "8", "num_rows": 20, "warm_up": str(warm_up), "density_k": 3, **SAMPLED}
    published(here, "grpo", values, tmp_path / "run")
    assert not [path for path in here.files("user/grpo") if "warmup" in path or "checkpoint" in path]
    with pytest.raises(ValueError, match="user/mine"):
        here.files("user/mine")
    card = here.files("user/grpo")["README.md"].decode()
    assert "`sort`" in card
    assert ModelCard(card).data.eval_results[0].metric_type == "validity"


def test_who_may_not_write_learns_it_before_training(here, texts, models, tmp_path):
    flags = ["--push_to_hub", "true", "--hub_model_id", "user/x"]
    with pytest.raises(ValueError, match=r"hub_model_id: the Hub did not take user/x.*HF_TOKEN") as caught:
        importlib.import_module("dpo").main(words(config(texts, models / "sft")["dpo"], tmp_path / "run", *flags))
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "run").glob("checkpoint-*")]


def test_what_the_hub_refused_goes_there_by_the_same_command(here, texts, models, tmp_path):
    here.fail_next("POST", path="/commit/", status=403)
    values = config(texts, models / "sft")["sft"]
    with pytest.raises(ValueError, match="the Hub did not take user/sft"):
        published(here, "sft", values, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    published(here, "sft", values, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before
    assert set(here.files("user/sft")) >= ALWAYS


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hub_strategy", "all_checkpoints"], "hub_strategy: got 'all_checkpoints', which says nothing without"),
        (["--hub_always_push", "true"], "hub_always_push: got true, wanted false"),
        (["--push_samples", "true"], "push_samples: got true without push_to_hub"),
        (["--push_arms", "true"], "push_arms: got true without push_to_hub"),
        (["--run_name", "https://me:secret@host/x"], "run_name: got a value with a token"),
        (["--lr_scheduler_kwargs", '{"token": "hf_secret"}'], "lr_scheduler_kwargs: got a value with a token"),
        (["--run_name", "hf_" + "secretsx" * 4 + "xx"], "run_name: got a value with a token"),
        (["--hubtoken=hf_secret"], "got unknown flag '--hubtoken'; did you mean 'hub_token'?"),
    ],
)
def test_what_is_not_honoured_is_refused(here, texts, models, tmp_path, flags, message):
    argv = words(config(texts, models / "sft")["sft"], tmp_path / "run", *flags)
    with pytest.raises(ValueError, match=message) as caught:
        parse_recipe(importlib.import_module("sft").CLASSES, argv)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trl_uploads_no_prompt_while_it_trains(here, texts, models, tmp_path):
    flags = ["--log_completions", "true", "--log_completions_hub_repo", "user/completions"]
    argv = words(config(texts, models / "sft")["grpo"], tmp_path / "run", *flags)
    with pytest.raises(ValueError, match="log_completions_hub_repo: got 'user/completions', wanted none"):
        parse_recipe(importlib.import_module("grpo").CLASSES, argv)


@pytest.mark.parametrize("strategy", ["end", "every_save"])
def test_the_arguments_of_the_trainer_know_of_no_upload(here, texts, models, tmp_path, strategy):
    flags = ["--push_to_hub", "true", "--hub_token", "hf_x", "--hub_strategy", strategy, "--hub_model_id", "user/x"]
    argv = words(config(texts, models / "sft")["sft"], tmp_path / "run", *flags)
    publishing, *_, args = parse_recipe(importlib.import_module("sft").CLASSES, argv)
    assert (publishing.wanted, publishing.token, publishing.repo_id) == (True, "hf_x", "user/x")
    assert (args.push_to_hub, args.hub_token) == (False, None)
    assert "hf_x" not in repr(publishing)


def test_every_recipe_with_a_trainer_takes_the_upload_out_of_its_arguments(here):
    for name in RECIPES:
        assert PublishArguments in importlib.import_module(name).CLASSES


def test_a_comparison_publishes_its_first_arm(tmp_path):
    arguments = CompareArguments(recipe="sft", arms={"a": {}, "b": {"learning_rate": 1e-3}}, seeds=[0, 1])
    base = {"push_to_hub": True, "hub_model_id": "user/x", "task": "sort"}
    for push_arms, names in ((False, "a"), (True, "ab")):
        runs = compared_runs(arguments, {**base, "push_arms": push_arms}, tmp_path, tmp_path)
        pushed = {run.values["hub_model_id"] for run in runs if run.values.get("push_to_hub")}
        assert pushed == {f"user/x-{arm}-seed-{seed}" for arm in names for seed in (0, 1)}
        for run in runs:  # the recipe takes the name of what is not pushed
            shown = {name: value for name, value in run.values.items() if name != "seed"}
            check_honoured(shown, importlib.import_module("sft").CLASSES, shown)
    with pytest.raises(ValueError, match="hub_model_id: got none for several runs"):
        compared_runs(arguments, {"push_to_hub": True}, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"hub_token": "hf_secret"}, "hub_token"),
        ({"env": {"HF_TOKEN": "hf_secret"}}, "HF_TOKEN"),
        ({"env": {"WANDB_API_KEY": "secret"}}, "WANDB_API_KEY"),
        ({"model_init_kwargs": {"token": "hf_secret"}}, "model_init_kwargs"),
        ({"preferences": "https://me:secret@host/pairs"}, "preferences"),
    ],
)
def test_a_comparison_keeps_no_token(values, name, tmp_path):
    arguments = CompareArguments(recipe="sft", arms={"a": {}, "b": {}})
    with pytest.raises(ValueError, match=f"{name}: got ") as caught:
        compared_runs(arguments, values, tmp_path, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_comparison_takes_other_values_of_the_environment(tmp_path):
    arguments = CompareArguments(recipe="sft", arms={"a": {}, "b": {}})
    values = {"env": {"TOKENIZERS_PARALLELISM": "false"}}
    assert compared_runs(arguments, values, tmp_path, tmp_path)[0].values["env"] == values["env"]


def test_a_comparison_that_is_finished_is_uploaded_when_asked_for(here, texts, tmp_path, monkeypatch):
    values = {**config(texts, texts)["sft"], "recipe": "sft", "arms": {"a": {}, "b": {"learning_rate": 1e-3}}}
    argv = words({**values, "primary": "loss/final", "better": "lower"}, tmp_path / "run")
    compare = importlib.import_module("compare")
    compare.main(argv)
    weights = tmp_path / "run" / "a" / "seed-0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    monkeypatch.setenv("HF_TOKEN", here.token)
    compare.main([*argv, "--push_to_hub", "true", "--hub_model_id", "user/x"])
    assert weights.stat().st_mtime_ns == before
    assert here.files("user/x-a-seed-0")["model.safetensors"] == weights.read_bytes()
    with pytest.raises(ValueError, match="user/x-b-seed-0"):
        here.files("user/x-b-seed-0")


def test_nobody_is_logged_in():
    assert "HF_TOKEN" not in os.environ
