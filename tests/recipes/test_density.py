"""recipes/density.py as it is launched: on several processes, killed, on bad rows, and taken up by training."""

import json
import signal
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from hf_synth.sampling import embed_texts, knn_density, rarity_weights

TEXTS = [f"how do I bake bread number {number}" for number in range(60)] + [
    f"{word} of the sea" for word in "abcdefgh"
]


@pytest.fixture
def prompts(tmp_path):
    rows = [{"prompt": text} for text in TEXTS] + [{"prompt": [{"role": "user", "content": TEXTS[0]}]}]
    lines = [
        *map(json.dumps, rows),
        "{torn",
        '{"prompt": 3}',
        '{"prompt": " "}',
        '{"answer": "x"}',
        '{"prompt": "\\ud800"}',
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def flags(prompts, folder):
    return ["--prompts", prompts, "--density_k", 5, "--density_backend", "faiss", "--output_dir", folder]


def read(folder):
    return pq.read_table(folder / "density.parquet").to_pydict()


@pytest.mark.nightly
@pytest.mark.processes
def test_two_processes_give_what_one_gives(command, recipes, prompts, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
    for count in (1, 2):
        done = command(*torchrun, count, recipes / "density.py", *flags(prompts, tmp_path / str(count)), cwd=tmp_path)
        assert done.code == 0, done
        assert done.out.count("Density: ") == 1, "one process says so"
    assert read(tmp_path / "1") == read(tmp_path / "2")


@pytest.mark.processes
def test_the_files_say_what_was_found(run, prompts, tmp_path):
    done = run("density.py", *flags(prompts, "out"), cwd=tmp_path)
    assert done.code == 0, done
    table, texts = read(tmp_path / "out"), [*TEXTS, TEXTS[0]]
    density = knn_density(embed_texts(texts), k=5, backend="faiss")
    assert table["prompt"] == texts
    np.testing.assert_array_equal(table["density"], density)
    np.testing.assert_array_equal(table["sampling_weight"], rarity_weights(density))
    facts = json.loads((tmp_path / "out" / "density.json").read_text())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (facts["backend"], facts["recall"], facts["prompts"], facts["distinct"]) == ("faiss", 1.0, 69, 68)
    assert metrics["density/dimension"] == facts["dimension"] > 0
    assert metrics["density/effective_sample_size"] < 69
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected_rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [70, 71, 72, 73, 74]


@pytest.mark.processes
def test_killed_while_it_embeds_it_goes_on(start, run, prompts, tmp_path):
    whole = run("density.py", *flags(prompts, "whole"), cwd=tmp_path)
    killed = start("density.py", *flags(prompts, "out"), cwd=tmp_path)
    killed.signal_when(signal.SIGKILL, tmp_path / "out" / "work" / "plan.json").wait()
    assert not (tmp_path / "out" / "density.json").exists(), "the kill came too late to tell"
    assert run("density.py", *flags(prompts, "out"), cwd=tmp_path).code == whole.code == 0
    assert read(tmp_path / "out") == read(tmp_path / "whole")


@pytest.mark.processes
def test_a_folder_of_parquet_which_other_training_refuses(run, tmp_path, quick_flags):
    (tmp_path / "folder").mkdir()
    for part in (0, 1):
        pq.write_table(pa.table({"prompt": TEXTS[part::2]}), tmp_path / "folder" / f"part-{part}.parquet")
    done = run("density.py", "--prompts", "folder", "--output_dir", "other", cwd=tmp_path)
    assert done.code == 0, done
    assert read(tmp_path / "other")["prompt"] == TEXTS[0::2] + TEXTS[1::2]
    refused = run("grpo.py", *quick_flags, "--density_from", "other", "--output_dir", "run", cwd=tmp_path)
    assert "density_from: 'other' was made of other prompts" in refused.error


@pytest.mark.processes
def test_prompts_that_are_all_one_weigh_alike(run, tmp_path):
    (tmp_path / "same.jsonl").write_text('{"prompt": "Bake bread."}\n' * 5)
    done = run("density.py", "--prompts", "same.jsonl", "--output_dir", "out", cwd=tmp_path)
    assert done.code == 0, done
    table = read(tmp_path / "out")
    assert table["density"] == table["sampling_weight"] == [1.0] * 5
    with FileLock(tmp_path / "out" / ".lock"):
        refused = run("density.py", "--prompts", "same.jsonl", "--output_dir", "out", cwd=tmp_path)
    assert "'out' is locked by another process" in refused.error


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--prompts", "nowhere"], "got 'nowhere', which cannot be read"),
        (["--prompts", "empty.jsonl"], "got no usable row in 'empty.jsonl'"),
        (["--density_k", "3000"], "k=3000 neighbours need more than 3000 distinct points"),
        (["--density_backend", "annoy"], "density_backend: got 'annoy'"),
        (["--sampling_strength", "0", "1"], "sampling_strength"),
    ],
)
def test_errors(fail, tmp_path, given, words):
    (tmp_path / "empty.jsonl").write_text("{}\n[]\n")
    assert words in fail("density.py", *given, "--output_dir", "out", cwd=tmp_path).error


@pytest.mark.processes
def test_the_shipped_config_is_launched(run, tmp_path):
    done = run("density.py", "--num_rows", 200, "--output_dir", "out", cwd=tmp_path)
    assert done.code == 0, done
    assert len(read(tmp_path / "out")["density"]) == 200
