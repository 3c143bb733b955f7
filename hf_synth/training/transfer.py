"""Weights transferred from other checkpoints, and a report of what was copied."""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.errors import check_fields, nearest, option
from hf_synth.training.transfer_source import EVERYTHING, Source, SourceModel, check_parts, freeze, parts_of, resolve


@dataclasses.dataclass(frozen=True)
class PartReport:
    """One part of the model after a transfer.

    source: the checkpoint that it came from; None if it stayed fresh.
    tensors, parameters: how many were copied, and `of_tensors`, `of_parameters` how many the part has.
    rows, of_rows: rows written of the embeddings, the positions or the head, and how many there are; else None.
    norm_before, norm_after: Euclidean norm of all numbers of the part, fresh and after the transfer.
    change: norm of (after - before) over norm_before; 0 means that nothing moved, None that norm_before is 0.
    """

    part: str
    source: str | None
    shuffled: bool
    tensors: int
    of_tensors: int
    parameters: int
    of_parameters: int
    rows: int | None
    of_rows: int | None
    norm_before: float
    norm_after: float
    change: float | None


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """A transfer as the reader of a run should see it.

    sources: the fields of each `Source`, and under `differences` the config values in which it differs from the
    model: name -> [the source's, the model's], ids and size of the vocabulary aside.
    embeddings, seed: the arguments of `transfer`. parts: one for each part of the model.
    notes: sentences about what a reader may not expect.
    trained: the parts that train, and how many numbers are trained and frozen; None if all train.
    """

    sources: tuple[dict[str, Any], ...]
    embeddings: str
    seed: int
    parts: tuple[PartReport, ...]
    notes: tuple[str, ...] = ()
    trained: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return dataclasses.asdict(self)


EMBEDDINGS = ("by_token", "averaged", "fresh")

_OF_TOKENS = ("embeddings", "head")
_BY_ROWS = (*_OF_TOKENS, "positions")


@dataclasses.dataclass(frozen=True)
class _Copy:
    """Values for rows of the tensor of a name."""

    source: Source
    name: str
    values: Tensor
    rows: Tensor | slice


def transfer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Source],
    *,
    embeddings: str = "by_token",
    seed: int = 0,
) -> TransferReport:
    """Copy parts of checkpoints into `model` in place; what no source names keeps its weights.

    A source has the model's architecture, width, layers and heads; vocabulary and number of positions may differ.
    `seed` is that of shuffled sources. Global random state is left as it was, and on an error the model too.

    Errors: ValueError for parts that two sources claim or the model does not have, for a checkpoint that cannot be
    loaded or lacks a tensor, for tensors that do not fit, and for tokenizers without a token in common.
    """
    if embeddings not in EMBEDDINGS:
        raise ValueError(f"embeddings: got {embeddings!r}; {nearest(str(embeddings), EMBEDDINGS)}")
    parts = parts_of(model)
    copies: list[_Copy] = []
    notes: list[str] = []
    described = []
    for source, claimed in _claims(sources, set(parts.values()), embeddings).items():
        origin = SourceModel(source)
        origin.check_kind(model, claimed)
        for part in claimed:
            names = [name for name in parts if parts[name] == part]
            origin.check_names(model, part, names)
            copies += [_copy(origin, model, part, name, tokenizer, embeddings, seed) for name in names]
        notes += _notes(origin, model, parts, claimed)
        described.append({**dataclasses.asdict(source), "differences": origin.differences(model)})
    return TransferReport(tuple(described), embeddings, seed, _write(model, parts, copies), tuple(notes))


