"""Weights reach the draws of every trainer, follow its rows, and survive a resume past an epoch."""

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset
from transformers import TrainerCallback, TrainingArguments
from trl import DPOConfig, GRPOConfig, RewardConfig, SFTConfig

from hf_synth.sampling import (
    WeightedDPOTrainer,
    WeightedGRPOTrainer,
    WeightedRewardTrainer,
    WeightedSFTTrainer,
    WeightedTrainer,
)
from hf_synth.sampling.mixin import SAMPLER_FILE

HALF = np.array([1.0, 0.0] * 8)  # odd rows are never drawn
ROWS = len(HALF)


def plain(tiny, directory, weights=HALF, callbacks=None, **changes):
    args = tiny.arguments(TrainingArguments, directory, **changes)
    return WeightedTrainer(tiny.model(), args, train_dataset=tiny.causal_rows(weights), callbacks=callbacks)


def sft(tiny, directory, dataset, **changes):
    return WeightedSFTTrainer(
        tiny.model(),
        tiny.arguments(SFTConfig, directory, **changes),
        train_dataset=dataset,
        processing_class=tiny.tokenizer(),
    )


def reward(tiny, directory, dataset, **changes):
    return WeightedRewardTrainer(
        tiny.reward_model(),
        tiny.arguments(RewardConfig, directory, **changes),
        train_dataset=dataset,
        processing_class=tiny.tokenizer(),
    )


def dpo(tiny, directory, dataset, **changes):
    return WeightedDPOTrainer(
        tiny.model(),
        ref_model=tiny.model(),
        args=tiny.arguments(DPOConfig, directory, **changes),
        train_dataset=dataset,
        processing_class=tiny.tokenizer(),
    )


def grpo(tiny, directory, dataset, reward_function, **changes):
    changes = {"num_generations": 2, "max_completion_length": 3, "per_device_train_batch_size": 4, **changes}
    return WeightedGRPOTrainer(
        tiny.model(),
        reward_function,
        args=tiny.arguments(GRPOConfig, directory, **changes),
        train_dataset=dataset,
        processing_class=tiny.tokenizer(),
    )


def flat(batches):
    return [row for batch in batches for row in batch]


def test_plain_trainer_draws_by_weight(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, num_train_epochs=3)
    seen = tiny.record_rows(trainer)
    trainer.train()
    drawn = np.bincount(np.array(flat(seen)) - 3, minlength=ROWS)
    assert drawn.tolist() == [6, 0] * 8, "three rounds of 16 draws over 8 rows"
    orders = [tuple(flat(seen[start : start + 4])) for start in (0, 4, 8)]
    assert len(set(orders)) == 3, "each round has an order of its own"


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_trl_trainers_draw_by_weight(kind, tiny, tmp_path):
    if kind == "sft":
        trainer = sft(tiny, tmp_path, tiny.rows(HALF, text="{0} {0}"), shuffle_dataset=True)
        seen = tiny.record_rows(trainer)
    elif kind == "reward":
        trainer = reward(tiny, tmp_path, tiny.rows(HALF, chosen="{} w1", rejected="{} w2"))
        seen = tiny.record_rows(trainer)
    else:
        trainer = dpo(tiny, tmp_path, tiny.rows(HALF, prompt="{}", chosen=" w1", rejected=" w2"))
        seen = tiny.record_rows(trainer)
    trainer.train()
    pairs = 1 if kind == "sft" else 2  # chosen and rejected of a row both begin with its word
    drawn = np.bincount(np.array(flat(seen)) - 3, minlength=ROWS)[:ROWS]
    assert drawn.tolist() == [2 * pairs, 0] * 8


def test_grpo_draws_by_weight(tiny, tmp_path):
    seen = tiny.Recorded()
    grpo(tiny, tmp_path, tiny.prompts(HALF), seen).train()
    assert set(flat(seen.calls)) == {f"w{i}" for i in range(0, ROWS, 2)}
    assert len(flat(seen.calls)) == 2 * ROWS


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_weights_follow_the_rows_a_trainer_filters_out(kind, tiny, tmp_path):
    """Every third row is too long; what is left must still draw by its own weight."""
    names = [f"w{i}" for i in range(ROWS)]
    long = [" w9" * 20 if i % 3 == 0 else "" for i in range(ROWS)]
    columns = {
        "sft": {"prompt": [n + text for n, text in zip(names, long, strict=True)], "completion": [" w1"] * ROWS},
        "reward": {"chosen": [n + t for n, t in zip(names, long, strict=True)], "rejected": names},
        "dpo": {
            "prompt": [n + t for n, t in zip(names, long, strict=True)],
            "chosen": [" w1"] * ROWS,
            "rejected": [" w2"] * ROWS,
        },
    }[kind]
    dataset = datasets.Dataset.from_dict({**columns, "sampling_weight": np.arange(ROWS) + 1.0})
    changes = {"max_length": 10, **({"truncation_mode": "keep_start"} if kind != "reward" else {})}
    trainer = {"sft": sft, "reward": reward, "dpo": dpo}[kind](tiny, tmp_path, dataset, **changes)
    kept = [i for i in range(ROWS) if i % 3]
    assert len(trainer.train_dataset) == len(kept)
    assert trainer.sampling_weights.tolist() == [i + 1.0 for i in kept]


