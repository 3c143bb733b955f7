"""Run directories for the tests of reports; `made_up` is the module that writes them."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """The module made_up.py next to this file."""
    spec = importlib.util.spec_from_file_location("reports_made_up", Path(__file__).with_name("made_up.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not painted: a test that reads only words need not wait for pixels."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: None)


@pytest.fixture(scope="session")
def grpo_run(tmp_path_factory: pytest.TempPathFactory, made_up: ModuleType) -> Path:
    """Three arms over four clusters: strength 1 beats the control, which beats strength 0.5."""
    folder = tmp_path_factory.mktemp("grpo")
    finals = {1.0: [0.5, 0.4375, 0.375, 0.3125], 0.5: [0.25, 0.25, 0.25, 0.125], 0.0: [0.5625, 0.375, 0.25, 0.1875]}
    made_up.write_grpo(folder, finals)
    return folder


@pytest.fixture(scope="session")
def natural_run(tmp_path_factory: pytest.TempPathFactory, made_up: ModuleType) -> Path:
    """Prompts of unknown origin, one weighted arm and its control, scored by a reward model."""
    folder = tmp_path_factory.mktemp("natural")
    made_up.write_grpo(folder, {1.0: [-0.5, 0.25], 0.0: [-0.25, 0.75]}, measure="sampled_reward", natural=True)
    return folder


@pytest.fixture(scope="session")
def reward_run(tmp_path_factory: pytest.TempPathFactory, made_up: ModuleType) -> Path:
    """A reward model: loss, accuracy, weights, and rows that could not be used."""
    folder = tmp_path_factory.mktemp("reward")
    history = [
        {"loss": 0.7 - step / 100, "accuracy": 0.5 + step / 100, "margin": 0.1, "step": step} for step in (5, 10)
    ]
    made_up.write(folder / "training_log.json", {"seconds": 300.0, "steps": 10, "history": history})
    weights = made_up.write_prompts(folder / "prompts.parquet", 1.0, natural=True)
    metrics = {
        "accuracy/held_out": 0.625,
        "accuracy/standard_error": 0.03125,
        "loss/held_out": 0.6543,
        "pairs/train": 200.0,
        "pairs/held_out": 240.0,
        "pairs/too_long": 7.0,
        "weights/largest": float(weights.max()),
    }
    made_up.write(folder / "metrics.json", metrics)
    made_up.write(
        folder / "resolved_config.yaml",
        {
            "recipe": "reward",
            "settings": {"preferences": "a/b"},
            "sampling_strength": [1.0],
            "preferences": "a/b",
            "seed": 0,
        },
    )
    rejected = [{"file": "a.jsonl", "line": 1, "reason": "not | JSON", "row": "{"}] * 2
    (folder / "rejected_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rejected))
    return folder


@pytest.fixture(scope="session")
def sft_run(tmp_path_factory: pytest.TempPathFactory, made_up: ModuleType) -> Path:
    """Supervised fine-tuning, and nothing but what must be there: a log, metrics and the recipe's name."""
    folder = tmp_path_factory.mktemp("sft")
    history = [{"loss": 3.0 / step, "mean_token_accuracy": 0.5, "step": step} for step in (10, 20, 30)]
    made_up.write(folder / "training_log.json", {"seconds": 5.0, "steps": 30, "history": history})
    made_up.write(folder / "metrics.json", {"loss/final": 0.1, "rows": 4000, "seconds/total": 5.0})
    made_up.write(folder / "resolved_config.yaml", {"recipe": "sft"})
    return folder
