"""Weights that change in real trainers: what each round draws, what a checkpoint holds, and an exact resume."""

import itertools

import numpy as np
import pytest
import torch
from transformers import TrainingArguments
from trl import GRPOConfig

from hf_synth.sampling import (
    ChangingWeightsCallback,
    Curriculum,
    FixedWeights,
    PassRates,
    ScheduledRarity,
    WeightedGRPOTrainer,
    WeightedTrainer,
    combined_weights,
    effective_sample_size,
    pass_rate_weights,
    rarity_weights,
)
from hf_synth.sampling.adaptive import FACTORS_FILE

ROWS = 16
GROUP = 4
DENSITY = np.arange(1.0, ROWS + 1)


class Marked:
    """A reward of 1 for even rows, 0 for odd ones, one half for the first; and the weights that rounds began with."""

    __name__ = "marked"

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, completions, **kwargs):
        rows = [int(prompt[1:]) for prompt in prompts]
        self.calls.append(rows)
        return [0.5 if row == 0 else float(row % 2 == 0) for row in rows]


def plain(tiny, directory, factors, **changes):
    args = tiny.arguments(TrainingArguments, directory, **{"num_train_epochs": 4, **changes})
    trainer = WeightedTrainer(tiny.model(), args, train_dataset=tiny.causal_rows(np.ones(ROWS)))
    trainer.add_callback(ChangingWeightsCallback(trainer, factors))
    return trainer


def grpo(tiny, directory, factors=None, *, round_size=8, rewards=None, **changes):
    marked = Marked()
    options = {"num_generations": GROUP, "max_completion_length": 3, "per_device_train_batch_size": 8, "max_steps": 16}
    trainer = WeightedGRPOTrainer(
        tiny.model(),
        rewards or marked,
        args=tiny.arguments(GRPOConfig, directory, **{**options, **changes}),
        train_dataset=tiny.prompts(np.ones(ROWS)),
        processing_class=tiny.tokenizer(),
        round_size=round_size,
    )
    rates = PassRates(trainer.train_dataset["prompt"])
    trainer.add_callback(ChangingWeightsCallback(trainer, factors or [rates, FixedWeights(np.arange(ROWS) + 1.0)]))
    return trainer, marked, rates


def note_rounds(trainer):
    """The weights of each round, once it has begun."""
    seen, start = [], type(trainer.weighted_sampler).__iter__
    sampler = type("Noted", (type(trainer.weighted_sampler),), {})

    def noted(self):
        seen.append(self.weights)
        return start(self)

    sampler.__iter__ = noted
    stock = trainer._get_train_sampler

    def get(*args):
        result = stock(*args)
        result.__class__ = sampler
        return result

    trainer._get_train_sampler = get
    return seen


def test_a_rising_strength_lets_rare_rows_come_later(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, [ScheduledRarity(DENSITY, schedule="rising")], logging_strategy="epoch")
    seen = note_rounds(trainer)
    trainer.train()
    for number, weights in enumerate(seen):
        expected = rarity_weights(DENSITY, strength=number / 3)  # 0 in the first of four rounds, 1 in the last
        np.testing.assert_allclose(weights, expected, rtol=1e-12)
    logged = [entry["sampling/effective_sample_size"] for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(logged, [effective_sample_size(weights) for weights in seen])
    assert logged == sorted(logged, reverse=True)


def test_a_curriculum_draws_the_easy_rows_first(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, [Curriculum(DENSITY[::-1], floor=0.0)])
    rows = tiny.record_rows(trainer)
    trainer.train()
    rounds = [{row - 3 for step in rows[start : start + 4] for row in step} for start in (0, 4, 8, 12)]
    assert rounds[0] == {ROWS - 1, ROWS - 2}, "the easiest tenth of 16 rows"
    assert all(first < second for first, second in itertools.pairwise(rounds))
    assert rounds[-1] == set(range(ROWS)), "all rows, the hardest too, in the last round"


def test_factors_multiply_and_the_column_gives_way(tiny, tmp_path):
    factors = [FixedWeights(DENSITY), ScheduledRarity(DENSITY, schedule="falling")]
    trainer = plain(tiny, tmp_path, factors)
    seen = note_rounds(trainer)
    trainer.train()
    np.testing.assert_allclose(seen[0], np.ones(ROWS))  # strength 1 undoes the fixed weights
    np.testing.assert_allclose(seen[2], combined_weights(DENSITY ** (2 / 3)))


def test_pass_rates_are_learnt_from_the_rewards_of_a_run(tiny, tmp_path):
    """Two prompts a step, four steps a round: rounds weigh by what plain counting of the rewards gives."""
    trainer, marked, rates = grpo(tiny, tmp_path)
    seen = note_rounds(trainer)
    trainer.train()
    passed, tried = np.zeros(ROWS), np.zeros(ROWS)
    for number, weights in enumerate(seen):
        mean = passed.sum() / tried.sum() if tried.any() else 0.5
        expected = pass_rate_weights((passed + 2 * mean) / (tried + 2)) * (np.arange(ROWS) + 1)
        np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-9)
        passed, tried = 0.9 * passed, 0.9 * tried
        for row in (row for call in marked.calls[4 * number : 4 * number + 4] for row in call):
            passed[row] += 0.5 if row == 0 else row % 2 == 0
            tried[row] += 1
    assert len(seen) == 4
    often = [row for row in range(1, ROWS) if tried[row] > GROUP]
    assert often
    assert all(abs(rates.rates()[row] - (row % 2 == 0)) < 0.25 for row in often)


