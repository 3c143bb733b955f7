"""Reports of runs that are weighed otherwise than by density, or learn from pairs by DPO."""

from pathlib import Path
from types import ModuleType

import pytest

from hf_synth.reports import write_report
from hf_synth.reports.read import read_run


def grpo_run(folder: Path, made_up: ModuleType, **config: object) -> Path:
    made_up.write_arm(folder, final={"plain": 0.5, "rarest": 0.25}, warm_up={"plain": 0.25, "rarest": 0.0})
    made_up.write(folder / "resolved_config.yaml", {"recipe": "grpo", "sampling_strength": [1.0], **config})
    return folder


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({}, "strength 1"),
        ({"sampling_by": ["density"], "sampling_strength": [0.0]}, "control"),
        ({"sampling_by": ["permuted"]}, "weights by permuted, strength 1"),
        ({"sampling_by": ["permuted"], "sampling_strength": [0.0]}, "control"),
        ({"sampling_by": ["cluster"]}, "weights by cluster"),
        ({"sampling_by": ["cluster"], "sampling_strength": [0.0]}, "weights by cluster"),
        ({"sampling_by": ["density", "pass_rate"]}, "weights by density and pass_rate, strength 1"),
        ({"sampling_by": ["uniform"]}, "control"),
    ],
)
def test_labels_say_what_was_weighed_by(config: dict, label: str, tmp_path: Path, made_up: ModuleType) -> None:
    assert read_run(grpo_run(tmp_path, made_up, **config)).arms[0].label == label


def test_density_is_not_made_responsible_for_other_weights(tmp_path: Path, made_up: ModuleType) -> None:
    folder = grpo_run(tmp_path, made_up, sampling_by=["cluster", "pass_rate"])
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert text.count("by cluster and pass_rate") >= 2
    assert "The higher the density, the lower the weight" not in text
    assert "the first round" in text


def test_a_dpo_run(tmp_path: Path, made_up: ModuleType) -> None:
    names = {"rewards/accuracies": 0.6, "rewards/margins": 0.2, "loss": 0.6}
    history = [{**names, "step": step} for step in (10, 20)]
    made_up.write(tmp_path / "training_log.json", {"seconds": 5.0, "steps": 20, "history": history})
    metrics = {
        "accuracy/held_out": 0.7,
        "accuracy/standard_error": 0.05,
        "margin/held_out": 0.25,
        "pairs/held_out": 84,
    }
    made_up.write(tmp_path / "metrics.json", {**metrics, "pairs/train": 100.0})
    made_up.write_prompts(tmp_path / "prompts.parquet", 1.0, False)
    made_up.write(tmp_path / "resolved_config.yaml", {"recipe": "dpo", "sampling_strength": [1.0], "seed": 0})
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# DPO: learning from compared answers")
    assert "| `margin/held_out` | 0.2500 |" in text
    assert "recipes/dpo.py" in text
    assert "The higher the density, the lower the weight" in text
