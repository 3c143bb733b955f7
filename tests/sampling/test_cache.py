"""Cached vectors equal new ones; nothing is embedded twice, whatever was interrupted."""

import numpy as np
import pytest

from hf_synth.sampling import embed_texts, embeddings
from hf_synth.sampling.embeddings import Embedder

TEXTS = [f"text {number}" for number in range(25)]


class Counting:
    """An embedder that says what it was asked, and may die."""

    def __init__(self, dies_after=10**9):
        self.asked, self.left = [], dies_after

    def __call__(self, texts):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += texts
        return embed_texts(texts, dim=8)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 10)


def test_known_texts_are_read_in_any_order(tmp_path):
    embed = Counting()
    Embedder(embed, lambda: "one")(TEXTS[:15], tmp_path)
    got = Embedder(embed, lambda: "one")([*TEXTS[::-1], TEXTS[3]], tmp_path)
    np.testing.assert_array_equal(got, embed_texts([*TEXTS[::-1], TEXTS[3]], dim=8))
    assert sorted(embed.asked) == sorted(TEXTS), "each text once"


def test_an_interrupted_embedding_goes_on(tmp_path):
    first, second = Counting(dies_after=2), Counting()
    with pytest.raises(KeyboardInterrupt):
        Embedder(first, lambda: "one")(TEXTS, tmp_path)
    (tmp_path / "one" / ".half-written").write_bytes(b"torn")
    got = Embedder(second, lambda: "one")(TEXTS, tmp_path)
    assert first.asked == TEXTS[:20]
    assert second.asked == TEXTS[20:]
    np.testing.assert_array_equal(got, embed_texts(TEXTS, dim=8))


def test_another_embedder_has_vectors_of_its_own(tmp_path):
    embed = Counting()
    for fingerprint in (lambda: "one", lambda: "two"):
        Embedder(embed, fingerprint)(TEXTS, tmp_path)
    assert len(embed.asked) == 2 * len(TEXTS)


def test_embed_texts_with_a_cache(tmp_path):
    plain = embed_texts(TEXTS * 2, dim=16)
    for _ in range(2):
        np.testing.assert_array_equal(embed_texts(TEXTS * 2, dim=16, cache=tmp_path), plain)
    assert [path.name for path in tmp_path.iterdir()] == ["hashing-16"]
    assert embed_texts([], dim=16, cache=tmp_path).shape == (0, 16)
    np.testing.assert_array_equal(embed_texts(["\ud800"], cache=tmp_path), embed_texts(["\ud800"]))
