"""The dataset card: what rows are, how they are made, and what was measured on them.

Figures come from here, sentences from templates/dataset_card.md.j2.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from huggingface_hub import DatasetCardData
from huggingface_hub.utils import yaml_dump

from hf_synth.hub.publication import Publication
from hf_synth.hub.repository import TAG, card_metadata, lines_of, prose
from hf_synth.reports.tables import templates_beside
from hf_synth.tasks import list_tasks

_TEMPLATES = templates_beside(__file__)
_TEMPLATES.filters |= {"prose": prose, "lines": lines_of}
_UNITS = ("1", "10", "100", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_COLUMNS = {
    "input_ids": "token ids; 0 to 3 are `<pad>` `<bos>` `<eos>` `<sep>`, and `published.json` of a config lists the "
    "word of every id under `words`",
    "labels": "the same ids where the token carries loss, -100 elsewhere; not shifted, as `transformers` wants them",
    "text": "the words of the row, without `<bos>` and `<eos>`; of a corpus the document",
    "prompt": "the beginning of the text: the input, or of strings a random proper prefix",
    "completion": "the rest of the text, after a space",
    "task": "the JSON of the task's name and config, which the reward `hf_synth.rewards.verified` reads",
    "floor": "what the best predictor loses on the row's loss-bearing tokens, in nats; null where it was not computed",
    "chosen": "a right completion",
    "rejected": "a plausible wrong one",
}

_LISTED = ("configs", "dataset_info")  # what the YAML of a card says of each config
_OF_TASKS = {"group", "features", "splits", "overlap", "facts"}  # what the manifest of a task's config has

Manifest = Mapping[str, Any]  # see hf_synth.hub.repository


def card(
    publication: Publication, repo_id: str, manifests: Mapping[str, Manifest], there: str = "", tokenizer: bool = True
) -> str:
    """The README.md of a repository, or of a folder, that holds these configs; `there`: the one that it has.

    Configs that other scripts published stay in the order that they have there. `tokenizer`: AutoTokenizer finds it.
    """
    ours = {name: one for name, one in manifests.items() if one.keys() >= _OF_TASKS}
    configs = {name: {"publication": publication.described(), **one} for name, one in ours.items()}
    offered = list(publication.offers())
    before = [each.get("config_name") for each in _metadata(there)["configs"]]
    owners = {name: one["publication"]["name"] for name, one in configs.items()}

    def place(name: str) -> tuple[int, int, str]:
        order = offered if owners[name] == publication.name else before
        first = next((number for number, other in enumerate(before) if owners.get(other) == owners[name]), len(before))
        return first, order.index(name) if name in order else len(order), name

    ordered = [configs[name] for name in sorted(configs, key=place)]
    publications = list({one["publication"]["name"]: one["publication"] for one in ordered}.values())
    floors, bounds = floor_tables(ordered)
    worded = [one["name"] for one in ordered if "words" in one["facts"]]
    known = [one for one in ordered if "task" in one["features"] and one["facts"]["task"] in list_tasks()]
    text = _TEMPLATES.get_template("dataset_card.md.j2").render(
        publications=publications,
        repo_id=repo_id,
        manifests=ordered,
        first=ordered[0],
        config=worded[0] if worded and tokenizer else "",
        judged=[one["name"] for one in known if _violations([one])][:1],
        columns=_columns(publications, ordered),
        configs=_configs(ordered),
        floors=floors,
        bounds=bounds,
        overlaps=_overlaps(ordered),
        violations=_violations(ordered),
        groups=list(_groups(ordered)),
    )
    data = DatasetCardData(
        language=list(dict.fromkeys(code for each in publications for code in each["languages"])),
        license="apache-2.0",
        pretty_name=", ".join(each["title"] for each in publications),
        task_categories=["text-generation"],
        tags=["synthetic", TAG],
    )
    return merged_card(there, "tasks", text, data, ordered)


def merged_card(
    there: str, part: str, text: str, data: DatasetCardData, manifests: Sequence[Manifest], rows: int | None = None
) -> str:
    """The card that is there, with these configs in its YAML and this text between two marks that name its part.

    Configs of others and their text stay, but for the text of a card that has no such marks. `rows`: how many the
    card says there are, where these configs are all; by default those of all splits.
    """
    DatasetInfosDict({one["name"]: dataset_info(one) for one in manifests}).to_dataset_card_data(data)
    files: list[dict[str, Any]] = []
    for one in manifests:  # by patterns that shards of another number do not match
        shards = {split: f"*-of-{len(content['shards']):05d}.parquet" for split, content in one["splits"].items()}
        paths = [{"split": split, "path": f"{one['name']}/{split}-{shard}"} for split, shard in shards.items()]
        files.append({"config_name": one["name"], "data_files": paths} | ({} if files else {"default": True}))
    new, old = data.to_dict() | {"configs": files}, _metadata(there)
    names = {one["name"] for one in manifests}
    configs, infos = ([each for each in old[key] if each.get("config_name") not in names] for key in _LISTED)
    new_infos = new["dataset_info"] if isinstance(new["dataset_info"], list) else [new["dataset_info"]]
    if any(each.get("default") for each in configs):
        new["configs"][0].pop("default")
        new["configs"], infos = [*configs, *new["configs"]], [*infos, *new_infos]
    else:
        new["configs"], infos = [*new["configs"], *configs], [*new_infos, *infos]
    new["dataset_info"] = infos if len(infos) > 1 else infos[0]
    splits = [split for info in infos if isinstance(info.get("splits"), list) for split in info["splits"]]
    counts = [split.get("num_examples") for split in splits if isinstance(split, dict)]
    counted = sum(count for count in counts if isinstance(count, int))
    new["size_categories"] = [size_category(counted if rows is None or configs else rows)]
    if configs:
        for key in ("language", "license", "task_categories", "tags"):
            values = [value if isinstance(value, list) else [value] for value in (old.get(key), new.get(key)) if value]
            several = {json.dumps(value, default=str): value for value in itertools.chain(*values)}
            new[key] = list(several.values()) if len(several) > 1 else new.get(key) or old.get(key)
        new["pretty_name"] = old.get("pretty_name") or new["pretty_name"]
    first, last = f"<!-- hf_synth: {part} -->", f"<!-- hf_synth: end of {part} -->"
    block, body = f"{first}\n\n{text.strip()}\n\n{last}\n", there.split("\n---\n", 1)[-1]
    if before := re.search(f"{re.escape(first)}.*?{re.escape(last)}\n?", body, re.DOTALL):
        body = body[: before.start()] + block + body[before.end() :]
    else:
        body = f"{body.rstrip()}\n\n{block}" if "<!-- hf_synth: end of " in body else f"\n{block}"
    head = yaml_dump({**{key: value for key, value in old.items() if value}, **new})
    return f"---\n{head}---\n{body}"


def _metadata(card: str) -> dict[str, Any]:
    """The YAML on top of a card, in which configs and infos are lists; these alone where it cannot be read."""
    data = card_metadata(card) or {}
    values = {key: data[key] if isinstance(data.get(key), list) else [data.get(key)] for key in _LISTED}
    return data | {key: [each for each in listed if isinstance(each, dict)] for key, listed in values.items()}


def dataset_info(manifest: Manifest) -> DatasetInfo:
    splits = [
        {"name": split, "num_bytes": content["num_bytes"], "num_examples": content["rows"]}
        for split, content in manifest["splits"].items()
    ]
    return DatasetInfo(
        features=Features.from_dict(manifest["features"]),
        splits=SplitDict.from_split_dict(splits),
        download_size=sum(shard["size"] for content in manifest["splits"].values() for shard in content["shards"]),
        dataset_size=sum(content["num_bytes"] for content in manifest["splits"].values()),
        config_name=manifest["name"],
    )


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows: "n<1K", "1K<n<10K" and so on up to "n>1T"."""
    digits = len(str(rows))
    return "n<1K" if digits < 4 else "n>1T" if digits > 12 else f"{_UNITS[digits - 1]}<n<{_UNITS[digits]}"


