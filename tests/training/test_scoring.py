"""Scores of rows in batches are those of each row by itself."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_synth import get_task
from hf_synth.evaluation.scoring import RowScores, score_rows

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
    found = score_rows(model, rows, batch_size=batch_size)
    np.testing.assert_allclose(found.log_probs, log_probs, atol=1e-5)
    assert (found.hits == hits).all()
    assert (found.mask == rows.loss_mask).all()
    assert found.loss == pytest.approx(-log_probs.sum() / rows.loss_mask.sum(), abs=1e-5)
    assert found.token_accuracy == pytest.approx(hits.sum() / rows.loss_mask.sum())


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
