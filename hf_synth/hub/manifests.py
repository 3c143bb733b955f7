"""Manifests: what was measured on a config's shards and rows, kept beside them as CONFIG/published.json.

The card is made of manifests alone, so that configs published at different times end up in one card.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.hub.publication import Published
from hf_synth.hub.shards import Measured, Shard, overlap, plan

MANIFEST = "published.json"


def manifest(config: Published, shards: Mapping[str, Measured], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a config from its measured shards by path, and its facts."""
    splits: dict[str, list[tuple[Shard, Measured]]] = {}
    for shard in plan([config]):
        splits.setdefault(shard.split, []).append((shard, shards[shard.path]))
    hashes = {split: np.concatenate([measured.hashes for _, measured in parts]) for split, parts in splits.items()}
    return {
        "name": config.name,
        "group": config.group,
        "features": config.features.to_dict(),
        "splits": {split: _split(parts) for split, parts in splits.items()},
        "overlap": overlap(hashes),
        "facts": dict(facts),
    }


def _split(parts: Sequence[tuple[Shard, Measured]]) -> dict[str, Any]:
    return {
        "rows": sum(measured.rows for _, measured in parts),
        "num_bytes": sum(measured.num_bytes for _, measured in parts),
        "shards": [{"path": shard.path, "size": m.size, "sha256": m.sha256} for shard, m in parts],
    }


def sent_shards(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every shard of the manifests by its path."""
    splits = (split for manifest in manifests.values() for split in manifest["splits"].values())
    return {shard["path"]: (shard["size"], shard["sha256"]) for split in splits for shard in split["shards"]}


def to_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as JSON, in the order of its keys: splits and columns keep theirs."""
    return json.dumps(manifest, ensure_ascii=False, separators=(",", ":")) + "\n"


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests that lie in a folder, by config."""
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob(f"*/{MANIFEST}"))}
