"""GRPO: whole groups in a real trainer, an exact resume, and no checkpoint between two generations."""

import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from trl import GRPOConfig

from hf_synth.sampling import WeightedGRPOTrainer

WEIGHTS = np.array([5.0, 0.0, 1.0, 1.0, 1.0, 0.5, 2.0, 1.5, 0.0, 3.0, 1.0, 1.0, 1.0])
GROUP = 4


def grpo(tiny, directory, weights=WEIGHTS, kind=WeightedGRPOTrainer, **changes):
    recorded = tiny.Recorded()
    args = tiny.arguments(
        GRPOConfig,
        directory,
        **{"num_generations": GROUP, "max_completion_length": 3, "steps_per_generation": 3, **changes},
    )
    trainer = kind(
        tiny.model(),
        recorded,
        args=args,
        train_dataset=tiny.prompts(weights),
        processing_class=tiny.tokenizer(),
    )
    return trainer, recorded


def numbers(calls):
    return [int(prompt[1:]) for call in calls for prompt in call]


@pytest.mark.parametrize(("iterations", "accumulation"), [(1, 3), (2, 1)])
def test_each_generation_batch_holds_whole_groups(iterations, accumulation, tiny, tmp_path, broken_structure):
    trainer, recorded = grpo(
        tiny, tmp_path, num_iterations=iterations, gradient_accumulation_steps=accumulation, num_train_epochs=2
    )
    trainer.train()
    assert [len(call) for call in recorded.calls] == [3 * GROUP] * 8, "13 rows: 4 batches of 3 prompts a round"
    assert broken_structure(numbers(recorded.calls), GROUP, 3, 1) is None
    sampler, expected = trainer.weighted_sampler, []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        expected += [int(row) for row in sampler.round_rows() for _ in range(GROUP)]
    assert numbers(recorded.calls) == expected, "what the model completes is what the sampler drew"


def test_the_common_advice_breaks_the_groups(tiny, tmp_path, broken_structure):
    """The check above must fail for torch's sampler in the same trainer."""

    class CommonAdvice(WeightedGRPOTrainer):
        def _get_train_sampler(self, dataset=None):
            draws = len(super()._get_train_sampler(dataset))
            return WeightedRandomSampler(WEIGHTS, draws, generator=torch.Generator().manual_seed(0))

    trainer, recorded = grpo(tiny, tmp_path, kind=CommonAdvice, max_steps=3)
    trainer.train()
    assert "several rows" in broken_structure(numbers(recorded.calls), GROUP, 3, 1)


@pytest.mark.parametrize("saved", [3, 15])
def test_resume_is_exact(saved, tiny, tmp_path):
    """12 steps a round, 2 rounds: the first checkpoint lies in the first round, the other past the boundary."""

    def run(directory, resume=None):
        options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": saved}
        trainer, recorded = grpo(tiny, directory, gradient_accumulation_steps=1, **options)
        trainer.train(resume_from_checkpoint=resume)
        return numbers(recorded.calls), tiny.parameters(trainer)

    seen, whole = run(tmp_path / "a")
    again, resumed = run(tmp_path / "b", str(tmp_path / "a" / f"checkpoint-{saved}"))
    assert again == seen[saved // 3 * 3 * GROUP :]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"save_steps": 4},
            r"save_steps=4 saves between generations.* = 3 batches.*steps = 1\. Set save_steps=3 or 6",
        ),
        ({"save_steps": 1}, r"Set save_steps=3, or save_strategy"),
        ({"save_steps": 9, "num_iterations": 2}, r"= 6 batches.*Set save_steps=6 or 12"),
        ({"save_steps": 2, "gradient_accumulation_steps": 2}, r"Set save_steps=3,"),
        ({"save_steps": 0.1}, r"save_steps=5 saves.*Set save_steps=3 or 6"),
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 5}, r"eval_steps=5 .*eval_steps=3 or 6"),
    ],
)
def test_saving_between_generations_is_an_error(changes, message, tiny, tmp_path):
    options = {"save_strategy": "steps", "gradient_accumulation_steps": 1, "num_train_epochs": 4, **changes}
    with pytest.raises(ValueError, match=message):
        grpo_with_eval(tiny, tmp_path, options)


