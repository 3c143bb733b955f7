"""Run directories as the recipes write them, small and made up, so that every number in them is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SIZES = {"plain": 120, "second": 50, "odd_one": 20, "rarest": 10}
NASTY = "<script>alert(1)</script> | a\nb"
NATURAL = [
    NASTY,
    "`code` **bold** [link](http://x.y) $x$ \\",
    "日本語 🙂 \u202e turned",
    "![i](javascript:alert(1))",
    "x" * 5000,
]


def write_arm(
    folder: Path,
    *,
    final: dict[str, float],
    warm_up: dict[str, float],
    measure: str | None = "validity",
    strength: float = 1.0,
    natural: bool = False,
) -> dict[str, float]:
    """One arm of a GRPO run; returns its metrics. `final` and `warm_up` map a group to its value."""
    folder.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, float]] = []
    for step, look in ((0, warm_up), (20, final)):
        if measure:
            mean = float(np.mean(list(look.values())))
            history.append(
                {measure: mean, **{f"{measure}/{group}": value for group, value in look.items()}, "step": step}
            )
        history.append({"reward": 0.2 + step / 100, "entropy": 1.0, "completions/mean_length": 4.0, "step": step + 10})
    write(folder / "training_log.json", {"seconds": 12.5, "steps": 20, "history": history})
    weights = write_prompts(folder / "prompts.parquet", strength, natural)
    metrics = {
        "weights/effective_sample_size": float(weights.sum() ** 2 / (weights**2).sum()),
        "weights/effective_share": float(weights.sum() ** 2 / (weights**2).sum() / len(weights)),
        "weights/intrinsic_dimension": 4.25,
        "weights/smallest": float(weights.min()),
        "weights/median": float(np.median(weights)),
        "weights/largest": float(weights.max()),
        "prompts/too_long": 3.0,
    }
    if measure:
        groups = list(final)
        write_samples(folder / "samples.parquet", measure, final, strength, natural)
        metrics["prompts/evaluated"] = 64.0 * len(groups)
        for moment, look in (("warmup", warm_up), ("final", final)):
            metrics[f"{measure}/{moment}"] = float(np.mean(list(look.values())))
            metrics[f"{measure}/{moment}_head"] = look[groups[0]]
            metrics[f"{measure}/{moment}_tail"] = look[groups[-1]]
    write(folder / "metrics.json", metrics)
    return metrics


def write_samples(path: Path, measure: str, final: dict[str, float], strength: float, natural: bool) -> None:
    """samples.parquet: 2 answers to each of 8 prompts a group, scored around the group's value."""
    random = np.random.default_rng(round(10 * strength))
    groups = [group for group in final for _ in range(16)]
    scores = np.array([final[group] for group in groups]) + 0.2 * random.normal(size=len(groups))
    rows = np.arange(len(groups)) // 2
    columns = {
        "prompt_row": rows, "sample": np.arange(len(groups)) % 2,
        "prompt": [f"<{group}> question {position // 2}" for position, group in enumerate(groups)],
        "completion": [f"{NASTY} {strength:g}"] * len(groups), "reward": scores,
        "truth": scores if measure == "validity" else pa.nulls(len(groups), pa.float64()),
        "cluster": pa.nulls(len(groups), pa.string()) if natural else groups, "density": 1.0 + len(groups) - rows,
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def write_prompts(path: Path, strength: float, natural: bool) -> np.ndarray:
    """prompts.parquet; density falls with the size of the cluster."""
    random = np.random.default_rng(0)
    clusters = [name for name, size in SIZES.items() for _ in range(size)]
    density = np.array([SIZES[name] for name in clusters]) * random.uniform(0.5, 2, len(clusters))
    texts = [f"<{name}> prompt {row}" for row, name in enumerate(clusters)]
    if natural:
        for text, row in zip(NATURAL, np.argsort(density), strict=False):
            texts[row] = text
    weights = density**-strength
    weights /= weights.mean()
    x, y = random.normal(size=(2, len(clusters)))
    columns = {"prompt": texts} if natural else {"prompt": texts, "cluster": clusters}
    pq.write_table(pa.table({**columns, "density": density, "sampling_weight": weights, "x": x, "y": y}), path)
    return weights


def write(path: Path, value: Any) -> None:
    """JSON, or YAML by the file's name."""
    text = yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value)
    path.write_text(text, encoding="utf-8")


