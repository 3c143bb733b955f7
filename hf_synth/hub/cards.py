"""The dataset card: what rows are, how they are made, and what was measured on them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
    """The README.md of a repository that holds these configs; see `hf_synth.hub.manifests`."""
    offered = list(publication.offers())
    order = sorted(manifests, key=lambda name: (offered.index(name) if name in offered else len(offered), name))
    ordered = [manifests[name] for name in order]
    parts = [f"# {publication.title}", publication.about, *_loading(repo_id, ordered), *_row(publication, ordered)]
    parts += [*_making(publication, ordered), *_configs(ordered), *_floors(ordered), *_overlaps(ordered)]
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
    yield _table(("column", "type", "what it is"), about)
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
        f"The seed is {', '.join(map(str, seeds))}. "
        f"`python datasets_scripts/{publication.name}.py` of hf_synth, with these configs, rows and seed, makes the "
        "same files again, byte for byte with the same version of pyarrow."
    )


def _configs(manifests: Sequence[Manifest]) -> Iterator[str]:
    splits = list(dict.fromkeys(split for manifest in manifests for split in manifest["splits"]))
    yield "## Configs"
    yield "Rows of each split; the entropy floor, nats per loss-bearing token; test rows whose content is in train."
    yield _table(("config", *splits, "floor", "test in train"), (_config(manifest, splits) for manifest in manifests))


def _config(manifest: Manifest, splits: Iterable[str]) -> tuple[str, ...]:
    sizes = (f"{manifest['splits'][split]['rows']:,}" if split in manifest["splits"] else "" for split in splits)
    floor = manifest["facts"].get("floor")
    shared = manifest["overlap"]["shared"].get("test in train")
    overlap = "" if shared is None else _share(shared, manifest["splits"]["test"]["rows"])
    return f"`{manifest['name']}`", *sizes, f"{_last(floor)['nats_per_token']:.4f}" if floor else "", overlap


def _share(part: int, whole: int) -> str:
    return "0" if part == 0 else f"{part:,} ({100 * part / whole:.1f} %)"


def _floors(manifests: Sequence[Manifest]) -> Iterator[str]:
    known = [manifest for manifest in manifests if manifest["facts"].get("floor")]
    if not known:
        return
    yield "## The entropy floor"
    yield (
        "The loss that no predictor can beat: the mean of -ln P(token | all before it) over the loss-bearing tokens, "
        "with P exact, of a predictor that knows the generator and all its parameters. "
        "Behind ± stands the standard error of the mean over the stated number of rows; it is 0 where all rows agree."
    )
    splits = list(dict.fromkeys(split for manifest in known for split in manifest["facts"]["floor"]))
    titles = ("config", *(f"floor on {split} rows, nats per token" for split in splits), "loss-bearing tokens a row")
    yield _table(titles, (_floor(manifest, splits) for manifest in known))
    held = [manifest for manifest in known if manifest["facts"].get("shares")]
    if held:
        yield from _bounds(held)


def _floor(manifest: Manifest, splits: Iterable[str]) -> tuple[str, ...]:
    floors = manifest["facts"]["floor"]
    texts = (_mean(floors[split]) if split in floors else "" for split in splits)
    return f"`{manifest['name']}`", *texts, f"{_last(floors)['tokens_per_row']:.1f}"


def _mean(floor: Manifest) -> str:
    return f"{floor['nats_per_token']:.4f} ± {floor['standard_error']:.4f} ({floor['rows']:,} rows)"


def _last(floors: Manifest) -> Manifest:
    return floors[list(floors)[-1]]


def _bounds(manifests: Sequence[Manifest]) -> Iterator[str]:
    yield (
        "Where splits are kept apart by content, P is that of the generator before contents were given to splits; "
        "where contents are few, its mean differs from split to split. A predictor that knew in addition which "
        "contents a split has could gain ln(1/share) nats a row at most, with `share` the part of what the generator "
        "draws that belongs to the split (measured on 10,000 draws, fewer where rows are long; about 0.8, 0.1 and 0.1 "
        "where contents are many):"
    )
    splits = list(dict.fromkeys(split for manifest in manifests for split in manifest["facts"]["shares"]))
    titles = (f"{split}: share, bound" for split in splits)
    yield _table(("config", *titles), ((f"`{m['name']}`", *(_bound(m, split) for split in splits)) for m in manifests))


def _bound(manifest: Manifest, split: str) -> str:
    share = manifest["facts"]["shares"].get(split)
    if share is None:
        return ""
    return f"{share:.3f}, {-math.log(share) + 0.0:.2f}" if share else "none drawn"


def _overlaps(manifests: Sequence[Manifest]) -> Iterator[str]:
    pairs = list(dict.fromkeys(pair for manifest in manifests for pair in manifest["overlap"]["shared"]))
    yield "## Overlap between splits"
    yield (
        "Measured on all published rows by 64-bit hashes of whole rows (`input_ids`, or `text` where there are no "
        "ids): how many different rows each split has, and how many rows of one split are, token by token, in another."
    )
    titles = ("config", "different rows", *(f"rows of {pair}" for pair in pairs), "why")
    yield _table(titles, (_overlap(manifest, pairs) for manifest in manifests))


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
    yield _table(("config", "kind", "keeps the length", "count", "in"), lines)


def _groups(manifests: Sequence[Manifest]) -> Iterator[str]:
    for group in dict.fromkeys(manifest["group"] for manifest in manifests):
        members = [manifest for manifest in manifests if manifest["group"] == group]
        facts = members[0]["facts"]
        yield f"## {group}"
        yield from (_prose(facts[name]) for name in ("about", "row", "parameters") if facts.get(name))
        yield from (f"> {_prose(text)}" for text in facts.get("explanations", ()))
        yield f"Source: {_prose(facts['source'])}. Version {facts['version']}."
        yield _table(("config", "parameters"), ((f"`{m['name']}`", _parameters(m["facts"])) for m in members))
        if members[0] is not manifests[0]:
            yield f"The first row of `{members[0]['name']}`:"
            yield _example(facts)


def _citation(publication: Publication) -> Iterator[str]:
    yield "## Citation"
    entries = "\n\n".join(entry.strip() for entry in (publication.citation, _SOFTWARE) if entry)
    yield f"```bibtex\n{entries}\n```"


def _parameters(facts: Manifest) -> str:
    return f"`{json.dumps(facts['config'], sort_keys=True)}`"


def _prose(text: str) -> str:
    """Text outside of backticks with `<` written so that it is shown; a line break only between paragraphs."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