@pytest.mark.parametrize("saved", [2, 4, 6, 8])
def test_pass_rates_resume_exactly(saved, tiny, tmp_path):
    """Four steps a round: saved within the first and second, and at the end of both."""

    def run(directory, resume=None):
        trainer, marked, rates = grpo(tiny, directory, save_strategy="steps", save_steps=saved)
        trainer.train(resume_from_checkpoint=resume)
        return marked.calls, rates.rates(), tiny.parameters(trainer)

    calls, rates, whole = run(tmp_path / "a")
    checkpoint = tmp_path / "a" / f"checkpoint-{saved}"
    assert (checkpoint / FACTORS_FILE).exists()
    assert not list(checkpoint.glob("*.part"))
    again, rates_again, resumed = run(tmp_path / "b", str(checkpoint))
    assert again == calls[saved:]
    np.testing.assert_array_equal(rates, rates_again)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_without_its_pass_rates_would_draw_otherwise(tiny, tmp_path):
    """The test above must notice a lost state."""
    trainer, marked, _ = grpo(tiny, tmp_path / "a", save_strategy="steps", save_steps=6)
    trainer.train()
    (tmp_path / "a" / "checkpoint-6" / FACTORS_FILE).unlink()
    again, seen, _ = grpo(tiny, tmp_path / "b", save_strategy="steps", save_steps=6)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-6"))
    assert seen.calls[:2] == marked.calls[6:8], "the round in progress is the sampler's"
    assert seen.calls != marked.calls[6:]


def test_a_reward_that_is_no_rate_is_an_error(tiny, tmp_path):
    trainer, _, _ = grpo(tiny, tmp_path, rewards=lambda completions, **columns: [-1.5] * len(completions))
    with pytest.raises(ValueError, match=r"got a reward of -1\.5, wanted numbers from 0 to 1"):
        trainer.train()


def test_rewards_need_the_column_that_names_their_row(tiny, tmp_path):
    with pytest.raises(ValueError, match="remove_unused_columns=True takes away 'sampling_row'"):
        grpo(tiny, tmp_path, remove_unused_columns=True)


def test_several_rewards_count_by_their_weights(tiny, tmp_path):
    """A half of one function and all of the other, three to one; where one cannot score, the other alone."""

    def half(completions, **columns):
        return [0.5] * len(completions)

    def first_only(prompts, **columns):
        return [1.0 if prompt == "w0" else None for prompt in prompts]

    trainer, _, _ = grpo(tiny, tmp_path, rewards=[half, first_only], reward_weights=[3.0, 1.0], max_steps=8)
    heard = {}
    trainer.on_rewards(lambda rows, rewards: heard.update(zip(rows.tolist(), rewards.tolist(), strict=True)))
    trainer.train()
    assert heard.pop(0) == pytest.approx((3 * 0.5 + 1) / 4)
    assert set(heard.values()) == {0.5}


def test_changes_that_would_never_come_are_an_error(tiny, tmp_path):
    trainer, _, _ = grpo(tiny, tmp_path, round_size=None, max_steps=4)
    with pytest.raises(
        ValueError, match=r"by pass_rate change from round to round, and this run of 4 steps.*round_size"
    ):
        trainer.train()


def test_fixed_weights_may_end_within_a_round(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, [FixedWeights(DENSITY)], num_train_epochs=1)
    trainer.train()
    np.testing.assert_allclose(trainer.sampling_weights, DENSITY / DENSITY.mean())


def test_factors_need_names_of_their_own(tiny, tmp_path):
    with pytest.raises(ValueError, match="got fixed, fixed, wanted at least one, each of another name"):
        plain(tiny, tmp_path, [FixedWeights(DENSITY), FixedWeights(DENSITY)])
    with pytest.raises(ValueError, match="got none"):
        plain(tiny, tmp_path, [])


def test_pass_rates_of_a_trainer_without_rewards_are_an_error(tiny, tmp_path):
    with pytest.raises(ValueError, match="pass rates are learnt from rewards, and WeightedTrainer pays none"):
        plain(tiny, tmp_path, [PassRates(range(ROWS))])
