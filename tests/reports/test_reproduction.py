"""The page of published results: from records alone, complete, and honest about few seeds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hf_synth.metrics.intervals import mean_interval, paired_interval
from hf_synth.reports.reproduction.page import STUDIES, study_config, write_page
from hf_synth.reports.reproduction.records import Record, add_record, read_records, record_of, run_key
from hf_synth.reports.reproduction.words import over_units, share_over_units, standing

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs" / "replicate"
TYPES = ("id_atomic", "id_compositional", "near_ood_compositional", "id_analogical", "ood_analogical")


def config_of(study):
    return study_config(CONFIGS, study)


def made_up(study, arm, seed):
    """A record with every number that the study's section reads, drawn from (arm, seed)."""
    rng = np.random.default_rng([seed, *arm.encode()])
    names = ["loss/test", "accuracy/test", "row_accuracy/test", "excess/test", "language/validity", "language/auroc"]
    names += ["language/perplexity/ratio", "language/auroc/same_length", "language/completion"]
    metrics = {name: float(rng.uniform(0.3, 0.9)) for name in names}
    metrics |= {"floor/test": 0.5, "steps": 40.0, "rows/trained": 200.0}
    steps = [10, 20, 40]
    dynamics = {"step": steps, "validation_accuracy": [step / 40 for step in steps]}
    dynamics["validation_excess"] = [1 / step for step in steps]
    names = [f"validation_accuracy/{kind}" for kind in TYPES]
    names += [f"geometry/{name}" for name in ("dirichlet_energy", "parallelogram", "isometry")]
    dynamics |= {name: rng.uniform(size=3).tolist() for name in names}
    return Record(arm, seed, run_key(config_of(study), arm, seed), metrics, dynamics)


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
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*STUDIES, "warmups"}
    assert all(f"## {study.title}" in page for study in STUDIES.values())
    assert "Not run yet" not in page
    pictures = [line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(pictures) >= len(STUDIES)
    assert all((docs / picture).stat().st_size > 1000 for picture in pictures)


def test_few_seeds_are_no_claim(docs):
    page = (docs / "reproduction.md").read_text()
    assert page.count("that a claim takes: this says that it ran, and no more") >= len(STUDIES) - 1
    assert "intervals are 95 % over" not in page
    assert "8 seeds; intervals are 95 % over seeds" in standing(8)


def test_numbers_of_the_table_are_those_of_the_records(docs):
    records = {(r.arm, r.seed): r for r in read_records(docs / "reproduction" / "hyperdata.jsonl")}
    page = (docs / "reproduction.md").read_text().split("## Hyperdata")[1]
    arms = {arm: [records[arm, seed].metrics["language/validity"] for seed in (0, 1)] for arm, _ in records}
    for arm, values in arms.items():
        found = mean_interval(values)
        assert f"| {arm} | {found.mean:.3f} [{max(0, found.low):.3f}, {min(1, found.high):.3f}] |" in page
    gain = paired_interval(arms["explanations-10"], arms["examples"])
    assert f"| explanations-10 | {gain.mean:.3f} [{gain.low:.3f}, {gain.high:.3f}] |" in page


def test_a_record_of_another_config_does_not_count(tmp_path):
    record = made_up("rlm_l3", "", 0)
    add_record(tmp_path / "reproduction" / "rlm_l3.jsonl", dataclasses.replace(record, key="0" * 16))
    assert "Not run yet." in write_page(tmp_path, CONFIGS).read_text().split("## RLM: depth 3")[1].split("##")[0]


def test_a_graph_whose_rows_had_none_of_a_fact_type(tmp_path):
    whole, partial = (made_up("analogy_e60", "decay-0", seed) for seed in (0, 1))
    del partial.dynamics["validation_accuracy/id_analogical"]
    for record in (partial, whole):
        add_record(tmp_path / "reproduction" / "analogy_e60.jsonl", record)
    page = write_page(tmp_path, CONFIGS).read_text()
    ends = [run.dynamics[f"validation_accuracy/{kind}"][-1:] for kind in TYPES for run in (whole, partial)
            if f"validation_accuracy/{kind}" in run.dynamics]  # fmt: skip
    assert len(ends) == 9
    assert f"| {share_over_units(ends[6])} |" in page, "the mean over the graph that has it"


def test_a_run_counts_once_and_runs_on_other_text_not_at_all(tmp_path):
    path = tmp_path / "reproduction" / "hyperdata.jsonl"
    for text, seed in [("a", 0), ("a", 1), ("b", 2), ("b", 2), ("b", 3)]:
        add_record(path, dataclasses.replace(made_up("hyperdata", "examples", seed), text=text))
    assert len(read_records(path)) == 4
    page = write_page(tmp_path, CONFIGS).read_text()
    assert "2 of the 8 seeds that a claim takes" in page
    assert "2 of 32 runs are recorded." in page


def test_a_key_is_of_what_a_result_depends_on():
    config = {"max_steps": 3, "arms": {"a": {"lr": 1}, "b": {"lr": 2}}, "seeds": [0], "output_dir": "x"}
    key = run_key(config, "a", 0)
    assert key == run_key({**config, "seeds": [0, 1], "output_dir": "y", "arms": {"a": {"lr": 1}}}, "a", 0)
    others = [run_key(config, "b", 0), run_key(config, "a", 1), run_key({**config, "max_steps": 4}, "a", 0)]
    assert len({key, *others}) == 4


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
    assert [found.seed for found in read_records(path)] == [0, 1]


def test_words_of_intervals():
    assert over_units([0.5]) == "0.500"
    assert over_units([0.0, 1.0], 1) == "0.5 [-5.9, 6.9]"
    assert share_over_units([0.0, 1.0]) == "0.50 [0.00, 1.00]"
    assert share_over_units([0.5]) == "0.50"
