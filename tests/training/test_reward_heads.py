"""Reward models of several heads: what pairs say about each, a loss against the plain formula, and use by weights."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from hf_synth import build_tokenizer, get_task
from hf_synth.rewards import reward_model
from hf_synth.training.arguments import PolicyArguments
from hf_synth.training.models import HeadedCollator, HeadedRewardTrainer, load_classifier, with_head_signs

HEADS = ["long", "early"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(get_task("start_mid_end"))


def classifier(tokenizer, heads, seed=0):
    return load_classifier(PolicyArguments(new_model=json.dumps(SHAPE)), tokenizer, seed, heads)


def pairs(rows=32):
    """Chosen has more MID, which head `long` is about, or comes to its END sooner, which `early` is about."""
    rng = np.random.default_rng(0)
    few, many = ["START"] * rows, [" MID" * count + " END" for count in rng.integers(2, 9, size=rows)]
    aspects = [HEADS[row % 2] for row in range(rows)]
    sides = [
        (more, " END") if aspect == "long" else (" END", more) for more, aspect in zip(many, aspects, strict=True)
    ]
    chosen, rejected = zip(*sides, strict=True)
    return Dataset.from_dict({"prompt": few, "chosen": chosen, "rejected": rejected, "aspect": aspects})


def trainer(tokenizer, directory, dataset, heads=HEADS, kind=HeadedRewardTrainer, **changes):
    options = {"max_steps": 1, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 5, **changes}
    args = RewardConfig(str(directory), use_cpu=True, bf16=False, report_to="none", save_strategy="no", **options)
    options = {"train_dataset": dataset.add_column("sampling_weight", np.ones(len(dataset)))}
    options["eval_dataset"] = dataset
    return kind(classifier(tokenizer, heads), args, processing_class=tokenizer, **options)


def test_signs_of_pairs_that_name_their_aspect():
    result = with_head_signs(pairs(3), HEADS, "aspect")
    assert result["signs"] == [[1, 0], [0, 1], [1, 0]]


def test_signs_of_scores_in_columns():
    columns = {
        "long_chosen": [3, 1, 2, None],
        "long_rejected": [1, 3, 2, 1],
        "early_chosen": [0.5, 0.5, 0.5, 0.5],
        "early_rejected": [0.0, 1.0, 0.25, None],
    }
    result = with_head_signs(Dataset.from_dict(columns), HEADS)
    assert result["signs"] == [[1, 1], [-1, -1], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("columns", "column", "words"),
    [
        ({"aspect": ["long", "kind"]}, "aspect", "aspect: got kind, wanted one of the heads long, early"),
        ({"aspect": ["long"]}, "aspect", "heads: got early, about which none of 1 pairs"),
        ({"other": ["long"]}, "aspect", "no column aspect, only other"),
        ({"long_chosen": [1], "long_rejected": [0], "early_chosen": [0]}, None, "no column early_rejected"),
    ],
)
def test_pairs_that_do_not_tell_are_an_error(columns, column, words):
    with pytest.raises(ValueError, match=words):
        with_head_signs(Dataset.from_dict(columns), HEADS, column)


def test_loss_is_the_plain_one_pair_by_pair(tokenizer, tmp_path):
    """Signs of both kinds, several a pair and none, against a loop over pairs and heads with no padding."""
    torch.manual_seed(0)
    signs = [[1, 0], [0, -1], [1, 1], [0, 0], [-1, 1]]
    dataset = pairs(5).add_column("signs", signs)
    made = trainer(tokenizer, tmp_path, dataset)
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = [made.train_dataset[row] for row in range(5)]
    batch = HeadedCollator(tokenizer.pad_token_id)(rows)
    made.model.eval()
    loss = made.compute_loss(made.model, batch)
    terms = []
    for row, known in zip(rows, signs, strict=True):
        scores = [made.model(torch.tensor([row[f"{side}_ids"]])).logits[0] for side in ("chosen", "rejected")]
        for head, sign in enumerate(known):
            if sign:
                terms.append(torch.log1p(torch.exp(-sign * (scores[0][head] - scores[1][head]))))
    assert len(terms) == 6
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
    unknown = {**batch, "signs": torch.zeros(5, 2, dtype=torch.int8)}
    assert made.compute_loss(made.model, unknown) == 0


def test_one_head_is_the_reward_model_of_trl(tokenizer, tmp_path):
    """The same weights, pairs and order: after three steps the same model as TRL's own trainer makes."""
    dataset = pairs(8).add_column("signs", [[1]] * 8)
    options = {"max_steps": 3, "learning_rate": 1e-2, "train_sampling_strategy": "sequential"}

    class InOrder(HeadedRewardTrainer):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    result = [
        trainer(tokenizer, tmp_path / name, dataset, ["only"], kind, **options)
        for name, kind in (("ours", InOrder), ("theirs", RewardTrainer))
    ]
    for one in result:
        one.callback_handler.callbacks = [c for c in one.callback_handler.callbacks if "Round" not in type(c).__name__]
        one.train()
    ours, theirs = (dict(one.model.named_parameters()) for one in result)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_heads_learn_what_is_opposite_and_are_weighed_at_use(tokenizer, tmp_path):
    """The two aspects contradict one another, so that one score cannot please both; accuracies are exact."""
    dataset = with_head_signs(pairs(), HEADS, "aspect")
    made = trainer(tokenizer, tmp_path, dataset, max_steps=40, learning_rate=1e-2)
    made.train()
    result = made.evaluate()
    assert result["eval_accuracy/long"] == result["eval_accuracy/early"] == result["eval_accuracy"] == 1
    made.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert loaded.config.id2label == {0: "long", 1: "early"}
    ask = {"prompts": ["START"] * 2, "completions": ["MID MID MID MID END", "END"]}
    saved = str(tmp_path / "saved")
    long, early, both = (
        np.array(reward_model(saved, heads=heads)(**ask))
        for heads in ({"long": 1.0}, {"early": 1.0}, {"long": 2.0, "early": -0.5})
    )
    assert long[0] > long[1]
    assert early[0] < early[1]
    np.testing.assert_allclose(both, 2 * long - 0.5 * early, rtol=1e-5)