def test_the_seed_is_data_seed_or_seed(tiny, tmp_path):
    assert plain(tiny, tmp_path, seed=5)._get_train_sampler().seed == 5
    assert plain(tiny, tmp_path, seed=5, data_seed=8)._get_train_sampler().seed == 8


def test_structure_is_read_off_the_stock_sampler(tiny, tmp_path):
    trainer = grpo(
        tiny,
        tmp_path,
        tiny.prompts(HALF),
        tiny.Recorded(),
        num_generations=4,
        steps_per_generation=3,
        num_iterations=2,
    )
    sampler, stock = trainer._get_train_sampler(), super(type(trainer).__mro__[1], trainer)._get_train_sampler()
    counts = stock.mini_repeat_count, stock.batch_size, stock.repeat_count
    assert (sampler.group_size, sampler.batch_size, sampler.repeat_count) == counts == (4, 3, 6)
    assert len(sampler) == len(stock)


# ---- errors, one by one ----


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0] * 15 + [float("nan")], "sampling_weight: .*row 15: nan"),
        ([1.0] * 15 + [None], "sampling_weight: .*row 15: nan"),
        ([-1.0] + [1.0] * 15, "sampling_weight: .*row 0: -1.0"),
        ([0.0] * 16, "all 16 are 0"),
        (["a"] * 16, "wanted numbers, got"),
        ([[1.0]] * 16, r"shape \[16, 1\]"),
    ],
)
def test_bad_columns(column, message, tiny, tmp_path):
    dataset = tiny.causal_rows(HALF).remove_columns("sampling_weight").add_column("sampling_weight", column)
    with pytest.raises(ValueError, match=message):
        WeightedTrainer(tiny.model(), tiny.arguments(TrainingArguments, tmp_path), train_dataset=dataset)


def test_a_missing_column_is_an_error_that_says_what_to_do(tiny, tmp_path):
    dataset = tiny.causal_rows(HALF).remove_columns("sampling_weight")
    with pytest.raises(ValueError, match=r"no column 'sampling_weight', only input_ids, labels.*add_column"):
        WeightedTrainer(tiny.model(), tiny.arguments(TrainingArguments, tmp_path), train_dataset=dataset)


@pytest.mark.parametrize("dataset", [None, TensorDataset(torch.zeros(4, 2))])
def test_a_dataset_without_columns_is_an_error(dataset, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"wanted a datasets\.Dataset"):
        WeightedTrainer(tiny.model(), tiny.arguments(TrainingArguments, tmp_path), train_dataset=dataset)


def test_streams_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="streaming=False"):
        sft(tiny, tmp_path, tiny.rows(HALF, text="{}").to_iterable_dataset(), max_steps=1)
    args = tiny.arguments(TrainingArguments, tmp_path, max_steps=1)
    with pytest.raises(ValueError, match="streaming=False"):
        WeightedTrainer(tiny.model(), args, train_dataset=tiny.causal_rows(HALF).to_iterable_dataset())


def test_packing_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="packing=True joins rows"):
        sft(tiny, tmp_path, tiny.rows(HALF, text="{}"), packing=True, max_length=8)


@pytest.mark.parametrize("strategy", ["sequential", "group_by_length"])
def test_another_order_is_refused(strategy, tiny, tmp_path):
    with pytest.raises(ValueError, match="train_sampling_strategy='random'"):
        plain(tiny, tmp_path, train_sampling_strategy=strategy)


def test_grpo_in_order_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="shuffle_dataset=False"):
        grpo(tiny, tmp_path, tiny.prompts(HALF), tiny.Recorded(), shuffle_dataset=False)


def test_fewer_prompts_than_a_batch(tiny, tmp_path):
    with pytest.raises(ValueError, match="16 rows cannot fill one batch of 20"):
        grpo(tiny, tmp_path, tiny.prompts(HALF), tiny.Recorded(), per_device_train_batch_size=40)


def test_a_replaced_dataset_is_an_error(tiny, tmp_path):
    trainer = plain(tiny, tmp_path)
    trainer.train_dataset = trainer.train_dataset.select(range(8))
    with pytest.raises(ValueError, match="8 rows, and there are 16 weights"):
        trainer.train()


def test_bad_new_weights(tiny, tmp_path):
    trainer = plain(tiny, tmp_path)
    with pytest.raises(ValueError, match="got 3, wanted one for each of the 16 rows"):
        trainer.set_sampling_weights(np.ones(3))
    with pytest.raises(ValueError, match="row 0: nan"):
        trainer.set_sampling_weights([np.nan] * ROWS)


