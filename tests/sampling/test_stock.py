"""At equal weights a weighted trainer is the stock one: on rows in the order drawn every loss and weight is equal.

The order itself is another one, since ours follows from (seed, round) alone, whatever torch's generator was used for.
"""

import datasets
import numpy as np
import pytest
import torch
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from hf_synth.sampling import WeightedDPOTrainer, WeightedSamplingMixin
from hf_synth.sampling.mixin import _copy_or_load
from hf_synth.training.data import evaluate_pairs

ROWS = 16
TEMPLATE = "{% for turn in messages %}{{ turn['content'] }} {{ eos_token }} {% endfor %}"


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def plain(text):
    return text


def lengths(completions, **kwargs):
    return [float(len(str(completion)) % 5) for completion in completions]


def first_letters(completions, **kwargs):
    return [float(ord(str(completion)[:1] or "x") % 3) for completion in completions]


def rows(prompt=None, weights=None, **sides):
    """16 rows; prompt: how text becomes one; sides: column -> (template, how text becomes a side)."""
    words = [f"w{number}" for number in range(ROWS)]
    columns = {} if prompt is None else {"prompt": [prompt(word) for word in words]}
    columns |= {name: [make(text.format(word)) for word in words] for name, (text, make) in sides.items()}
    weights = np.ones(ROWS) if weights is None else weights
    return datasets.Dataset.from_dict({**columns, "sampling_weight": weights})