def test_accuracies_count_known_pairs_alone(tokenizer, tmp_path):
    """Held-out batches of 5, 5 and 1 pairs: the share over all pairs, not the mean over batches."""
    torch.manual_seed(1)
    signs = [[1, -1 if row % 3 else 0] for row in range(11)]
    made = trainer(tokenizer, tmp_path, pairs(11).add_column("signs", signs))
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    result = made.evaluate()
    gaps = []
    for row in made.eval_dataset:
        first, second = (made.model(torch.tensor([row[f"{side}_ids"]])).logits[0] for side in ("chosen", "rejected"))
        gaps.append((first - second).tolist())
    gaps = np.array(gaps)
    known = np.array(signs) != 0
    right = (np.array(signs) * gaps > 0) & known
    assert result["eval_accuracy/long"] == pytest.approx(right[:, 0].mean())
    assert result["eval_accuracy/early"] == pytest.approx(right[:, 1].sum() / known[:, 1].sum())
    assert result["eval_accuracy"] == pytest.approx(right.sum() / known.sum())


def test_a_step_is_the_same_however_many_batches_it_is_cut_into(tokenizer, tmp_path):
    """Pairs that say something about both heads, one or none, unequally many in each batch."""
    signs = [[1, 0], [0, 0], [1, -1], [0, 0], [0, 1], [0, 0], [0, 0], [-1, 1]]
    dataset = pairs(8).add_column("signs", signs)
    options = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "lr_scheduler_type": "constant"}
    options |= {"weight_decay": 0, "center_rewards_coefficient": 0.1, "logging_steps": 1}

    def trained(batch, batches):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": batches}
        made = trainer(tokenizer, tmp_path, dataset, **options, **sizes)
        before = torch.nn.utils.parameters_to_vector(made.model.parameters()).detach().clone()
        made.train()
        after = torch.nn.utils.parameters_to_vector(made.model.parameters()).detach()
        return after - before, made.state.log_history[0]["loss"]

    whole, loss = trained(8, 1)
    assert whole.norm() > 0.01
    for batch, batches in ((4, 2), (2, 4), (1, 8)):
        change, result = trained(batch, batches)
        torch.testing.assert_close(change, whole, rtol=1e-4, atol=1e-6)
        assert result == pytest.approx(loss, rel=1e-5)


def test_the_held_out_loss_is_the_same_in_batches_of_any_size(tokenizer, tmp_path):
    signs = [[1, -1 if row % 3 else 0] for row in range(11)]
    dataset = pairs(11).add_column("signs", signs)
    losses = [
        trainer(tokenizer, tmp_path, dataset, per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (11, 4, 1)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        (None, r"of 2 labels \(long, early\), wanted 1, or `heads`"),
        ({"kind": 1.0}, "got heads kind, wanted some of long, early"),
        ({"long": 0.0}, "wanted at least one weight that is not 0"),
    ],
)
def test_use_needs_weights_of_heads_that_are_there(heads, words, tokenizer):
    with pytest.raises(ValueError, match=words):
        reward_model(classifier(tokenizer, HEADS), tokenizer, heads=heads)
