"""Shards on disk against everything in memory; any number of processes, any interruption, the same densities."""

import threading

import numpy as np
import pytest

from hf_synth.sampling import embed_texts, knn_density, shards
from hf_synth.sampling.embeddings import Embedder, load_embedder
from hf_synth.sampling.shards import DensitySettings, Ranks, fingerprint, sharded_density

TOPICS = [f"{verb} the {noun}" for verb in ("bake", "mend", "sell", "paint") for noun in ("bread", "chair", "boat")]
PROMPTS = [f"how do I {topic} number {number % 40}" for number in range(45) for topic in TOPICS] + [
    "HOW do I?",
    "how do i?",
]
SETTINGS = DensitySettings(k=5, backend="faiss")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(shards, "PART", 70)


def batches(prompts=PROMPTS, size=33):
    return lambda: (prompts[start : start + size] for start in range(0, len(prompts), size))


@pytest.fixture(scope="module")
def in_memory():
    return knn_density(embed_texts(PROMPTS), k=5, backend="faiss")


def test_equal_to_the_density_in_memory(tmp_path, in_memory):
    result = sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)
    np.testing.assert_array_equal(result.density, in_memory)
    assert result.facts["prompts"] == len(PROMPTS)
    assert result.facts["distinct_texts"] == 482
    assert result.facts["distinct"] == 481, "the last two prompts are one point"
    np.testing.assert_array_equal(result.points[result.point], embed_texts(PROMPTS))


def test_one_neighbour_says_nothing_of_the_dimension(tmp_path):
    options = {"k": 1, "estimator": "mean_distance", "backend": "faiss"}
    result = sharded_density(tmp_path, batches(), load_embedder(), DensitySettings(**options))
    np.testing.assert_array_equal(result.density, knn_density(embed_texts(PROMPTS), **options))
    assert result.facts["dimension"] == 0


@pytest.mark.parametrize("count", [2, 3, 9])
def test_any_number_of_processes_gives_the_same(tmp_path, in_memory, count):
    barrier, result = threading.Barrier(count), [None] * count

    def process(rank):
        ranks = Ranks(rank, count, lambda: barrier.wait(60))
        result[rank] = sharded_density(tmp_path, batches(), load_embedder(), SETTINGS, ranks)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(result[0].density, in_memory)
    assert result[1:] == [None] * (count - 1)


@pytest.mark.parametrize("calls", [0, 1, 4, 6])
def test_a_run_that_died_goes_on_where_it_was(tmp_path, in_memory, calls):
    asked = []

    def dies(texts):
        if len(asked) >= calls:
            raise KeyboardInterrupt
        asked.append(texts)
        return embed_texts(texts)

    with pytest.raises(KeyboardInterrupt):
        sharded_density(tmp_path, batches(), Embedder(dies, lambda: "hashing"), SETTINGS)
    calls = 99
    result = sharded_density(tmp_path, batches(), Embedder(dies, lambda: "hashing"), SETTINGS)
    np.testing.assert_array_equal(result.density, in_memory)
    assert sum(map(len, asked)) == 482, "no text was embedded twice"


def test_a_search_that_died_goes_on(tmp_path, in_memory, monkeypatch):
    real, done = shards.nearest, []

    def dies(frame, index, rows, k):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(rows)
        return real(frame, index, rows, k)

    monkeypatch.setattr(shards, "nearest", dies)
    with pytest.raises(KeyboardInterrupt):
        sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)
    monkeypatch.setattr(shards, "nearest", lambda *values: done.append(values[2]) or real(*values))
    np.testing.assert_array_equal(sharded_density(tmp_path, batches(), load_embedder(), SETTINGS).density, in_memory)
    np.testing.assert_array_equal(np.concatenate(done), np.arange(481))


