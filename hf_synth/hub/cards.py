"""The dataset card: what rows are, how they are made, and what was measured on them.

Figures come from here, sentences from templates/dataset_card.md.j2.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from hf_synth.hub.publication import Publication
from hf_synth.hub.repository import TAG, TEMPLATES

_UNITS = ("1", "10", "100", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_SHOWN_WORDS = 48
_COLUMNS = {
    "input_ids": "token ids; 0 to 3 are `<pad>` `<bos>` `<eos>` `<sep>`, and `published.json` of a config lists the "
    "word of every id under `words`",
    "labels": "the same ids where the token carries loss, -100 elsewhere; not shifted, as `transformers` wants them",
    "text": "the words of the row, without `<bos>` and `<eos>`; of a corpus the document",
}

Manifest = Mapping[str, Any]  # see hf_synth.hub.repository


def card(publication: Publication, repo_id: str, manifests: Mapping[str, Manifest]) -> str:
    """The README.md of a repository, or of a folder, that holds these configs."""
    offered = list(publication.offers())
    order = sorted(manifests, key=lambda name: (offered.index(name) if name in offered else len(offered), name))
    ordered = [manifests[name] for name in order]
    floors, bounds = floor_tables(ordered)
    return TEMPLATES.get_template("dataset_card.md.j2").render(
        publication=publication,
        repo_id=repo_id,
        metadata=metadata(publication, ordered).to_yaml(),
        manifests=ordered,
        first=ordered[0],
        columns=_columns(publication, ordered),
        example=_example,
        configs=_configs(ordered),
        floors=floors,
        bounds=bounds,
        overlaps=_overlaps(ordered),
        violations=_violations(ordered),
        groups=list(_groups(ordered)),
    )


def metadata(publication: Publication, manifests: Sequence[Manifest]) -> DatasetCardData:
    """The YAML on top: what the Hub searches by, and which files are which split of which config."""
    rows = sum(split["rows"] for manifest in manifests for split in manifest["splits"].values())
    data = DatasetCardData(
        language=list(publication.languages),
        license="apache-2.0",
        pretty_name=publication.title,
        task_categories=["text-generation"],
        tags=["synthetic", TAG],
        size_categories=[size_category(rows)],
        configs=[data_files(manifest, default=number == 0) for number, manifest in enumerate(manifests)],
    )
    DatasetInfosDict({manifest["name"]: dataset_info(manifest) for manifest in manifests}).to_dataset_card_data(data)
    return data


def data_files(manifest: Manifest, *, default: bool) -> dict[str, Any]:
    """Each split's files by a pattern that shards of another number do not match."""
    files = [
        {"split": split, "path": f"{manifest['name']}/{split}-*-of-{len(content['shards']):05d}.parquet"}
        for split, content in manifest["splits"].items()
    ]
    return {"config_name": manifest["name"], "data_files": files} | ({"default": True} if default else {})


