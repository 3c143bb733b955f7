"""Rewrites golden.json, the hashes that pin every task's rows: `python tests/tasks/make_golden.py`.

Run it after a change of rows that was meant, with the task's `version` raised.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from hf_synth.rng import RowRandom
from hf_synth.tasks import Task, get_task, list_tasks, task_class
from hf_synth.tasks.base import SPLITS, Rows

GOLDEN = Path(__file__).with_name("golden.json")
_ROWS = 32
_FAR = 10**12


def row_hash(task: Task) -> str:
    """SHA-256 of some rows of every split under two seeds, near and far, and of what `corrupt` makes of them."""
    state = hashlib.sha256()
    for split in SPLITS:
        for seed in (0, 1):
            for start in (0, _FAR):
                rows = task.rows(start, _ROWS, split=split, seed=seed)
                _add(state, rows)
                index = np.arange(start, start + _ROWS)
                if task.verifiable:
                    _add(state, task.corrupt(rows, RowRandom(seed=seed, split=split, purpose="corrupt", index=index)))
    return state.hexdigest()[:32]


def _add(state: "hashlib._Hash", rows: Rows) -> None:
    """Padding does not count: how wide a block is depends on its other rows."""
    for tokens, *numbers in zip(rows.tokens, rows.lengths, rows.loss_start, rows.loss_stop, strict=True):
        state.update(np.array([*numbers, *tokens[: numbers[0]]], "<i8").tobytes())


def all_hashes() -> dict[str, dict[str, int | str]]:
    """TASK-PRESET -> version and hash of every task that is installed."""
    return {
        f"{name}-{preset}": {"version": task_class(name).version, "rows": row_hash(get_task(name, preset))}
        for name in list_tasks()
        for preset in task_class(name).presets
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(all_hashes(), indent=2) + "\n")
