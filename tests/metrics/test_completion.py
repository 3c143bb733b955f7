"""Completion tests: points passed, points passed strictly, and a model that prefers the wrong tokens."""

import pytest

from hf_synth import get_task
from hf_synth.metrics.completion import completion

# Passed and strict; passed only (0.05 < 0.3); neither.
POINTS = ["after START", "after RED", "after BLUE"]
P_VALID = [[0.9], [0.5, 0.05], [0.1, 0.2]]
P_INVALID = [[0.05, 0.02], [0.3], [0.4, 0.1]]


def test_hand_counted():
    result = completion(POINTS, P_VALID, P_INVALID)
    assert result["completion"] == pytest.approx(2 / 3)
    assert result["completion/strict"] == pytest.approx(1 / 3)
    keys = ("p_valid", "p_invalid", "passed", "strict")
    table = [[result[f"completion/{name}/{key}"] for key in keys] for name in POINTS]
    assert table == [pytest.approx(row) for row in ([0.9, 0.07, 1, 1], [0.55, 0.3, 1, 0], [0.3, 0.5, 0, 0])]
    assert len(result) == 2 + 4 * len(POINTS)


def test_equal_shares_are_not_passed():
    assert completion(["a"], [[0.5]], [[0.5]])["completion"] == 0.0


def test_a_good_and_a_bad_model_at_the_points_of_a_language():
    points = get_task("color_shape").decision_points()
    names = [point.name for point in points]
    likely = [[0.9 / len(point.valid)] * len(point.valid) for point in points]
    unlikely = [[0.1 / len(point.invalid)] * len(point.invalid) for point in points]
    assert completion(names, likely, unlikely)["completion/strict"] == 1.0
    assert completion(names, unlikely, likely)["completion"] == 0.0


def test_what_is_no_test_is_an_error():
    with pytest.raises(ValueError, match="each name once"):
        completion(["a", "a"], [[0.5], [0.5]], [[0.1], [0.1]])
    with pytest.raises(ValueError, match="one or more"):
        completion([], [], [])
    with pytest.raises(ValueError, match="completion: got 2 points, 1 p_valid, 1 p_invalid"):
        completion(["a", "b"], [[0.5]], [[0.5]])
    with pytest.raises(ValueError, match="a: got 1 valid and 0 invalid tokens"):
        completion(["a"], [[0.5]], [[]])
    for wrong in ([-0.5], [0.7], [float("nan")]):  # a logarithm, more than all, nothing
        with pytest.raises(ValueError, match="wanted probabilities"):
            completion(["a"], [[0.5]], [wrong])
