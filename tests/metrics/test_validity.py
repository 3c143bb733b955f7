"""Validity: hand-counted shares, groups that weigh alike, and the same numbers through `evaluate`."""

from pathlib import Path

import evaluate
import pytest

from hf_synth import get_task
from hf_synth.metrics import validity as module
from hf_synth.metrics.validity import Validity, grouped_mean, validity

PROMPTS = ["START", "START MID", "START", "START MID", "START"]
COMPLETIONS = ["MID END", "END", "END", "MID", "MID MID END"]  # right, right, wrong, wrong, right
GROUPS = ["short", "long", "short", "long", "other"]
WANTED = {"validity": 2 / 3, "validity/short": 1 / 2, "validity/long": 1 / 2, "validity/other": 1.0}


@pytest.fixture(scope="module")
def verify():
    return get_task("start_mid_end").verify


def test_share_of_right_completions(verify):
    assert validity(PROMPTS, COMPLETIONS, verify) == {"validity": 3 / 5}


def test_groups_weigh_alike_whatever_their_size(verify):
    """3 of 5 are right, and the mean of 1/2, 1/2 and 1 is 2/3."""
    assert validity(PROMPTS, COMPLETIONS, verify, GROUPS) == pytest.approx(WANTED)
    assert grouped_mean([1.0] * 99 + [0.0], ["big"] * 99 + ["small"], name="x") == {
        "x": 0.5,
        "x/big": 1.0,
        "x/small": 0.0,
    }


def test_unfinished_is_wrong_and_is_not_verified(verify):
    assert validity(["START", "START"], [None, "MID END"], verify) == {"validity": 0.5}

    def refuse(prompt: str, completion: str) -> float:
        raise AssertionError("asked about an unfinished completion")

    assert validity(["START"], [None], refuse) == {"validity": 0.0}


def test_what_cannot_be_counted_is_an_error(verify):
    with pytest.raises(ValueError, match="got no completion"):
        validity([], [], verify)
    with pytest.raises(ValueError, match="validity: got 2 values, 1 groups"):
        validity(["START"] * 2, ["END"] * 2, verify, ["a"])
    with pytest.raises(ValueError, match="zip"):
        validity(["START"], ["END", "END"], verify)


@pytest.fixture(params=["class", "file"])
def metric(request):
    """The class itself, and what `evaluate.load` makes of its file."""
    return Validity() if request.param == "class" else evaluate.load(str(Path(module.__file__)))


def test_the_metric_of_evaluate_gives_the_same(metric, verify):
    result = metric.compute(predictions=COMPLETIONS, references=PROMPTS, verify=verify, groups=GROUPS)
    assert result == pytest.approx(WANTED)
    assert metric.compute(predictions=COMPLETIONS, references=PROMPTS, verify=verify) == {"validity": 3 / 5}


def test_the_metric_adds_up_batches(metric, verify):
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        metric.add(prediction=completion, reference=prompt)
    metric.add_batch(predictions=["MID"], references=["START"])
    assert metric.compute(verify=verify) == {"validity": 3 / 6}


def test_the_metric_takes_none_for_an_unfinished_completion(metric, verify):
    result = metric.compute(predictions=["MID END", None], references=["START", "START"], verify=verify)
    assert result == {"validity": 0.5}
