"""The page of published results: from records alone, complete, and honest about few seeds."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from replication import procedural
from replication.claims import (
    Claim,
    claims_table,
    compared_claim,
    mean_claim,
    over_units,
    sample_size_note,
    seed_by_seed,
    share_claim,
    share_over_units,
    verdicts,
)
from replication.page import STUDIES, study_config, write_page
from replication.records import Record, add_record, read_records, record_of, run_key
from replication.rlm import transition_section
from scipy import stats

from hf_synth.metrics.intervals import Interval, mean_interval, paired_interval
from hf_synth.tasks import get_task
from hf_synth.tasks.base import EOS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
_GEOMETRY = ("dirichlet_energy", "parallelogram", "isometry", "translation_consistency", "separation")
TYPES = ("id_atomic", "id_compositional", "near_ood_compositional", "id_analogical", "ood_analogical")


def config_of(study):
    return study_config(CONFIGS, study)


def made_up(study, arm, seed):
    """A record with every number that the study's section reads, drawn from (arm, seed)."""
    rng = np.random.default_rng([seed, *arm.encode()])
    names = ["loss/test", "accuracy/test", "row_accuracy/test", "excess/test", "language/validity", "language/auroc"]
    names += ["language/perplexity/ratio", "language/auroc/same_length", "language/completion"]
    names += ["all_right/validation/ood_analogical"]
    metrics = {name: float(rng.uniform(0.3, 0.9)) for name in names}
    metrics |= {"floor/test": 0.5, "steps": 40.0, "rows/trained": 200.0, "rows/test": 50.0}
    steps = [10, 20, 40]
    dynamics = {"step": steps, "validation_accuracy": [step / 40 for step in steps]}
    dynamics["validation_excess"] = [1 / step for step in steps]
    names = [f"validation_accuracy/{kind}" for kind in TYPES]
    names += [f"geometry/{name}" for name in _GEOMETRY]
    dynamics |= {name: rng.uniform(size=3).tolist() for name in names}
    counted = {name: float(rng.uniform(0.5, 1)) for name in ("unigram", "bigram", "trigram")}
    return Record(arm, seed, run_key(config_of(study), arm, seed), metrics, dynamics, counted=counted)


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    """A page of all studies, each with two seeds of every arm."""
    folder = tmp_path_factory.mktemp("docs")
    for study in STUDIES:
        for arm in config_of(study).get("arms") or [""]:
            for seed in config_of(study)["seeds"][:2]:
                add_record(folder / "reproduction" / f"{study}.jsonl", made_up(study, arm, seed))
    write_page(folder, CONFIGS)
    return folder


