"""docs/reproduction.md: each study's question, what was published, what was found here, and how sure that is."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_synth.io import write_text
from hf_synth.reports.tables import MISSING, table
from replication.analogy import analogy_section, transience_section
from replication.claims import Claim, claims_table, verdicts, with_interval
from replication.hyperdata import hyperdata_section
from replication.procedural import downstream_section, tasks_section
from replication.records import Record, read_records, run_key
from replication.rlm import l3_section, v128_section

Section = Callable[[Sequence[Record], Mapping[str, Any], Path], list[str | list[Claim]]]


@dataclasses.dataclass(frozen=True)
class Study:
    """A published result: its question, and what makes its section from the records.

    settings: (what, published, here) where they differ in what could matter; then no claim is tested as published.
    """

    config: str  # below recipes/configs
    title: str
    question: str
    section: Section
    first: str | None = None  # the config whose models its runs start from
    settings: tuple[tuple[str, str, str], ...] = ()


STUDIES: dict[str, Study] = {
    "rlm_v128": Study(
        "rlm/replicate_v128.yaml",
        "RLM: 128 symbols, depth 1, beta 2",
        "Published, after 5,000 steps of SGD: loss 3.10, accuracy 0.297, floor 2.84. Is the excess (loss "
        "minus floor) the same on 8 grammars?",
        v128_section,
    ),
    "rlm_l3": Study(
        "rlm/replicate_l3.yaml",
        "RLM: depth 3 against the exact Bayes loss",
        "How close does a transformer come to the best predictor on trees with eight leaves?",
        l3_section,
    ),
    "analogy_e10": Study(
        "analogy/replicate_e10.yaml",
        "Analogy: the reference run on 20 graphs",
        "Published for one graph: first memorise, then compose, then analogise. Near-OOD compositions are right at "
        "epoch 20, trained analogies at epoch 30. The 2 held-out analogies are right at epochs 90 to 120 and lost by "
        "epoch 200. An epoch is 2.4 steps. An accuracy of 0.5 on held-out analogies means one of the two. A random "
        "guess among the five images gets one of the two right in 36 % of the cases.",
        analogy_section,
        settings=(
            ("learning rate", "1e-4", "1e-2"),
            ("layers", "1", "2"),
            ("weight decay", "0", "0, 0.01 and 0.1"),
            ("training", "1,000 epochs", "200 epochs"),
            ("first token, warm-up", "none, none", "`<bos>`, 10 steps"),
        ),
    ),
    "analogy_e60": Study(
        "analogy/replicate_e60.yaml",
        "Analogy: 20 held-out facts of the functor per graph",
        "The same questions with 20 held-out analogies instead of 2. Training has 6 of the functor's 26 facts (in the "
        "reference run, 3 of 5) and a tenth of the compositions.",
        analogy_section,
        settings=(
            ("functor facts held out", "2 of 5 (or other ratios with 30 entities)", "20 of 26"),
            ("learning rate", "1e-4", "3e-3"),
            ("compositions trained on", "all but the near-OOD ones", "a tenth"),
        ),
    ),
    "transience": Study(
        "analogy/replicate_transience.yaml",
        "Analogy: when held-out analogies are learned and lost again",
        "Published for one graph: the two held-out analogies are learned and lost again. At which learning rates, "
        "depths and weight decays does that happen?",
        transience_section,
        settings=(
            ("first token", "none", "`<bos>`"),
            ("training", "1,000 epochs of batches of 64, 64 and the rest", "975 epochs, batches of 64 across them"),
        ),
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
        "Published: attention from set helps haystack and sort and hurts reversed addition. eca helps reversed "
        "addition. Both together are best on haystack and sort. Here the runs are smaller, with a shuffled control.",
        downstream_section,
        first="procedural/replicate_warmups.yaml",
        settings=(
            ("training rows", "10,000,000 (batch 1,000, 10,000 steps)", "51,200 (batch 64, 800 steps)"),
            (
                "presets",
                "haystack 30, addition 5, reversed addition 10",
                "haystack 10, addition 3, reversed addition 5",
            ),
            ("learning rate", "1e-3", "3e-3"),
        ),
    ),
    "hyperdata": Study(
        "hyperdata/replicate.yaml",
        "Hyperdata: explanations among examples of tivari3",
        "Published for Pythia-1.4b, one seed: explanations alone give no valid text, and 10 % explanations give less "
        "than examples alone. Here: a small model with random initial weights.",
        hyperdata_section,
        settings=(
            ("model", "Pythia-1.4b, which reads English", "a GPT-NeoX of 3 layers, from random weights"),
            ("halves of tivari3", "0 to 8 tokens", "0 to 4 tokens"),
            ("sampling", "top_p 0.9", "top_p 1"),
            ("training", "5,000 steps", "400 steps"),
        ),
    ),
}
_HEAD = """# Published results, run again

