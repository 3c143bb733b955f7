"""The part of a dataset card on the entropy floor."""

import math
from collections.abc import Iterable, Iterator, Sequence

from hf_synth.hub.markdown import table
from hf_synth.hub.metadata import Manifest

_LOWERED = (
    "Where splits are kept apart by content, P is the generator's before contents were given to splits: a predictor "
    "that knew in addition which contents a split has could lose less than this floor, by no more than the second "
    "table says, and where contents are few, the floor differs from split to split. "
)


def floor_section(manifests: Sequence[Manifest]) -> Iterator[str]:
    """The floor of each config that has one, and by how much less can be lost where splits are kept apart."""
    known = [manifest for manifest in manifests if manifest["facts"].get("floor")]
    if not known:
        return
    yield "## The entropy floor"
    held = [manifest for manifest in known if manifest["facts"].get("shares")]
    lowered = [manifest for manifest in held if any(map(_nats, manifest["facts"]["floor"].values()))]
    yield (
        "The mean of -ln P(token | all before it) over the loss-bearing tokens, with P exact: the loss of the best "
        "predictor that knows the generator and all its parameters. "
        + (_LOWERED if lowered else "")
        + "Behind ± stands the standard error of the mean over the stated number of rows; 0 where all rows agree."
    )
    splits = list(dict.fromkeys(split for manifest in known for split in manifest["facts"]["floor"]))
    titles = ("config", *(f"floor on {split} rows, nats per token" for split in splits), "loss-bearing tokens a row")
    yield table(titles, (_floor(manifest, splits) for manifest in known))
    if lowered:
        yield from _bounds(lowered)


def _floor(manifest: Manifest, splits: Iterable[str]) -> tuple[str, ...]:
    floors = manifest["facts"]["floor"]
    texts = (_mean(floors[split]) if split in floors else "" for split in splits)
    return f"`{manifest['name']}`", *texts, f"{last(floors)['tokens_per_row']:.1f}"


def _mean(floor: Manifest) -> str:
    return f"{floor['nats_per_token']:.4f} ± {floor['standard_error']:.4f} ({floor['rows']:,} rows)"


def last(floors: Manifest) -> Manifest:
    """That of the split that is evaluated."""
    return floors[list(floors)[-1]]


def _bounds(manifests: Sequence[Manifest]) -> Iterator[str]:
    yield (
        "By how much the loss can be lower where splits are kept apart by content, in nats a row: by ln(1/share), and "
        "never by more than the floor, nats per token times tokens a row. `share` is the part of what the generator "
        "draws that belongs to the split (measured on 10,000 draws, fewer where rows are long; about 0.8, 0.1 and 0.1 "
        "where contents are many)."
    )
    splits = list(dict.fromkeys(split for manifest in manifests for split in manifest["facts"]["floor"]))
    titles = (f"{split}: share, at most" for split in splits)
    yield table(("config", *titles), ((f"`{m['name']}`", *(_bound(m, split) for split in splits)) for m in manifests))


def _bound(manifest: Manifest, split: str) -> str:
    share, floor = (manifest["facts"][name].get(split) for name in ("shares", "floor"))
    if share is None or floor is None:
        return ""
    return f"{share:.3f}, {min(-math.log(share) if share else math.inf, _nats(floor)) + 0.0:.2f}"


def _nats(floor: Manifest) -> float:
    """The floor of a row."""
    return floor["nats_per_token"] * floor["tokens_per_row"]