def dataset_info(manifest: Manifest) -> DatasetInfo:
    splits = SplitDict()
    for split, content in manifest["splits"].items():
        splits.add(SplitInfo(split, num_bytes=content["num_bytes"], num_examples=content["rows"]))
    return DatasetInfo(
        features=Features.from_dict(manifest["features"]),
        splits=splits,
        download_size=sum(shard["size"] for content in manifest["splits"].values() for shard in content["shards"]),
        dataset_size=sum(content["num_bytes"] for content in manifest["splits"].values()),
        config_name=manifest["name"],
    )


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows: "n<1K", "1K<n<10K" and so on up to "n>1T"."""
    if rows < 1000:
        return "n<1K"
    if rows >= 10**12:
        return "n>1T"
    digits = len(str(rows))
    return f"{_UNITS[digits - 1]}<n<{_UNITS[digits]}"


def table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown themselves; empty without lines."""
    rows = [titles, ["---"] * len(titles), *lines]
    cells = (" | ".join(cell.replace("|", chr(92) + "|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in cells) if rows[2:] else ""


def _columns(publication: Publication, manifests: Sequence[Manifest]) -> str:
    words = {**_COLUMNS, **publication.columns}
    types = {
        name: f"list of {feature['feature']['dtype']}" if "feature" in feature else feature["dtype"]
        for manifest in manifests
        for name, feature in manifest["features"].items()
    }
    lines = ((f"`{name}`", kind, words.get(name, "the task's own")) for name, kind in types.items())
    return table(("column", "type", "what it is"), lines)


def _example(manifest: Manifest) -> Iterator[str]:
    """The first row of a config, a line for each of its parts: words or ids, of many the first."""
    shown = manifest["facts"]["example"]
    for name, value in ({name: shown[name] for name in ("prompt", "target") if name in shown} | shown["row"]).items():
        items = value if isinstance(value, list) else str(value).split()
        more = f" ... {len(items) - _SHOWN_WORDS:,} more" if len(items) > _SHOWN_WORDS else ""
        yield f"{name + ':':11} {' '.join(map(str, items[:_SHOWN_WORDS]))}{more}"


def _configs(manifests: Sequence[Manifest]) -> str:
    names = list(dict.fromkeys(split for manifest in manifests for split in manifest["splits"]))
    lines = []
    for manifest in manifests:
        splits, floors = manifest["splits"], manifest["facts"].get("floor")
        sizes = (f"{splits[name]['rows']:,}" if name in splits else "" for name in names)
        floor = f"{_last(floors)['nats_per_token']:.4f}" if floors else ""
        lines.append((f"`{manifest['name']}`", *sizes, floor, _shared(manifest, "test in train")))
    return table(("config", *names, "floor", "test in train"), lines)


def _shared(manifest: Manifest, pair: str) -> str:
    """How many rows of one split are in another; empty where the config has no such pair of splits."""
    part = manifest["overlap"]["shared"].get(pair)
    if not part:
        return "" if part is None else "0"
    return f"{part:,} ({100 * part / manifest['splits'][pair.split(' in ')[0]]['rows']:.1f} %)"


def floor_tables(manifests: Sequence[Manifest]) -> tuple[str, str]:
    """The floor of each config that has one, and by how much less can be lost where splits are kept apart; or ""."""
    known = [manifest for manifest in manifests if manifest["facts"].get("floor")]
    splits = list(dict.fromkeys(split for manifest in known for split in manifest["facts"]["floor"]))
    lines = []
    for manifest in known:
        floors = manifest["facts"]["floor"]
        means = (
            f"{floors[split]['nats_per_token']:.4f} ± {floors[split]['standard_error']:.4f} "
            f"({floors[split]['rows']:,} rows)"
            if split in floors
            else ""
            for split in splits
        )
        lines.append((f"`{manifest['name']}`", *means, f"{_last(floors)['tokens_per_row']:.1f}"))
    titles = (*(f"floor on {split} rows, nats per token" for split in splits), "loss-bearing tokens a row")
    lowered = [m for m in known if m["facts"].get("shares") and any(map(_nats, m["facts"]["floor"].values()))]
    splits = list(dict.fromkeys(split for manifest in lowered for split in manifest["facts"]["floor"]))
    bounds = ((f"`{m['name']}`", *(_bound(m["facts"], split) for split in splits)) for m in lowered)
    return table(("config", *titles), lines), table(("config", *(f"{s}: share, at most" for s in splits)), bounds)


def _last(floors: Manifest) -> Manifest:
    """That of the split that is evaluated."""
    return floors[list(floors)[-1]]


def _bound(facts: Manifest, split: str) -> str:
    share, floor = (facts[name].get(split) for name in ("shares", "floor"))
    if share is None or floor is None:
        return ""
    return f"{share:.3f}, {min(-math.log(share) if share else math.inf, _nats(floor)) + 0.0:.2f}"


def _nats(floor: Manifest) -> float:
    """The floor of a row."""
    return floor["nats_per_token"] * floor["tokens_per_row"]


def _overlaps(manifests: Sequence[Manifest]) -> str:
    pairs = list(dict.fromkeys(pair for manifest in manifests for pair in manifest["overlap"]["shared"]))
    lines = []
    for manifest in manifests:
        facts = manifest["facts"]
        apart = facts["holdout"] == "content"
        why = "kept apart by content" if apart else "drawn independently, kept apart by nothing"
        distinct = ", ".join(f"{split} {count:,}" for split, count in manifest["overlap"]["distinct"].items())
        shared = (_shared(manifest, pair) for pair in pairs)
        lines.append((f"`{manifest['name']}`", distinct, *shared, facts.get("overlap") or why))
    return table(("config", "different rows", *(f"rows of {pair}" for pair in pairs), "why"), lines)


def _violations(manifests: Sequence[Manifest]) -> str:
    lines = []
    for manifest in manifests:
        violations = manifest["facts"].get("violations", {})
        for kind in violations.get("kinds", ()):
            keeps = "yes" if kind["keeps_length"] else "no"
            of = f"{violations['rows']:,} {violations['split']} rows"
            lines.append((f"`{manifest['name']}`", f"`{kind['kind']}`", keeps, f"{kind['count']:,}", of))
    return table(("config", "kind", "keeps the length", "count", "in"), lines)


def _groups(manifests: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    """For each section of the card its configs, their parameters, and the rules under the configs they are true of."""
    for group in dict.fromkeys(manifest["group"] for manifest in manifests):
        members = [manifest for manifest in manifests if manifest["group"] == group]
        rules: dict[tuple[str, ...], list[str]] = {}
        for manifest in members:
            rules.setdefault(tuple(manifest["facts"].get("explanations", ())), []).append(f"`{manifest['name']}`")
        yield {"name": group, "members": members, "rules": rules, "parameters": _parameters(members)}


def _parameters(members: Sequence[Manifest]) -> str:
    """A line for each config, below one of what each parameter takes; empty where none has parameters."""
    names = list(dict.fromkeys(name for manifest in members for name in manifest["facts"]["config"]))
    legal = members[0]["facts"].get("legal", {})
    lines = [("*takes*", *(legal.get(name, "") for name in names))] if legal else []
    for manifest in members:
        values = (manifest["facts"]["config"].get(name, "") for name in names)
        texts = (value if isinstance(value, str) else json.dumps(value) for value in values)
        lines.append((f"`{manifest['name']}`", *texts))
    return table(("config", *(f"`{name}`" for name in names)), lines) if names else ""