Claims tested here: {answer}. {other} of {studies} studies do not have the published setting, so their published
claims are not tested. The summary has one line per claim; the sections have the numbers.

`python recipes/replicate.py` writes this page. Each study is a config `replicate_*.yaml` in `recipes/configs/`. Each
finished run is a line in `docs/reproduction/`. Intervals are over independent units (seeds, graphs, grammars), never
over the samples of one run.

## Summary

{summary}

- Reproduced: the number is above the threshold of the claim. Not reproduced: it is below.
- Supported, not supported: the same for claims that were not published.
- Undecided: the corrected p-value does not decide, or there are fewer than the 8 units that a claim takes.
- Not the published setting: the setting differs in something that could matter, so the claim is not tested. It is
  neither confirmed nor refuted here. The section lists what differs.

p-values are corrected over all {tested} claims of this page that are tested (Holm).
"""


def write_page(docs: Path, configs: Path) -> Path:
    """Write docs/reproduction.md and its figures from the records; returns the page's path."""
    folder = docs / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {name: _body(name, study, study_config(configs, name), folder) for name, study in STUDIES.items()}
    claims = [(name, claim) for name, body in bodies.items() for part in body if not isinstance(part, str)
              for claim in part]  # fmt: skip
    words = verdicts([claim for _, claim in claims])
    rows = [
        [STUDIES[name].title, claim.claim, with_interval(claim.interval, claim.digits), word]
        for (name, claim), word in zip(claims, words, strict=True)
        if not claim.without
    ]
    rows += [
        [
            study.title,
            "the published ones",
            MISSING,
            f"not the published setting: {', '.join(what for what, *_ in study.settings)}",
        ]
        for study in STUDIES.values()
        if study.settings
    ]
    summary = table(["study", "claim", "here", "verdict"], rows, text_columns=2)
    tested = sum(not claim.without for _, claim in claims)
    counts = collections.Counter(word for (_, claim), word in zip(claims, words, strict=True) if not claim.without)
    answer = ", ".join(f"{count} {word}" for word, count in counts.items()) or "none"
    other = sum(bool(study.settings) for study in STUDIES.values())
    parts = [_HEAD.format(summary=summary, tested=tested, answer=answer, other=other, studies=len(STUDIES))]
    left = iter(words)
    for name, body in bodies.items():
        parts += [f"## {STUDIES[name].title}\n", STUDIES[name].question]
        for part in filter(None, body):  # a claim that no seed lets one test leaves no table
            parts.append(part if isinstance(part, str) else claims_table(part, [next(left) for _ in part]))
    path = docs / "reproduction.md"
    write_text(path, "\n\n".join(part.rstrip("\n") for part in parts) + "\n")
    return path


def study_config(configs: Path, name: str) -> dict[str, Any]:
    """Read the config of a study; `first` holds that of the study whose models its runs start from."""
    study = STUDIES[name]
    config = yaml.safe_load((configs / study.config).read_text(encoding="utf-8"))
    if study.first:
        config["first"] = yaml.safe_load((configs / study.first).read_text(encoding="utf-8"))
    return config


def _body(name: str, study: Study, config: Mapping[str, Any], folder: Path) -> list[str | list[Claim]]:
    records = read_records(folder / f"{name}.jsonl")
    current = [record for record in records if record.key == run_key(config, record.arm, record.seed)]
    if not current:
        return ["Not run yet."]
    current = [record for record in current if record.text == current[-1].text]  # runs on other text are another study
    planned = len(config.get("arms") or [""]) * len(config["seeds"])
    left = [f"{len(current)} of {planned} runs are recorded."] if len(current) < planned else []
    section = study.section(current, config, folder)
    settings: list[str | list[Claim]] = []
    if study.settings:
        settings = ["This is not the published setting:", table(["value", "published", "here"], study.settings,
                                                                text_columns=3)]  # fmt: skip
        why = "not the published setting"
        section = [
            part
            if isinstance(part, str)
            else [claim if claim.own else dataclasses.replace(claim, without=why) for claim in part]
            for part in section
        ]
    return [f"Config: `recipes/configs/{study.config}`.", *settings, *section, *left]
