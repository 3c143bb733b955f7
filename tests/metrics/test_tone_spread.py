"""Tone by hand; its spread against known variance components, and a policy with one tone for every context."""

import numpy as np
import pytest

from hf_synth.metrics.tone_spread import FEATURES, tone, tone_spread

CONTEXTS = [f"context {number // 60}" for number in range(240)]
_FORMAL = "therefore we regret the harm ; furthermore it was wrong"
_WARM = "hey that's great , thanks ! i love it , you are lovely !"


def test_tone_by_hand():
    result = dict(zip(FEATURES, tone(["Yeah, it's great! You might say thanks, however."])[0], strict=True))
    share = 100 / 8
    assert result == pytest.approx(
        {
            "formality": -share,  # however; yeah, it's
            "sentiment": share,
            "hedging": share,
            "politeness": share,
            "address": share,
            "excitement": share,
        }
    )
    assert (tone(["", "..."]) == 0).all()
    assert tone([]).shape == (0, 6)
    assert (tone(["It\u2019s"]) == tone(["It's"])).all()


def written(by_context: bool) -> list[str]:
    """Formal in half of the contexts and warm in the other, or a mixture of both in each."""
    rng = np.random.default_rng(0)
    chances = [0.1 + 0.8 * (context in ("context 0", "context 1")) if by_context else 0.5 for context in CONTEXTS]
    return [_FORMAL if rng.random() < chance else _WARM for chance in chances]


@pytest.mark.parametrize("contexts", [CONTEXTS, None])
def test_one_tone_everywhere_is_told_from_tones_that_follow_the_context(planted, contexts):
    """Without contexts, prompts are: those of one context share its tone."""
    good, bad = (tone_spread(written(follows), planted.PROMPTS, contexts) for follows in (True, False))
    assert planted.apart(good, bad, "tone_spread")
    assert not planted.apart(bad, good, "tone_spread")


def test_one_text_for_everything_has_no_spread(planted):
    result = tone_spread([_WARM] * 240, planted.PROMPTS, CONTEXTS)
    assert result == {"tone_spread": 0, "tone_spread/low": 0, "tone_spread/high": 0}


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
def test_a_known_spread_is_found_whatever_the_noise_within(between):
    """Two features with that deviation between 60 prompts and one of 2 within; chance alone would make it 1.2."""
    rng = np.random.default_rng(1)
    spreads = []
    for _ in range(30):
        features = np.repeat(rng.normal(0, between, (60, 2)), 6, axis=0) + rng.normal(0, 2, (360, 2))
        texts = [str(number) for number in range(360)]
        prompts = (np.arange(360) // 6).tolist()
        result = tone_spread(texts, prompts, features=lambda _, known=features: known)
        spreads.append(result["tone_spread"] ** 2)
    assert np.mean(spreads) == pytest.approx(2 * between**2, rel=0.1, abs=0.15)


def test_intervals_hold_the_truth():
    rng = np.random.default_rng(2)
    held = []
    for _ in range(100):
        features = np.repeat(rng.normal(0, 1, (40, 1)), 4, axis=0) + rng.normal(0, 1, (160, 1))
        result = tone_spread([""] * 160, (np.arange(160) // 4).tolist(), features=lambda _, known=features: known)
        held.append(result["tone_spread/low"] <= 1 <= result["tone_spread/high"])
    assert 0.88 <= np.mean(held) <= 0.99


def test_without_one_prompt_nothing_may_be_left_to_compare():
    result = tone_spread([_FORMAL, _FORMAL, _WARM, _WARM], ["p", "p", "q", "q"])
    assert result["tone_spread"] > 0
    assert np.isnan([result["tone_spread/low"], result["tone_spread/high"]]).all()


def test_what_has_no_spread_is_an_error():
    with pytest.raises(ValueError, match="wanted two contexts or more"):
        tone_spread(["a"] * 4, ["p"] * 4)
    with pytest.raises(ValueError, match="got 3 values in 3 contexts, wanted two contexts or more, and several"):
        tone_spread(["a", "b", "c"], ["p", "q", "r"])
    with pytest.raises(ValueError, match="got prompt 'p' in several contexts"):
        tone_spread(["a", "b"], ["p", "p"], ["one", "two"])