def test_every_study_has_a_config_and_a_section(docs):
    page = (docs / "reproduction.md").read_text()
    named = {config for study in STUDIES.values() for config in (study.config, study.first) if config}
    assert {f"{path.parent.name}/{path.name}" for path in CONFIGS.glob("*/replicate*.yaml")} == named
    assert all(f"## {study.title}" in page for study in STUDIES.values())
    assert "Not run yet" not in page
    pictures = [line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(pictures) >= len(STUDIES)
    assert all((docs / picture).stat().st_size > 1000 for picture in pictures)


def test_the_page_says_first_which_studies_have_the_published_setting(docs, tmp_path):
    said, place = "- Studies in the published setting: ", "RLM: depth 1, published loss and entropies"
    assert f"{said}1 of 8 ({place}). Verdicts on their" in (docs / "reproduction.md").read_text()
    assert (
        f"{said}0 of 8 (none). Verdicts on their published claims: none.\n"
        in write_page(tmp_path, CONFIGS).read_text()
    )


def test_grammars_are_paired_across_betas(tmp_path):
    """Claims of the study of frozen grammars, against differences by hand."""
    study, config = "rlm_transition", config_of("rlm_transition")
    records = [made_up(study, arm, seed) for arm in config["arms"] for seed in range(3)]
    (claims,) = (part for part in transition_section(records, config, tmp_path) if not isinstance(part, str))
    known = {(record.arm, record.seed): record for record in records}
    excess = {arm: np.array([known[arm, seed].metrics["excess/test"] for seed in range(3)]) for arm in config["arms"]}
    counted = [min(known["depth-3_beta-2", seed].counted.values()) for seed in range(3)]
    losses = 0.5 + excess["depth-3_beta-2"]  # the floor is 0.5
    assert claims[2].interval == pytest.approx(mean_interval(excess["depth-3_beta-2"] - excess["depth-3_beta-0.5"]))
    assert claims[3].interval == pytest.approx(mean_interval(counted - losses))


def test_few_seeds_are_no_claim(docs):
    page = (docs / "reproduction.md").read_text()
    assert page.count("of the 8 that a claim takes. Intervals, from 3 on, are over ") >= len(STUDIES) - 1
    assert "intervals are 95 % over" not in page
    summary = page.split("\n## RLM: depth 1")[0]
    assert "too few runs |" not in summary, "claims with too few runs are in their sections alone"
    assert "- Too few runs: fewer than the 8 units" in summary
    assert "2 seeds, of the 8 that a claim takes." in sample_size_note([2, 2])
    assert "2 to 9 seeds, of the 8 that a claim takes." in sample_size_note([9, 2])
    assert "8 to 9 seeds; intervals are 95 % over seeds" in sample_size_note([8, 9])


def test_numbers_of_the_table_are_those_of_the_records(docs):
    records = {(r.arm, r.seed): r for r in read_records(docs / "reproduction" / "hyperdata.jsonl")}
    page = (docs / "reproduction.md").read_text().split("## Hyperdata")[1]
    arms = {arm: [records[arm, seed].metrics["language/validity"] for seed in (0, 1)] for arm, _ in records}
    for arm, values in arms.items():
        assert f"| {arm} | {np.mean(values):.3f} |" in page
    gain = paired_interval(arms["explanations-10"], arms["examples"])
    assert f"| explanations-10 | {gain.mean:.3f} |" in page


def test_numbers_of_three_seeds_have_their_intervals(tmp_path):
    arms = {arm: [made_up("hyperdata", arm, seed) for seed in range(3)] for arm in ("examples", "explanations-10")}
    for record in (record for records in arms.values() for record in records):
        add_record(tmp_path / "reproduction" / "hyperdata.jsonl", record)
    page = write_page(tmp_path, CONFIGS).read_text()
    values = {arm: [record.metrics["language/validity"] for record in records] for arm, records in arms.items()}
    for arm, of_arm in values.items():
        result = mean_interval(of_arm)
        assert f"| {arm} | {result.mean:.3f} [{max(0, result.low):.3f}, {min(1, result.high):.3f}] |" in page
    gain = paired_interval(values["explanations-10"], values["examples"])
    assert f"| explanations-10 | {gain.mean:.3f} [{gain.low:.3f}, {gain.high:.3f}] |" in page


def test_a_record_of_another_config_does_not_count(tmp_path):
    record = made_up("rlm_l3", "", 0)
    add_record(tmp_path / "reproduction" / "rlm_l3.jsonl", dataclasses.replace(record, key="0" * 16))
    assert "Not run yet." in write_page(tmp_path, CONFIGS).read_text().split("## RLM: depth 3")[1].split("##")[0]


def test_a_graph_whose_rows_had_no_held_out_analogy_is_left_out_of_its_arm(tmp_path):
    whole, partial = (made_up("transience", "decay", seed) for seed in (0, 1))
    del partial.dynamics["validation_accuracy/ood_analogical"]
    for record in (partial, whole):
        add_record(tmp_path / "reproduction" / "transience.jsonl", record)
    page = write_page(tmp_path, CONFIGS).read_text()
    curve = whole.dynamics["validation_accuracy/ood_analogical"]
    assert f"| decay | 2 | 0.00 | {np.mean(curve):.2f} | {curve[-1]:.2f} | 0 of 2, at the end 0 | 0 of 2 " in page
    assert "with `decay` 0 of 2, at the end 0" in page


def test_published_claims_about_analogies_are_of_the_arm_with_the_published_values(tmp_path):
    """Three graphs by hand: learned and lost in the published order, learned and kept, never learned."""
    config = config_of("transience")
    records = [made_up("transience", arm, seed) for arm in ("base", "decay") for seed in range(3)]
    for record, held_out in zip(records, [[0, 1, 0.5], [0, 0, 1], [0, 0.5, 0.5]], strict=False):
        curves = {f"validation_accuracy/{kind}": [1, 1, 1] for kind in TYPES}
        curves |= {"validation_accuracy/ood_analogical": held_out, "geometry/dirichlet_energy": [2, 1, 3]}
        record.dynamics.update(curves)
    parts = STUDIES["transience"].section(records, config, tmp_path)
    claims = {claim.claim: claim.interval.mean for part in parts if isinstance(part, list) for claim in part}
    assert claims["first memorise, then compose, then analogise"] == pytest.approx(2 / 3)
    assert claims["all held-out analogies are right at some evaluation"] == pytest.approx(2 / 3)
    assert claims["and are lost again by the end"] == pytest.approx(1 / 2)
    assert claims["the Dirichlet energy falls"] == -1
    row = "| base | 10 (3 of 3) | 10 (3 of 3) | 10 (3 of 3) | 30 (2 of 3) | 2 of 3 "
    assert any(row in part for part in parts if isinstance(part, str))


def test_a_run_counts_once_and_runs_on_other_text_not_at_all(tmp_path):
    path = tmp_path / "reproduction" / "hyperdata.jsonl"
    for text, seed in [("a", 0), ("a", 1), ("b", 2), ("b", 2), ("b", 3)]:
        add_record(path, dataclasses.replace(made_up("hyperdata", "examples", seed), text=text))
    assert len(read_records(path)) == 4
    page = write_page(tmp_path, CONFIGS).read_text()
    assert "2 seeds, of the 8 that a claim takes." in page
    assert "2 of 32 runs are recorded." in page


def test_a_key_is_of_what_a_result_depends_on():
    config = {"max_steps": 3, "arms": {"a": {"lr": 1}, "b": {"lr": 2}}, "seeds": [0], "output_dir": "x"}
    key = run_key(config, "a", 0)
    assert key == run_key({**config, "seeds": [0, 1], "output_dir": "y", "arms": {"a": {"lr": 1}}}, "a", 0)
    others = [run_key(config, "b", 0), run_key(config, "a", 1), run_key({**config, "max_steps": 4}, "a", 0)]
    assert len({key, *others}) == 4


def test_runs_count_whatever_their_arm_was_called_then(tmp_path):
    for seed in range(3):
        record = dataclasses.replace(made_up("transience", "base", seed), arm="published")
        add_record(tmp_path / "reproduction" / "transience.jsonl", record)
    page = write_page(tmp_path, CONFIGS).read_text()
    assert "3 of 208 runs are recorded." in page
    assert "| base | 3 | 0.00" in page


def test_records_come_back_as_they_were(tmp_path):
    table = "step,learning_rate,train_loss,geometry/isometry\n10,0.1,2.123456789,\n20,0.1,,0.5\n"
    (tmp_path / "dynamics.csv").write_text(table)
    metrics = {"loss/test": 1.23456789, "floor/test": 0.0, "seconds/total": 9.0, "large": 123456789.0}
    record = record_of(tmp_path, "arm", 3, "key", metrics)
    assert record.metrics == {"loss/test": 1.23457, "floor/test": 0.0, "large": 123457000.0}
    columns = {"step": [10, 20], "train_loss": [2.12346, None], "geometry/isometry": [None, 0.5]}
    assert record.dynamics == columns
    assert record.curve("train_loss") == ([10], [2.12346])
    assert record.curve("validation_loss") == ([], [])
    add_record(tmp_path / "new" / "study.jsonl", record)
    assert read_records(tmp_path / "new" / "study.jsonl") == [record]
    assert read_records(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "study.jsonl"
    record = made_up("rlm_l3", "", 0)
    add_record(path, record)
    with path.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(record))[:50])
    assert read_records(path) == [record]
    add_record(path, made_up("rlm_l3", "", 1))
    assert [result.seed for result in read_records(path)] == [0, 1]


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "study.jsonl"
    add_record(path, made_up("rlm_l3", "", 0))
    for broken in (b'{"arm": "a"', b'{"arm": "a"}', b"[1]", b"\xff\xfe"):
        path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + broken + b"\n")
        with pytest.raises(ValueError, match=r"study\.jsonl:2: got a line that is no record of a run"):
            read_records(path)


