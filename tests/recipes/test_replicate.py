"""Published results, run again: what is recorded is not run a second time, and the page follows from the records."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml
from replication.records import Record, read_records

ROOT = Path(__file__).parents[2]
TINY = {"max_steps": 2, "eval_steps": 1, "eval_rows": 16, "test_rows": 16, "per_device_train_batch_size": 4}


@pytest.fixture
def replicate(monkeypatch, tmp_path):
    """The recipe's module, its studies cut to two steps, in a folder of its own."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "recipes")])  # behind the library `evaluate`
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("replicate")
    configs = tmp_path / "configs"
    configs.mkdir()
    for path in (ROOT / "recipes" / "configs").glob("*/replicate*.yaml"):
        config = {**yaml.safe_load(path.read_text()), **TINY}
        for values in (config.get("arms") or {}).values():
            values.pop("max_steps", None)
        (configs / path.parent.name).mkdir(exist_ok=True)
        (configs / path.parent.name / path.name).write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(module, "CONFIGS", configs)
    yield module
    for name in ("replicate", "pretrain"):
        sys.modules.pop(name, None)


def test_runs_are_recorded_and_not_run_again(replicate, tmp_path):
    docs = tmp_path / "docs"
    for runs in (1, 2):
        replicate.main(["--only", "rlm_l3", "--most_runs", "1", "--docs", str(docs)])
        records = read_records(docs / "reproduction" / "rlm_l3.jsonl")
        assert [record.seed for record in records] == list(range(runs))
    page = (docs / "reproduction.md").read_text()
    assert "2 of 8 runs are recorded." in page
    before = (docs / "reproduction" / "rlm_l3.jsonl").read_bytes()
    replicate.main(["--most_runs", "0", "--docs", str(docs)])
    assert (docs / "reproduction" / "rlm_l3.jsonl").read_bytes() == before
    assert (docs / "reproduction.md").read_text() == page


def test_a_study_that_starts_from_others_trains_them_first(replicate, tmp_path):
    replicate.main(["--only", "downstream", "--most_runs", "2", "--docs", str(tmp_path / "docs")])
    assert [path.name for path in sorted((tmp_path / "runs" / "replicate" / "warmups").glob("*/*"))] == ["seed-0"] * 2
    records = read_records(tmp_path / "docs" / "reproduction" / "downstream.jsonl")
    assert [record.arm for record in records] == ["haystack-nothing", "haystack-set-attention"]


def test_the_arms_of_a_study_are_paired_graph_by_graph(replicate, tmp_path):
    replicate.main(["--only", "transience", "--most_runs", "2", "--docs", str(tmp_path / "docs")])
    records = read_records(tmp_path / "docs" / "reproduction" / "transience.jsonl")
    assert [(record.arm, record.seed) for record in records] == [("base", 0), ("control", 0)]
    both = [record.metrics["all_right/validation/ood_analogical"] for record in records]
    page = (tmp_path / "docs" / "reproduction.md").read_text()
    difference = f"{both[0] - both[1]:.3f} | - | too few runs"
    assert f"all right, base minus control; minimum effect 0.05 | {difference}" in page
    assert "| control | 1 | " in page


def test_of_several_held_out_facts_the_mean_accuracy_is_compared(replicate, tmp_path):
    page = importlib.import_module("replication.page")
    config = {"task": "analogy", "preset": "e10", "task_args": {"graph_seed": "{seed}", "num_entities": 30}}
    config |= {"output_dir": str(tmp_path), "max_steps": 4, "eval_steps": 1, "per_device_train_batch_size": 64}
    accuracies = {"base": [0.0, 0.5, 0.25], "rate-1e-3": [0.5, 1.0, 0.75]}
    name = "validation_accuracy/ood_analogical"
    records = [
        Record(arm, seed, "", {}, {"step": [1, 2, 3], name: [value + 0.1 * seed * (value < 0.5) for value in values]})
        for arm, values in accuracies.items()
        for seed in (0, 1)
    ]
    parts = page.analogy_section(records, config, tmp_path)
    lines = [line for part in parts if isinstance(part, str) for line in part.splitlines()]
    first = next(line for line in lines if line.startswith("| rate-1e-3 | 2 | 0.33 | 0.75 | 0.75 | "))
    assert "| 2 of 2 (step 2), at the end 0 | 2 of 2 (1.00 " in first  # at the same evaluation, which is the second
    assert first.endswith(" | 2 of 2 (1.00 [0.34, 1.00]) |")  # and lost again
    assert "with `rate-1e-3` 2 of 2 (step 2), at the end 0" in lines[0]
    own = [claim for part in parts if isinstance(part, list) for claim in part if claim.own]
    assert [round(claim.interval.mean, 4) for claim in own] == [round((0.5 + 0.5 - 0.2 / 3) / 2, 4)]


def test_hyperdata_wants_natural_text(replicate, tmp_path, capsys):
    replicate.main(["--only", "hyperdata", "--docs", str(tmp_path / "docs")])
    assert "hyperdata: left out, it wants natural text" in capsys.readouterr().out


def test_natural_text_reaches_the_study_that_wants_it(replicate):
    arguments = replicate.ReplicateArguments(canonical="text.txt")
    for study, wanted in (("hyperdata", "text.txt"), ("rlm_l3", None)):
        parsed = replicate.parse_recipe(
            replicate.pretrain.CLASSES, replicate.study_argv(replicate.STUDIES[study].config, arguments)
        )
        assert replicate.pretrain.Settings(*parsed[2:]).corpus.canonical == wanted


def test_an_unknown_study_is_an_error(replicate):
    with pytest.raises(ValueError, match="only: got 'rlm'; did you mean 'rlm_l3'"):
        replicate.main(["--only", "rlm"])
    with pytest.raises(ValueError, match="most_runs: got -1, wanted at least 0"):
        replicate.main(["--only", "rlm_l3", "--most_runs", "-1"])