def test_the_approximate_index_is_built_once_and_says_its_recall(tmp_path, in_memory, monkeypatch):
    settings = DensitySettings(k=5, backend="ivf")
    result = sharded_density(tmp_path, batches(), load_embedder(), settings)
    assert result.facts["backend"] == "ivf"
    assert result.facts["recall"] >= 0.95
    assert np.corrcoef(np.log(result.density), np.log(in_memory))[0, 1] > 0.97
    monkeypatch.setattr(shards, "make_index", None)
    for path in (tmp_path / "neighbours").iterdir():
        path.unlink()
    np.testing.assert_array_equal(
        sharded_density(tmp_path, batches(), load_embedder(), settings).density, result.density
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompts": [*PROMPTS, "one more"]}, "fingerprint"),
        ({"prompts": PROMPTS[::-1]}, r"\(order: "),
        ({"prompts": [*PROMPTS[:-3], *reversed(PROMPTS[-3:])]}, r"\(order: "),
        ({"settings": DensitySettings(k=6, backend="faiss")}, "k: 5 there, 6 now"),
        ({"embedder": load_embedder(dim=64)}, "embedder: 'hashing-384' there, 'hashing-64' now"),
    ],
)
def test_a_folder_of_another_density_is_refused(tmp_path, changed, message):
    sharded_density(tmp_path, batches(PROMPTS), load_embedder(), SETTINGS)
    values = {"prompts": PROMPTS, "embedder": load_embedder(), "settings": SETTINGS, **changed}
    with pytest.raises(ValueError, match=message):
        sharded_density(tmp_path, batches(values["prompts"]), values["embedder"], values["settings"])


def test_the_same_texts_with_copies_elsewhere_are_other_work(tmp_path):
    texts = PROMPTS[:20]
    sharded_density(tmp_path, batches([*texts, *texts[:2]]), load_embedder(), SETTINGS)
    with pytest.raises(ValueError, match="order"):
        sharded_density(tmp_path, batches([*texts, *texts[2:4]]), load_embedder(), SETTINGS)


def test_a_k_that_was_too_large_does_not_claim_the_folder(tmp_path):
    texts = ["a", "b c", "d e f", "g h i j"]
    with pytest.raises(ValueError, match="Take k of at most 3, or give more points"):
        sharded_density(tmp_path, batches(texts), load_embedder(), DensitySettings(k=20))
    result = sharded_density(tmp_path, batches(texts), load_embedder(), DensitySettings(k=3))
    assert result.facts["k"] == 3


@pytest.mark.parametrize("name", ["plan.json", "index.json", "rows.safetensors", "neighbours/00001.safetensors"])
def test_a_damaged_file_is_named(tmp_path, name):
    sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)
    (tmp_path / name).write_bytes(b"xx")
    with pytest.raises(ValueError, match=f"{name} (cannot be read|is damaged)"):
        sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)


@pytest.mark.parametrize(
    "lost", [["vectors.f32", "points.safetensors"], ["points.f32"], ["vectors.f32", "points.f32"]]
)
def test_arrays_that_were_lost_are_made_again(tmp_path, in_memory, lost):
    sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)
    for name in lost:
        (tmp_path / name).unlink()
    result = sharded_density(tmp_path, batches(), load_embedder(), SETTINGS)
    np.testing.assert_array_equal(result.density, in_memory)


def test_one_point_and_none(tmp_path):
    result = sharded_density(tmp_path / "one", batches(["a"] * 9), load_embedder(), SETTINGS)
    np.testing.assert_array_equal(result.density, np.ones(9))
    with pytest.raises(ValueError, match="got none"):
        sharded_density(tmp_path / "none", batches([]), load_embedder(), SETTINGS)
    with pytest.raises(ValueError, match="k=5 neighbours need more than 5 distinct points, got 3"):
        sharded_density(tmp_path / "few", batches(["a", "b", "c"]), load_embedder(), SETTINGS)


def test_a_fingerprint_is_of_the_set():
    keys = np.random.default_rng(0).integers(0, 256, (9, 16), dtype=np.uint8)
    assert fingerprint(keys) == fingerprint(keys[::-1]) == fingerprint(np.concatenate([keys, keys]))
    assert fingerprint(keys) != fingerprint(keys[1:])
