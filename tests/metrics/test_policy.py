"""Entropy and KL of a policy from samples: against the exact values of a known one, and a planted collapse."""

import numpy as np
import pytest

from hf_synth.metrics.policy_entropy import policy_entropy
from hf_synth.metrics.policy_kl import policy_kl

BROAD = np.full(8, 1 / 8)
NARROW = np.array([0.93, *[0.01] * 7])


def sampled(policy, prompts=300, samples=8, length=5, seed=0):
    """Summed ln P under the policy and under BROAD, of completions whose tokens are drawn from the policy."""
    ids = np.random.default_rng(seed).choice(8, (prompts * samples, length), p=policy)
    own, other = (np.log(chances)[ids].sum(axis=1) for chances in (policy, BROAD))
    return own, other, [length] * (prompts * samples), np.repeat(np.arange(prompts), samples).tolist()


def entropy(policy):
    return -(policy * np.log(policy)).sum()


@pytest.mark.parametrize("policy", [BROAD, NARROW])
def test_against_the_exact_values(policy):
    own, other, tokens, prompts = sampled(policy)
    result = {**policy_entropy(own, tokens, prompts), **policy_kl(own, other, tokens, prompts)}
    per_token = {"entropy": entropy(policy), "kl": np.log(8) - entropy(policy)}
    for name, wanted in per_token.items():
        assert result[f"{name}/token"] == pytest.approx(wanted, abs=0.02)
        assert result[f"{name}/mean"] == pytest.approx(5 * wanted, abs=0.1)
        assert result[f"{name}/mean/low"] - 1e-9 <= 5 * wanted <= result[f"{name}/mean/high"] + 1e-9


def test_a_collapsed_policy_is_told_from_a_broad_one_both_ways(planted):
    result = []
    for policy in (BROAD, NARROW):
        own, other, tokens, prompts = sampled(policy)
        result.append({**policy_entropy(own, tokens, prompts), **policy_kl(own, other, tokens, prompts)})
    good, bad = result
    assert planted.apart(good, bad, "entropy/mean")
    assert planted.apart(bad, good, "kl/mean")
    assert not planted.apart(bad, good, "entropy/token")
    assert not planted.apart(good, bad, "kl/token")


def test_samples_of_one_prompt_are_no_units():
    own, other, tokens, prompts = sampled(NARROW, prompts=20)
    once, five = (policy_kl(np.tile(own, n), np.tile(other, n), tokens * n, prompts * n) for n in (1, 5))
    assert five == pytest.approx(once)


def test_what_does_not_match_is_an_error():
    with pytest.raises(ValueError, match="policy_kl: got 2 log_probs, 1 reference_log_probs"):
        policy_kl([1.0, 2.0], [1.0], [1, 1], ["a", "b"])
    with pytest.raises(ValueError, match="policy_entropy: got 2 counts, 1 sizes"):
        policy_entropy([-1.0, -2.0], [1], ["a", "b"])
