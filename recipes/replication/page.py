"""docs/reproduction.md: each study's question, what was published, what was found here, and how sure that is."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from replication.analogy import analogy_section
from replication.hyperdata import hyperdata_section
from replication.procedural import downstream_section, tasks_section
from replication.records import Record, read_records, run_key
from replication.rlm import l3_section, v128_section

Section = Callable[[Sequence[Record], Mapping[str, Any], Path], list[str]]


@dataclasses.dataclass(frozen=True)
class Study:
    """A published result: its question, and what makes its section from the records."""

    config: str  # below recipes/configs
    title: str
    question: str
    section: Section
    first: str | None = None  # the config whose models its runs start from


STUDIES: dict[str, Study] = {
    "rlm_v128": Study(
        "rlm/replicate_v128.yaml",
        "RLM: 128 symbols, depth 1, beta 2",
        "The reference figure after 5,000 steps of SGD: loss 3.10, accuracy 0.297, floor 2.84. Here on 8 grammars.",
        v128_section,
    ),
    "rlm_l3": Study(
        "rlm/replicate_l3.yaml",
        "RLM: depth 3 against the exact Bayes loss",
        "How near does a transformer come to the best predictor when eight leaves hang on one tree?",
        l3_section,
    ),
    "analogy_e10": Study(
        "analogy/replicate_e10.yaml",
        "Analogy: the reference run on 20 graphs",
        "Published for one graph: near-OOD compositions right at epoch 20, trained analogies at epoch 30, the 2 "
        "held-out analogies at epochs 90 to 120, and lost by epoch 200; first memorise, then compose, then analogise. "
        "An epoch is 2.4 steps, and an accuracy of 0.5 on held-out analogies is one of the two.",
        analogy_section,
    ),
    "analogy_e60": Study(
        "analogy/replicate_e60.yaml",
        "Analogy: 20 held-out facts of the functor a graph",
        "The same questions where accuracy on held-out analogies is a share of 20 facts and not of 2. Only 6 of the "
        "functor's 26 facts are trained on here, of the reference run's 5 it is 3, and a tenth of the compositions.",
        analogy_section,
    ),
    "procedural": Study(
        "procedural/replicate.yaml",
        "Procedural: nine tasks, learned by a small GPT-2",
        "Is each task learned, on rows that share no content with the training rows, and after how many steps?",
        tasks_section,
    ),
    "downstream": Study(
        "procedural/replicate_downstream.yaml",
        "Procedural: weights transferred from a warm-up",
        "Published: attention from set helps haystack and sort and hurts reversed addition, eca helps reversed "
        "addition, both together are best on haystack and sort. Scaled down here; with a shuffled control.",
        downstream_section,
        first="procedural/replicate_warmups.yaml",
    ),
    "hyperdata": Study(
        "hyperdata/replicate.yaml",
        "Hyperdata: explanations among examples of tivari3",
        "Published for Pythia-1.4b, one seed: explanations alone give no valid text, 10 % explanations lie below "
        "examples alone. Here a small model from nothing.",
        hyperdata_section,
    ),
}
_HEAD = """# Published results, run again

Written by `python recipes/replicate.py`; each study is a config named `replicate...` in `recipes/configs/`, each
finished run a line in `docs/reproduction/`. Intervals are over independent units (seeds, graphs, grammars), never over
the samples of one run. A claim takes at least 8 of them; fewer say only that it ran. What contradicts the publication
is reported as found.
"""


def write_page(docs: Path, configs: Path) -> Path:
    """Write docs/reproduction.md and its figures from the records; returns the page's path."""
    folder = docs / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_HEAD]
    for name, study in STUDIES.items():
        config = study_config(configs, name)
        parts += [f"## {study.title}\n", study.question, *_body(name, study, config, folder)]
    path = docs / "reproduction.md"
    path.write_text("\n\n".join(part.rstrip("\n") for part in parts) + "\n", encoding="utf-8", newline="\n")
    return path


def study_config(configs: Path, name: str) -> dict[str, Any]:
    """Read the config of a study; `first` holds that of the study whose models its runs start from."""
    study = STUDIES[name]
    config = yaml.safe_load((configs / study.config).read_text(encoding="utf-8"))
    if study.first:
        config["first"] = yaml.safe_load((configs / study.first).read_text(encoding="utf-8"))
    return config


def _body(name: str, study: Study, config: Mapping[str, Any], folder: Path) -> list[str]:
    records = read_records(folder / f"{name}.jsonl")
    current = [record for record in records if record.key == run_key(config, record.arm, record.seed)]
    if not current:
        return ["Not run yet."]
    current = [record for record in current if record.text == current[-1].text]  # runs on other text are another study
    planned = len(config.get("arms") or [""]) * len(config["seeds"])
    left = [f"{len(current)} of {planned} runs are recorded."] if len(current) < planned else []
    return [f"Config: `recipes/configs/{study.config}`.", *study.section(current, config, folder), *left]