def write_grpo(folder: Path, finals: dict[float, list[float]], **options: Any) -> dict[str, float]:
    """A GRPO run with one arm a strength; each has its final values by cluster. Returns metrics.json."""
    natural = options.get("natural", False)
    groups = ["crowded", "rare"] if natural else list(SIZES)
    warm_up = dict.fromkeys(groups, 0.125)
    metrics: dict[str, float] = {}
    for number, (strength, values) in enumerate(finals.items()):
        name = "control" if strength == 0 else f"strength-{strength:g}"
        arm = folder if number == 0 else folder / name
        final = dict(zip(groups, values, strict=True))
        result = write_arm(arm, final=final, warm_up=warm_up, strength=strength, **options)
        metrics |= result if number == 0 else {f"{name}/{key}": value for key, value in result.items()}
    write(folder / "metrics.json", {**metrics, "seconds/total": 61.5})
    config = {
        "recipe": "grpo",
        "settings": {"max_steps": 20, "seed": 0},
        "sampling_strength": list(finals),
        "max_steps": 20,
        "seed": 0,
        "output_dir": "runs/made_up",
        "beta": 0.0,
    }
    write(folder / "resolved_config.yaml", config)
    return json.loads((folder / "metrics.json").read_text())


def write_pretraining(folder: Path, *, excess: float = 0.25, seed: int = 0, **more: Any) -> dict[str, float]:
    """One pretraining run with a floor of 1 nat, groups, a curriculum and a corpus; returns its metrics.

    `more`: further values of its config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, float]] = []
    for step in (10, 20, 30, 40):
        above = excess * 40 / step
        look = {"loss": 1 + above, "excess": above, "accuracy": step / 50, "row_accuracy": step / 80}
        look |= {"loss/known": 1.0, "accuracy/known": 0.9, "loss/new_facts": 2.0, "accuracy/new_facts": 0.1}
        history.append(
            {f"eval_{name}_{key}": value for name in ("train", "validation") for key, value in look.items()}
            | {"geometry/parallelogram": step / 100, "step": step}
        )
    history.append({"curriculum/stage": 0.0, "curriculum/accuracy": 0.995, "curriculum/next_stage": 1.0,
                    "curriculum/first_row": 160.0, "step": 12})  # fmt: skip
    metrics = {
        "loss/test": 1 + excess, "floor/test": 1.0, "excess/test": excess, "excess/test_share": excess,
        "excess/test_rows_low": excess - 0.125, "excess/test_rows_high": excess + 0.125, "accuracy/test": 0.75,
        "row_accuracy/test": 0.5, "rows/test": 100.0, "rows/trained": 320.0, "rows/epoch": 64.0, "parameters": 1234.0,
        "loss/test/known": 1.0, "row_accuracy/test/known": 1.0, "rows/test/known": 60.0, "loss/test/new_facts": 2.0,
        "row_accuracy/test/new_facts": 0.0, "rows/test/new_facts": 40.0, "steps": 40.0,
        "tokens/canonical": 900.0, "tokens/example": 90.0, "tokens/explanation": 10.0, "documents/canonical": 9.0,
        "documents/example": 9.0, "documents/explanation": 1.0, "language/validity": 0.625,
        "language/validity_by_length/3": 0.5, "language/validity_by_length/5": 0.75, "language/perplexity/ratio": 1.5,
        "language/completion/after_verb/p_valid": 0.875, "language/completion/after_verb/p_invalid": 0.125,
        "language/completion/after_verb/passed": 1.0,
    }  # fmt: skip
    write(folder / "training_log.json", {"seconds": 2.0, "steps": 40, "history": history, "final": metrics})
    write(folder / "metrics.json", metrics)
    part = {"part": "attention", "source": "/home/me/runs/warm_up", "shuffled": True, "tensors": 4, "of_tensors": 4,
            "parameters": 1000, "of_parameters": 1000, "rows": None, "of_rows": None, "change": 1.5}  # fmt: skip
    fresh = {**part, "part": "mlp", "source": None, "shuffled": False, "parameters": 0, "change": 0.0}
    trained = {"parts": ["attention"], "trained_parameters": 300, "frozen_parameters": 700}
    report = {"embeddings": "by_token", "parts": [part, fresh], "notes": ["A | note"], "trained": trained}
    write(folder / "transfer.json", report)
    config = {
        "recipe": "pretrain", "settings": {"task": "sort", "init_from": [{"path": "/home/me/runs/warm_up"}]},
        "task": "sort", "task_args": {"length": 4, "vocab_size": 8}, "seed": seed, "curriculum_field": "length",
        "curriculum_start": 2, "curriculum_step": 2, "curriculum_threshold": 0.99, "max_steps": 40, "rows_seed": 0,
        "output_dir": "/home/me/runs/x", "init_from": [{"path": "/home/me/runs/warm_up"}], **more,
    }  # fmt: skip
    write(folder / "resolved_config.yaml", config)
    return metrics


def write_arms(folder: Path, excesses: dict[str, list[float]]) -> None:
    """Arms of pretraining, each with one run a value, by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = list(range(max(map(len, excesses.values()))))
    arms = {name: {"learning_rate": 0.1 * number} for number, name in enumerate(excesses, 1)}
    write(
        folder / "resolved_config.yaml",
        {"recipe": "pretrain", "task": "sort", "arms": arms, "seeds": seeds, "seed": 0},
    )
    for name, values in excesses.items():
        for seed, excess in enumerate(values):
            position = folder / name / (f"seed-{seed}" if len(seeds) > 1 else "")
            write_pretraining(position, excess=excess, seed=seed)
