"""How far a policy has collapsed: every measure of a run's samples, from its table of sampled completions alone."""

import importlib.util
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_synth.errors import install_hint
from hf_synth.metrics.compression import compression
from hf_synth.metrics.coverage import coverage
from hf_synth.metrics.deciles import deciles
from hf_synth.metrics.distinct_n import distinct_n
from hf_synth.metrics.em_dash import em_dash
from hf_synth.metrics.intervals import clustered_mean, entries
from hf_synth.metrics.not_just import not_just
from hf_synth.metrics.pass_at_k import pass_at_k
from hf_synth.metrics.policy_entropy import policy_entropy
from hf_synth.metrics.policy_kl import policy_kl
from hf_synth.metrics.repetition import repetition
from hf_synth.metrics.self_bleu import self_bleu
from hf_synth.metrics.token_gini import token_gini
from hf_synth.metrics.tone_spread import tone_spread
from hf_synth.metrics.variety import variety
from hf_synth.metrics.vendi import vendi
from hf_synth.metrics.words import FIRST, Split, words
from hf_synth.tasks.base import Task, is_language

BLOCK = 500  # tokens or n-grams: what depends on the amount of text is measured on as much in every run
_TENTHS = 10

Columns = dict[str, list[Any]]

_logger = logging.getLogger(__name__)


