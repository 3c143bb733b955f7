"""Arms and seeds as runs, values as flags, and means over seeds."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hf_synth.experiments.arms import ArmsArguments, as_flags, planned_runs, read_flags, run_folder, strength_arms
from hf_synth.experiments.statistics import over_seeds

OUT = Path("out")


def test_values_as_flags():
    values = {"a": 1, "b": True, "c": [1, 2], "d": {"x": [1]}, "e": "two words", "f": [{"path": "p"}], "g": 1e-4}
    assert as_flags(values) == [
        *("--a", "1", "--b", "true", "--c", "1", "2", "--d", '{"x": [1]}', "--e", "two words"),
        *("--f", '[{"path": "p"}]', "--g", "0.0001"),
    ]
    assert read_flags(as_flags(values)) == {**values, "f": [{"path": "p"}]}
    with pytest.raises(ValueError, match="a: got nothing, wanted a value: an arm cannot take one away"):
        as_flags({"a": None})


def plan(seed=7, **values):
    return {(run.arm, run.seed): run for run in planned_runs(ArmsArguments(**values), OUT, seed)}


def test_one_run_lies_in_the_output_directory_itself():
    (run,) = plan().values()
    assert (run.arm, run.seed, run.folder) == ("", 7, OUT)
    (run,) = plan(seeds=[3]).values()
    assert (run.arm, run.seed, run.folder) == ("", 3, OUT)


def test_several_runs_have_folders_of_their_own():
    assert [run.folder for run in plan(seeds=[3, 5]).values()] == [OUT / "seed-3", OUT / "seed-5"]
    arms = {"low": {"learning_rate": 0.1}, "high": None}
    assert [run.folder for run in plan(arms=arms).values()] == [OUT / "low", OUT / "high"]
    both = plan(arms=arms, seeds=[3, 5])
    assert {key: run.folder for key, run in both.items()} == {
        (arm, seed): OUT / arm / f"seed-{seed}" for arm in ("low", "high") for seed in (3, 5)
    }
    flags = list(both["low", 5].flags)
    assert flags[:2] == ["--learning_rate", "0.1"]
    assert flags[flags.index("--seed") + 1] == "5"
    assert flags[flags.index("--output_dir") + 1] == "out/low/seed-5"
    assert "--learning_rate" not in both["high", 5].flags


def test_the_first_strength_lies_in_the_folder_of_the_run():
    names = strength_arms([1.0, 0.0, 0.5])
    assert [run_folder(OUT, name) for name in names] == [OUT, OUT / "control", OUT / "strength-0.5"]
    assert strength_arms([0.0]) == [""]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"arms": {"a": 3}}, "arms.a: got 3, wanted a mapping"),
        ({"arms": '["a"]'}, "arms: got ['a'], wanted a mapping"),
        ({"arms": {"../a": {}}}, "arms: got the name '../a', wanted letters, digits"),
        ({"arms": {"": {}}}, "arms: got the name '', wanted letters, digits"),
        ({"arms": {"..": {}}}, "arms: got the name '..', wanted letters, digits"),
        ({"arms": {"report.md": {}}}, "arms: got the name 'report.md', which a file or folder of a run has"),
        ({"arms": {"checkpoint-10": {}}}, "arms: got the name 'checkpoint-10', which a file"),
        ({"arms": {"a": {"hub-token": "x"}}}, "arms.a: got 'hub-token', which is for the whole command"),
        ({"arms": {"a": {"learning-rate": 1}}}, "arms.a: got 'learning-rate', wanted letters, digits and '_'"),
        ({"arms": {"a": {"hub_token=x": []}}}, "arms.a: got 'hub_token=x', wanted letters, digits and '_'"),
        ({"quick_args": {"hub-token": "x"}}, "quick_args: got 'hub-token', which is for the whole command"),
        ({"seeds": 3}, "seeds: got 3, wanted a list of whole numbers"),
        ({"seeds": [-1]}, "seeds: got [-1], wanted a list of whole numbers"),
        ({"seeds": [[1]]}, "seeds: got [[1]], wanted a list of whole numbers"),
        ({"seeds": [1, 1]}, "seeds: got [1, 1], wanted each once"),
        ({"quick": True}, "quick: got no quick_args to use"),
    ],
)
def test_arms_that_are_none(values, wanted):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is looked at below
        ArmsArguments(**values)
    assert wanted in str(error.value)


def test_means_over_seeds_with_intervals():
    losses = [1.0, 1.5, 0.8]
    result = over_seeds(
        {"a": [{"loss": loss, "only_here": 1.0} if loss == 1.0 else {"loss": loss} for loss in losses]}
    )
    half = stats.t.ppf(0.975, 2) * np.std(losses, ddof=1) / math.sqrt(3)
    assert result == pytest.approx({"a/loss": 1.1, "a/loss_low": 1.1 - half, "a/loss_high": 1.1 + half, "a/seeds": 3,
                                    "a/only_here": 1.0, "a/only_here_seeds": 1})  # fmt: skip


def test_a_seed_that_diverged_is_left_out_and_counted():
    result = over_seeds({"a": [{"loss": 1.0}, {"loss": math.nan}, {"loss": 2.0}]})
    assert result["a/loss"] == 1.5
    assert (result["a/loss_seeds"], result["a/seeds"]) == (2, 3)
    assert over_seeds({"": [{"loss": math.nan}, {}]}) == {"loss_seeds": 0.0, "seeds": 2.0}


def test_one_seed_has_no_interval():
    assert over_seeds({"": [{"loss": 2.0}]}) == {"loss": 2.0, "seeds": 1.0}