def table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown themselves; empty without lines."""
    rows = [titles, ["---"] * len(titles), *lines]
    cells = (" | ".join(cell.replace("|", chr(92) + "|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in cells) if rows[2:] else ""


def _columns(publications: Sequence[Mapping[str, Any]], manifests: Sequence[Manifest]) -> str:
    words = _COLUMNS | {name: text for each in publications for name, text in each["columns"].items()}
    types = {
        name: "list of " * text.count('"feature":') + re.findall(r'"dtype": "(\w+)"', text)[0]
        for manifest in manifests
        for name, text in ((name, json.dumps(feature)) for name, feature in manifest["features"].items())
    }
    lines = ((f"`{name}`", kind, words.get(name, "the task's own")) for name, kind in types.items())
    return table(("column", "type", "what it is"), lines)


def _configs(manifests: Sequence[Manifest]) -> str:
    names = list(dict.fromkeys(split for manifest in manifests for split in manifest["splits"]))
    lines = []
    for manifest in manifests:
        splits, floors = manifest["splits"], manifest["facts"].get("floor")
        sizes = (f"{splits[name]['rows']:,}" if name in splits else "" for name in names)
        floor = f"{list(floors.values())[-1]['nats_per_token']:.4f}" if floors else ""
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
    lines, bounds = [], []
    for manifest in known:
        name, floors, shares = f"`{manifest['name']}`", manifest["facts"]["floor"], manifest["facts"].get("shares", {})
        means, lowered = dict.fromkeys(splits, ""), dict.fromkeys(splits, "")
        for split, floor in floors.items():
            nats, tokens, share = floor["nats_per_token"], floor["tokens_per_row"], shares.get(split)
            means[split] = f"{nats:.4f} ± {floor['standard_error']:.4f} ({floor['rows']:,} rows)"
            if share is not None:
                most = min(-math.log(share) if share else math.inf, nats * tokens)
                lowered[split] = f"{share:.3f}, {most + 0.0:.2f}"
        lines.append((name, *means.values(), f"{tokens:.1f}"))
        if shares and any(floor["nats_per_token"] for floor in floors.values()):
            bounds.append((name, *lowered.values()))
    titles = (*(f"floor on {split} rows, nats per token" for split in splits), "loss-bearing tokens a row")
    return table(("config", *titles), lines), table(("config", *(f"{s}: share, at most" for s in splits)), bounds)


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