def a_claim(low, high, units=8, p=0.01, bar=0.0, **more):
    return Claim("a", "b", Interval((low + high) / 2 + bar, low + bar, high + bar), units, p, bar, **more)


@pytest.mark.parametrize("bar", [0.0, 0.5])
@pytest.mark.parametrize(
    ("low", "high", "units", "p", "word"),
    [
        (0.1, 0.9, 8, 0.01, "reproduced"),
        (-0.9, -0.1, 8, 0.01, "not reproduced"),
        (-0.1, 1.1, 8, 0.2, "undecided"),
        (0.0, 0.0, 8, 1.0, "undecided"),
        (0.1, 0.9, 7, 0.01, "too few runs"),
        (np.nan, np.nan, 0, 1.0, "too few runs"),
    ],
)
def test_what_an_interval_says_of_a_claim(low, high, units, p, word, bar):
    [(answer, corrected)] = verdicts([a_claim(low, high, units, p, bar)])
    assert answer == word
    assert corrected == (p if units >= 8 else pytest.approx(np.nan, nan_ok=True))
    [(answer, corrected)] = verdicts([a_claim(low, high, units, p, bar, without="not the published setting")])
    assert answer == "not the published setting"
    assert np.isnan(corrected)
    assert claims_table([a_claim(low, high)], [(word, 0.012)]).endswith(f" | 0.012 | {word} |")
    assert claims_table([a_claim(low, high)], [(word, np.nan)]).endswith(f" | - | {word} |")


