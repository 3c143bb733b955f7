"""A comparison's plan, its statistics and its verdicts; and that only what is alike is compared."""

import contextlib
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from scipy import stats

from hf_synth.experiments.arms import CompareArguments, compared_runs, read_flags, seed_numbers, split_config, varied
from hf_synth.experiments.statistics import (
    all_measures,
    at_equal_kl,
    better_direction,
    detectable,
    differences,
    finite,
    needed,
    paired_values,
    seed_interval,
    verdict,
)
from hf_synth.reports.arms import style_of
from hf_synth.reports.comparison import draw_figures, power_statement
from hf_synth.reports.figures import arm_style
from hf_synth.reports.read import Comparison, Run, check_alike, check_finished, check_primary, read_finished

OUT = Path("out")
TWO = {"arms": {"plain": {"strength": 0}, "weighted": {"strength": 1}}}


def test_a_number_of_seeds_is_a_count():
    assert seed_numbers(3) == [0, 1, 2]
    assert seed_numbers([3]) == [3]
    assert seed_numbers([3, 5]) == [3, 5]
    assert seed_numbers(None) == [0]


@pytest.mark.parametrize("given", [0, [], -1, [1, -2], ["a"], 1.5, True, "many"])
def test_seeds_that_are_none(given):
    with pytest.raises(ValueError, match="seeds: got"):
        seed_numbers(given)


def test_values_to_vary_become_arms():
    assert varied(["sampling.strength=0,1"]) == {
        "sampling_strength-0": {"sampling_strength": 0},
        "sampling_strength-1": {"sampling_strength": 1},
    }
    both = varied(["a=0,1", "b=x,y"])
    assert list(both) == ["a-0-b-x", "a-0-b-y", "a-1-b-x", "a-1-b-y"]
    assert both["a-1-b-x"] == {"a": 1, "b": "x"}
    assert varied(["rate=1e-5,1e-4"])["rate-1e-5"] == {"rate": 1e-5}  # a number, as in a YAML file
    lists = varied(["by=[density,uniform],[uniform]"])
    assert list(lists.values()) == [{"by": ["density", "uniform"]}, {"by": ["uniform"]}]


@pytest.mark.parametrize("values", [{"vary": "a=0,1"}, {**TWO, "seeds": 3}, {**TWO, "seeds": [4], "noise": 1e-3}])
def test_what_is_kept_of_a_comparison_makes_it_again(values):
    first = CompareArguments(**values)
    kept = yaml.safe_load(yaml.safe_dump(dataclasses.asdict(first)))
    assert CompareArguments(**kept) == first


