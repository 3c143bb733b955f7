"""The table of fact types: by hand, and a model that memorises told from one that also makes analogies."""

import numpy as np
import pytest

from hf_synth import get_task
from hf_synth.metrics.fact_types import fact_types


def test_hand_computed():
    """Probabilities 1/2 and 1/8: CE is 2 ln 2, PPL 4, PROB 5/16."""
    result = fact_types(np.log([1 / 2, 1, 1 / 8]), [True, True, False], ["ood", "id", "ood"])
    assert result == pytest.approx(
        {
            "ce/ood": 2 * np.log(2),
            "ppl/ood": 4,
            "acc/ood": 1 / 2,
            "prob/ood": 5 / 16,
            "facts/ood": 2,
            "ce/id": 0,
            "ppl/id": 1,
            "acc/id": 1,
            "prob/id": 1,
            "facts/id": 1,
        }
    )


def test_a_model_that_memorises_fails_on_held_out_types_alone():
    task = get_task("analogy")
    types = task.rows(0, task.size("test"), split="test").columns["fact_type"]
    known = np.array([name.startswith("id_") for name in types])
    memorises = fact_types(np.where(known, -0.01, -5.0), known, types)
    analogises = fact_types(np.full(len(types), -0.01), np.ones(len(types), bool), types)
    assert memorises["acc/id_analogical"] == analogises["acc/ood_analogical"] == 1.0
    assert memorises["acc/ood_analogical"] == 0.0
    assert memorises["ppl/ood_analogical"] == pytest.approx(np.exp(5))
    counts = {name: count for name, count in task.fact_counts().items() if count}
    assert {name: memorises[f"facts/{name}"] for name in counts} == counts


def test_columns_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="2 log_probs, 1 hits, 2 types"):
        fact_types([-1.0, -1.0], [True], ["a", "b"])
    with pytest.raises(ValueError, match="0 log_probs"):
        fact_types([], [], [])


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_what_is_no_log_probability_is_an_error(value):
    with pytest.raises(ValueError, match=rf"fact_types: got {value:g}, wanted log probabilities"):
        fact_types([-1.0, value], [True, True], ["a", "a"])
    assert fact_types([-np.inf], [False], ["a"])["prob/a"] == 0.0