def test_p_values_are_corrected_over_all_claims_of_the_page():
    strong, weak = a_claim(0.1, 0.9, p=0.001), a_claim(0.1, 0.9, p=0.03)
    assert verdicts([strong, weak]) == [("reproduced", 0.002), ("reproduced", 0.03)]
    assert verdicts([strong, weak, weak]) == [("reproduced", 0.003), ("undecided", 0.06), ("undecided", 0.06)]
    untested = a_claim(0.1, 0.9, p=0.5, without="not the published setting")
    assert verdicts([strong, weak, untested])[:2] == [("reproduced", 0.002), ("reproduced", 0.03)]
    few = a_claim(0.1, 0.9, p=0.5, units=2)
    assert verdicts([strong, weak, few])[:2] == [("reproduced", 0.003), ("undecided", 0.06)], "it counts with p = 1"
    own = dataclasses.replace(strong, own=True)
    assert verdicts([own]) == [("supported", 0.001)]


def test_a_claim_with_a_minimum_effect_wants_one_as_large():
    small = dataclasses.replace(a_claim(0.01, 0.04, p=0.001), bar=0.0, own=True)
    assert verdicts([small]) == [("supported", 0.001)]
    assert verdicts([dataclasses.replace(small, smallest_effect=0.05)]) == [("not supported", 0.001)]
    assert verdicts([dataclasses.replace(small, smallest_effect=0.03)]) == [("supported", 0.001)]


@pytest.mark.parametrize(("study", "claims"), [("transience", 5), ("transience_e30", 1)])
def test_claims_have_the_minimum_effect_that_their_config_says(study, claims, tmp_path):
    text = (CONFIGS / STUDIES[study].config).read_text()
    [effect] = re.findall(r"and (0\.\d+) is the smallest effect that matters", text)
    config = config_of(study)
    records = [made_up(study, arm, seed) for arm in config["arms"] for seed in (0, 1)]
    own = [claim for part in STUDIES[study].section(records, config, tmp_path) if isinstance(part, list)
           for claim in part if claim.own]  # fmt: skip
    assert [claim.smallest_effect for claim in own] == [float(effect)] * claims
    assert all(claim.measured.endswith(f"; minimum effect {effect}") for claim in own)


def test_the_study_of_thirty_entities_has_four_held_out_facts_in_each_graph():
    """As its title says; three tenths of the fifteen facts of the functor."""
    config = config_of("transience_e30")
    assert "four held-out facts a graph" in STUDIES["transience_e30"].title
    for seed in config["seeds"]:
        task = get_task("analogy", "e10", **{**config["task_args"], "graph_seed": seed})
        kinds = task.rows(0, task.size("validation"), split="validation").columns["fact_type"].tolist()
        assert kinds.count("ood_analogical") == 4


def test_claims_from_values_and_from_counts():
    values = [0.4, 0.6, 0.7, 0.5, 0.8, 0.6, 0.7, 0.9]
    result = mean_claim("a", "b", values, bar=0.5)
    assert result.interval == mean_interval(values)
    assert result.p == pytest.approx(stats.ttest_1samp(values, 0.5).pvalue)
    assert share_claim("a", "b", 8, 8).p == pytest.approx(2 * 0.5**8)
    assert mean_claim("a", "b", []).units == 0


def test_claims_in_another_setting_get_no_verdict(docs):
    page = (docs / "reproduction.md").read_text()
    for study in STUDIES.values():
        section = page.split(f"## {study.title}\n")[1].split("\n## ")[0]
        assert ("This is not the published setting:" in section) is bool(study.settings)
        if study.settings:
            assert "reproduced |" not in section
            assert section.count("| not the published setting |") >= 3
            assert all(f"| {what} | {published} |" in section for what, published, _ in study.settings)


def test_a_number_of_one_unit_is_compared_with_what_one_unit_may_be():
    """2.2 is no mean of such ten numbers, but one of them may well be 2.2."""
    values = np.linspace(1, 2, 10)
    wide = compared_claim("a", "b", values, 2.5, single=True)
    low, high = stats.t.interval(0.95, 9, 1.5, np.std(values, ddof=1) * np.sqrt(1 + 1 / 10))
    assert wide.interval == pytest.approx((1.5, low, high))
    assert [wide.without, compared_claim("a", "b", values, 2.5).without] == ["does not agree", "does not agree"]
    assert compared_claim("a", "b", values, 2.2, single=True).without == "agrees"
    assert compared_claim("a", "b", values, 2.2).without == "does not agree"
    assert compared_claim("a", "b", values[:7], 1.5).without == "too few runs"