@pytest.mark.parametrize("given", ["strength", "=1", "strength=0,,1", "strength="])
def test_values_that_cannot_be_read(given):
    with pytest.raises(ValueError, match="vary: got"):
        varied([given])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "got nothing to vary"),
        ({**TWO, "vary": ["a=0,1"]}, "got both vary and arms"),
        ({"arms": {"one": {}}}, "got one alone, wanted at least two"),
        ({"vary": "a=1,1"}, "a value comes twice"),
        ({**TWO, "recipe": "grop"}, "recipe: got 'grop'; did you mean 'grpo'"),
        ({**TWO, "page": "."}, "page: got '.', wanted the path of a Markdown file"),
        ({**TWO, "page": 5}, "page: got 5, wanted the path"),
        ({"vary": [5]}, "vary: got 5, wanted NAME=VALUE"),
        ({"vary": 5}, "vary: got 5, wanted NAME=VALUE"),
        ({**TWO, "against": {"weighted": [["plain"]]}}, "against: got arm"),
        ({**TWO, "seeds": [1, 2, 1]}, "seeds: got .*, wanted each once"),
        ({**TWO, "seeds": 10**9}, "seeds: got 1000000000"),
        ({**TWO, "against": {"weighted": ["plain", "plain"]}}, "wanted a list of arms, each once"),
        ({**TWO, "better": "more"}, "better: got 'more'"),
        ({**TWO, "smallest_effect": 0}, "smallest_effect: got 0, wanted above 0"),
        ({**TWO, "page_prompts": -1}, "page_prompts: got -1, wanted at least 0"),
        ({**TWO, "page_prompts": 1.5}, "page_prompts: got 1.5, wanted a whole number, at least 0"),
        ({"arms": {"1": {}, "2": {}}, "against": {"1": [2]}}, "against: got arm 2; did you mean '2'"),
        ({"arms": {"1": {}, "2": {}}, "against": {1: ["2"]}}, "against: got arm 1; did you mean '1'"),
        ({**TWO, "noise": "little"}, "noise: got 'little', wanted above 0"),
        ({"arms": {"a": {}, "plan.json": {}}}, "arms: got the name 'plan.json'"),
        ({"arms": {"a": {}, 2: {}}}, "arms: got the name 2"),
        ({"arms": {"a": {}, "b" * 300: {}}}, "at most 80"),
        ({**TWO, "against": {"weighted": ["plan"]}}, "against: got arm 'plan'; did you mean 'plain'"),
        ({**TWO, "against": {"weighted": []}}, "against.weighted: got \\[\\], wanted a list of arms"),
        ({**TWO, "against": {"plain": ["plain"]}}, "wanted other arms"),
        ({**TWO, "against": {"weighted": ["weighted - plain"]}}, "wanted arms with arms, or 'A - B' with"),
        ({**TWO, "against": {"weighted - weighted": ["weighted - plain"]}}, "wanted arms with arms, or"),
        ({**TWO, "against": {"weighted - plan": ["weighted - plain"]}}, "got arm 'plan'; did you mean 'plain'"),
        (
            {**TWO, "against": {"weighted - plain": ["plain - weighted"]}, "primary": "equal_kl/validity"},
            "equal_kl/validity is of two arms",
        ),
        ({**TWO, "shared": {"policy": {"recipe": "sft"}}}, "shared.policy: got"),
        ({**TWO, "shared": {"seed": {"recipe": "sft", "config": "x"}}}, "shared: got the name 'seed'"),
        ({**TWO, "shared": {"a": {"recipe": ["sft"], "config": "x"}}}, r"shared\.a\.recipe: got \['sft'\]; did you"),
        ({**TWO, "recipe": ["sft"]}, r"recipe: got \['sft'\]; did you mean 'sft'\? Known: dpo, grpo"),
        ({**TWO, "better": ["higher"]}, r"better: got \['higher'\]; did you mean 'higher'"),
        ({"arms": {"a": {"seed": 1}, "b": {}}}, "arms.a: got 'seed', which is for the whole command"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CompareArguments(**values)


def test_every_arm_meets_the_first_unless_told_otherwise():
    arms = dict.fromkeys("abc")
    assert CompareArguments(arms=arms).pairs == [("b", "a"), ("c", "a")]
    assert CompareArguments(arms=arms, against={"c": ["a", "b"]}).pairs == [("c", "a"), ("c", "b")]


def test_what_is_better_is_said_by_the_measure_unless_it_is_given():
    for primary, better in {"excess/test": "lower", "equal_kl/loss": "lower", "perplexity/ratio": "higher"}.items():
        assert CompareArguments(**TWO, primary=primary).better == better
    assert CompareArguments(**TWO, primary="excess/test", better="higher").better == "higher"
    assert better_direction("eval_loss") == "lower"


def test_an_interaction_is_the_difference_of_two_differences():
    """Against Student's paired test of SciPy on differences made by hand; a seed that an arm lacks is left out."""
    draw = np.random.default_rng(0)
    values = {arm: draw.normal(size=12) + (arm == "both") for arm in ("neither", "one", "other", "both")}
    runs = {
        arm: {seed: SimpleNamespace(metrics={"m": each[seed], arm: 1.0}, log={"history": []}) for seed in range(12)}
        for arm, each in values.items()
    }
    del runs["one"][3]
    arms = {arm: {} for arm in values}
    plan = CompareArguments(arms=arms, seeds=12, primary="m", against={"both - other": ["one - neither"]})
    (found,) = Comparison(Path(), {}, arms, runs, [], plan).families[0]
    first, second = values["both"] - values["other"], values["one"] - values["neither"]
    first, second = np.delete(first, 3), np.delete(second, 3)
    wanted = stats.ttest_rel(first, second)
    assert (found.arm, found.other, found.seeds) == ("both - other", "one - neither", 11)
    assert found.interval == pytest.approx(((first - second).mean(), *wanted.confidence_interval()))
    assert found.p == pytest.approx(wanted.pvalue)


def test_flags_are_read_and_shared_out(tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("max_steps: 5\nprimary: loss/test\narms: {a: {}, b: {}}\n")
    words = ["--config", str(config), "--seeds", "3", "5", "--max-steps=7", "--mixture", '{"x": {"share": 1}}', "--ok"]
    own, base = split_config(words, {"primary", "arms", "seeds"})
    assert own == {"primary": "loss/test", "arms": {"a": {}, "b": {}}, "seeds": [3, 5]}
    assert base == {"max_steps": 7, "mixture": {"x": {"share": 1}}, "ok": True}
    assert read_flags(["--rows_seed", "{seed}"]) == {"rows_seed": "{seed}"}
    assert read_flags(["--task_args", '{"beta": 1e-5}']) == {"task_args": {"beta": 1e-5}}
    assert read_flags(["--title", "Effect: what: then"]) == {"title": "Effect: what: then"}
    for words, message in (
        (["loose"], "got unexpected argument 'loose'"),
        (["--vary", "a=0,1", "--vary", "b=0,1"], "got --vary twice"),
    ):
        with pytest.raises(ValueError, match=message):
            read_flags(words)
    with pytest.raises(ValueError, match="wanted one YAML file"):
        split_config(["--config", str(config), "foo"], set())


def test_runs_are_planned_seed_by_seed_with_what_they_share_first(tmp_path):
    (tmp_path / "first.yaml").write_text("max_steps: 3\nrows_seed: 9\n")
    arguments = CompareArguments(
        **TWO, seeds=2, shared={"policy": {"recipe": "sft", "config": "first.yaml", "rows_seed": "{seed}"}}
    )
    base = {"model_name_or_path": "{policy}", "max_steps": 4, "task_args": {"graph_seed": "{seed}"}}
    runs = compared_runs(arguments, base, OUT, tmp_path)
    assert [(run.arm, run.seed) for run in runs] == [
        (None, 0), ("plain", 0), ("weighted", 0), (None, 1), ("plain", 1), ("weighted", 1),
    ]  # fmt: skip
    shared, plain, weighted = runs[3:]
    assert shared.recipe == "sft"
    assert shared.values == {
        "max_steps": 3, "rows_seed": 1, "seed": 1, "output_dir": "out/shared/policy/seed-1",
        "project": "out", "run_name": "policy-seed-1",
    }  # fmt: skip
    assert weighted.values == {
        "model_name_or_path": "out/shared/policy/seed-1",
        "max_steps": 4,
        "task_args": {"graph_seed": 1},
        "strength": 1,
        "seed": 1,
        "output_dir": "out/weighted/seed-1",
        "project": "out",
        "run_name": "weighted-seed-1",
    }
    different = {name for name in plain.values if plain.values[name] != weighted.values[name]}
    assert different == {"strength", "output_dir", "run_name"}


@pytest.mark.parametrize("name", ["project", "run_name", "hub_model_id"])
def test_names_that_are_no_text_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}: got 5, wanted text"):
        compared_runs(CompareArguments(**TWO), {name: 5, "push_to_hub": True}, OUT, OUT)


def test_a_run_begun_with_other_values_is_refused(tmp_path):
    (run, _) = compared_runs(CompareArguments(**TWO), {"max_steps": 4}, tmp_path, tmp_path)
    run.write()
    check_finished(run)
    changed = dataclasses.replace(run, values={**run.values, "max_steps": 5})
    check_finished(changed)  # nothing has been trained there
    (run.folder / "resolved_config.yaml").write_text("{}")
    check_finished(run)
    with pytest.raises(ValueError, match=r"begun with other values \(max_steps: 4 there, 5 now\)"):
        check_finished(changed)


def a_run(metrics=None, history=(), **config):
    return Run(OUT, {"max_steps": 4, **config}, finite(metrics or {}), {"history": list(history)})


def test_arms_that_were_trained_on_other_rows_or_by_other_processes_are_not_compared():
    plain, weighted = a_run(num_rows=3, strength=0), a_run(num_rows=3, strength=1)
    result = {"rows": 3, "fingerprint": "ab", "processes": 1}
    first, same = (dataclasses.replace(run, trained_on=result) for run in (plain, weighted))
    check_alike({"plain": first.inputs, "weighted": same.inputs}, {"strength"})
    check_alike({"plain": first.inputs, "weighted": weighted.inputs}, {"strength"})  # nothing is known of one
    other = dataclasses.replace(weighted, trained_on={**result, "fingerprint": "cd"})
    with pytest.raises(ValueError, match=r"differ in trained_on\.fingerprint too \(.*: 'ab' and 'cd'\)"):
        check_alike({"plain": first.inputs, "weighted": other.inputs}, {"strength"})
    check_alike({"plain": first.inputs, "weighted": other.inputs}, {"strength", "rows_seed"})
    wider = dataclasses.replace(weighted, trained_on={**result, "processes": 2})
    with pytest.raises(ValueError, match=r"differ in trained_on\.processes too"):
        check_alike({"plain": first.inputs, "weighted": wider.inputs}, {"strength", "rows_seed"})


@pytest.mark.parametrize(
    ("varied", "names"),
    [
        ({"reward", "sampling_by"}, {"models", "code", "tokenizer"}),
        ({"model_name_or_path"}, {"models", "code", "tokenizer"}),
        ({"explanation_ratio"}, {"rows", "fingerprint", "tokenizer"}),
        ({"train_rows"}, {"rows", "fingerprint", "tokenizer"}),
        ({"task_args"}, {"rows", "fingerprint", "tokenizer"}),
        ({"sampling_by"}, set()),
    ],
)
def test_what_arms_are_trained_on_differs_as_what_is_varied_says(varied, names):
    every = ("rows", "fingerprint", "models", "code", "tokenizer")
    for name in every:
        one, other = ({f"trained_on.{name}": value} for value in "ab")
        with (
            contextlib.nullcontext()
            if name in names
            else pytest.raises(ValueError, match=f"differ in trained_on.{name} too")
        ):
            check_alike({"one": one, "other": other}, varied)


def test_arms_that_differ_in_more_than_they_may_are_not_compared():
    plain, weighted = a_run(strength=0, output_dir="a"), a_run(strength=1, output_dir="b")
    check_alike({"plain": plain.inputs, "weighted": weighted.inputs}, {"strength"})
    other = a_run(strength=1, learning_rate=0.1)
    with pytest.raises(ValueError, match="'plain' and 'weighted' that differ in learning_rate too"):
        check_alike({"plain": plain.inputs, "weighted": other.inputs}, {"strength"})
    with pytest.raises(ValueError, match="differ in strength too"):
        check_alike({"plain": plain.inputs, "weighted": weighted.inputs}, set())


def made_up(seeds=8, effect=0.0, noise=0.1, name="score"):
    """Two arms whose seeds have much in common: only pairing finds a small effect."""
    random = np.random.default_rng(5)
    common = random.normal(size=seeds)
    plain = {seed: {name: common[seed] + noise * random.normal()} for seed in range(seeds)}
    weighted = {seed: {name: common[seed] + effect + noise * random.normal()} for seed in range(seeds)}
    return {"plain": plain, "weighted": weighted}


def of_pair(results, names=("score",)):
    return differences({("weighted", "plain"): results}, names)


def test_differences_are_those_of_scipy():
    results = made_up(effect=0.2)
    (result,) = of_pair(results)
    mine, theirs = paired_values(results, "score", "weighted", "plain")
    wanted = stats.ttest_rel(mine, theirs)
    interval = wanted.confidence_interval(0.95)
    assert result.p == pytest.approx(wanted.pvalue)
    assert result.interval == pytest.approx((np.mean(np.subtract(mine, theirs)), interval.low, interval.high))
    assert stats.ttest_ind(mine, theirs).pvalue > 0.5  # unpaired, the effect drowns in what seeds have in common
    assert result.p < 0.01


def test_seeds_that_one_arm_lacks_are_left_out():
    results = made_up(effect=0.2)
    results["plain"].pop(3)
    results["weighted"][5] = {}
    mine, theirs = paired_values(results, "score", "weighted", "plain")
    assert mine == [results["weighted"][seed]["score"] for seed in (0, 1, 2, 4, 6, 7)]
    assert theirs == [results["plain"][seed]["score"] for seed in (0, 1, 2, 4, 6, 7)]
    assert of_pair({"plain": {0: {"score": 1.0}}, "weighted": {0: {"score": 2.0}}}) == []


def test_more_questions_take_more_evidence():
    """Holm: the smallest of m p-values is multiplied by m."""
    results = made_up(effect=0.1)
    for runs in results.values():
        for seed, run in runs.items():
            run |= {f"noise_{number}": math.sin(seed * 7.3 + number * 1.7) for number in range(4)}
    (alone,) = of_pair(results)
    among = of_pair(results, ["score", *(f"noise_{number}" for number in range(4))])
    result = next(difference for difference in among if difference.measure == "score")
    assert alone.corrected == alone.p
    assert result.corrected == pytest.approx(min(1.0, 5 * result.p))


@pytest.mark.parametrize(
    ("effect", "noise", "better", "least", "word"),
    [
        (0.3, 0.05, "higher", None, "supported"),
        (0.3, 0.05, "lower", None, "not supported"),
        (-0.3, 0.05, "lower", None, "supported"),
        (-0.3, 0.05, "higher", 0.1, "not supported"),
        (0.0, 0.3, "higher", 0.05, "undecided"),
        (0.0, 0.3, "higher", None, "undecided"),
        (0.0, 0.02, "higher", 0.1, "not supported"),
        (0.03, 0.005, "higher", None, "supported"),
        (0.03, 0.005, "higher", 0.1, "not supported"),
        (-0.03, 0.005, "lower", 0.1, "not supported"),
    ],
)
def test_verdicts(effect, noise, better, least, word):
    (result,) = of_pair(made_up(effect=effect, noise=noise))
    assert verdict(result, better, least).word == word


def test_few_seeds_show_that_it_ran():
    (result,) = of_pair(made_up(seeds=7, effect=0.5, noise=0.01))
    assert result.p == 1.0
    judged = verdict(result, "higher", None)
    assert (judged.word, judged.why, judged.needed) == ("undecided", "few seeds", 8)
    assert of_pair(made_up(seeds=8, effect=0.5, noise=0.01))[0].p < 1e-6


def test_an_undecided_verdict_says_how_many_seeds_would_decide():
    (result,) = of_pair(made_up(effect=0.05, noise=0.1))
    judged = verdict(result, "higher", None)
    assert (judged.word, judged.why) == ("undecided", "")
    assert judged.needed == needed(result) > result.seeds
    alike = {"plain": made_up()["plain"], "weighted": made_up()["plain"]}
    assert needed(of_pair(alike)[0]) is None


def test_the_seeds_power_is_said_before_the_runs():
    assert detectable(8, 1) == {1: pytest.approx(1.155, abs=0.01)}  # 7 degrees of freedom, power 0.8, level 0.05
    assert list(detectable(8, 3)) == [1, 3]
    assert detectable(8, 3)[3] > detectable(8, 3)[1]
    assert detectable(1, 1) == detectable(7, 1) == {}  # of so few seeds no difference is called one
    one = power_statement(CompareArguments(**TWO, seeds=8, noise=0.1)).splitlines()
    assert len(one) == 1  # one pair: nothing to correct
    assert "1.16 standard deviations" in one[0]
    assert "(0.116)" in one[0]
    several = power_statement(CompareArguments(arms=dict.fromkeys("abcd"), seeds=8)).splitlines()
    assert len(several) == 2
    assert "3 pairs" in several[1]
    assert "8 seeds" in several[1]
    assert len(power_statement(CompareArguments(**TWO)).splitlines()) == 1
    said = power_statement(CompareArguments(**TWO, seeds=2, noise=0.1))
    nothing = "- 2 seeds show that it runs. Fewer than 8 decide nothing"
    assert said.strip() == f"{nothing}; 8 would detect a difference of 0.116 with 80 % power."


def test_intervals_of_fractions_end_at_0_and_1():
    values = [0.98, 1.0, 0.7]
    assert seed_interval(values, "loss/test").high > 1
    for name in (
        "accuracy/test",
        "mean/validation",
        "probability/test/id_atomic",
        "halves/validity/rare",
        "row_accuracy/test/known",
        "pass_at_4/head",
        "finished",
    ):
        assert seed_interval(values, name).high == 1.0
        assert seed_interval([0.0, 0.1, 0.02], name).low == 0.0
    assert seed_interval([5.0, 9.0], "completions/mean_length").high > 9
    assert seed_interval([0.2, 0.5, 0.1], "kl/mean").low >= 0
    fractions = {
        "weighted": {0: {"validity/tail": 0.9}, 1: {"validity/tail": 0.2}},
        "plain": {seed: {"validity/tail": 0.1} for seed in (0, 1)},
    }
    (result,) = of_pair(fractions, ["validity/tail"])
    assert (result.interval.low, result.interval.high) == (-1.0, 1.0)


def test_differences_of_fractions_end_at_1_and_those_of_differences_at_2():
    """Whatever the names of the arms: folders may be called `sort - long`."""
    pair, values = ("sort - long", "sort - short"), ([0.9, 0.2], [0.1, 0.1])
    runs = ({seed: {"validity/tail": value} for seed, value in enumerate(of_arm)} for of_arm in values)
    results = {pair: dict(zip(pair, runs, strict=True))}
    (plain,) = differences(results, ["validity/tail"])
    (interaction,) = differences(results, ["validity/tail"], interactions=[pair])
    assert (plain.interval.low, plain.interval.high) == (-1.0, 1.0)
    assert (interaction.interval.low, interaction.interval.high) == (-2.0, 2.0)
    arms = {"a": 0.0, "b": 0.9, "c": 0.5, "d": 0.1}
    runs = {arm: {seed: a_run({"validity/tail": abs(value - seed)}) for seed in (0, 1)} for arm, value in arms.items()}
    against = {"a": ["b"], "a - b": ["c - d"]}
    plan = CompareArguments(arms=dict.fromkeys(arms), seeds=2, primary="validity/tail", against=against)
    primary = Comparison(OUT, {}, {arm: {} for arm in arms}, runs, [], plan).families[0]
    assert [each.interval[1:] for each in primary] == [(-1.0, 1.0), (-2.0, 2.0)]


def test_a_comparison_half_done_is_corrected_for_every_pair_that_it_declares():
    """Five pairs, two of them with runs: Holm multiplies the smallest p-value by 5, and the next by 4."""
    arms = {"plain": 0.0, "large": 0.3, "small": 0.1}
    random = np.random.default_rng(5)
    runs = {
        arm: {seed: a_run({"score": effect + 0.1 * random.normal()}) for seed in range(8)}
        for arm, effect in arms.items()
    }
    every = {arm: {} for arm in (*arms, "third", "fourth", "fifth")}
    plan = CompareArguments(arms=every, seeds=8, primary="score")
    primary, shown, _ = Comparison(OUT, {}, every, runs, [], plan).families
    assert not shown
    first, second = sorted(primary, key=lambda each: each.p)
    assert (first.tests, second.tests) == (5, 5)
    assert first.corrected == pytest.approx(5 * first.p)
    assert second.corrected == pytest.approx(max(4 * second.p, first.corrected))
    assert needed(second) > needed(dataclasses.replace(second, tests=1)), "the strictest of five takes more seeds"


def test_an_arm_has_its_colour_whichever_others_have_finished():
    every = {"plain": {}, "large": {}, "small": {}}
    plan = CompareArguments(arms=every, seeds=1, primary="score")
    half = Comparison(OUT, {}, every, {"small": {0: a_run({"score": 1.0})}}, [], plan)
    assert style_of(half, "small") == arm_style(2)
    assert style_of(half, "large - plain") == arm_style(1)


# Equal KL


def look(step, kl, score):
    return {"step": step, "held_out/kl": kl, "held_out/entropy": 1.0, "kl": 7.0, "score": score}


def test_measures_are_means_over_the_divergences_that_both_arms_came_to():
    """The fast arm is at 0.3 on average up to a KL of 1, and at 0.6 from there to 2, where the slow one stopped."""
    slow = [look(0, 0.0, 0.1), look(10, 1.0, 0.2), look(20, 2.0, 0.3), {"step": 20, "loss": 1.0}]
    fast = [look(0, 0.0, 0.1), look(10, 1.0, 0.5), look(20, 3.0, 0.9)]
    same = {"equal_kl/kl": 2.0, "equal_kl/entropy": 1.0}
    for result, score in zip(at_equal_kl(slow, fast), (0.2, 0.45), strict=True):
        assert result == pytest.approx({"equal_kl/score": score, **same})


def test_an_arm_that_comes_back_is_read_off_on_its_way_out():
    back = [look(0, 0.0, 0.0), look(10, 4.0, 0.4), look(20, 1.0, 9.0)]
    slow = [look(0, 0.0, 0.0), look(10, 2.0, 0.1)]
    assert at_equal_kl(back, slow)[0]["equal_kl/score"] == pytest.approx(0.1)
    still = [look(0, 0.0, 0.3), look(10, 0.0, 0.3)]
    assert at_equal_kl(still, slow)[1]["equal_kl/score"] == pytest.approx(0.0)
    assert at_equal_kl(still[:1], slow) == ({}, {})


def test_an_evaluation_without_a_finite_kl_is_left_out():
    whole = [look(step, step / 10, step / 100) for step in range(0, 50, 10)]
    torn = [*whole[:2], look(20, math.nan, 5.0), *whole[3:]]
    for result in at_equal_kl(torn, whole):
        assert result["equal_kl/score"] == pytest.approx(0.2)
    whole[2]["score"] = math.nan
    assert "equal_kl/score" not in at_equal_kl(torn, whole)[1]
    assert "equal_kl/score" in at_equal_kl(torn, whole)[0]


@pytest.mark.parametrize("noises", [(0.3, 0.3), (0.1, 0.6)])
def test_identical_arms_do_not_differ_at_equal_kl_whatever_the_noise_of_their_evaluations(noises):
    """Two arms of the same policies; the KL of each evaluation is noisy, in one arm more than in the other."""
    random, steps = np.random.default_rng(3), np.arange(0, 420, 20)
    kl, score = 4 * (1 - np.exp(-steps / 130)), 0.2 + 0.6 * steps / 400
    result = []
    for _ in range(64):
        arms = [kl + noise * random.normal(size=len(steps)) for noise in noises]
        seen = [score + 0.03 * random.normal(size=len(steps)) for _ in noises]
        logs = [list(map(look, steps, *arm)) for arm in zip(arms, seen, strict=True)]
        one, two = at_equal_kl(*logs)
        result.append(one["equal_kl/score"] - two["equal_kl/score"])
    interval = seed_interval(result, "difference")
    assert interval.low < 0 < interval.high
    assert np.std(result) < 0.04  # a single evaluation read off by itself: 0.1


def test_arms_that_move_at_different_speeds_do_not_differ_at_equal_kl():
    """Two arms on one curve, one four times as fast: a line through their evaluations gave -0.018."""

    def arm(speed, evaluations):
        return [look(step, speed * step, 0.8 - 0.6 * math.exp(-speed * step / 2))
                for step in np.linspace(0, 160, evaluations)]  # fmt: skip

    for evaluations, most in ((9, 0.02), (17, 0.005), (33, 0.002)):
        fast, slow = at_equal_kl(arm(0.08, evaluations), arm(0.02, evaluations))
        assert abs(fast["equal_kl/score"] - slow["equal_kl/score"]) < most


def test_a_pair_at_equal_kl_does_not_depend_on_a_third_arm():
    logs = {"a": 1.0, "b": 2.0, "c": 0.1}
    runs = {
        arm: {0: a_run(history=[look(step, speed * step, step) for step in range(6)])} for arm, speed in logs.items()
    }
    plan = CompareArguments(arms=dict.fromkeys("abc"))
    three = Comparison(OUT, {}, {arm: {} for arm in "abc"}, runs, [], plan).paired["b", "a"]
    runs.pop("c")
    two = Comparison(OUT, {}, {arm: {} for arm in "ab"}, runs, [], CompareArguments(arms=dict.fromkeys("ab"))).paired
    assert three == two["b", "a"]
    assert three["b"][0]["equal_kl/kl"] == pytest.approx(5.0)


def test_a_comparison_may_rest_on_a_measure_at_equal_kl(tmp_path):
    for seeds, figures in ((1, []), (2, ["primary"])):
        runs = {
            arm: {seed: a_run(history=[look(step, step, step + seed) for step in range(6)]) for seed in range(seeds)}
            for arm in "ab"
        }
        plan = CompareArguments(arms=dict.fromkeys("ab"), seeds=seeds, primary="equal_kl/score")
        comparison = Comparison(tmp_path, {}, {arm: {} for arm in "ab"}, runs, [], plan)
        check_primary(comparison, plan.primary)
        assert draw_figures(comparison) == figures


def test_a_seed_without_a_finite_value_is_missing_and_ends_nothing():
    runs = {
        arm: {seed: a_run({"score": math.nan if (arm, seed) == ("b", 1) else seed + 0.5}) for seed in range(3)}
        for arm in "ab"
    }
    comparison = Comparison(OUT, {}, {arm: {} for arm in "ab"}, runs, [], CompareArguments(arms=dict.fromkeys("ab")))
    assert comparison.values("b", "score") == [0.5, 2.5]
    assert comparison.lacking("b", "score") == [1]
    (result,) = comparison.differences(["score"])
    assert (result.seeds, result.interval.mean) == (2, 0.0)


def test_a_reward_that_is_the_verifiers_is_told_once():
    alike, apart = {"reward/all": 0.5, "validity/all": 0.5}, {"reward/all": 0.7, "validity/all": 0.5}
    assert all_measures({"plain": {0: alike}, "weighted": {0: alike}}) == ["validity/all"]
    assert all_measures({"plain": {0: alike}, "weighted": {0: apart}}) == ["reward/all", "validity/all"]
    ends = {"validity/tail": 0.1, "validity/language_8": 0.1, "finished": 1.0, "pass_at_4/head": 1.0}
    assert all_measures({"plain": {0: ends}}) == ["finished", "pass_at_4/head", "validity/tail"]


def test_measures_are_what_any_run_has():
    one = {"score": 1.0, "seconds/training": 2.0, "score/low": 0.5, "loss/final": 1.0, "validity/final_tail": 1.0}
    results = {"plain": {0: one}, "weighted": {0: {"score": 1.0}}}
    assert all_measures(results) == ["loss/final", "score"]
    runs = {arm: {seed: a_run(metrics) for seed, metrics in of_arm.items()} for arm, of_arm in results.items()}
    comparison = Comparison(OUT, {}, {"plain": {}, "weighted": {}}, runs, [], CompareArguments(**TWO))
    check_primary(comparison, "score")
    with pytest.raises(ValueError, match="primary: got 'scores', which no run has; the nearest of 2 known: score"):
        check_primary(comparison, "scores")


@pytest.mark.parametrize("name", ["metrics.json", "training_log.json", "resolved_config.yaml"])
def test_a_damaged_run_is_named(name, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "training_log.json").write_text('{"history": []}')
    (tmp_path / "resolved_config.yaml").write_text("seed: 0\n")
    assert read_finished(tmp_path).config == {"seed": 0}
    for torn in ('{"a": ', "[1, 2]", "7", ""):
        (tmp_path / name).write_text(torn)
        if (name, torn) == ("resolved_config.yaml", ""):
            continue  # no values
        with pytest.raises(ValueError, match="a run with a damaged file"):
            read_finished(tmp_path)


SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "configs").glob("*/*.yaml"))
COMPARISONS = [path for path in SHIPPED if "primary" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_configs_of_comparisons_make_plans(path):
    config = yaml.safe_load(path.read_text())
    names = {field.name for field in dataclasses.fields(CompareArguments)}
    own, base = ({k: v for k, v in config.items() if (k in names) is mine} for mine in (True, False))
    arguments = CompareArguments(**own)
    base.pop("output_dir")
    runs = compared_runs(arguments, base, OUT, path.parents[1])
    assert len(runs) == len(arguments.seeds) * (len(arguments.arms) + len(arguments.shared))
    assert "{" not in "".join(str(run.values.get("model_name_or_path")) for run in runs)