PAIR = {"chosen": (" {} w1", plain), "rejected": (" w2 {}", plain)}
TALKS = {"chosen": ("{} w1", assistant), "rejected": ("w2 {}", assistant)}
WHOLE = {
    "chosen": ("{} w1", lambda text: user("w3") + assistant(text)),
    "rejected": ("w2 {}", lambda text: user("w3") + assistant(text)),
}
GROUPS = {"num_generations": 2, "max_completion_length": 3}
CASES = {
    "sft, text": (SFTTrainer, SFTConfig, rows(text=("{} w1 w2", plain)), {}),
    "sft, prompt and completion": (SFTTrainer, SFTConfig, rows(plain, completion=(" {} w1", plain)), {}),
    "sft, conversation": (SFTTrainer, SFTConfig, rows(messages=("{}", lambda text: user(text) + assistant("w1"))), {}),
    "sft, conversational completion": (SFTTrainer, SFTConfig, rows(user, completion=("{} w1", assistant)), {}),
    "reward": (RewardTrainer, RewardConfig, rows(plain, **PAIR), {}),
    "reward, without a prompt": (RewardTrainer, RewardConfig, rows(**PAIR), {}),
    "reward, conversation": (RewardTrainer, RewardConfig, rows(user, **TALKS), {}),
    "dpo": (DPOTrainer, DPOConfig, rows(plain, **PAIR), {}),
    "dpo, conversation": (DPOTrainer, DPOConfig, rows(user, **TALKS), {}),
    "dpo, the prompt in both sides": (DPOTrainer, DPOConfig, rows(**WHOLE), {}),
    "dpo, reference computed before": (DPOTrainer, DPOConfig, rows(plain, **PAIR), {"precompute_ref_log_probs": True}),
    "grpo": (GRPOTrainer, GRPOConfig, rows(plain), GROUPS),
    "grpo, conversation": (GRPOTrainer, GRPOConfig, rows(user), GROUPS),
    "grpo, with a reference": (GRPOTrainer, GRPOConfig, rows(plain), {**GROUPS, "beta": 0.5}),
    "grpo, two rewards": (GRPOTrainer, GRPOConfig, rows(plain), {**GROUPS, "reward_weights": [1.0, 0.5]}),
    "grpo, two iterations": (GRPOTrainer, GRPOConfig, rows(plain), {**GROUPS, "num_iterations": 2, "beta": 0.1}),
    "rloo": (RLOOTrainer, RLOOConfig, rows(plain), {**GROUPS, "beta": 0.0}),
    "rloo, with a reference": (RLOOTrainer, RLOOConfig, rows(user), {**GROUPS, "beta": 0.5}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """A policy and a reward model on disk: a stock trainer reads its reference again from there."""
    return saved_models(tiny, tmp_path_factory.mktemp("models"))


def saved_models(tiny, directory):
    made = {}
    for kind in (GPT2LMHeadModel, GPT2ForSequenceClassification):
        made[kind] = directory / kind.__name__
        model = tiny.model(kind)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.save_pretrained(made[kind])
    return made


def trained(tiny, folders, directory, trainer_class, config_class, dataset, **changes):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    kind = GPT2ForSequenceClassification if issubclass(trainer_class, RewardTrainer) else GPT2LMHeadModel
    args = tiny.arguments(config_class, directory, **{"logging_strategy": "steps", "logging_steps": 1, **changes})
    options = {"args": args, "train_dataset": dataset, "processing_class": tokenizer}
    if issubclass(trainer_class, GRPOTrainer | RLOOTrainer | OnlineDPOTrainer):
        options["reward_funcs"] = [lengths, first_letters] if changes.get("reward_weights") else [lengths]
    trainer = trainer_class(model=kind.from_pretrained(folders[kind]), **options)
    trainer.train()
    return trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weighted_and_stock(case, tiny, folders, directory):
    """Both trainers after training, the stock one on the rows in the order that the weighted one drew."""
    trainer_class, config_class, dataset, changes = CASES[case]
    weighted_class = type("Weighted", (WeightedSamplingMixin, trainer_class), {})
    weighted = trained(tiny, folders, directory, weighted_class, config_class, dataset, **changes)
    order = weighted.weighted_sampler.round_rows()
    assert sorted(order) == list(range(ROWS)), "each row once"
    assert list(order) != list(range(ROWS)), "in an order of its own"
    online = "num_generations" in changes
    in_order = {"shuffle_dataset": False} if online else {"train_sampling_strategy": "sequential"}
    return weighted, trained(
        tiny, folders, directory, trainer_class, config_class, dataset.select(order), **changes, **in_order
    )


@pytest.mark.parametrize("case", CASES)
def test_a_weighted_trainer_is_the_stock_one_at_equal_weights(case, tiny, folders, tmp_path):
    weighted, stock = weighted_and_stock(case, tiny, folders, tmp_path)
    assert losses(weighted) == losses(stock)
    assert len(set(losses(stock))) > 1
    ours, theirs = tiny.parameters(weighted), tiny.parameters(stock)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if CASES[case][3].get("beta"):
        assert [entry.get("kl") for entry in weighted.state.log_history] == [
            entry.get("kl") for entry in stock.state.log_history
        ]


def test_held_out_pairs_have_the_reference_that_was_computed_before(tiny, folders, tmp_path):
    """TRL computes none of rows that it is given after training, when the model is its own reference no more."""
    result = []
    for before in (False, True):
        args = tiny.arguments(DPOConfig, tmp_path, precompute_ref_log_probs=before, per_device_eval_batch_size=6)
        options = {"train_dataset": rows(plain, **PAIR), "eval_dataset": rows(plain, **PAIR)}
        model = GPT2LMHeadModel.from_pretrained(folders[GPT2LMHeadModel])
        trainer = WeightedDPOTrainer(model, args=args, processing_class=tiny.tokenizer(), **options)
        trainer.train()
        result.append(evaluate_pairs(trainer))
        assert len(trainer.eval_dataset) == ROWS
    for name in ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"):
        assert result[0][name] == pytest.approx(result[1][name], abs=1e-6)


@pytest.mark.parametrize(("trainer_class", "config_class"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_the_reference_is_the_model_itself_whatever_its_name_says(trainer_class, config_class, tiny, tmp_path):
    """Of a model made in memory there is no name; of a revision, the name would give another."""
    weighted_class = type("Weighted", (WeightedSamplingMixin, trainer_class), {})
    args = tiny.arguments(
        config_class, tmp_path, **GROUPS, beta=0.5, logging_strategy="steps", logging_steps=1, disable_dropout=True
    )
    options = {"args": args, "train_dataset": rows(plain), "processing_class": tiny.tokenizer()}
    trainer = weighted_class(model=tiny.model(), reward_funcs=[lengths], **options)
    start = tiny.parameters(trainer)
    trainer.train()
    kls = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert kls[0] == pytest.approx(0.0, abs=1e-6)
    assert max(map(abs, kls)) > 1e-4
    assert not trainer.ref_model.training
    assert all(torch.equal(start[name], value) for name, value in trainer.ref_model.state_dict().items())


def test_only_a_models_own_name_stands_for_a_copy_of_it(tiny):
    """A teacher's name is loaded: it would otherwise be a copy of the pupil."""
    model = tiny.model()
    model.config._name_or_path = "user/pupil"
    assert _copy_or_load(model, lambda name: name, "user/teacher") == "user/teacher"
    reference = _copy_or_load(model, None, "user/pupil", dtype=None)
    assert reference is not model
    assert not reference.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in reference.state_dict().items())


HALF = np.array([1.0, 0.0] * (ROWS // 2))  # odd rows are never drawn
LABELLED = rows(plain, weights=HALF, completion=(" {} w1", plain)).add_column("label", [True, False] * (ROWS // 2))
OTHERS = {
    "kto without a KL term": (
        KTOTrainer,
        KTOConfig,
        LABELLED,
        {"loss_type": "apo_zero_unpaired", "train_sampling_strategy": "random"},
    ),
    "cpo": (CPOTrainer, CPOConfig, rows(plain, weights=HALF, **PAIR), {"max_length": 16}),
    "orpo": (ORPOTrainer, ORPOConfig, rows(plain, weights=HALF, **PAIR), {"max_length": 16}),
    "online dpo": (
        OnlineDPOTrainer,
        OnlineDPOConfig,
        rows(plain, weights=HALF),
        {"max_new_tokens": 3, "max_length": 16},
    ),
    "rloo": (RLOOTrainer, RLOOConfig, rows(plain, weights=HALF), GROUPS),
}


@pytest.mark.parametrize("case", OTHERS)
def test_any_trainer_draws_by_weight(case, tiny, folders, tmp_path):
    trainer_class, config_class, dataset, changes = OTHERS[case]
    weighted_class = type("Weighted", (WeightedSamplingMixin, trainer_class), {})
    trainer = trained(tiny, folders, tmp_path, weighted_class, config_class, dataset, **changes)
    drawn = list(trainer.weighted_sampler)
    assert {row % 2 for row in drawn} == {0}
    assert len(losses(trainer)) >= ROWS // 4
    assert np.isfinite(losses(trainer)).all()


def test_kto_with_a_kl_term_is_refused(tiny, folders, tmp_path):
    """TRL makes the mismatched pairs of a batch before training, from neighbours: another draw has no such batch."""
    weighted_class = type("Weighted", (WeightedSamplingMixin, KTOTrainer), {})
    changes = {"loss_type": "kto", "train_sampling_strategy": "sequential"}
    with pytest.raises(ValueError, match="apo_zero_unpaired") as caught:
        trained(tiny, folders, tmp_path, weighted_class, KTOConfig, LABELLED, **changes)
    assert "\n" not in str(caught.value)
