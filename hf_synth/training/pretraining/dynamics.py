"""The table of a run over its steps: dynamics.csv."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.training.locks import is_main_process

DYNAMICS = "dynamics.csv"
_TRAINING = ("loss", "grad_norm")
_LOOKS = {"eval_train_": "train_", "eval_validation_": "validation_"}
_LEFT_OUT = ("runtime", "_per_second", "model_preparation_time")


def dynamics(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One row a step at which the evaluation sets were looked at: step, train_loss, validation_accuracy and so on.

    Names are those of the log with `eval_` left out; learning_rate is the latest one logged. Without any look the
    rows are those steps at which training was logged: loss and grad_norm.
    """
    looked = any(name.startswith(tuple(_LOOKS)) for entry in history for name in entry)
    rows: dict[int, dict[str, float]] = {}
    rate: float | None = None
    for entry in history:
        rate = entry.get("learning_rate", rate)
        found = {
            short + name.removeprefix(prefix): value
            for name, value in entry.items()
            for prefix, short in _LOOKS.items()
            if name.startswith(prefix) and not name.endswith(_LEFT_OUT)
        }
        found |= {name: value for name, value in entry.items() if name.startswith(("curriculum/", "geometry/"))}
        found |= {} if looked else {name: entry[name] for name in _TRAINING if name in entry}
        if found:
            row = rows.setdefault(entry["step"], {"step": entry["step"]})
            row |= {**found, **({} if rate is None else {"learning_rate": rate})}
    return [rows[step] for step in sorted(rows)]


def write_dynamics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write dynamics.csv, whole or not at all. Only the main process writes."""
    if not is_main_process():
        return
    rows = dynamics(history)
    names = ["step", *sorted({name for row in rows for name in row} - {"step"})]
    draft = folder / f".{DYNAMICS}.{os.getpid()}.draft"
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, folder / DYNAMICS)
