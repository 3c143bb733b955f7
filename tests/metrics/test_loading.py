"""Every metric through `evaluate.load`: the same numbers as its function, in batches, and in processes elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_synth import metrics
from hf_synth.metrics.completion import completion
from hf_synth.metrics.compression import compression
from hf_synth.metrics.coverage import coverage
from hf_synth.metrics.deciles import deciles
from hf_synth.metrics.distinct_n import distinct_n
from hf_synth.metrics.em_dash import em_dash
from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.metrics.fact_types import fact_types
from hf_synth.metrics.generation import generation
from hf_synth.metrics.grammar_errors import grammar_errors
from hf_synth.metrics.kl_divergence import kl_divergence
from hf_synth.metrics.not_just import not_just
from hf_synth.metrics.pass_at_k import pass_at_k
from hf_synth.metrics.perplexity import perplexity
from hf_synth.metrics.policy_entropy import policy_entropy
from hf_synth.metrics.policy_kl import policy_kl
from hf_synth.metrics.repetition import repetition
from hf_synth.metrics.self_bleu import self_bleu
from hf_synth.metrics.separation import separation
from hf_synth.metrics.sequence_accuracy import sequence_accuracy
from hf_synth.metrics.token_accuracy import token_accuracy
from hf_synth.metrics.token_gini import token_gini
from hf_synth.metrics.tone_spread import tone, tone_spread
from hf_synth.metrics.validity import validity
from hf_synth.metrics.variety import variety
from hf_synth.metrics.vendi import vendi

ROOT = Path(metrics.__file__).resolve().parents[2]
IDS, LABELS = [[1, 2, 3], [4, 5]], [[-100, 2, 9], [4, 5]]
LOGS = np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.25, 0.75], [0.2, 0.8]]]).tolist()
SCORES, VALID, COUNTS = [-1.0, -2.0, -3.0, -4.0], [True, False, True, False], [2, 2, 3, 3]


TEXTS = ["so it is \u2014 not just a b but c", "so it is so it is so it is", "a b c d e f", "great, thanks!"]
OWNERS, NUMBERS = ["p", "p", "q", "q"], [1.0, 0.0, 1.0, 1.0]
SAMPLED = {"predictions": TEXTS, "references": OWNERS}


def letters(text: str) -> int:
    return len(text)


def is_end(prompt: str, completion: str) -> float:
    return float(completion == "END")


# What each takes a row at a time, what it takes once, and what must come out.
EXAMPLES = {
    "completion": (
        {"predictions": [[0.5, 0.2], [0.1]], "references": [[0.1], [0.6, 0.1]], "points": ["a", "b"]},
        {},
        completion(["a", "b"], [[0.5, 0.2], [0.1]], [[0.1], [0.6, 0.1]]),
    ),
    "compression": (SAMPLED, {"size": 9}, compression(TEXTS, OWNERS, size=9)),
    "coverage": (
        {"predictions": TEXTS, "right": NUMBERS, "references": OWNERS, "languages": ["A", "A", "B", "B"]},
        {"sizes": {"A": 4, "B": 8}},
        coverage(TEXTS, NUMBERS, OWNERS, ["A", "A", "B", "B"], sizes={"A": 4, "B": 8}),
    ),
    "deciles": (
        {"predictions": SCORES, "densities": [1.0, 1.0, 2.0, 2.0], "references": OWNERS},
        {"parts": 2},
        deciles(SCORES, [1.0, 1.0, 2.0, 2.0], OWNERS, parts=2),
    ),
    "distinct_n": (SAMPLED, {"orders": [1, 2], "size": 5}, distinct_n(TEXTS, OWNERS, orders=[1, 2], size=5)),
    "em_dash": (SAMPLED, {}, em_dash(TEXTS, OWNERS)),
    "grammar_errors": (SAMPLED, {"check": letters}, grammar_errors(TEXTS, OWNERS, check=letters)),
    "not_just": (SAMPLED, {}, not_just(TEXTS, OWNERS)),
    "pass_at_k": (
        {"predictions": NUMBERS, "references": OWNERS},
        {"ks": [1, 2]},
        pass_at_k(NUMBERS, OWNERS, ks=[1, 2]),
    ),
    "policy_entropy": (
        {"predictions": SCORES, "tokens": COUNTS, "references": OWNERS},
        {},
        policy_entropy(SCORES, COUNTS, OWNERS),
    ),
    "policy_kl": (
        {"predictions": SCORES, "reference_log_probs": SCORES[::-1], "tokens": COUNTS, "references": OWNERS},
        {},
        policy_kl(SCORES, SCORES[::-1], COUNTS, OWNERS),
    ),
    "repetition": (SAMPLED, {"order": 2}, repetition(TEXTS, OWNERS, order=2)),
    "self_bleu": (SAMPLED, {"pairs": 1}, self_bleu(TEXTS, OWNERS, pairs=1)),
    "token_gini": (SAMPLED, {"size": 9}, token_gini(TEXTS, OWNERS, size=9)),
    "tone_spread": (SAMPLED, {"features": tone}, tone_spread(TEXTS, OWNERS)),
    "variety": (
        {"predictions": TEXTS, "right": NUMBERS, "references": OWNERS},
        {},
        variety(TEXTS, NUMBERS, OWNERS),
    ),
    "vendi": (SAMPLED, {"prompts_at_once": 2}, vendi(TEXTS, OWNERS, prompts_at_once=2)),
    "excess_loss": (
        {"predictions": [[-1.0, -2.0], [-3.0]], "references": [[-1.0, -1.0], [-2.0]]},
        {"confidence": 0.9},
        excess_loss([[-1, -2], [-3, 0]], [[-1, -1], [-2, 0]], [[True, True], [True, False]], confidence=0.9),
    ),
    "fact_types": (
        {"predictions": SCORES, "references": ["a", "b", "a", "b"], "hits": VALID},
        {},
        fact_types(SCORES, VALID, ["a", "b", "a", "b"]),
    ),
    "generation": (
        {"predictions": ["a b", "a", None, "b"], "references": [1.0, 1.0, 1.0, 0.0]},
        {"counts": {1: 2, 2: 4}, "training": ["a"]},
        generation(["a b", "a", None, "b"], [1, 1, 1, 0], counts={1: 2, 2: 4}, training=["a"]),
    ),
    "kl_divergence": (
        {"predictions": LOGS, "references": [[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]]},
        {"confidence": 0.9},
        kl_divergence(LOGS, [[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]], confidence=0.9),
    ),
    "perplexity": (
        {"predictions": SCORES, "references": VALID, "tokens": COUNTS},
        {"kinds": ["", "x", "", "y"]},
        perplexity(SCORES, COUNTS, VALID, ["", "x", "", "y"]),
    ),
    "separation": (
        {"predictions": SCORES, "references": VALID, "lengths": COUNTS},
        {},
        separation(SCORES, VALID, COUNTS),
    ),
    "sequence_accuracy": ({"predictions": IDS, "references": LABELS}, {}, sequence_accuracy(IDS, LABELS)),
    "token_accuracy": ({"predictions": IDS, "references": LABELS}, {}, token_accuracy(IDS, LABELS)),
    "validity": (
        {"predictions": ["END", "MID"], "references": ["START", "START"]},
        {"verify": is_end, "groups": ["a", "b"]},
        validity(["START", "START"], ["END", "MID"], is_end, ["a", "b"]),
    ),
}


def test_every_metric_is_named_and_has_an_example():
    base = re.compile(r"^\w+ = as_metric\(", re.MULTILINE)
    files = {file.stem for file in Path(metrics.__file__).parent.glob("*.py") if base.search(file.read_text())}
    assert set(metrics.NAMES) == files == set(EXAMPLES)


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"no metric named 'perplexty'; did you mean 'perplexity'\? Known: completion,"
    ):
        metrics.path("perplexty")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_loaded_metric_gives_what_its_function_gives(name):
    rows, once, wanted = EXAMPLES[name]
    assert evaluate.load(metrics.path(name)).compute(**rows, **once) == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_batches_add_up(name, monkeypatch):
    rows, once, wanted = EXAMPLES[name]
    monkeypatch.chdir(ROOT)
    metric = evaluate.load(f"hf_synth/metrics/{name}.py", keep_in_memory=True)
    one = {"predictions": "prediction", "references": "reference"}
    metric.add(**{one.get(key, key): values[0] for key, values in rows.items()})
    metric.add_batch(**{key: values[1:] for key, values in rows.items()})
    assert metric.compute(**once) == pytest.approx(wanted, nan_ok=True)


PROGRAM = """
import json, os, sys
sys.modules["hf_synth"] = None  # importing it would fail
import evaluate
other = os.fork()  # two processes from here on
number, (cache, *files) = int(other == 0), sys.argv[1:]
loaded = [type(evaluate.load(file, cache_dir=cache)).__name__ for file in files]
accuracy = evaluate.load(files[0], num_process=2, process_id=number, experiment_id="both", cache_dir=cache)
accuracy.add_batch(predictions=[[1, 2]], references=[[1, number]])
with open(f"{number}.json", "w") as file:
    json.dump([loaded, accuracy.compute()], file)
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.mark.processes
def test_two_processes_elsewhere_and_without_the_package(tmp_path, monkeypatch):
    """Both fill one empty cache at once, load every metric, and share the rows of one: 2 of 4 tokens are right."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    files = [metrics.path(name) for name in ("token_accuracy", *metrics.NAMES)]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache"), *files]
    subprocess.run(command, cwd=tmp_path, timeout=300, check=True)
    (first, shared), (second, nothing) = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    assert len(first) == len(files)
    assert first == second
    assert shared == {"token_accuracy": 2 / 4}
    assert nothing is None
