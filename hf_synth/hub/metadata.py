"""The YAML on top of a dataset card: what the Hub searches by, and which files are which split of which config."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from hf_synth.hub.publication import Publication

TAG = "hf_synth"
_LICENSE = "apache-2.0"
_UNITS = ("1", "10", "100", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")

Manifest = Mapping[str, Any]  # see hf_synth.hub.manifests


def metadata(publication: Publication, manifests: Sequence[Manifest]) -> DatasetCardData:
    """The YAML on top: what the Hub searches by, and which files are which split of which config."""
    rows = sum(split["rows"] for manifest in manifests for split in manifest["splits"].values())
    data = DatasetCardData(
        language=list(publication.languages),
        license=_LICENSE,
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


def is_ours(card: str) -> bool:
    """Whether a README.md is a card of this package, or has no text that could be lost."""
    parts = card.split("---\n", 2)
    if len(parts) != 3 or parts[0].strip():
        return not card.strip()
    try:
        data = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return False
    return not parts[2].strip() or (isinstance(data, dict) and TAG in (data.get("tags") or []))
