"""Weights of prompts: from the density of their texts, in a table that says so, and in the numbers of a run."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets

from hf_synth.preferences import distinct_prompts
from hf_synth.sampling import embed_texts, knn_density, rarity_weights
from hf_synth.training import weighting as weighing
from hf_synth.training.arguments import WeightArguments
from hf_synth.training.weighting import (
    WEIGHTS_TABLE,
    PromptDensity,
    WeighedRows,
    crowded_or_rare,
    held_out_density,
    line_counts,
    measure_density,
    place_on_map,
    weigh_rows,
    weight_metrics,
)

CROWD = [f"how do I bake bread number {number}" for number in range(30)]
RARE = ["quantum chromodynamics", "a poem about Oslo in March", "sort these integers: 5 3 9", "tax law of 1893"]
ARGUMENTS = WeightArguments(density_k=3)


@pytest.fixture(scope="module")
def prompts():
    return Dataset.from_dict({"prompt": CROWD + RARE})


def weigh(prompts, measured, strength=1.0):
    """What a recipe draws by."""
    return WeighedRows(prompts, measured, ARGUMENTS, strength, 0)


def test_weights_are_those_of_the_library(prompts):
    measured = measure_density(prompts, ARGUMENTS)
    density = knn_density(embed_texts(CROWD + RARE), k=3)
    np.testing.assert_array_equal(measured.density, density)
    for strength in (0.0, 0.5, 1.0):
        wanted = rarity_weights(density, strength=strength, max_ratio=100.0)
        np.testing.assert_allclose(weigh(prompts, measured, strength).weights, wanted, rtol=1e-12)
    assert measured.points.shape == (34, 2)


def test_the_rare_are_drawn_more_often(prompts):
    weighed = weigh(prompts, measure_density(prompts, ARGUMENTS))
    assert weighed.weights[30:].min() > weighed.weights[:30].max()
    assert list(weighed.dataset["sampling_weight"]) == weighed.weights.tolist()


def test_held_out_prompts_are_told_apart_by_all_prompts(prompts):
    """Held-out ones are few, so that among themselves no density could be measured."""
    held_out = Dataset.from_dict({"prompt": ["how do I bake bread number 77", "the moons of Neptune"]})
    assert crowded_or_rare(held_out_density(held_out, prompts, ARGUMENTS)) == ["crowded", "rare"]
    assert crowded_or_rare(held_out_density(held_out.select([1, 0]), prompts, ARGUMENTS)) == ["rare", "crowded"]


def test_every_argument_of_measuring_reaches_it(prompts, tmp_path):
    texts, cache = CROWD + RARE, tmp_path / "cache"
    arguments = WeightArguments(
        density_k=4, density_estimator="mean_distance", density_smoothing=2, embedding_cache=str(cache)
    )
    wanted = knn_density(embed_texts(texts), k=4, estimator="mean_distance", smoothing=2)
    np.testing.assert_array_equal(measure_density(prompts, arguments).density, wanted)
    assert list(cache.iterdir())
    with pytest.raises(ValueError, match=r"density_backend: got 'fais'.*faiss"):
        WeightArguments(density_backend="fais")


def test_the_map_of_many_prompts_is_found_from_some_of_them(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(500, 6)) * [9, 5, 1, 1, 1, 1]
    whole = place_on_map(vectors)
    monkeypatch.setattr(weighing, "_MAPPED", 100)
    some = place_on_map(vectors)
    assert some.shape == (500, 2)
    assert all(abs(np.corrcoef(whole[:, axis], some[:, axis])[0, 1]) > 0.95 for axis in (0, 1))


@pytest.mark.parametrize("shape", [(1, 6), (4, 1)])
def test_where_there_is_no_second_direction_the_map_has_zeros(shape):
    points = place_on_map(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    assert points.shape == (shape[0], 2)
    assert (points[:, 1] == 0).all()
    assert points[:, 0].any() == (shape[0] > 1)


def test_conversations_are_weighed_by_their_text(prompts):
    chats = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in CROWD + RARE]})
    np.testing.assert_array_equal(
        measure_density(chats, ARGUMENTS).density, measure_density(prompts, ARGUMENTS).density
    )


def test_the_table_says_how_weights_came_about(prompts, tmp_path, monkeypatch):
    measured = measure_density(prompts, ARGUMENTS)
    weighed = weigh(prompts.add_column("cluster", ["crowd"] * 30 + ["rare"] * 4), measured)
    weighed.write_table(tmp_path)
    table = pq.read_table(tmp_path / WEIGHTS_TABLE).to_pydict()
    assert list(table) == ["prompt", "cluster", "density", "sampling_weight", "x", "y"]
    assert table["prompt"] == CROWD + RARE
    assert table["cluster"] == ["crowd"] * 30 + ["rare"] * 4
    assert table["sampling_weight"] == weighed.weights.tolist()
    np.testing.assert_array_equal(table["density"], measured.density)
    monkeypatch.setenv("RANK", "1")
    weighed.write_table(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_numbers_of_weights(prompts):
    measured = measure_density(prompts, ARGUMENTS)
    weights = weigh(prompts, measured).weights
    metrics = weight_metrics(measured, weights, np.ones(34, int), np.ones(34, int))
    size = weights.sum() ** 2 / (weights**2).sum()
    assert metrics["weights/effective_sample_size"] == pytest.approx(size)
    assert metrics["weights/effective_share"] == pytest.approx(size / 34)
    assert (metrics["weights/smallest"], metrics["weights/largest"]) == (weights.min(), weights.max())
    assert metrics["weights/prompts"] == 34


def test_how_many_lines_became_how_many_prompts(capsys):
    """Five lines: one prompt three times (once with other spaces), and two prompts once."""
    rows = Dataset.from_dict({"prompt": ["a b", "c d", "a  b", "e f", "a b"]})
    weights = np.array([0.5, 2.0, 0.5, 1.5, 0.5])
    copies, lines = line_counts(rows, distinct_prompts(rows)[1])
    assert (copies.tolist(), lines.tolist()) == ([3, 1, 3, 1, 3], [3, 1, 1])
    metrics = weight_metrics(PromptDensity(weights, np.zeros((5, 2)), 2.0), weights, copies, lines)
    names = ("lines", "distinct", "repeated", "most_lines")
    assert [metrics[f"prompts/{name}"] for name in names] == [5, 3, 2, 3]
    assert [metrics[f"weights/{name}"] for name in ("smallest", "median", "largest")] == [0.5, 0.5, 2]
    assert metrics["weights/repeated_share"] == pytest.approx(1.5 / 5)
    assert "5 lines, 3 distinct prompts, at most 3 of each; weights 0.5 to 2, median 0.5" in capsys.readouterr().out


def test_ten_copies_weigh_together_what_one_prompt_would(prompts, tmp_path):
    arguments = WeightArguments(density_k=3, density_estimator="mean_distance", sampling_strength=[1.0])
    once, often = (
        weigh_rows(rows, arguments, 0) for rows in (prompts, concatenate_datasets([prompts, prompts.select([33] * 9)]))
    )
    alone, copied = (np.array(weighed.dataset["sampling_weight"]) for weighed in (once, often))
    assert copied[33:].sum() / copied[0] == pytest.approx(alone[33] / alone[0])
    once_recorded, often_recorded = (weighed.record(tmp_path) for weighed in (once, often))
    assert often_recorded["weights/repeated_share"] == pytest.approx(alone[33] / alone.sum())
    assert (once_recorded["weights/repeated_share"], often_recorded["prompts/repeated"]) == (0, 9)


def test_an_embedder_that_is_not_there(prompts):
    with pytest.raises(ValueError, match="embedder: got 'no/such-model', which cannot be loaded"):
        measure_density(prompts, WeightArguments(embedder="no/such-model"))


@pytest.mark.parametrize("texts", [["one"], ["one", "two"], ["one", "one", "two"]])
def test_too_few_distinct_prompts_for_a_density_weigh_alike(texts):
    alike = Dataset.from_dict({"prompt": texts})
    measured = measure_density(alike, WeightArguments())
    assert weigh(alike, measured).weights.tolist() == [1.0] * len(texts)
    assert measured.points.shape == (len(texts), 2)


def test_more_neighbours_than_there_are_prompts_is_an_error_that_names_the_flag():
    prompts = Dataset.from_dict({"prompt": ["a cat", "a dog", "a horse", "the stock market fell"]})
    with pytest.raises(ValueError, match="density_k: got 10 with 4 distinct prompts, wanted at most 3"):
        measure_density(prompts, WeightArguments(density_k=10))
    assert len(measure_density(prompts, WeightArguments(density_k=3)).density) == 4
