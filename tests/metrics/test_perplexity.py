"""Perplexity of valid and invalid strings: by hand, and a model that knows the language against one that does not."""

import numpy as np
import pytest

from hf_synth.metrics.perplexity import perplexity

SUMS = np.log([1 / 4, 1 / 2, 1 / 64, 1 / 8])
TOKENS = [2, 1, 2, 3]  # each string's own perplexity: 2, 2, 8, 2
VALID = [True, True, False, False]
KINDS = ["", "", "wrong order", "missing end"]


def test_hand_computed():
    """Invalid together: 512 ** (1 / 5); their own perplexities are 8 and 2, with mean 5."""
    invalid = 512 ** (1 / 5)
    assert perplexity(SUMS, TOKENS, VALID, KINDS) == pytest.approx(
        {
            "perplexity/valid": 2,
            "perplexity/invalid": invalid,
            "perplexity/gap": invalid - 2,
            "perplexity/ratio": invalid / 2,
            "string_perplexity/valid": 2,
            "string_perplexity/invalid": 5,
            "string_perplexity/gap": 3,
            "string_perplexity/ratio": 2.5,
            "perplexity/kind/wrong order": 8,
            "perplexity/kind/missing end": 2,
        }
    )


def test_kinds_are_of_invalid_strings_only():
    result = perplexity(SUMS, TOKENS, VALID, ["same"] * 4)
    assert result["perplexity/kind/same"] == result["perplexity/invalid"]
    assert not any("kind" in name for name in perplexity(SUMS, TOKENS, VALID))


def test_a_model_that_knows_the_language_leaves_a_gap_and_one_that_guesses_does_not():
    valid, tokens = np.arange(40) % 2 == 0, np.arange(40) % 7 + 1
    knows = perplexity(np.where(valid, -0.5, -3.0) * tokens, tokens, valid)
    guesses = perplexity(-np.log(10) * tokens, tokens, valid)
    assert knows["perplexity/ratio"] == pytest.approx(np.exp(2.5))
    assert guesses["perplexity/gap"] == pytest.approx(0, abs=1e-9)
    assert guesses["perplexity/ratio"] == pytest.approx(1)


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(ValueError, match="perplexity: got 4 valid strings of 4"):
        perplexity(SUMS, TOKENS, [True] * 4)
    with pytest.raises(ValueError, match="string without tokens"):
        perplexity(SUMS, [2, 1, 2, 0], VALID)
    with pytest.raises(ValueError, match="4 log_probs, 3 tokens"):
        perplexity(SUMS, TOKENS[:3], VALID)
    with pytest.raises(ValueError, match="4 valid, 2 kinds"):
        perplexity(SUMS, TOKENS, VALID, ["a", "b"])
    for wrong in (5.0, np.nan):
        with pytest.raises(ValueError, match=rf"perplexity: got {wrong:g}, wanted log probabilities"):
            perplexity([wrong, -1.0, -1.0, -1.0], [1, 1, 1, 1], VALID)