def test_what_nothing_tells_is_the_worse_of_its_pair(tmp_path):
    config = config_of("transience")
    records = [made_up("transience", arm, seed) for arm in ("base", "control", "decay") for seed in range(3)]
    parts = STUDIES["transience"].section(records, config, tmp_path)
    claims = {claim.claim for part in parts if isinstance(part, list) for claim in part if claim.own}
    assert claims == {"`base` has all right more often than `control`", "`decay` has all right more often than `base`"}
    assert any("was fixed after the runs; the test has two sides." in part for part in parts if isinstance(part, str))


def test_differences_are_of_the_seeds_that_both_have():
    assert seed_by_seed({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 2.0, 7: 0.0}) == [2.0, 3.0]
    assert seed_by_seed({0: 1.0}, {1: 1.0}) == []
    assert over_units([0.5]) == "0.500"


def test_what_was_learned_is_said_in_one_sentence():
    def run(seed, floor, *accuracies):
        dynamics = {"step": [10 * n for n in range(1, 4)], "validation_accuracy": list(accuracies)}
        return Record("", seed, "", {"floor/test": floor, "excess/test": 0.1 * floor}, dynamics)

    arms = {
        "always": [run(0, 0.0, 0.96, 0.97, 0.98), run(1, 0.0, 0.5, 0.95, 0.9)],
        "once": [run(0, 0.0, 0.96, 0.97, 0.98), run(1, 0.0, 0.5, 0.94, 0.9)],
        "chance": [run(0, 2.0, 0.96, 0.97, 0.98)],
    }
    result = procedural._reached(arms).split("; ")
    assert (
        result[0]
        == "Learned to a token accuracy of 0.95 on every seed: 1 of 2 tasks with one right answer, by step 20"
    )
    assert result[1] == "chance ends 10.0 % above its floor."


# What a token accuracy with the end token counted says of the others


@pytest.fixture(scope="module")
def addition():
    """The target as the page makes it, and the words of its training and test rows."""
    config = {"arms": {"addition-nothing": {"task": "addition", "preset": "3"}}, "max_steps": 30,
              "per_device_train_batch_size": 10, "test_rows": 200}  # fmt: skip
    task = get_task("addition", "3")
    train, test = (
        [row[start:stop].tolist() for row, start, stop in zip(r.tokens, r.loss_start, r.loss_stop, strict=True)]
        for r in (task.rows(0, 300), task.rows(0, 200, split="test"))
    )
    assert {len(answer) for answer in test} == {4, 5}, "with and without a carry into a new place"
    return procedural._target("addition", config, {}), train, test


def test_the_end_token_is_left_out_of_an_accuracy(addition):
    target, _, test = addition
    rng = np.random.default_rng(0)
    hits = [[bool(rng.random() < 0.6) or token == EOS for token in answer] for answer in test]
    accuracy = sum(map(sum, hits)) / sum(map(len, hits))
    before = [hit for answer, result in zip(test, hits, strict=True)
              for token, hit in zip(answer, result, strict=True) if token != EOS]  # fmt: skip
    assert target.of_result(accuracy) == pytest.approx(100 * np.mean(before))


def test_the_commonest_token_of_each_place(addition):
    target, train, test = addition
    said = [max(range(40), key=lambda token: [a[position] for a in train if position < len(a)].count(token))
            for position in range(5)]  # fmt: skip
    hits = [token == said[position] for answer in test for position, token in enumerate(answer) if token != EOS]
    assert target.constant == pytest.approx(100 * np.mean(hits))
    assert 10 < target.constant < 40


def test_the_share_of_test_rows_that_training_had(addition):
    task = get_task("addition", "3")
    train, test = ({tuple(row) for row in task.rows(0, n, split=split).tokens.tolist()}
                   for n, split in ((300, "train"), (200, "test")))  # fmt: skip
    assert addition[0].seen == pytest.approx(100 * len(train & test) / 200, abs=0.5)


def test_words_of_intervals():
    assert over_units([0.5]) == "0.500"
    assert over_units([0.0, 1.0], 1) == "0.5", "an interval of two would be thirteen times their distance"
    assert over_units([0.0, 1.0, 2.0], 1) == "1.0 [-1.5, 3.5]"
    assert share_over_units([0.0, 1.0]) == "0.50"
    assert share_over_units([0.0, 1.0, 0.5]) == "0.50 [0.00, 1.00]"
    assert share_over_units([0.5]) == "0.50"