def _claims(sources: Sequence[Source], present: set[str], embeddings: str) -> dict[Source, tuple[str, ...]]:
    """Return the parts that each source gives; ValueError for a part claimed twice, or claimed and fresh."""
    claims: dict[Source, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for source in sources:
        claimed = resolve(source.parts, present, f"source {source.path!r}")
        if embeddings == "fresh":
            if named := [part for part in _OF_TOKENS if part in source.parts]:
                raise ValueError(
                    f"source {source.path!r}: got part {named[0]!r} with fresh embeddings; wanted by_token or averaged"
                )
            claimed = tuple(part for part in claimed if part not in _OF_TOKENS)
        for part in claimed:
            if part in owner:
                raise ValueError(
                    f"got part {part!r} from {owner[part]!r} and from {source.path!r}; wanted it from one of them"
                )
            owner[part] = source.path
        claims[source] = claimed
    return claims


def _copy(
    origin: SourceModel,
    model: PreTrainedModel,
    part: str,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    embeddings: str,
    seed: int,
) -> _Copy:
    tensor = model.get_parameter(name)
    values = origin.values(name, tensor, by_rows=part in _BY_ROWS)
    rows: Tensor | slice = slice(None)
    if part == "positions":
        rows = slice(min(len(tensor), len(values)))
        values = values[rows]
    elif part in _OF_TOKENS and embeddings == "averaged":
        values = values.mean(dim=0)
    elif part in _OF_TOKENS:
        rows, theirs = _shared_tokens(origin, tokenizer, len(tensor), len(values))
        values = values[theirs]
    return _Copy(origin.source, name, _shuffled(values, name, seed) if origin.source.shuffled else values, rows)


def _shared_tokens(
    origin: SourceModel, tokenizer: PreTrainedTokenizerBase, here: int, there: int
) -> tuple[Tensor, Tensor]:
    """Return ids of the tokens that both tokenizers have: the model's [n] and the source's [n]."""
    ours, theirs = tokenizer.get_vocab(), origin.tokenizer.get_vocab()
    for vocabulary, rows, whose in ((ours, here, "model"), (theirs, there, "source")):
        if (largest := max(vocabulary.values())) >= rows:
            raise origin.error(
                f"token id {largest} in the {whose}'s tokenizer, wanted ids below {rows}, the rows of its embeddings; "
                "pair the tokenizer with its own model"
            )
    shared = sorted(ours.keys() & theirs.keys(), key=ours.__getitem__)
    if not shared:
        raise origin.error("a tokenizer without a token in common with the model's; use embeddings averaged or fresh")
    return torch.tensor([ours[token] for token in shared]), torch.tensor([theirs[token] for token in shared])


def _shuffled(values: Tensor, name: str, seed: int) -> Tensor:
    """Return the same numbers in an order that follows from seed and name."""
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(values.numel())
    return values.flatten()[torch.from_numpy(order)].view_as(values)


def _notes(origin: SourceModel, model: PreTrainedModel, parts: Mapping[str, str], claimed: Sequence[str]) -> list[str]:
    """Note what `everything` left behind, and positions that do not cover the model's."""
    notes = []
    if EVERYTHING in origin.source.parts:
        left = sorted(set(origin.parts.values()) - set(claimed))
        notes += [f"{origin.source.path}: not used: {part}" for part in left]
    for name in (name for name in parts if parts[name] == "positions" and "positions" in claimed):
        here, there = model.get_parameter(name), origin.tensors[name]
        if len(here) != len(there):
            notes.append(f"{origin.source.path}: it has {len(there)} positions, the model {len(here)}")
    return notes


def _write(model: PreTrainedModel, parts: Mapping[str, str], copies: Sequence[_Copy]) -> tuple[PartReport, ...]:
    """Copy the values, and report what changed."""
    fresh = {copy.name: model.get_parameter(copy.name).detach().clone() for copy in copies}
    for copy in copies:
        tensor = model.get_parameter(copy.name).data
        tensor[copy.rows] = copy.values.to(tensor)
    by_name = {copy.name: copy for copy in copies}
    order = dict.fromkeys(parts.values())
    return tuple(_part_report(part, [n for n in parts if parts[n] == part], model, fresh, by_name) for part in order)


def _part_report(
    part: str, names: Sequence[str], model: PreTrainedModel, fresh: Mapping[str, Tensor], copies: Mapping[str, _Copy]
) -> PartReport:
    now = {name: model.get_parameter(name).detach() for name in names}
    before = {name: fresh.get(name, now[name]) for name in names}
    copied = {name: now[name][copies[name].rows] for name in names if name in copies}
    source = next((copies[name].source for name in copied), None)
    by_rows = part in _BY_ROWS
    old, moved = _norm(before.values()), _norm(now[name] - before[name] for name in names)
    return PartReport(
        part=part,
        source=source.path if source else None,
        shuffled=source is not None and source.shuffled,
        tensors=len(copied),
        of_tensors=len(names),
        parameters=sum(tensor.numel() for tensor in copied.values()),
        of_parameters=sum(tensor.numel() for tensor in now.values()),
        rows=max(map(len, copied.values()), default=0) if by_rows else None,
        of_rows=max(map(len, now.values())) if by_rows else None,
        norm_before=old,
        norm_after=_norm(now.values()),
        change=moved / old if old else None,
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


_FIELDS = {
    "path": (str, "a path or a Hub id"),
    "parts": (str | list | tuple, "a part or a list of parts"),
    "revision": (str | None, "a branch, tag or commit in quotes"),
    "shuffled": (bool, "true or false"),
}


@dataclasses.dataclass
class TransferArguments:
    """Where the weights of a fresh model come from, and which of them train."""

    init_from: list[dict[str, Any]] | str | None = option(
        None,
        "A checkpoint whose weights are transferred, by path or Hub id, or a list of {path, parts, revision, "
        "shuffled}, as JSON. Parts: attention, mlp, norms, embeddings, positions, head, everything.",
    )
    init_embeddings: str = option(
        "by_token",
        "Embeddings and head: by_token (rows of the tokens that both know), averaged, or fresh.",
        choices=EMBEDDINGS,
    )
    train_parts: list[str] = option([EVERYTHING], "The parts that train; the others stay as they are.")

    def __post_init__(self) -> None:
        """Read JSON, take one name for a list of one, and check every value."""
        self.init_from = _entries(self.init_from)
        self.sources()
        check_fields(self)
        self.train_parts = list(check_parts(_listed(self.train_parts), "train_parts"))

    def sources(self) -> list[Source]:
        """Return the sources that `init_from` names; ValueError for unusable values."""
        entries: Any = self.init_from or []
        return [_source(number, entry) for number, entry in enumerate(entries)]


def apply_transfer(
    arguments: TransferArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> TransferReport | None:
    """Copy weights into the model and freeze what shall not train, both in place; None if neither is set.

    Call it before the optimizer is made. Errors: as `transfer` and `freeze`.
    """
    everything_trains = arguments.train_parts == [EVERYTHING]
    if not arguments.init_from and everything_trains:
        return None
    report = transfer(model, tokenizer, arguments.sources(), embeddings=arguments.init_embeddings, seed=seed)
    if everything_trains:
        return report
    trained = {"parts": arguments.train_parts, **freeze(model, arguments.train_parts)}
    return dataclasses.replace(report, trained=trained)


def _entries(value: Any) -> list[dict[str, Any]] | None:
    """Return a path, JSON, or a list of paths and mappings as a list of mappings."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"init_from: got {value!r}, wanted a path or JSON ({error})") from None
    if not value:
        return None
    entries = value if isinstance(value, list) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


def _source(number: int, entry: Any) -> Source:
    where = f"init_from[{number}]"
    if not isinstance(entry, dict) or not entry.get("path"):
        raise ValueError(f"{where}: got {entry!r}, wanted a path or a mapping with at least path")
    for key, value in entry.items():
        if key not in _FIELDS:
            raise ValueError(f"{where}: got unknown key {key!r}; {nearest(str(key), _FIELDS)}")
        if not isinstance(value, _FIELDS[key][0]):
            raise ValueError(f"{where}.{key}: got {value!r}, wanted {_FIELDS[key][1]}")
    return Source(**{**entry, "parts": tuple(_listed(entry.get("parts", EVERYTHING)))})


def _listed(parts: str | Sequence[str]) -> list[str]:
    return [parts] if isinstance(parts, str) else list(parts)