# ---- resume ----


class Schedule(TrainerCallback):
    """Gives the trainer weights that depend on what was trained so far, at one of its events."""

    def __init__(self, event):
        self.trainer = None
        setattr(self, event, self.change)

    def change(self, args, state, control, **kwargs):
        rng = np.random.default_rng(state.global_step)
        self.trainer.set_sampling_weights(rng.random(ROWS) ** 4)


@pytest.mark.parametrize("saved", [3, 4, 6])
def test_resume_draws_what_an_uninterrupted_run_would(saved, tiny, tmp_path):
    """Four steps a round, three rounds; saved inside the first and the second, and between them."""
    weights = np.random.default_rng(0).random(ROWS)

    def run(directory, resume=None):
        trainer = plain(tiny, directory, weights, num_train_epochs=3, save_strategy="steps", save_steps=saved)
        seen = tiny.record_rows(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return seen, tiny.parameters(trainer)

    seen, whole = run(tmp_path / "a")
    checkpoint = tmp_path / "a" / f"checkpoint-{saved}"
    assert not (checkpoint / SAMPLER_FILE).exists(), "weights that never changed are not written"
    again, resumed = run(tmp_path / "b", str(checkpoint))
    assert again == seen[saved:]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("event", "saved"),
    [*((event, saved) for event in ("on_epoch_begin", "on_epoch_end") for saved in (3, 4, 6)), ("on_step_end", 6)],
)
def test_changed_weights_are_resumed(event, saved, tiny, tmp_path):
    def run(directory, resume=None, weights=HALF):
        schedule = Schedule(event)
        trainer = plain(
            tiny, directory, weights, [schedule], num_train_epochs=3, save_strategy="steps", save_steps=saved
        )
        schedule.trainer = trainer
        seen = tiny.record_rows(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return seen, tiny.parameters(trainer)

    seen, whole = run(tmp_path / "a")
    checkpoint = tmp_path / "a" / f"checkpoint-{saved}"
    written = (checkpoint / SAMPLER_FILE).exists()
    assert written == ((event, saved) != ("on_epoch_end", 3)), "written once they changed, and not before"
    assert not list(checkpoint.glob("*.part"))
    again, resumed = run(
        tmp_path / "b", str(checkpoint), np.ones(ROWS) if written else HALF
    )  # the file is what counts
    assert again == seen[saved:]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_weights_set_before_training_count_from_the_first_round_and_a_second_run_keeps_them(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, np.ones(ROWS))
    trainer.set_sampling_weights(HALF)
    np.testing.assert_array_equal(trainer.sampling_weights, HALF)
    seen = tiny.record_rows(trainer)
    trainer.train()
    assert {row - 3 for row in flat(seen)} == set(range(0, ROWS, 2))
    first = list(seen)
    seen.clear()
    trainer.train()
    assert seen == first


def test_resume_from_the_last_checkpoint(tiny, tmp_path):
    trainer = plain(tiny, tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=6)
    trainer.set_sampling_weights(1 - HALF)
    trainer.train()
    (tmp_path / "checkpoint-8").rename(tmp_path / "finished")
    again = plain(tiny, tmp_path, num_train_epochs=2)
    seen = tiny.record_rows(again)
    again.train(resume_from_checkpoint=True)
    assert len(seen) == 2
    assert {row - 3 for row in flat(seen)} <= set(range(1, ROWS, 2))


@pytest.mark.parametrize("kind", [sft, reward, dpo], ids=lambda kind: kind.__name__)
def test_a_step_is_the_same_however_many_batches_it_is_cut_into(kind, tiny, tmp_path):
    """Answers of 1 to 8 words, so that no two batches have equally many tokens that carry loss."""
    answers = [" ".join(["w1"] * (row + 1)) for row in range(8)]
    columns = {"prompt": [f"w{row}" for row in range(8)], "sampling_weight": np.ones(8)}
    columns |= {"completion": answers} if kind is sft else {"chosen": answers, "rejected": ["w2"] * 8}
    plain_sgd = {"optim": "sgd", "max_grad_norm": 0, "lr_scheduler_type": "constant", "max_steps": 1}

    def trained(batch):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
        trainer = kind(tiny, tmp_path, datasets.Dataset.from_dict(columns), **plain_sgd, **sizes)
        trainer.model.eval()
        for module in trainer.model.modules():
            module.p = 0.0  # GPT-2's dropout
        trainer.train()
        return torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach()

    whole, before = trained(8), torch.nn.utils.parameters_to_vector(tiny.model().parameters()).detach()
    assert kind is reward or (whole - before).norm() > 1e-3
    for batch in (4, 2, 1):
        torch.testing.assert_close(trained(batch), whole, rtol=1e-4, atol=1e-6)
