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
from replication.claims import COMPARED, TOO_FEW, Claim, claims_table, verdicts, with_p
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
_TEXTS = yaml.safe_load(Path(__file__).with_name("page.yaml").read_text(encoding="utf-8"))


def write_page(docs: Path, configs: Path) -> Path:
    """Write docs/reproduction.md and its figures from the records; returns the page's path."""
    folder = docs / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {name: _body(name, study, study_config(configs, name), folder) for name, study in STUDIES.items()}
    claims = [(name, claim) for name, body in bodies.items() for part in body if not isinstance(part, str)
              for claim in part]  # fmt: skip
    answers = verdicts([claim for _, claim in claims])
    kept = [(name, claim, *answer) for (name, claim), answer in zip(claims, answers, strict=True)
            if not claim.without or claim.without in COMPARED]  # fmt: skip
    rows = {own: [[STUDIES[name].title, claim.claim, claim.here(), with_p(p), word]
                  for name, claim, word, p in kept if claim.own is own] for own in (False, True)}  # fmt: skip
    counts = [", ".join(f"{word} {count}" for word, count in collections.Counter(row[-1] for row in part).items())
              or "none" for part in rows.values()]  # fmt: skip
    same = dict.fromkeys(STUDIES[name].title for name, claim, *_ in kept if not claim.own)
    differing = [study for study in STUDIES.values() if study.settings]
    for study in differing:
        what = f"not the published setting: {', '.join(name for name, *_ in study.settings)}"
        rows[False].append([study.title, "all that was published", MISSING, MISSING, what])
    head = {"published": counts[0], "new": counts[1], "other": len(differing), "studies": len(STUDIES)}
    head |= {"same": len(same), "named": "; ".join(same) or "none"}
    head |= {"tested": sum(not claim.without for _, claim in claims)}
    shown = {word for word, _ in answers} | ({"not the published setting"} if differing else set())
    head["legend"] = "\n".join(
        f"- {word.capitalize()}: {what}" for word, what in _TEXTS["legend"].items() if word in shown
    )
    for part, own in (("published_table", False), ("new_table", True)):
        chosen = [row for row in rows[own] if row[-1] != TOO_FEW]
        head[part] = table(["study", "claim", "here", "corrected p", "verdict"], chosen, text_columns=2)
    parts = [_TEXTS["head"].format(**head)]
    left = iter(answers)
    for name, body in bodies.items():
        parts += [f"## {STUDIES[name].title}\n", STUDIES[name].question]
        for part in filter(None, body):  # a claim that no seed lets one test leaves no table
            parts.append(part if isinstance(part, str) else claims_table(part, [next(left) for _ in part]))
            if isinstance(part, str) and part.startswith("!["):  # a site shows no text of a picture that it can show
                parts.append(f"*{part[2:].split(']')[0]}.*")
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
    settings: list[str | list[Claim]] = []
    if study.settings:
        settings = ["This is not the published setting:", table(["value", "published", "here"], study.settings,
                                                                text_columns=3)]  # fmt: skip
    opening = [f"Config: `recipes/configs/{study.config}`.", *settings]
    records = read_records(folder / f"{name}.jsonl")
    arms = list(config.get("arms") or [""])
    known = {run_key(config, arm, seed): arm for arm in arms for seed in config["seeds"]}  # an arm's name may change
    current = [dataclasses.replace(record, arm=known[record.key]) for record in records if record.key in known]
    if not current:
        return [*opening, "Not run yet."]
    current = [record for record in current if record.text == current[-1].text]  # runs on other text are another study
    planned = len(known)
    recorded = f"{len(current)} of {planned} runs are recorded. What is said here may change with the others."
    section = study.section(current, config, folder)
    if study.settings:
        why = "not the published setting"
        section = [
            part
            if isinstance(part, str)
            else [claim if claim.own else dataclasses.replace(claim, without=why) for claim in part]
            for part in section
        ]
    return [*opening, *([recorded] if len(current) < planned else []), *section]
