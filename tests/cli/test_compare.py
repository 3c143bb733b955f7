"""hf-synth compare: arms of any origin, from one file of numbers a seed to differences and verdicts."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hf_synth.cli import main

ROOT = Path(__file__).parents[2]
NAMES = ("loss", "accuracy", "speed", "score", "reward")


def write_arm(
    folder: Path, values: list[dict[str, float]], name: str = "seed-{}/metrics.json", **config: object
) -> None:
    """One file a seed, and a config beside each where values are given."""
    for seed, metrics in enumerate(values):
        path = folder / name.format(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(metrics))
        if config:
            (path.parent / "resolved_config.yaml").write_text(
                yaml.safe_dump({**config, "output_dir": str(path.parent)})
            )


def draws(
    random: np.random.Generator, seeds: int = 8, effect: float = 0.0, noise: float = 1.0
) -> list[dict[str, float]]:
    return [{name: float(noise * random.normal() + effect) for name in NAMES} for _ in range(seeds)]


@pytest.fixture
def printed(capsys, tmp_path, monkeypatch):
    """What the command prints, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        main(["compare", *arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """The one line of an error with exit code 2."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["compare", *arguments])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run


def test_a_difference_is_supported_and_its_opposite_is_not(printed, tmp_path):
    random = np.random.default_rng(0)
    write_arm(tmp_path / "a", draws(random, noise=0.1))
    write_arm(tmp_path / "b", draws(random, effect=0.5, noise=0.1))
    assert "**Supported.** `b` minus `a`: +0." in printed("a", "b", "--primary", "loss", "--better", "higher")
    assert "**Not supported.** `b` minus `a`: +0." in printed("a", "b", "--primary", "loss", "--better", "lower")
    assert "**Not supported.** `b` minus `a`: +0." in printed("a", "b", "--primary", "loss"), "lower is better"
    assert "**Supported.** `a` minus `b`: -0." in printed("a", "b", "--primary", "loss", "--against", "b")
    every = printed(str(tmp_path))  # the folder of the arms
    assert every.count("| **+") == len(NAMES)
    assert "over all 5 differences" in every
    assert "Supported" not in every


def test_an_arm_without_the_primary_metric_has_no_answer_and_counts(printed, tmp_path):
    """Folders may be called `sort - long`: a name that is an arm is no difference of two."""
    for number, arm in enumerate(["sort", "sort - long", "sort - short"]):
        write_arm(tmp_path / arm, [{"accuracy" if number < 2 else "loss": (seed + number) % 2} for seed in range(2)])
    page = printed("sort", "sort - long", "sort - short", "--primary", "accuracy")
    assert "- **Undecided.** `sort - long` minus `sort`: +0 [-1, +1], 2 seeds" in page
    assert "- `sort - short` against `sort` has **no answer**: no two seeds have the metric in both arms." in page
    assert "over all 2 differences, those without an answer included." in page
    page = printed("sort - short", "sort", "sort - long", "--primary", "accuracy")  # no pair has an answer
    assert page.count("has **no answer**: no two seeds have the metric in both arms.") == 2
    assert "- Primary metric: `accuracy`; higher is better." in page
    assert "- Left out, without a finite value of it: sort - short, seed 0; sort - short, seed 1\n" in page
    assert "over all 2 differences, those without an answer included." in page
    assert "Each line asks" not in page
    write_arm(tmp_path / "unlike", [{"steps": 1} for _ in range(2)])
    assert "so there is no answer" in printed("sort - short", "unlike")


def test_few_seeds_only_guess_how_many_would_decide(printed, tmp_path):
    write_arm(tmp_path / "plain", [{"accuracy": 0.61}, {"accuracy": 0.63}])
    write_arm(tmp_path / "weighted", [{"accuracy": 0.66}, {"accuracy": 0.69}])
    page = printed("plain", "weighted", "--primary", "accuracy")
    guess = "2 seeds; a claim takes 8 seeds; as a rough guess from so few seeds, 8 seeds detect it with 80 % power."
    assert guess in page
    assert "Holm's, over one difference." in page
    for arm in ("a", "b"):
        write_arm(tmp_path / arm, draws(np.random.default_rng(ord(arm))))
    assert "; if that is the true difference, " in printed("a", "b", "--primary", "accuracy")


def test_planted_nulls_are_found_at_five_percent(printed, tmp_path, capsys):
    """200 tables of five metrics without an effect: in 5 % any of them is called different, corrected over all."""
    from hf_synth.experiments.statistics import differences

    random, result, corrected = np.random.default_rng(7), 0, 0
    for _ in range(400):
        results = {arm: dict(enumerate(draws(random))) for arm in "ab"}
        each = differences({("b", "a"): results}, NAMES)
        result += sum(one.p < 0.05 for one in each)
        corrected += any(one.corrected < 0.05 for one in each)
    assert 0.035 < result / (400 * len(NAMES)) < 0.065  # 2,000 tests: standard error 0.005
    assert 0.02 < corrected / 400 < 0.08  # standard error 0.011
    for arm, by_seed in results.items():
        write_arm(tmp_path / arm, list(by_seed.values()))
    assert "| **" not in printed("a", "b")


@pytest.mark.parametrize(
    "name", ["{}.json", "run_{}.json", "seed-{}/files/wandb-summary.json", "seed_{}/model/results_2026-01-01T00.json"]
)
def test_files_of_other_tools_are_paired_by_seed(name, printed, tmp_path):
    write_arm(tmp_path / "a", [{"acc": seed / 10} for seed in range(3)], name)
    write_arm(tmp_path / "b", [{"acc": seed / 10 + 0.5, "_runtime": 3, "x": "text"} for seed in range(3)], name)
    assert "| `acc` | `b` minus `a` | 3 | +0.5 [+0.5, +0.5] | 1 | 1 |" in printed("a", "b")


@pytest.mark.parametrize(("name", "pairs"), [("verifier", 6), ("proxy", 3), ("coverage", 4)])
def test_the_records_beside_a_page_say_what_the_page_says(name, pairs, printed):
    """Every verdict of docs/density.md, interactions too, from the metrics of every seed that are kept there."""
    page = (ROOT / "docs" / "density.md").read_text().partition(f"<!-- begin {name} -->")[2].partition("<!-- end")[0]
    config = ROOT / "recipes" / "configs" / "density" / f"testbed_{name}.yaml"
    said = printed(str(ROOT / "docs" / "density" / f"{name}.jsonl"), "--config", str(config))
    verdicts = [line for line in page.splitlines() if line.startswith("- **")]
    assert len(verdicts) == pairs
    assert f"seeds, corrected for {pairs} tests)" in said
    assert [line for line in said.splitlines() if line.startswith("- **")] == [
        line.replace(" in `halves/validity/rare`", "") for line in verdicts
    ]


def test_what_a_config_fixes_is_not_said_again(refused):
    config = str(ROOT / "recipes" / "configs" / "density" / "testbed_coverage.yaml")
    for flag, value in (("primary", "a"), ("better", "lower"), ("smallest_effect", "0.1"), ("against", "uniform")):
        assert f"{flag}: got it beside --config" in refused("a", "b", "--config", config, f"--{flag}", value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            '{"arm": "a", "seed": 0, "metrics": {}}\n' * 2,
            "cannot be read: line 2 is a second one for seed 0 of arm 'a'",
        ),
        ('{"arm": "a", "seed": 0}', "cannot be read: it has no 'metrics'"),
        ("[1]", "cannot be read: line 1: got [1], wanted a mapping"),
        ('{"arm": "a", "seed": 0, "metrics": [1]}', "cannot be read: metrics: got [1], wanted a mapping"),
        ('{"arm": {"b": 1}, "seed": 0, "metrics": {"loss": 1}}', "wanted at least two of different names"),
        ('{"arm": "", "seed": 0, "metrics": {"loss": 1}}\n', "arms: got '', wanted at least two of different names"),
        (
            "".join(
                f'{{"arm": "{arm}", "seed": 0, "metrics": {{"rows/test": {rows}}}}}\n' for arm, rows in ("a9", "b7")
            ),
            "got arms 'a' and 'b' that differ in rows/test too",
        ),
    ],
)
def test_records_that_are_none(lines, message, refused, tmp_path):
    (tmp_path / "records.jsonl").write_text(lines)
    assert message in refused("records.jsonl")


def test_means_over_seeds_and_parts_of_runs_are_no_runs(printed, refused, tmp_path):
    for arm in "ab":
        write_arm(tmp_path / arm, [{"loss": seed} for seed in range(2)])
        (tmp_path / arm / "metrics.json").write_text('{"loss": 0.5, "seeds": 2}')
        write_arm(tmp_path / arm, [{"loss": 9.0}], "seed-{}/warmup/metrics.json")
    write_arm(tmp_path / "shared" / "policy", [{"loss": 9.0}])
    assert "| `loss` | `b` minus `a` | 2 | +0 [+0, +0] |" in printed(str(tmp_path))
    assert "smallest_effect: got nan, wanted a number above 0" in refused("a", "b", "--smallest_effect", "nan")


def test_runs_of_wandb_are_paired_by_the_seed_of_their_config(printed, tmp_path):
    for arm in "ab":
        for seed, name in enumerate(
            ("run-2026-x7k", "run-2026-q2w") if arm == "a" else ("run-2026-zz1", "run-2026-ab0")
        ):
            folder = tmp_path / arm / name / "files"
            folder.mkdir(parents=True)
            (folder / "wandb-summary.json").write_text(
                json.dumps({"loss": seed + (arm == "b"), "_wandb": {"runtime": 1}})
            )
            config = {"seed": {"value": seed}, "_wandb": {"value": {"x": name}}, "wandb_version": 1}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "| `loss` | `b` minus `a` | 2 | +1 [+1, +1] |" in printed("a", "b")


def test_results_of_lm_eval_and_of_the_hub(printed, refused, tmp_path):
    for arm, model in (("a", "small"), ("b", "large")):
        results = [
            {"results": {"arc": {"acc,none": 0.25 + (model == "large") / 4, "acc_stderr,none": 0.1, "alias": "arc"}},
             "config": {"model": model}, "date": 17.0} for _ in range(2)
        ]  # fmt: skip
        write_arm(tmp_path / arm, results, "seed-{}/results_x.json")
    assert "differ in config/model too (config/model: 'small' and 'large')" in refused("a", "b")
    text = printed("a", "b", "--varied", "config/model")
    assert "| `arc/acc,none` | `b` minus `a` | 2 | +0.25 [+0.25, +0.25] |" in text
    assert "stderr" not in text
    assert "date" not in text
    for arm, value in (("c", 1.0), ("d", 2.0)):
        for seed in range(2):
            path = tmp_path / arm / f"seed-{seed}" / ".eval_results" / "gsm8k.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(yaml.safe_dump([{"dataset": {"id": "openai/gsm8k", "task_id": "main"}, "value": value}]))
    assert "| `openai/gsm8k/main` | `d` minus `c` | 2 | +1 [+1, +1] |" in printed("c", "d")


def test_unequal_arms_are_refused(refused, printed, tmp_path):
    random = np.random.default_rng(1)
    write_arm(tmp_path / "a", draws(random, 3), learning_rate=0.1, task="sort")
    write_arm(tmp_path / "b", draws(random, 3), learning_rate=0.2, task="set")
    write_arm(tmp_path / "c", draws(random, 2), learning_rate=0.1, task="sort")
    assert "differ in learning_rate, task too" in refused("a", "b")
    assert "differ in task too" in refused("a", "b", "--varied", "learning_rate")
    assert "3 seeds" in printed("a", "b", "--varied", "learning_rate", "task")
    assert "got arm 'c' without seed 2, which another has" in refused("a", "c")
    assert "2 seeds" in printed("a", "c", "--common_seeds")
    for arm, rows in (("d", 10), ("e", 20)):
        write_arm(tmp_path / arm, [{"loss": 1.0, "rows/test": rows}] * 2)
    assert "differ in rows/test too" in refused("d", "e")


def test_files_that_are_none_and_seeds_twice(refused, printed, tmp_path):
    write_arm(tmp_path / "a", [{"loss": 1.0, "score": float("nan")}, {"loss": 2.0, "score": 1.0}])
    write_arm(tmp_path / "b", [{"loss": 1.0}, {"loss": 2.0}])
    assert "`loss`" in printed("a", "b")  # NaN is missing, and ends nothing
    assert "primary: got 'los', which no run has; the nearest of 2 known: loss" in refused(
        "a", "b", "--primary", "los"
    )
    assert "wanted at least two of different names" in refused("a")
    assert "arms: got none, wanted at least two of different names" in refused("a/seed-0")
    assert "'none', which has no file of numbers; wanted one per seed" in refused("a", "none")
    assert "none: No such file or directory" in refused("none")
    (tmp_path / "empty").mkdir()
    assert "which has no file of numbers" in refused("a", "empty")
    (tmp_path / "b" / "seed-1" / "metrics.json").write_text('{"loss": ')
    assert "seed-1/metrics.json: got no valid file of numbers" in refused("a", "b")
    (tmp_path / "b" / "seed-1" / "metrics.json").write_text("[1]")
    (tmp_path / "b" / "again" / "seed-0").mkdir(parents=True)
    (tmp_path / "b" / "again" / "seed-0" / "metrics.json").write_text("{}")
    assert "got two files for seed 0 of one arm" in refused("a", "b")


def write_records(path, **arms):
    """One line of records for each number of an arm: a mapping, or a value of `accuracy`."""
    lines = [
        {"arm": arm, "seed": seed, "metrics": value if isinstance(value, dict) else {"accuracy": value}}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


def test_percentages_are_no_fractions(printed, tmp_path):
    """Student's interval of a difference of points does not end at 1."""
    changes = [6, -4, 5, -3, 7, -5, 4, -4]
    path = write_records(tmp_path / "a.jsonl", a=[70.0] * 8, b=[70.0 + change for change in changes])
    said = printed(path, "--primary", "accuracy", "--smallest_effect", "1.5")
    assert "**Undecided.** `b` minus `a`: +0.75 [-3.58, +5.08]" in said
    path = write_records(tmp_path / "b.jsonl", a=[0.1, 0.2], b=[1.0, 0.2])
    assert "+0.45 [-1, +1]" in printed(path, "--primary", "accuracy")


@pytest.mark.parametrize("name", ["val/Loss", "Excess", "valLoss", "LOSS", "eval_loss"])
def test_lower_is_better_in_a_loss_however_it_is_written(name, printed, tmp_path):
    runs = {arm: [{name: value + seed / 10} for seed in range(8)] for arm, value in (("a", 2.0), ("b", 2.5))}
    said = printed(write_records(tmp_path / "a.jsonl", **runs), "--primary", name)
    assert "lower is better" in said
    assert "**Not supported.** `b` minus `a`" in said


@pytest.mark.parametrize("name", ["steps_to_goal", "parameters_touched", "perplexity_low"])
def test_a_metric_that_is_asked_for_by_name_is_compared(name, printed, refused, tmp_path):
    path = write_records(tmp_path / "a.jsonl", a=[{name: 1.0}, {name: 2.0}], b=[{name: 3.0}, {name: 4.0}])
    assert "`b` minus `a`: +2 [+2, +2]" in printed(path, "--primary", name)
    if name.endswith("_low"):  # without a name, bounds of intervals are no metrics
        assert "primary: got '', which no run has; the nearest of 1 known" in refused(path)


def test_few_seeds_have_no_minimum_detectable_effect(printed, tmp_path):
    path = write_records(tmp_path / "a.jsonl", a=[0.25, 0.35, 0.45], b=[0.5, 0.6, 0.7])
    said = printed(path, "--primary", "accuracy")
    assert "detectable" not in said
    assert "+0.25 [+0.25, +0.25], 3 seeds; a claim takes 8 seeds; as a rough guess from so few seeds, 8 seeds" in said


def test_seeds_without_a_value_are_named(printed, tmp_path):
    values = [{"accuracy": seed / 10} for seed in range(10)]
    broken = [{"accuracy": float("nan")} if seed in (3, 4) else values[seed] for seed in range(10)]
    said = printed(write_records(tmp_path / "a.jsonl", a=values, b=broken), "--primary", "accuracy")
    assert "- Left out, without a finite value of it: b, seed 3; b, seed 4\n" in said
    assert "(80 % power, 8 seeds)" in said


def test_arms_of_the_config_without_records_are_an_error(refused, tmp_path):
    path = write_records(tmp_path / "a.jsonl", uniform=[0.1, 0.2], other=[0.3, 0.4])
    config = str(ROOT / "recipes" / "configs" / "density" / "testbed_proxy.yaml")
    assert "against: got arm 'density-1'; Known: other, uniform" in refused(path, "--config", config)
    assert "against: got arm 'unifor'; did you mean 'uniform'" in refused(path, "--against", "unifor")


def test_arms_may_differ_in_what_their_config_varies(printed, refused, tmp_path):
    for arm, strength in (("plain", 0), ("weighted", 1)):
        write_arm(
            tmp_path / arm, [{"validity/tail": seed / 10 + strength} for seed in range(2)], strength=strength, lr=1
        )
    config = {"arms": {"plain": {"strength": 0}, "weighted": {"strength": 1}}, "task": "sort"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    assert "`weighted` minus `plain`: +1" in printed("plain", "weighted", "--config", "my.yaml")
    write_arm(tmp_path / "weighted", [{"validity/tail": 1.0}] * 2, strength=1, lr=2)
    assert "that differ in lr too" in refused("plain", "weighted", "--config", "my.yaml")
