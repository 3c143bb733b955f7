"""Each config of pretraining can be launched, and arms and seeds are runs that differ in what is said and no more."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from hf_synth import get_task
from hf_synth.experiments.arms import as_flags, planned_runs
from hf_synth.training.arguments import parse_recipe

pytestmark = pytest.mark.processes

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SYSTEMS = ("procedural", "hyperdata", "rlm", "analogy")
OTHERS = ("replicate", "structure.yaml", "smollm2.yaml")  # test_replicate.py and test_compare.py
FILES = [
    path for path in sorted(CONFIGS.glob("*/*")) if path.parent.name in SYSTEMS and not path.name.startswith(OTHERS)
]
MAKERS = {yaml.safe_load(path.read_text())["output_dir"]: path for path in FILES}
TINY = (
    "--max_steps 2 --eval_steps 1 --save_steps 2 --logging_steps 1 --eval_rows 4 --test_rows 4 --output_dir out "
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --per_device_eval_batch_size 4 --use_cpu true"
)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def launched(path, run, workdir, folder):
    """A run of a config as it is but for its size, of arms the last, of seeds the first; returns the run's folder.

    Checkpoints that it starts from are made first, by the configs that make them.
    """
    config = yaml.safe_load(path.read_text())
    arms = dict([*(config.get("arms") or {}).items()][-1:])
    flags = [*TINY.split(), "--output_dir", folder]
    flags += ["--arms", json.dumps(arms)] if arms else []
    flags += ["--seeds", "0"] if config.get("seeds") else []
    if config.get("canonical"):
        flags += ["--canonical", "stand_in", "--canonical_eval", "0.05", "--canonical_eval_tokens", 512]
        flags += ["--block_size", 64]
    if config.get("model_name_or_path"):
        flags += ["--model_name_or_path", "", "--gpt2_size", "1_2_16"]
    for source in {**config, **next(iter(arms.values()), {})}.get("init_from") or []:
        launched(MAKERS[source["path"]], run, workdir, source["path"])
    done = run("pretrain.py", "--config", path, *flags, cwd=workdir)
    assert done.code == 0, done.err
    assert f"Report: {folder}/report.html" in done.out
    return workdir / folder / next(iter(arms), "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config(path, run, tmp_path):
    folder = launched(path, run, tmp_path, "out")
    assert (folder / "model.safetensors").is_file()
    assert metrics(folder)["steps"] == 2
    prefix = "" if folder == tmp_path / "out" else f"{folder.name}/"
    assert metrics(tmp_path / "out")[f"{prefix}loss/test"] == pytest.approx(metrics(folder)["loss/test"])


def test_what_a_warm_up_on_a_task_hands_on_to_natural_text(run, tmp_path):
    folder = launched(CONFIGS / "procedural" / "to_text.yaml", run, tmp_path, "out")
    parts = json.loads((folder / "transfer.json").read_text())["parts"]
    sources = {part["part"]: part["source"] for part in parts}
    assert {name for name, source in sources.items() if source} == {"attention"}
    assert sources["attention"] == "runs/procedural/sort"
    assert 0 < metrics(folder)["loss/test"] < 20
    assert metrics(folder)["tokens/canonical"] == 2 * 2 * 64
    assert metrics(folder)["tokens/example"] == 0


@pytest.mark.parametrize("path", [path for path in FILES if "\nquick_args:" in path.read_text()], ids=lambda p: p.stem)
def test_the_quick_values_of_a_config(path):
    """They are known, and every run that is planned has them."""
    spec = importlib.util.spec_from_file_location("recipe_pretrain", CONFIGS.parent / "pretrain.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    quick, words = yaml.safe_load(path.read_text())["quick_args"], ["--config", str(path), "--quick", "true"]
    arms, *_ = parse_recipe(recipe.CLASSES, words)
    assert arms.quick_args == quick
    for planned in planned_runs(arms, Path("out"), 0, None):
        settings, _ = recipe.settings_of(planned, [*as_flags(quick), *words])
        values = {name: value for part in vars(settings).values() for name, value in vars(part).items()}
        assert {name: values[name] for name in quick} == quick


def test_the_control_of_natural_text_reads_as_many_tokens_as_its_warm_up():
    natural, sort = (
        yaml.safe_load((CONFIGS / "procedural" / f"{name}.yaml").read_text()) for name in ("natural", "sort")
    )
    assert natural["block_size"] == get_task("sort", **sort["task_args"]).rows(0, 1).tokens.shape[1]
    for name in ("gpt2_size", "max_steps", "per_device_train_batch_size"):
        assert natural[name] == sort[name]


def test_arms_and_seeds(run, tmp_path):
    """Each run is what it would be alone; the metrics are means over seeds."""
    common = [*TINY.split(), "--task_args", '{"length": 4, "vocab_size": 10}', "--gpt2_size", "1_2_16"]
    arms = '{"low": {"learning_rate": 1e-4}, "high": null}'
    done = run("pretrain.py", *common, "--arms", arms, "--seeds", 0, 1, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "Run 4 of 4: high, seed 1, in out/high/seed-1" in done.out
    alone = run("pretrain.py", *common, "--seed", 1, "--learning_rate", "1e-4", "--output_dir", "alone", cwd=tmp_path)
    assert alone.code == 0, alone.err
    result = {(arm, seed): tmp_path / "out" / arm / f"seed-{seed}" for arm in ("low", "high") for seed in (0, 1)}
    assert weights(result["low", 1]) == weights(tmp_path / "alone")
    assert len({weights(folder) for folder in result.values()}) == 4
    means = metrics(tmp_path / "out")
    for arm in ("low", "high"):
        losses = [metrics(result[arm, seed])["loss/test"] for seed in (0, 1)]
        assert means[f"{arm}/loss/test"] == pytest.approx(sum(losses) / 2)
        assert means[f"{arm}/loss/test_low"] < min(losses) <= max(losses) < means[f"{arm}/loss/test_high"]
        assert means[f"{arm}/seeds"] == 2
    before = {folder: (folder / "model.safetensors").stat().st_mtime_ns for folder in result.values()}
    again = run("pretrain.py", *common, "--arms", arms, "--seeds", 0, 1, 2, cwd=tmp_path)
    assert again.code == 0, again.err
    assert metrics(tmp_path / "out")["low/seeds"] == 3
    assert {folder: (folder / "model.safetensors").stat().st_mtime_ns for folder in result.values()} == before


def test_quick_values_go_before_the_file_and_flags_before_both(run, tmp_path):
    config = {"task": "sort", "task_args": {"length": 4, "vocab_size": 10}, "gpt2_size": "1_2_16", "eval_rows": 4}
    config |= {"output_dir": "out", "max_steps": 500, "test_rows": 9, "save_strategy": "no", "use_cpu": True}
    config |= {"bf16": False, "report_to": "none", "quick_args": {"max_steps": 3, "test_rows": 5}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    done = run("pretrain.py", "--config", "mine.yaml", "--max_steps", 1, "--quick", "true", cwd=tmp_path)
    assert done.code == 0, done.err
    assert metrics(tmp_path / "out")["steps"] == 1
    assert metrics(tmp_path / "out")["rows/test"] == 5


def test_an_adapter_on_a_checkpoint(run, tmp_path):
    common = [*TINY.split(), "--task_args", '{"length": 4, "vocab_size": 10}']
    done = run("pretrain.py", *common, "--gpt2_size", "1_2_16", cwd=tmp_path)
    assert done.code == 0, done.err
    adapter = ["--model_name_or_path", "out", "--use_peft", "true", "--output_dir", "adapter"]
    done = run("pretrain.py", *common, *adapter, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert metrics(tmp_path / "adapter")["loss/test"] != metrics(tmp_path / "out")["loss/test"]
