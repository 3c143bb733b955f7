"""Scores of rows in batches are those of each row by itself."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_synth import get_task
from hf_synth.evaluation.scoring import RowScores, against_best, score_rows
from hf_synth.tasks import Task

TASKS = {name: get_task(name) for name in ("tivari3", "analogy")}
TASKS |= {"sort": get_task("sort", length=5), "dyck_shuffle": get_task("dyck_shuffle", k=2, length=8)}


@pytest.fixture(scope="module", params=TASKS)
def case(request):
    """Rows of several lengths, and a model wide enough from the start to tell tokens apart."""
    task = TASKS[request.param]
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=4 + len(task.vocabulary()), n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3
    )
    return GPT2LMHeadModel(config), task.rows(0, 10)


@torch.no_grad()
def alone(model, rows):
    """Each row through the model by itself, without padding, and token by token through the softmax."""
    model.eval()
    log_probs, hits = np.zeros(rows.tokens.shape), np.zeros(rows.tokens.shape, bool)
    for number, length in enumerate(rows.lengths):
        row = torch.from_numpy(rows.tokens[number, :length]).long()
        logits = model(input_ids=row[None]).logits[0]
        for at in range(rows.loss_start[number], rows.loss_stop[number]):
            log_probs[number, at] = torch.softmax(logits[at - 1].double(), -1)[row[at]].log().item()
            hits[number, at] = logits[at - 1].argmax() == row[at]
    return log_probs, hits


@pytest.mark.parametrize("batch_size", [3, 256])
def test_against_one_row_at_a_time(case, batch_size):
    model, rows = case
    log_probs, hits = alone(model, rows)
    result = score_rows(model, rows, batch_size=batch_size)
    np.testing.assert_allclose(result.log_probs, log_probs, atol=1e-5)
    assert (result.hits == hits).all()
    assert (result.mask == rows.loss_mask).all()
    assert result.loss == pytest.approx(-log_probs.sum() / rows.loss_mask.sum(), abs=1e-5)
    assert result.token_accuracy == pytest.approx(hits.sum() / rows.loss_mask.sum())


@pytest.mark.parametrize("name", ["tivari3", "dyck_shuffle", "analogy"])
def test_kl_to_the_best_predictor_against_sums_over_all_ids(name):
    """With ids of the model's own, which the task's words are spread over."""
    task = TASKS[name]
    torch.manual_seed(0)
    size = 4 + len(task.vocabulary())
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=size + 3, n_embd=8, n_layer=1, n_head=1, initializer_range=0.3)
    ).eval()
    rows, ids = task.rows(0, 12), np.random.default_rng(0).permutation(size + 3)[:size].astype(np.int32)
    result = score_rows(model, rows, batch_size=5, task=task, ids=ids)
    np.testing.assert_allclose(result.optimal, task.optimal_log_probs(rows), rtol=0, atol=1e-10)
    expected = np.zeros(rows.tokens.shape)
    for number, length in enumerate(rows.lengths):
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(ids[rows.tokens[number, :length]]).long()[None]).logits[0]
        for at in range(rows.loss_start[number], rows.loss_stop[number]):
            best = task.optimal_distribution(rows.select(np.array([number])), [at])[0, 0]
            own = torch.log_softmax(logits[at - 1].double(), -1).numpy()[ids]
            expected[number, at] = sum(p * (np.log(p) - q) for p, q in zip(best, own, strict=True) if p > 0)
    np.testing.assert_allclose(result.kl, expected, rtol=0, atol=1e-5)
    assert against_best(result)["kl"] == pytest.approx(expected.sum() / rows.loss_mask.sum(), abs=1e-5)


def test_excess_over_all_strings_of_a_language_is_the_kl_over_all_strings():
    """Each string by its probability: then what came and what could have come are the same."""
    task = get_task("start_mid_end", max_middle=4)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_embd=8, n_layer=1, n_head=1, initializer_range=0.5))
    rows = task.rows(0, 200)
    rows = rows.select(np.unique(rows.lengths, return_index=True)[1])  # its four strings, equally likely
    scores = score_rows(model, rows, task=task)
    assert scores.kl.sum() == pytest.approx((scores.optimal - scores.log_probs).sum(), abs=1e-5)
    assert scores.kl.sum() > 1


def test_a_task_without_a_distribution_has_a_floor_alone():
    class Floor(type(TASKS["dyck_shuffle"])):
        def optimal_log_probs(self, rows):
            return TASKS["dyck_shuffle"].optimal_log_probs(rows)

        optimal_probs = Task.optimal_probs

    task = Floor(TASKS["dyck_shuffle"].config)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1))
    scores = score_rows(model, task.rows(0, 4), task=task)
    assert scores.kl is None
    assert np.array_equal(scores.optimal, task.optimal_log_probs(task.rows(0, 4)))
    assert "kl" not in against_best(scores)
    with pytest.raises(ValueError, match="wanted a method optimal_probs"):
        task.optimal_distribution(task.rows(0, 4), [1])


def test_the_mode_of_the_model_is_left_as_it_was(case):
    """With dropout a model in training would give other numbers each time."""
    model, rows = case
    for training in (True, False):
        model.train(training)
        first, second = (score_rows(model, rows).log_probs for _ in range(2))
        assert (first == second).all()
        assert model.training == training


def test_a_row_is_hit_where_all_that_carries_loss_is():
    hits = np.array([[False, True, True], [False, True, False], [False, False, True]])
    mask = np.array([[False, True, True], [False, True, True], [False, False, True]])
    scores = RowScores(np.zeros((3, 3)), hits, mask)
    assert scores.row_hits.tolist() == [True, False, True]
    assert scores.token_accuracy == pytest.approx(4 / 5)
