"""The real file that some tests read, and a writer of small ones."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HH_FILE = Path(__file__).parents[2].parent / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"


@pytest.fixture(scope="session")
def hh_file() -> Path:
    """The test file of Anthropic/hh-rlhf, harmless-base: 2,312 pairs."""
    if not HH_FILE.exists():
        reason = "the real file harmless-base-test.jsonl.gz is not beside the repository (shared/data/hh-rlhf)"
        # Where tests gate a merge, a missing file must not pass for a passed test.
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return HH_FILE


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write objects (as JSON) and strings or bytes (as they are) as the lines of a file."""

    def write_lines(name: str, *lines: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = [line if isinstance(line, bytes) else _text(line).encode() for line in lines]
        with gzip.open(path, "wb") if name.endswith(".gz") else path.open("wb") as file:
            file.write(b"\n".join(raw) + b"\n")
        return path

    return write_lines


def _text(line: Any) -> str:
    return line if isinstance(line, str) else json.dumps(line)
