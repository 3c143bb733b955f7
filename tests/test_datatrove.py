"""The pipeline of docs/scaling.md, run by datatrove's local executor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import hf_synth
from hf_synth.sampling import embed_texts, knn_density
from hf_synth.training.arguments import DataArguments
from hf_synth.training.data import prompt_split
from hf_synth.training.weighting import read_density

ROOT = Path(__file__).parent.parent
ROWS = 600


@pytest.mark.processes
def test_rows_without_duplicates_and_their_density(tmp_path):
    pytest.importorskip("datatrove", reason="datatrove is not installed: pip install datatrove")
    command = [sys.executable, ROOT / "docs" / "datatrove_density.py", "--task", "agreement", "--rows", str(ROWS)]
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--tasks", "3", "--folder", "trove"], **options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "trove"
    assert len(list((folder / "rows").iterdir())) == len(list((folder / "distinct").iterdir())) == 3
    made = hf_synth.load_dataset("agreement", split="train", size=ROWS, view="prompt")["prompt"]
    texts = pq.read_table(folder / "density.parquet")["prompt"].to_pylist()
    assert len(set(made)) < ROWS, "there are duplicates to find"
    assert sorted(texts) == sorted(set(made))
    density, _, _, recall = read_density(folder, list(made))
    expected = dict(zip(texts, knn_density(embed_texts(texts)), strict=True))
    np.testing.assert_allclose(density, [expected[text] for text in made], rtol=1e-6)
    assert recall == 1.0
    drawn = prompt_split(DataArguments(task="agreement", num_rows=100), tmp_path, 0)[0]["prompt"]
    read_density(folder, list(drawn))  # what `--density_from` reads for training
