"""The dataset card: what rows are, how they are made, and what was measured on them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hf_synth.hub.card_floors import floor_section, last
from hf_synth.hub.markdown import prose, table
from hf_synth.hub.metadata import Manifest, metadata
from hf_synth.hub.publication import Publication

_SHOWN_WORDS = 48
_COLUMNS = {
    "input_ids": "token ids; 0 to 3 are `<pad>` `<bos>` `<eos>` `<sep>`, and `published.json` of a config lists the "
    "word of every id under `words`",
    "labels": "the same ids where the token carries loss, -100 elsewhere; not shifted, as `transformers` wants them",
    "text": "the words of the row, without `<bos>` and `<eos>`; of a corpus the document",
}
_SOFTWARE = r"""
@software{hf_synth,
  title = {hf\_synth: controlled experiments with synthetic data on the Hugging Face stack},
  year = {2026},
  license = {Apache-2.0}
}
"""


def card(publication: Publication, repo_id: str, manifests: Mapping[str, Manifest]) -> str:
    """The README.md of a repository, or of a folder, that holds these configs; see `hf_synth.hub.manifests`."""
    offered = list(publication.offers())
    order = sorted(manifests, key=lambda name: (offered.index(name) if name in offered else len(offered), name))
    ordered = [manifests[name] for name in order]
    parts = [f"# {publication.title}", publication.about, *_loading(repo_id, ordered), *_row(publication, ordered)]
    parts += [*_making(publication, ordered), *_configs(ordered), *floor_section(ordered), *_overlaps(ordered)]
    parts += [*_violations(ordered), *_groups(ordered), *_citation(publication)]
    parts += ["## Licence", "Apache License 2.0: the data, and the code that makes them."]
    body = "\n\n".join(parts)
    return f"---\n{metadata(publication, ordered).to_yaml()}\n---\n\n{body}\n"


def _loading(repo_id: str, manifests: Sequence[Manifest]) -> Iterator[str]:
    name = manifests[0]["name"]
    split = next(iter(manifests[0]["splits"]))
    yield "## Load it"
    yield (
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("{repo_id}", "{name}", split="{split}")\n'
        f'stream = load_dataset("{repo_id}", "{name}", split="{split}", streaming=True)\n```'
    )
    yield "The files are Parquet: neither hf_synth nor remote code is needed."


def _row(publication: Publication, manifests: Sequence[Manifest]) -> Iterator[str]:
    columns = {name: feature for manifest in manifests for name, feature in manifest["features"].items()}
    yield "## A row"
    words = {**_COLUMNS, **publication.columns}
    about = ((f"`{name}`", _type(feature), words.get(name, "the task's own")) for name, feature in columns.items())
    yield table(("column", "type", "what it is"), about)
    yield f"The first row of `{manifests[0]['name']}`:"
    yield _example(manifests[0]["facts"])


def _type(feature: Any) -> str:
    inner = feature.get("feature")
    return f"list of {inner['dtype']}" if inner else feature["dtype"]


def _example(facts: Manifest) -> str:
    shown = facts["example"]
    lines = {name: shown[name] for name in ("prompt", "target") if name in shown} | shown["row"]
    texts = (f"{name + ':':11} {_shortened(value)}" for name, value in lines.items())
    return "```\n" + "\n".join(texts) + "\n```"


def _shortened(value: Any) -> str:
    """Words or ids on one line; of many the first."""
    items = value if isinstance(value, list) else str(value).split()
    more = f" ... {len(items) - _SHOWN_WORDS:,} more" if len(items) > _SHOWN_WORDS else ""
    return " ".join(map(str, items[:_SHOWN_WORDS])) + more


def _making(publication: Publication, manifests: Sequence[Manifest]) -> Iterator[str]:
    yield "## How the rows are made"
    seeds = sorted({manifest["facts"]["seed"] for manifest in manifests})
    yield (
        "A row is a pure function of the task, its parameters and version, the seed, the split and the row's number: "
        "no row depends on how many are made, in which order, or by how many processes. "
        f"The seed is {', '.join(map(str, seeds))}."
    )
    yield (
        "`pip install hf_synth` brings the code that makes them. In its repository, "
        f"`python datasets_scripts/{publication.name}.py`, with these configs, rows and seed, makes the same files "
        "again, byte for byte with the same version of pyarrow."
    )


def _configs(manifests: Sequence[Manifest]) -> Iterator[str]:
    splits = list(dict.fromkeys(split for manifest in manifests for split in manifest["splits"]))
    yield "## Configs"
    yield "Rows of each split; the entropy floor, nats per loss-bearing token; test rows whose content is in train."
    yield table(("config", *splits, "floor", "test in train"), (_config(manifest, splits) for manifest in manifests))


def _config(manifest: Manifest, splits: Iterable[str]) -> tuple[str, ...]:
    sizes = (f"{manifest['splits'][split]['rows']:,}" if split in manifest["splits"] else "" for split in splits)
    floor = manifest["facts"].get("floor")
    shared = manifest["overlap"]["shared"].get("test in train")
    overlap = "" if shared is None else _share(shared, manifest["splits"]["test"]["rows"])
    return f"`{manifest['name']}`", *sizes, f"{last(floor)['nats_per_token']:.4f}" if floor else "", overlap


def _share(part: int, whole: int) -> str:
    return "0" if part == 0 else f"{part:,} ({100 * part / whole:.1f} %)"


def _overlaps(manifests: Sequence[Manifest]) -> Iterator[str]:
    pairs = list(dict.fromkeys(pair for manifest in manifests for pair in manifest["overlap"]["shared"]))
    yield "## Overlap between splits"
    yield (
        "Measured on all published rows by 64-bit hashes of whole rows (`input_ids`, or `text` where there are no "
        "ids): how many different rows each split has, and how many rows of one split are, token by token, in another."
    )
    titles = ("config", "different rows", *(f"rows of {pair}" for pair in pairs), "why")
    yield table(titles, (_overlap(manifest, pairs) for manifest in manifests))


def _overlap(manifest: Manifest, pairs: Iterable[str]) -> tuple[str, ...]:
    overlap = manifest["overlap"]
    distinct = ", ".join(f"{split} {count:,}" for split, count in overlap["distinct"].items())
    shared = (
        _share(overlap["shared"][pair], manifest["splits"][pair.split(" in ")[0]]["rows"])
        if pair in overlap["shared"]
        else ""
        for pair in pairs
    )
    return f"`{manifest['name']}`", distinct, *shared, _reason(manifest)


def _reason(manifest: Manifest) -> str:
    facts = manifest["facts"]
    if facts.get("overlap"):
        return facts["overlap"]
    return "kept apart by content" if facts["holdout"] == "content" else "drawn independently, kept apart by nothing"


def _violations(manifests: Sequence[Manifest]) -> Iterator[str]:
    known = [manifest for manifest in manifests if manifest["facts"].get("violations", {}).get("kinds")]
    if not known:
        return
    yield "## Violations"
    yield (
        "hf_synth makes wrong texts of the same rows, "
        '`hf_synth.load_dataset(task, preset, split=..., size=..., view="labelled")`: every second row is wrong, its '
        "kind drawn uniformly. How often each kind comes in the first rows of a split, and whether it keeps the "
        "row's length, so that length alone does not tell it from a right one:"
    )
    lines = (
        (
            f"`{manifest['name']}`",
            f"`{kind['kind']}`",
            "yes" if kind["keeps_length"] else "no",
            f"{kind['count']:,}",
            of,
        )
        for manifest in known
        for of in [f"{manifest['facts']['violations']['rows']:,} {manifest['facts']['violations']['split']} rows"]
        for kind in manifest["facts"]["violations"]["kinds"]
    )
    yield table(("config", "kind", "keeps the length", "count", "in"), lines)


def _groups(manifests: Sequence[Manifest]) -> Iterator[str]:
    for group in dict.fromkeys(manifest["group"] for manifest in manifests):
        members = [manifest for manifest in manifests if manifest["group"] == group]
        facts = members[0]["facts"]
        yield f"## {group}"
        yield from (prose(facts[name]) for name in ("about", "row", "parameters") if facts.get(name))
        yield from _rules(members)
        yield f"Source: {prose(facts['source'])}. Version {facts['version']}."
        yield from _parameters(members)
        if members[0] is not manifests[0]:
            yield f"The first row of `{members[0]['name']}`:"
            yield _example(facts)


def _rules(members: Sequence[Manifest]) -> Iterator[str]:
    """The rule in words; where it is not the same of all configs, each text under the names it is true of."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for manifest in members:
        texts.setdefault(tuple(manifest["facts"].get("explanations", ())), []).append(f"`{manifest['name']}`")
    for explanations, names in texts.items():
        if len(texts) > 1 and explanations:
            yield f"The rule of {', '.join(names)}:"
        yield from (f"> {prose(text)}" for text in explanations)


def _parameters(members: Sequence[Manifest]) -> Iterator[str]:
    """A line for each config, below one of what each parameter takes."""
    names = list(dict.fromkeys(name for manifest in members for name in manifest["facts"]["config"]))
    legal = members[0]["facts"].get("legal", {})
    lines = ((f"`{m['name']}`", *(_value(m["facts"]["config"].get(name, "")) for name in names)) for m in members)
    first = [("*takes*", *(legal.get(name, "") for name in names))] if legal else []
    if names:
        yield table(("config", *(f"`{name}`" for name in names)), (*first, *lines))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _citation(publication: Publication) -> Iterator[str]:
    yield "## Citation"
    yield "`pip install hf_synth` brings hf_synth itself; see [how the rows are made](#how-the-rows-are-made)."
    entries = "\n\n".join(entry.strip() for entry in (publication.citation, _SOFTWARE) if entry)
    yield f"```bibtex\n{entries}\n```"