@pytest.mark.parametrize(
    "changes",
    [
        {"save_steps": 3},
        {"save_steps": 12},
        {"save_steps": 0.25},
        {"save_steps": 500},
        {"save_steps": 1, "gradient_accumulation_steps": 3},
        {"save_steps": 1, "gradient_accumulation_steps": 6},
        {"save_steps": 3, "gradient_accumulation_steps": 2},
        {"save_strategy": "epoch"},
        {"save_strategy": "no", "save_steps": 4},
        {"save_strategy": "best", "eval_strategy": "epoch"},
    ],
)
def test_legal_saving(changes, tiny, tmp_path):
    options = {"save_strategy": "steps", "gradient_accumulation_steps": 1, "num_train_epochs": 4, **changes}
    grpo_with_eval(tiny, tmp_path, options)


def grpo_with_eval(tiny, directory, options):
    if options.get("save_strategy") != "best":
        return grpo(tiny, directory, **options)

    class Evaluated(WeightedGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, eval_dataset=tiny.prompts(WEIGHTS), **kwargs)

    options = {"metric_for_best_model": "reward", "per_device_eval_batch_size": GROUP, **options}
    return grpo(tiny, directory, kind=Evaluated, **options)


def test_a_round_that_accumulation_does_not_divide(tiny, tmp_path):
    """12 batches a round, 5 a step: steps of 5, 5 and 2 batches. Only the end of a round ends a generation."""
    options = {"gradient_accumulation_steps": 5, "num_train_epochs": 4, "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"save_steps=2 .*Set save_steps=3"):
        grpo(tiny, tmp_path, save_steps=2, **options)
    trainer, recorded = grpo(tiny, tmp_path / "a", save_steps=3, **options)
    trainer.train()
    assert trainer.state.max_steps == trainer._last_step == 12
    again, seen = grpo(tiny, tmp_path / "b", save_steps=3, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-6"))
    assert numbers(seen.calls) == numbers(recorded.calls)[len(numbers(recorded.calls)) // 2 :]
    whole, resumed = tiny.parameters(trainer), tiny.parameters(again)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_between_generations_is_not_resumed(tiny, tmp_path):
    options = {"gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": 500}
    trainer, _ = grpo(tiny, tmp_path, max_steps=4, **options)
    trainer.train()  # the last step is always saved
    longer, _ = grpo(tiny, tmp_path, max_steps=9, **options)
    with pytest.raises(ValueError, match="step 4 lies between two generations"):
        longer.train(resume_from_checkpoint=True)


def test_everything_after_a_seed_is_deterministic(tiny, tmp_path):
    """Two runs are one run, bit by bit, whatever was drawn before; another seed is another run."""

    def run(directory, seed):
        torch.rand(seed * 3 + 5)
        trainer, recorded = grpo(tiny, directory, num_train_epochs=1, seed=seed)
        trainer.train()
        return numbers(recorded.calls), trainer.state.log_history[-1]["train_loss"], tiny.parameters(trainer)

    first, other = run(tmp_path / "a", 0), run(tmp_path / "c", 1)
    torch.rand(17)
    again = run(tmp_path / "b", 0)
    assert first[:2] == again[:2]
    assert all(torch.equal(first[2][name], again[2][name]) for name in first[2])
    assert first[0] != other[0]
    assert any(not torch.equal(first[2][name], other[2][name]) for name in first[2])


def test_a_shorter_round_is_checked_and_resumed_by_its_own_length(tiny, tmp_path):
    """7 draws a round are 2 batches of 3 prompts, 6 steps: a generation lasts 3 of them."""

    def run(directory, resume=None):
        trainer, recorded = grpo(tiny, directory, kind=ShortRounds, max_steps=18, save_steps=9, **options)
        trainer.train(resume_from_checkpoint=resume)
        return numbers(recorded.calls), tiny.parameters(trainer), trainer

    options = {"gradient_accumulation_steps": 1, "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"save_steps=4 .*Set save_steps=3 or 6"):
        grpo(tiny, tmp_path, kind=ShortRounds, max_steps=18, save_steps=4, **options)
    calls, whole, trainer = run(tmp_path / "a")
    assert trainer._steps_per_round == 6
    assert trainer.weighted_sampler.round == 2
    drawn = []
    for epoch in (0, 1, 2):
        trainer.weighted_sampler.set_epoch(epoch)
        drawn += [int(row) for row in trainer.weighted_sampler.round_rows() for _ in range(GROUP)]
    assert calls == drawn
    again, resumed, _ = run(tmp_path / "b", str(tmp_path / "a" / "checkpoint-9"))
    assert again == calls[9 * GROUP :]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class ShortRounds(WeightedGRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, round_size=7, **kwargs)
