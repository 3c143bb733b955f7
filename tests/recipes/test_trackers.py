"""What a tracker is told is what the run's own table has."""

import csv
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

pytestmark = pytest.mark.processes


def events(path: Path) -> Iterator[Event]:
    """The records of a file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_has_the_numbers_of_the_dynamics(run, tmp_path):
    flags = "--max_steps 4 --eval_steps 2 --logging_steps 1 --eval_rows 8 --test_rows 8 --gpt2_size 1_2_16"
    done = run("pretrain.py", *flags.split(), "--report_to", "tensorboard", "--output_dir", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("out/runs/*/events.*")
    told = {(event.step, value.tag): value.simple_value for event in events(path) for value in event.summary.value}
    with (tmp_path / "out" / "dynamics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["step"]) for row in rows] == [2, 4]
    for row in rows:
        for name in ("train_loss", "validation_loss", "validation_accuracy", "validation_excess"):
            assert told[int(row["step"]), f"eval/{name}"] == pytest.approx(float(row[name]), abs=1e-5)
    assert (3, "train/learning_rate") in told
