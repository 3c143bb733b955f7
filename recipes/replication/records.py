"""What the runs of a study left, a line each: kept beside the page, so that no finished run is needed again."""

import csv
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.io import write_text
from hf_synth.training.pretraining import DYNAMICS

_DIGITS = 6
_COLUMNS = ("step", "train_loss", "validation_loss", "validation_accuracy", "validation_excess", "geometry/")
_APART = {"arms", "seeds", "output_dir", "disable_tqdm", "logging_steps", "canonical"}  # what changes no run's result


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished run: its arm and seed, metrics.json, the table over its steps, and the losses of counters."""

    arm: str
    seed: int
    key: str
    metrics: dict[str, float]
    dynamics: dict[str, list[float | None]]
    text: str = ""  # a digest of the natural text that was read
    counted: dict[str, float] = dataclasses.field(default_factory=dict)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return steps and values of one column of the table, where it has one."""
        values = self.dynamics.get(name, [])
        pairs = [(int(step or 0), value) for step, value in zip(self.dynamics["step"], values, strict=False)]
        present = [(step, value) for step, value in pairs if value is not None]
        return [step for step, _ in present], [value for _, value in present]


def run_key(config: Mapping[str, Any], arm: str, seed: int) -> str:
    """Return a digest of all that a run's result depends on: its config, what its arm changes, and its seed."""
    common = {name: value for name, value in config.items() if name not in _APART}
    values = (config.get("arms") or {}).get(arm) or {}
    text = json.dumps([{**common, **values}, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_records(path: Path) -> list[Record]:
    """Read the runs that a file names, each once; none where there is no file, nor of a last line that was cut off.

    Raises ValueError with the line's number where another line is no record.
    """
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    records = [_record(line, f"{path}:{number}") for number, line in enumerate(whole, 1)]
    return list({(record.key, record.text): record for record in records}.values())


def _record(line: bytes, where: str) -> Record:
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: got a line that is no record of a run ({error}); mend or delete it") from error


def record_of(folder: Path, arm: str, seed: int, key: str, metrics: Mapping[str, float], text: str = "") -> Record:
    """Read what a run's folder holds, rounded to six digits; times are left out, they are the machine's.

    Of the table over the steps what the page is made of: loss, accuracy, excess, and the geometry of embeddings.
    """
    with (folder / DYNAMICS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name.startswith(_COLUMNS)]
    columns = {name: [rounded(float(row[name])) if row[name] else None for row in rows] for name in names}
    kept = {name: rounded(value) for name, value in sorted(metrics.items()) if not name.startswith("seconds/")}
    return Record(arm, seed, key, kept, columns, text)


def add_record(path: Path, record: Record) -> None:
    """Append a run to a file, replacing a last line that was cut off."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = before[: before.rfind("\n") + 1]
    write_text(path, whole + json.dumps(dataclasses.asdict(record)) + "\n")


def by_arm(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return arm -> its runs in order of seeds; arms as they first appear."""
    arms: dict[str, list[Record]] = {}
    for record in records:
        arms.setdefault(record.arm, []).append(record)
    return {arm: sorted(runs, key=lambda record: record.seed) for arm, runs in arms.items()}


def rounded(value: float) -> float:
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    )
