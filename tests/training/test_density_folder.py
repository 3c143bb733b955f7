"""A density on disk: found by text in any order, and refused where it was made of other prompts."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from hf_synth.sampling.embeddings import text_key
from hf_synth.sampling.shards import fingerprint
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.weighting import held_out_density, measure_density, read_density, write_density

TEXTS = ["one", "two", "three", "two"]
DENSITY = np.array([1.0, 4.0, 2.0, 4.0])


@pytest.fixture
def folder(tmp_path):
    keys = np.frombuffer(b"".join(map(text_key, TEXTS)), np.uint8).reshape(-1, 16)
    points = np.arange(8.0).reshape(4, 2)
    facts = {"fingerprint": fingerprint(keys), "dimension": 3.5, "recall": 0.97}
    write_density(tmp_path, [TEXTS[:3], TEXTS[3:]], keys, DENSITY, 1 / DENSITY, points, facts)
    return tmp_path


def test_the_table_holds_every_prompt_in_order(folder):
    table = pq.read_table(folder / "density.parquet").to_pydict()
    assert table["prompt"] == TEXTS
    assert table["density"] == DENSITY.tolist()
    assert table["sampling_weight"] == (1 / DENSITY).tolist()
    assert table["key"] == [text_key(text) for text in TEXTS]


def test_found_by_text_in_any_order(folder):
    density, points, dimension, recall = read_density(folder, ["three", "one", "two", "one"])
    assert density.tolist() == [2.0, 1.0, 4.0, 1.0]
    assert points[0].tolist() == [4.0, 5.0]
    assert (dimension, recall) == (3.5, 0.97)


def test_other_prompts_are_refused_by_their_fingerprint(folder):
    with pytest.raises(ValueError, match=r"other prompts: 2 of 3 are not in it \(fingerprint .* there, .* here\)"):
        read_density(folder, ["one", "four", "five", "four"])
    with pytest.raises(ValueError, match=r"holds no density\.json; make it by recipes/density\.py"):
        read_density(folder / "nothing", TEXTS)


def test_training_reads_it_and_measures_held_out_prompts_itself(folder):
    prompts = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in TEXTS]})
    arguments = WeightArguments(density_from=str(folder), density_k=2)
    measured = measure_density(prompts, arguments)
    assert measured.density.tolist() == DENSITY.tolist()
    assert (measured.dimension, measured.recall) == (3.5, 0.97)
    fresh = Dataset.from_dict({"prompt": [[{"role": "user", "content": "eleven"}]]})
    with pytest.raises(ValueError, match="other prompts"):
        measure_density(fresh, arguments)
    assert len(held_out_density(fresh, prompts, arguments)) == 1
