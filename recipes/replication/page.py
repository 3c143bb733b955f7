"""docs/reproduction.md: each study's question, what was published, what was found here, and how sure that is."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_synth.io import write_text
from hf_synth.reports.tables import MISSING, table
from replication.analogy import analogy_section
from replication.claims import COMPARED, Claim, claims_table, verdicts, with_interval
from replication.hyperdata import hyperdata_section
from replication.procedural import downstream_section, tasks_section
from replication.records import Record, read_records, run_key
from replication.rlm import l3_section, transition_section, v128_section

Section = Callable[[Sequence[Record], Mapping[str, Any], Path], list[str | list[Claim]]]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of studies.yaml: its question, and what makes its section from the records."""

    config: str  # below recipes/configs
    title: str
    question: str
    section: Section
    first: str | None = None  # the config whose models its runs start from
    settings: Sequence[Sequence[str]] = ()


def _studies() -> dict[str, Study]:
    """Read studies.yaml."""
    content = yaml.safe_load(Path(__file__).with_name("studies.yaml").read_text(encoding="utf-8"))
    return {name: Study(**{**values, "section": SECTIONS[values["section"]]}) for name, values in content.items()}


_WRITERS = (
    v128_section,
    l3_section,
    transition_section,
    analogy_section,
    tasks_section,
    downstream_section,
    hyperdata_section,
)
SECTIONS: dict[str, Section] = {writer.__name__: writer for writer in _WRITERS}
STUDIES = _studies()
_HEAD = """# Published experiments, run again

Published claims: {published}. {other} of {studies} studies do not have the published setting,
so what was published there is not tested. No published claim is tested of these: {untested}.
Claims that are new here: {new}.

"Published" means: in the paper or the code that the [gallery](gallery.md) names as the source of the task. For
procedural pretraining that is arXiv 2601.21725, for the Random Language Model (RLM: [rlm.md](rlm.md)) De Giuli's arXiv
2606.28105, for analogies arXiv 2602.01992, for hyperdata the reports in github.com/tractatus1889/hyperdata.

`python recipes/replicate.py` writes this page. Each study is a config `replicate_*.yaml` in `recipes/configs/`. Each
finished run is a line in `docs/reproduction/`. Intervals are over independent units (seeds, graphs, grammars), never
over the samples of one run.

## What was published

{published_table}

## What is new here

{new_table}

- Agrees: the published number lies in the 95 % interval here, widened by its own rounding. No p-value.
- Reproduced: the number is significantly above the threshold of the claim, which is 0 for differences and one half for
  fractions of graphs. Not reproduced: significantly below.
- Supported, not supported: the same for claims that were not published but are tested here. Not supported, too: the
  whole interval is below the minimum effect of the claim.
- Undecided: everything else, and all claims with fewer than the 8 units that a claim takes.
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
    answers = verdicts([claim for _, claim in claims])
    kept = [(name, claim, word) for (name, claim), word in zip(claims, answers, strict=True)
            if not claim.without or claim.without in COMPARED]  # fmt: skip
    rows = {own: [[STUDIES[name].title, claim.claim, with_interval(claim.interval, claim.digits), word]
                  for name, claim, word in kept if claim.own is own] for own in (False, True)}  # fmt: skip
    counts = [", ".join(f"{word} {count}" for word, count in collections.Counter(row[-1] for row in part).items())
              or "none" for part in rows.values()]  # fmt: skip
    tested_of = {STUDIES[name].title.split(":")[0] for name, claim, _ in kept if not claim.own}
    topics = dict.fromkeys(study.title.split(":")[0] for study in STUDIES.values())
    differing = [study for study in STUDIES.values() if study.settings]
    for study in differing:
        what = f"not the published setting: {', '.join(name for name, *_ in study.settings)}"
        rows[False].append([study.title, "all that was published", MISSING, what])
    head = {"published": counts[0], "new": counts[1], "other": len(differing), "studies": len(STUDIES)}
    head |= {"untested": ", ".join(topic for topic in topics if topic not in tested_of) or "none"}
    head |= {"tested": sum(not claim.without for _, claim in claims)}
    for part, own in (("published_table", False), ("new_table", True)):
        head[part] = table(["study", "claim", "here", "verdict"], rows[own], text_columns=2)
    parts = [_HEAD.format(**head)]
    left = iter(answers)
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
    recorded = f"{len(current)} of {planned} runs are recorded. What is said here may change with the others."
    left = [recorded] if len(current) < planned else []
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
    return [f"Config: `recipes/configs/{study.config}`.", *left, *settings, *section]