def sample_metrics(
    table: pa.Table, tasks: Mapping[str, Task] | None = None, *, cluster_sizes: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Measure sampled completions: flat name -> number, each with `NAME/low` and `NAME/high` over prompts.

    table: a run's samples.parquet. tasks: the language of each cluster, for `coverage/`. cluster_sizes: training
    prompts of each cluster: the largest is the head, the smallest the tail; without them the half of the prompts with
    the larger density, and the other. docs/metrics.md explains each name.

    Completions without a reward are left out and counted (`completions/unscored`).
    What a table does not tell is left out: rightness without a verifier (`truth`), style with one, for texts are then
    formal; measures of several completions a prompt where there is one; of blocks where there is less text than one.
    """
    if not table.num_rows:
        raise ValueError("sample_metrics: got a table of no rows, wanted sampled completions")
    if importlib.util.find_spec("sacrebleu") is None:
        _logger.warning("self_bleu is left out: %s", install_hint("sacrebleu", "metrics"))
    unscored = table["reward"].null_count  # a reward of one's own may say nothing of a completion
    counts = {"completions/unscored": float(unscored)} if unscored else {}
    table = table.filter(table["reward"].is_valid())
    if not table.num_rows:
        return counts
    columns: Columns = table.to_pydict()
    formal = _known(columns, "truth")
    split: Split = str.split if formal else words
    metrics = {**counts, **_policy(columns), **_on_blocks(columns, split)}
    for part, rows in _parts(table, cluster_sizes).items():
        metrics |= _of_part(rows.to_pydict(), part, split)
    if not formal:
        metrics |= _style(columns)
    elif _known(columns, "cluster"):
        metrics |= _coverage(columns, tasks or {})
        for cluster in dict.fromkeys(columns["cluster"]):
            own = table.filter(pc.field("cluster") == cluster).to_pydict()
            metrics |= entries(f"validity/{cluster}", clustered_mean(own["truth"], own["prompt_row"]))
        for end, cluster in _extremes(cluster_sizes).items() if cluster_sizes else ():
            metrics |= _renamed(metrics, {f"coverage/{cluster}": f"coverage/{end}"})
    if _known(columns, "density") and len(set(columns["density"])) >= _TENTHS:
        metrics |= deciles(columns["reward"], columns["density"], columns["prompt_row"], parts=_TENTHS)
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _known(columns: Columns, name: str) -> bool:
    return name in columns and None not in columns[name]


def _renamed(metrics: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Return the entries in `names` and their intervals, under other names; one that is not there is left out."""
    return {
        f"{wanted}{end}": metrics[f"{name}{end}"]
        for name, wanted in names.items()
        for end in ("", "/low", "/high")
        if name + end in metrics
    }


def _extremes(cluster_sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the largest cluster as the head, the smallest as the tail."""
    by_size = sorted(cluster_sizes, key=cluster_sizes.__getitem__)
    return {"head": by_size[-1], "tail": by_size[0]}


def _parts(table: pa.Table, cluster_sizes: Mapping[str, int] | None) -> dict[str, pa.Table]:
    """Return the rows of all prompts, and of the head's and the tail's where there are such."""
    ends: dict[str, pa.Table] = {}
    if cluster_sizes:
        ends = {end: table.filter(pc.field("cluster") == name) for end, name in _extremes(cluster_sizes).items()}
    elif "density" in table.column_names and not table["density"].null_count:
        densities = dict(zip(table["prompt_row"].to_pylist(), table["density"].to_pylist(), strict=True))
        middle, density = float(np.median(list(densities.values()))), pc.field("density")
        ends = {"head": table.filter(density > middle), "tail": table.filter(density <= middle)}
    return {"all": table, **{end: part for end, part in ends.items() if 0 < part.num_rows < table.num_rows}}


def _of_part(columns: Columns, part: str, split: Split) -> dict[str, float]:
    """Measure rewards, validity and the similarity of completions of one prompt, for some of the prompts."""
    prompts, texts, verified = columns["prompt_row"], columns["completion"], _known(columns, "truth")
    metrics = entries(f"reward/{part}", clustered_mean(columns["reward"], prompts))
    if verified:
        metrics |= entries(f"validity/{part}", clustered_mean(columns["truth"], prompts))
    truth = columns["truth"] if verified else [1.0] * len(texts)
    # One completion without a reward would cut all prompts to as many as its own has left: that prompt is left out.
    usual = Counter((counts := Counter(prompts)).values()).most_common(1)[0][0]
    kept = [row for row, prompt in enumerate(prompts) if counts[prompt] >= usual]
    prompts, texts, truth = ([values[row] for row in kept] for values in (prompts, texts, truth))
    suffix = "" if part == "all" else f"/{part}"
    alike = vendi(texts, prompts, split=split)
    if importlib.util.find_spec("sacrebleu"):
        alike |= self_bleu(texts, prompts, split=split)
    for name in ("self_bleu", "vendi"):
        kinds = {name: f"collapse/{name}{suffix}", f"{name}/across": f"collapse/{name}/across{suffix}"}
        metrics |= _renamed(alike, kinds)
    if usual > 1:
        different = variety(texts, truth, prompts)
        metrics |= _renamed(different, {"variety/any": f"collapse/variety{suffix}"})
        metrics |= _renamed(different, {"variety": f"variety/{part}"}) if verified else {}
    if verified and usual > 1:
        ks = [2**power for power in range(1, usual.bit_length())]
        passed = pass_at_k(truth, prompts, ks=ks)
        metrics |= _renamed(passed, {f"pass_at_{k}": f"pass_at_{k}/{part}" for k in ks})
    return metrics


def _on_blocks(columns: Columns, split: Split) -> dict[str, float]:
    """Measure what depends on the amount of text, where there is a block of it; and repetition within a text."""
    texts, prompts = columns["completion"], columns["prompt_row"]
    lengths = np.array([len(split(text)[:FIRST]) for text in texts])
    metrics = repetition(texts, prompts, split=split)
    if lengths.sum() >= BLOCK:
        metrics |= token_gini(texts, prompts, size=BLOCK, split=split)
        metrics |= compression(texts, prompts, size=BLOCK, split=split)
    for order in (1, 2):
        if np.maximum(lengths - order + 1, 0).sum() >= BLOCK:
            metrics |= distinct_n(texts, prompts, orders=[order], size=BLOCK, split=split)
    return {f"collapse/{name}": value for name, value in metrics.items()}


def _style(columns: Columns) -> dict[str, float]:
    """Measure habits of natural text, and whether tone follows its context: the cluster, or else the prompt."""
    texts, prompts = columns["completion"], columns["prompt_row"]
    metrics = {**em_dash(texts, prompts), **not_just(texts, prompts)}
    contexts = columns["cluster"] if _known(columns, "cluster") else None
    owners = prompts if contexts is None else dict(zip(prompts, contexts, strict=True)).values()
    values = Counter(owners).values()
    if len(values) > 1 and max(values) > 1:
        metrics |= tone_spread(texts, prompts, contexts)
    return {f"collapse/{name}": value for name, value in metrics.items()}


def _policy(columns: Columns) -> dict[str, float]:
    """Measure length, entropy and KL to the reference; exact sums over the vocabulary where the table has them."""
    prompts, tokens = columns["prompt_row"], columns["tokens"]
    metrics = entries("finished", clustered_mean(np.array(columns["finished"], float), prompts))
    metrics |= entries("length", clustered_mean(tokens, prompts))
    if _known(columns, "entropy"):
        metrics |= policy_entropy(np.negative(columns["entropy"]), tokens, prompts)
    elif _known(columns, "log_prob"):
        metrics |= policy_entropy(columns["log_prob"], tokens, prompts)
    if _known(columns, "kl"):
        metrics |= policy_kl(columns["kl"], np.zeros(len(tokens)), tokens, prompts)
    elif _known(columns, "log_prob") and _known(columns, "reference_log_prob"):
        metrics |= policy_kl(columns["log_prob"], columns["reference_log_prob"], tokens, prompts)
    return metrics


def _coverage(columns: Columns, tasks: Mapping[str, Task]) -> dict[str, float]:
    """Return the fraction of each cluster's language, and of all, that was sampled, where strings can be counted."""
    sizes = {name: task.contents() for name, task in tasks.items() if name in columns["cluster"]}
    longest = {}  # the most words of a string that `contents` counts; 0 where whole rows are no strings of a language
    for name in filter(sizes.get, sizes):
        rows = tasks[name].rows(0, 1024)
        longest[name] = int(rows.lengths.max()) - 2 if is_language(tasks[name], rows) else 0
    counted = {name: size for name, size in sizes.items() if size and longest[name]}
    if not counted:
        return {}
    texts = [f"{prompt} {text}".split() for prompt, text in zip(columns["prompt"], columns["completion"], strict=True)]
    right = [
        truth * (len(text) <= longest.get(cluster, 0))
        for truth, text, cluster in zip(columns["truth"], texts, columns["cluster"], strict=True)
    ]
    strings = [" ".join(text) for text in texts]
    metrics = coverage(strings, right, columns["prompt_row"], columns["cluster"], sizes=counted)
    return _renamed(
        metrics, {"coverage": "coverage/all"} | {f"coverage/{name}": f"coverage/{name}" for name in counted}
    )
