"""Files that are whole or not there, and the one line that is said of those that cannot be read or written."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import yaml

from hf_synth.errors import MissingPackageError, user_errors
from hf_synth.io import directory_lock, open_matrix, reading, whole_file, write_text


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 230 + ".json"])
def test_a_name_of_the_greatest_length_is_written(tmp_path, name):
    write_text(tmp_path / name, "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "whole")]


def deep(opening: str) -> bytes:
    return opening.encode() * 100_000


READERS = {
    "json": lambda path: json.loads(path.read_text()),
    "yaml": lambda path: yaml.safe_load(path.read_text()),
    "safetensors": safetensors.numpy.load_file,
    "parquet": pq.read_table,
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"PAR1", b"{\0", deep("["), deep("{a: ")], ids=lambda b: repr(b[:4])
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind, content):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    if kind == "yaml" and content in (b"", b"PAR1"):
        return  # which are YAML
    with pytest.raises(ValueError, match=re.escape(f"{path} cannot be read: ")) as raised, reading(path, "mend it"):
        READERS[kind](path)
    assert str(raised.value).endswith("; mend it")
    assert "\n" not in str(raised.value)


def test_every_flipped_byte_of_a_parquet_file_is_read_or_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(50)]}), path, compression="snappy")
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        with contextlib.suppress(ValueError), reading(path):
            pq.read_table(path)["text"].to_pylist()


def test_a_mistake_of_ours_is_not_called_a_damaged_file(tmp_path):
    with pytest.raises(TypeError), reading(tmp_path):
        raise TypeError("a")
    with pytest.raises(ValueError, match="cannot be read: it has no 'key'"), reading(tmp_path):
        raise KeyError("key")
    with pytest.raises(OSError, match="No space"), reading(tmp_path):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo\x1b[31m three"), r"c: error: one two\\x1b\[31m three"),
        (ValueError(), "c: error: ValueError"),
        (MissingPackageError("pip install x"), "c: error: pip install x"),
        (FileNotFoundError(2, "No such file or directory", "runs/gone"), "c: error: runs/gone: No such file"),
        (OSError(30, "Read-only file system", "/ro/x"), "c: error: /ro/x: Read-only file system"),
        (OSError(36, "File name too long", "x" * 300), "File name too long"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_exit_code_2(capsys, error, line):
    with pytest.raises(SystemExit) as left, user_errors("c"):
        raise error
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert re.search(line, printed)
    assert printed.count("\n") == 1


def test_a_directory_that_is_removed_meanwhile_is_said(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="was removed while it"), directory_lock(str(folder)):  # noqa: PT012
        shutil.rmtree(folder)
        write_text(folder / "metrics.json", "{}")


def test_a_matrix_on_disk_keeps_what_it_holds(tmp_path):
    open_matrix(tmp_path / "m", 3, 2)[1] = 7
    again = open_matrix(tmp_path / "m", 3, 2)
    np.testing.assert_array_equal(again, [[0, 0], [7, 7], [0, 0]])
    assert os.stat(tmp_path / "m").st_blocks * 512 >= 24, "its room is taken"


@pytest.mark.processes
def test_a_matrix_on_a_full_disk_is_an_error_and_no_signal(tmp_path):
    """On a disk of a megabyte, where there are the rights to mount one; else on a file of a limited size."""
    program = (
        "import sys; from pathlib import Path\n"
        "from hf_synth.io import open_matrix; from hf_synth.errors import user_errors\n"
        "with user_errors('c'): open_matrix(Path(sys.argv[1]) / 'm', 1_000_000, 4)[:] = 1"
    )
    mounted = shutil.which("mount") and os.geteuid() == 0
    mounted = mounted and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path]).returncode
    before = "" if mounted else "ulimit -f 1000; "
    try:
        done = subprocess.run(
            ["bash", "-c", f'{before}"$@"', "-", sys.executable, "-c", program, tmp_path],
            capture_output=True,
            text=True,
        )
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == 2, done.stderr
    assert "make room" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a") as part:  # noqa: PT012
        Path(part).write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
