"""Generation: shares counted by hand, coverage against a listed language, and models with a planted fault each."""

import pytest

from hf_synth import get_task
from hf_synth.metrics.generation import generation

TEXTS = ["START MID END", "START MID END", "START END", "START MID MID END", None]
VALID = [1, 1, 0, 1, 1]  # the last is unfinished, and therefore wrong


def test_hand_counted():
    result = generation(TEXTS, VALID, counts={3: 1, 4: 1, 5: 1}, training=["START MID END", "START END"])
    assert result == pytest.approx(
        {
            "validity": 3 / 5,
            "validity_by_length": 2 / 4,
            "validity_by_length/3": 1,
            "validity_by_length/2": 0,
            "validity_by_length/4": 1,
            "validity_by_length/unfinished": 0,
            "distinct": 4 / 5,
            "coverage": 2 / 3,
            "coverage/3": 1,
            "coverage/4": 1,
            "coverage/5": 0,
            "in_training": 3 / 5,
            "valid_and_new": 1 / 5,
        }
    )


def test_lengths_and_counts_of_ones_own():
    result = generation(TEXTS, VALID, ["short", "short", "short", "long", "long"], counts=10)
    assert result["validity_by_length/short"] == pytest.approx(2 / 3)
    assert result["validity_by_length/long"] == 1 / 2
    assert result["coverage"] == 2 / 10
    assert "in_training" not in result
    assert "coverage" not in generation(TEXTS, VALID)


def test_each_fault_of_a_model_shows_in_its_own_number():
    """The language has `START MID{n} END`, n = 1 .. 10; a good model samples each, one repeats one, one runs on."""
    verify = get_task("start_mid_end").verify
    language = ["START " + "MID " * n + "END" for n in range(1, 11)]
    counts = {len(text.split()): 1 for text in language}
    models = {"good": language, "repeats": language[:1] * 10, "runs on": [None] * 10, "wrong": ["START END"] * 10}
    result = {
        name: generation(texts, [verify("", text or "") for text in texts], counts=counts, training=language[:5])
        for name, texts in models.items()
    }
    table = {
        name: [row[key] for key in ("validity", "distinct", "coverage", "in_training", "valid_and_new")]
        for name, row in result.items()
    }
    assert table == {
        "good": [1.0, 1.0, 1.0, 0.5, 0.5],
        "repeats": [1.0, 0.1, 0.1, 1.0, 0.0],
        "runs on": [0.0, 1.0, 0.0, 0.0, 0.0],
        "wrong": [0.0, 0.1, 0.0, 0.0, 0.0],
    }


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match="got 0 values"):
        generation([], [])
    with pytest.raises(ValueError, match="got 2 different valid strings, wanted at most 1"):
        generation(TEXTS, VALID, counts=1)
    with pytest.raises(ValueError, match="got 1 different valid strings, wanted at most 0"):
        generation(TEXTS, VALID, counts={3: 0})
    with pytest.raises(ValueError, match="zip"):
        generation(TEXTS, VALID[:2])
    for wrong in (float("nan"), 2.0, -1.0):
        with pytest.raises(ValueError, match=rf"generation: got {wrong:g}, wanted 1 for a valid string"):
            generation(["a", "b"], [wrong, 1])
    assert generation([None], [float("nan")])["validity"] == 0.0
