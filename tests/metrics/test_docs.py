"""docs/metrics.md: every metric is in it, and its example prints what it says."""

import re
import runpy
from pathlib import Path

import evaluate
import pytest

from hf_synth import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
EXAMPLE = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "get_task" in block)


def test_every_metric_is_on_the_page():
    words = set(re.findall(r"[a-z_]+", PAGE))
    numbered = {"distinct_n", "pass_at_k", "policy_entropy", "policy_kl", "deciles"}  # known there by what they give
    assert sorted(set(metrics.NAMES) - words - numbered) == []


def test_the_example_prints_what_it_says(tmp_path, capsys):
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE, encoding="utf-8")
    runpy.run_path(str(path))
    said = re.findall(r"^print\(.*\)  # (.*)$", EXAMPLE, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said
    assert len(said) == 2


@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_metric_says_what_its_columns_are(name):
    metric = evaluate.load(metrics.path(name))
    first, _, words = metric.inputs_description.partition("\n\n")
    taken = dict(re.findall(r"(\w+) = (\w+)", first))
    assert list(taken) == list(metric.features)
    assert all(re.search(rf"\b{argument}\b", words) for argument in taken.values())
