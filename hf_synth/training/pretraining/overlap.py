"""How much of what a model is tested on it was trained on: splits without held-out content share rows by chance."""

from hf_synth.tasks import Rows, Task

MOST_COMPARED = 1_000_000  # training rows: some seconds
_AT_ONCE = 50_000


def seen_share(task: Task, test: Rows, trained: int, *, seed: int = 0) -> float:
    """The share of test rows that are, token for token, among the first `trained` training rows of `seed`."""
    left, asked = set(_as_bytes(test)), _as_bytes(test)
    end = min(trained, task.size("train") or trained)
    for start in range(0, end, _AT_ONCE):
        left.difference_update(_as_bytes(task.rows(start, min(_AT_ONCE, end - start), seed=seed)))
    return 1 - sum(row in left for row in asked) / len(asked)


def _as_bytes(rows: Rows) -> list[bytes]:
    return [row[:length].tobytes() for row, length in zip(rows.tokens, rows.lengths, strict=True)]
