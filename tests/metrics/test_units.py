"""Units: blocks of exactly one size and of whole prompts; ratios against plain means and against simulation."""

import numpy as np
import pytest
import torch
from statsmodels.regression.linear_model import WLS

from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.metrics.intervals import (
    across,
    by_group,
    entries,
    equal_blocks,
    mean_interval,
    paired_interval,
    ratio_interval,
    within,
)
from hf_synth.metrics.perplexity import perplexity
from hf_synth.metrics.policy_entropy import policy_entropy
from hf_synth.metrics.token_accuracy import token_accuracy

PROMPTS = [number // 3 for number in range(60)]  # 20 prompts, 3 sequences each
SEQUENCES = [[(number, position) for position in range(1 + number % 5)] for number in range(60)]


def test_blocks_have_one_size_and_share_no_prompt():
    blocks = equal_blocks(SEQUENCES, PROMPTS, 20, "x")
    assert len(blocks) >= 5
    assert {sum(map(len, block)) for block in blocks} == {20}
    owners = [{item[0] // 3 for sequence in block for item in sequence} for block in blocks]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert all(
        sequence == SEQUENCES[sequence[0][0]][: len(sequence)] for block in blocks for sequence in block if sequence
    )


def test_blocks_are_the_same_each_time_and_another_seed_makes_others():
    assert equal_blocks(SEQUENCES, PROMPTS, 20, "x") == equal_blocks(SEQUENCES, PROMPTS, 20, "x")
    assert equal_blocks(SEQUENCES, PROMPTS, 20, "x", seed=1) != equal_blocks(SEQUENCES, PROMPTS, 20, "x")


def test_too_little_text_for_a_block_is_an_error():
    with pytest.raises(ValueError, match="x: got 180 items in all, wanted 181 or more"):
        equal_blocks(SEQUENCES, PROMPTS, 181, "x")
    assert len(equal_blocks(SEQUENCES, PROMPTS, 180, "x")) == 1


def test_within_takes_as_many_of_each_and_across_one_of_each():
    values, prompts = ["a1", "b1", "a2", "b2", "a3", "c1", "c2"], ["a", "b", "a", "b", "a", "c", "c"]
    assert within(values, prompts, "x") == [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]
    assert within(values[:2], prompts[:2], "x") == []
    groups = across(values, prompts, 3, "x")
    assert [sorted(group) for group in groups[0]] == [["a1", "b1", "c1"], ["a2", "b2", "c2"]]
    assert len(across(values, prompts, 2, "x")) == 1
    assert across(values, prompts, 4, "x") == []


def ratio_by_prompt(counts, sizes, prompts):
    return ratio_interval(counts, sizes, prompts, "x")


def test_ratio_of_equal_sizes_is_a_mean_over_prompts():
    """Six prompts with counts 0 .. 5 of 2 x 4 words each."""
    counts, sizes = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3], [4] * 12
    result = ratio_by_prompt(counts, sizes, [number // 2 for number in range(12)])
    assert result == pytest.approx(mean_interval(np.arange(6) / 8))


def test_the_interval_of_a_ratio_is_that_of_a_weighted_regression_with_robust_errors():
    """Counts per size on a constant, weighted by sizes: its HC1 errors are those of the ratio estimator."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 50, 30)
    counts = rng.poisson(0.2 * sizes)
    fit = WLS(counts / sizes, np.ones(30), weights=sizes).fit(cov_type="HC1", use_t=True)
    wanted = (fit.params[0], *fit.conf_int(0.05)[0])
    assert ratio_by_prompt(counts, sizes, range(30)) == pytest.approx(wanted)


def test_ratio_is_of_sums_and_not_a_mean_of_ratios():
    assert ratio_by_prompt([1, 0], [1, 9], ["a", "b"]).mean == 1 / 10
    assert np.isnan(ratio_by_prompt([0, 0], [0, 0], ["a", "b"])).all()


def test_the_interval_of_a_ratio_holds_the_truth_where_prompts_differ_and_their_texts_too():
    rng = np.random.default_rng(0)
    held, naive = [], []
    for _ in range(300):
        sizes = rng.integers(20, 60, (40, 6))
        rates = rng.gamma(2, 0.01, 40)  # a prompt's texts share a rate, of mean 0.02
        counts = rng.poisson(sizes * rates[:, None])
        for result, prompts in ((held, np.repeat(np.arange(40), 6)), (naive, np.arange(240))):
            interval = ratio_by_prompt(counts.ravel(), sizes.ravel(), prompts.tolist())
            result.append(interval.low <= 0.02 <= interval.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert np.mean(naive) < np.mean(held) - 0.05


def test_an_interval_as_entries():
    assert entries("x", mean_interval([1.0, 2.0, 3.0])).keys() == {"x", "x/low", "x/high"}


def test_values_without_their_prompts_are_an_error():
    for values, prompts in (([1], []), ([], [])):
        with pytest.raises(ValueError, match=r"x: got . values, 0 groups; wanted the same number"):
            by_group(values, prompts, "x")
    with pytest.raises(ValueError, match="x: got 2 counts, 1 sizes, 2 prompts"):
        ratio_by_prompt([1, 2], [1], ["a", "b"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_taken_on_their_way_out_of_a_model(dtype):
    """With a gradient, and of types that NumPy does not have: the numbers are the same."""
    log_probs = -torch.tensor([[0.5, 1.0, 2.0], [0.25, 4.0, 1.0]], dtype=dtype, requires_grad=True)
    rows, ones = log_probs.detach().double().numpy(), np.ones((2, 3), bool)
    assert excess_loss(log_probs, rows, torch.from_numpy(ones)) == excess_loss(rows, rows, ones)
    sums, tokens, valid = log_probs.sum(dim=1), torch.tensor([3, 3]), torch.tensor([True, False])
    wanted = perplexity(sums.detach().double().numpy(), [3, 3], [True, False])
    assert perplexity(sums, tokens, valid) == wanted
    values = log_probs[0]
    assert mean_interval(values) == mean_interval(rows[0])
    assert paired_interval(values, log_probs[1]) == paired_interval(rows[0], rows[1])
    assert policy_entropy(values, tokens[[0, 0, 0]], "aab") == policy_entropy(rows[0], [3, 3, 3], "aab")
    labels = torch.tensor([[1, -100, 2]])
    assert token_accuracy(torch.tensor([[1, 5, 3]]), labels) == {"token_accuracy": 0.5}


@pytest.mark.parametrize("wrong", [[1j], ["a"], [[1.0], [1.0, 2.0]]])
def test_what_is_no_array_of_numbers_names_the_metric(wrong):
    with pytest.raises(ValueError, match=r"^perplexity: got values that are no numbers"):
        perplexity(wrong, [1] * len(wrong), [True] * len(wrong))
