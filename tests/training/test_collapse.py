"""The measures of a table of samples: planted faults show in their own names, and what is not known is left out."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from hf_synth import get_task
from hf_synth.evaluation.collapse import BLOCK, sample_metrics
from hf_synth.evaluation.held_out import _SCHEMA

CLUSTERS, PROMPTS, SAMPLES = 4, 12, 8
TASKS = {f"language_{number}": get_task("agreement", dialect=number) for number in range(1, CLUSTERS + 1)}
SIZES = {f"language_{number}": 1000 // number for number in range(1, CLUSTERS + 1)}


def written(cluster: int, nouns: list[int], wrong: bool) -> str:
    pairs = [f"d{cluster}n{noun} d{cluster}v{(noun + wrong) % 6}" for noun in nouns]
    return " ".join([*pairs, f"</d{cluster}>"])


def row(rng: np.random.Generator, number: int, prompt: int, sample: int, kinds: int, wrong: float) -> dict:
    text = written(number, rng.integers(0, kinds, 3).tolist(), rng.random() < wrong)
    asked = f"<d{number}>"
    truth = TASKS[f"language_{number}"].verify(asked, text)
    return {
        "prompt_row": prompt,
        "sample": sample,
        "prompt": asked,
        "completion": text,
        "finished": True,
        "tokens": 8,
        "reward": truth + 1,
        "truth": truth,
        "cluster": f"language_{number}",
        "density": 100.0 / number - prompt / 1000,
        "log_prob": rng.normal(-8, 1),
        "reference_log_prob": rng.normal(-9, 1),
        "entropy": 8.0,
        "kl": 1.0,
    }


def made(kinds=6, wrong=None, seed=0) -> pa.Table:
    """Nouns of the first `kinds`; `wrong`: how often a sentence is, by the number of the language."""
    rng = np.random.default_rng(seed)
    rows = [
        row(rng, 1 + prompt // PROMPTS, prompt, sample, kinds, (wrong or {}).get(1 + prompt // PROMPTS, 0.1))
        for prompt in range(CLUSTERS * PROMPTS)
        for sample in range(SAMPLES)
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@pytest.fixture(scope="module")
def good() -> dict[str, float]:
    return sample_metrics(made(), TASKS, cluster_sizes=SIZES)


def without(table: pa.Table, *names: str) -> pa.Table:
    """The table with nothing known in these columns."""
    for name in names:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), pa.nulls(len(table), table.schema.field(name).type))
    return table


def test_every_name_has_a_number_within_its_bounds(good):
    names = {name for name in good if not name.endswith(("/low", "/high"))}
    assert all(good[f"{name}/low"] <= good[name] + 1e-9 for name in names)
    assert all(good[name] <= good[f"{name}/high"] + 1e-9 for name in names)
    ends = ("all", "head", "tail")
    wanted = {f"{name}/{end}" for name in ("validity", "variety", "coverage", "reward", "pass_at_4") for end in ends}
    wanted |= {f"reward/decile_{number}" for number in range(1, 11)}
    wanted |= {f"{name}/language_{number}" for name in ("validity", "coverage") for number in range(1, CLUSTERS + 1)}
    wanted |= {f"{name}/{of}" for name in ("kl", "entropy") for of in ("mean", "token")} | {"finished", "length"}
    alike = ("self_bleu", "self_bleu/tail", "self_bleu/across", "vendi", "vendi/head", "variety", "repetition")
    wanted |= {f"collapse/{name}" for name in (*alike, "distinct_1", "distinct_2", "token_gini", "compression")}
    assert wanted <= names


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("collapse/self_bleu", 1),
        ("collapse/vendi", -1),
        ("collapse/variety", -1),
        ("collapse/distinct_2", -1),
        ("collapse/token_gini", 1),
        ("collapse/compression", 1),
        ("variety/all", -1),
        ("variety/tail", -1),
        ("coverage/all", -1),
        ("coverage/tail", -1),
    ],
)
def test_a_policy_of_one_answer_shows_both_ways(good, name, sign):
    bad = sample_metrics(made(kinds=1), TASKS, cluster_sizes=SIZES)
    first, second = (bad, good) if sign > 0 else (good, bad)
    assert first[f"{name}/low"] > second[f"{name}/high"]
    assert bad["validity/all"] == pytest.approx(good["validity/all"], abs=0.05)


def test_a_lost_tail_shows_in_the_tail_alone(good):
    lost = sample_metrics(made(wrong={4: 0.9}), TASKS, cluster_sizes=SIZES)
    for name in ("validity", "pass_at_2", "variety", "coverage", "reward"):
        assert lost[f"{name}/tail/high"] < good[f"{name}/tail/low"], name
        assert lost[f"{name}/head"] == good[f"{name}/head"]
    assert lost["reward/decile_10/high"] < lost["reward/decile_1/low"]
    assert lost["validity/tail"] == lost["validity/language_4"] < 0.3


def test_without_sizes_head_and_tail_are_halves_by_density():
    result = sample_metrics(made(wrong={3: 0.9, 4: 0.9}), TASKS)
    assert result["validity/head"] > 0.8
    assert result["validity/tail"] < 0.2
    assert "coverage/tail" not in result
    assert "coverage/all" in result


def test_coverage_by_hand():
    """Sentences of one to four pairs of six kinds: 6 + 36 + 216 + 1296; a longer one is right and not counted."""
    table = made().slice(0, 3)
    texts = [written(1, nouns, False) for nouns in ([0, 0, 0], [0, 0, 0], [0, 1, 2, 3, 4])]
    table = table.set_column(3, "completion", [texts]).set_column(7, "truth", [[1.0] * 3])
    assert sample_metrics(table, TASKS)["coverage/language_1"] == 1 / 1554


def test_exact_entropy_and_kl_come_before_those_of_samples(good):
    assert good["entropy/mean"] == 8
    assert good["kl/token"] == 1 / 8
    table = made()
    sampled = sample_metrics(without(table, "entropy", "kl"), TASKS, cluster_sizes=SIZES)
    own, other = (np.array(table[name]) for name in ("log_prob", "reference_log_prob"))
    assert sampled["entropy/mean"] == pytest.approx(-own.mean())
    assert sampled["kl/mean"] == pytest.approx((own - other).mean())
    assert not any("kl" in name for name in sample_metrics(without(table, "kl", "reference_log_prob")))


def test_completions_without_a_reward_are_left_out_and_counted():
    table = made()
    rewards = table["reward"].to_pylist()
    none = table.set_column(table.column_names.index("reward"), "reward", pa.array([None] * 2 + rewards[2:]))
    assert sample_metrics(none, TASKS, cluster_sizes=SIZES) == {
        **sample_metrics(table.slice(2), TASKS, cluster_sizes=SIZES), "completions/unscored": 2.0
    }  # fmt: skip
    # One of them: its prompt alone is left out of what compares the completions of a prompt.
    one = table.set_column(table.column_names.index("reward"), "reward", pa.array([None, *rewards[1:]]))
    whole = sample_metrics(table.slice(SAMPLES), TASKS, cluster_sizes=SIZES)
    measured = sample_metrics(one, TASKS, cluster_sizes=SIZES)
    for name in ("collapse/vendi", "collapse/variety", "collapse/self_bleu", "variety/all", f"pass_at_{SAMPLES}/all"):
        assert measured[name] == whole[name]
    assert measured["completions/unscored"] == 1
    nothing = table.set_column(table.column_names.index("reward"), "reward", pa.nulls(len(table), pa.float64()))
    assert sample_metrics(nothing, TASKS) == {"completions/unscored": float(len(table))}


def test_natural_text_has_a_style_and_no_validity():
    table = without(made(), "truth")
    warm = [f"Hey, that's great! I love it \u2014 {text}" for text in table["completion"].to_pylist()]
    result = sample_metrics(table.set_column(3, "completion", [warm]))
    assert result["collapse/em_dash"] > 0
    assert result["collapse/not_just"] == 0
    assert "collapse/tone_spread" in result
    assert "reward/tail" in result
    assert not any(name.startswith(("validity", "pass_at", "coverage", "variety")) for name in result)
    assert not any("em_dash" in name for name in sample_metrics(made(), TASKS))


def test_tone_without_clusters_is_compared_between_prompts():
    table = without(made(), "truth", "cluster")
    prompts = np.array(table["prompt_row"])
    follows = ["therefore it was wrong" if prompt % 2 else "hey that's great !" for prompt in prompts]
    spread, same = (
        sample_metrics(table.set_column(3, "completion", [texts])) for texts in (follows, follows[:1] * len(table))
    )
    assert spread["collapse/tone_spread/low"] > 1
    assert same["collapse/tone_spread"] == pytest.approx(0, abs=1e-6)


def test_one_sample_a_prompt_and_little_text():
    few = made().filter(np.array(made()["sample"]) == 0)
    result = sample_metrics(few, TASKS, cluster_sizes=SIZES)
    assert result["validity/all"] > 0.5
    assert "collapse/self_bleu/across" in result
    assert not any(name.startswith(("pass_at", "variety", "collapse/variety")) for name in result)
    assert "collapse/self_bleu" not in result
    assert few.num_rows * 7 < BLOCK
    assert not any("distinct" in name or "gini" in name for name in result)


def test_one_row_is_measured_and_none_is_an_error():
    result = sample_metrics(made().slice(0, 1), TASKS, cluster_sizes=SIZES)
    assert {"validity/all", "reward/all", "length"} <= set(result)
    assert all(np.isfinite(value) for value in result.values())
    with pytest.raises(ValueError, match="table of no rows"):
        sample_metrics(made().slice(0, 0))


def test_the_same_table_gives_the_same_numbers(good):
    assert sample_metrics(made(), TASKS, cluster_sizes=SIZES) == good


def test_without_sacrebleu_self_bleu_is_left_out_and_said(monkeypatch, caplog, good):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    left = sample_metrics(made(), TASKS, cluster_sizes=SIZES)
    assert left == {name: value for name, value in good.items() if "self_bleu" not in name}
    hint = "self_bleu is left out: sacrebleu is not installed; run pip install sacrebleu, or in a clone of hf_synth "
    assert f"{hint}pip install '.[metrics]'" in caplog.text
