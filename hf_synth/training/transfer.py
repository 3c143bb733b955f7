"""Weights transferred from other checkpoints, a report of what was copied, and the parts of a model that train.

- attention: projections of queries, keys, values and the output
- mlp: the feed-forward layers, experts and their router included
- norms: every normalisation, also that of queries and keys, and the last one
- embeddings: one row for each token; a tied head is the same tensor and belongs here
- positions: learned positions, for models that have them
- head: an untied head, and the bias of any head
"""

import dataclasses
import functools
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.errors import check_choices, check_fields, option, read_json
from hf_synth.training.models import from_pretrained

PARTS = ("attention", "mlp", "norms", "embeddings", "positions", "head")
EVERYTHING = "everything"

# Norms come first: `post_attention_layernorm` and `self_attn.q_norm` are norms, not attention.
_NORM = re.compile(r"^ln_|norm")
_POSITIONS = re.compile(r"^wpe$|position")
_ATTENTION = {"attn", "attention", "self_attn", "self_attention"}
_MLP = {"mlp", "feed_forward", "ffn", "fc1", "fc2"}


def parts_of(model: PreTrainedModel) -> dict[str, str]:
    """Return the name of each parameter -> its part, a tied tensor under its first name.

    Raises ValueError for a parameter whose name tells no part.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings, head = ({id(parameter) for parameter in end.parameters()} if end else set() for end in ends)
    parts = {}
    for name, parameter in model.named_parameters():
        here = id(parameter)
        part = "embeddings" if here in embeddings else "head" if here in head else _part_by_name(name)
        if part is None:
            raise ValueError(
                f"got parameter {name!r} of a {model.config.model_type} model, whose name tells no part; "
                f"wanted one of {', '.join(PARTS)}; transfer such models whole, with model_name_or_path"
            )
        parts[name] = part
    return parts


def check_parts(parts: str | Sequence[str], name: str) -> tuple[str, ...]:
    """Return a part or several as a tuple; ValueError unless it is "everything" alone or different parts."""
    parts = [parts] if isinstance(parts, str) else parts
    check_choices(name, list(parts), (EVERYTHING, *PARTS), "unknown part ")
    if not parts or len(set(parts)) < len(parts) or (EVERYTHING in parts and len(parts) > 1):
        raise ValueError(f"{name}: got {list(parts)}, wanted 'everything' alone, or one or more different parts")
    return tuple(parts)


def resolve(parts: Sequence[str], present: Collection[str], name: str) -> tuple[str, ...]:
    """Return the parts meant, of those `present` in a model; ValueError for a part that the model lacks."""
    if EVERYTHING in parts:
        return tuple(part for part in PARTS if part in present)
    for part in parts:
        if part not in present:
            hint = "; it is tied to the embeddings, name those" if part == "head" else ""
            known = ", ".join(each for each in PARTS if each in present)
            raise ValueError(f"{name}: got part {part!r}, which this model does not have{hint}. It has {known}.")
    return tuple(parts)


def freeze(model: PreTrainedModel, trainable: Sequence[str]) -> dict[str, int]:
    """Let the parts in `trainable` train and nothing else; returns how many numbers are trained and frozen.

    Call it before the optimizer is made. Raises ValueError for a part that the model does not have.
    """
    parts = parts_of(model)
    chosen = resolve(check_parts(trainable, "train_parts"), set(parts.values()), "train_parts")
    counts = {"trained_parameters": 0, "frozen_parameters": 0}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parts[name] in chosen)
        counts["trained_parameters" if parameter.requires_grad else "frozen_parameters"] += parameter.numel()
    return counts


def _part_by_name(name: str) -> str | None:
    path = name.removesuffix(".weight").removesuffix(".bias").split(".")
    if _NORM.search(path[-1]):
        return "norms"
    if _ATTENTION & set(path):
        return "attention"
    return "mlp" if _MLP & set(path) else "positions" if _POSITIONS.search(path[-1]) else None


NOISE = ("gaussian", "spectrum")
_NO_DIFFERENCE = {"architectures", "auto_map", "dtype", "transformers_version", "use_cache", "vocab_size"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint, by path or Hub id, and the parts taken from it.

    Controls, drawn by the transfer's seed: `shuffled` permutes the numbers of each copied tensor (of its copied rows).
    `noise` makes normal numbers of its norm ("gaussian"), or a random matrix of its singular values ("spectrum").
    """

    path: str
    parts: str | Sequence[str] = EVERYTHING  # a tuple, once checked
    revision: str | None = None
    shuffled: bool = False
    noise: str | None = None

    def __post_init__(self) -> None:
        if self.noise is not None and (self.noise not in NOISE or self.shuffled):
            raise ValueError(
                f"source {self.path!r}: noise: got {self.noise!r}, wanted gaussian, spectrum or shuffled alone"
            )
        object.__setattr__(self, "parts", check_parts(self.parts, f"source {self.path!r}: parts"))


class SourceModel:
    """The model of a source, on the CPU in float32, and its tokenizer."""

    def __init__(self, source: Source) -> None:
        self.source = source
        with torch.random.fork_rng(devices=[]):  # weights that a checkpoint lacks are drawn
            self.model, loading = from_pretrained(
                AutoModelForCausalLM,
                source.path,
                revision=source.revision,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        self.missing = set(loading["missing_keys"])
        self.parts = parts_of(self.model)
        self.tensors = dict(self.model.named_parameters(remove_duplicate=False))  # a tied head by its own name too

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer beside the model."""
        try:
            tokenizer = from_pretrained(AutoTokenizer, self.source.path, revision=self.source.revision)
        except ValueError:
            tokenizer = None
        # Where there is none, transformers makes up one of the architecture's special tokens.
        if tokenizer is None or tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
            raise self.error("no tokenizer beside the model, as by_token needs; save one, or choose averaged or fresh")
        return tokenizer

    def error(self, got: str) -> ValueError:
        """Return a ValueError that names the source."""
        return ValueError(f"source {self.source.path!r}: got {got}")

    def check_kind(self, model: PreTrainedModel, parts: tuple[str, ...]) -> None:
        """Raise ValueError for another architecture, or for heads that would cut the same tensors differently."""
        ours, theirs = model.config, self.model.config
        names = ["model_type", *(["num_attention_heads", "num_key_value_heads"] if "attention" in parts else [])]
        for name in names:
            got, wanted = getattr(theirs, name, None), getattr(ours, name, None)
            if got != wanted:
                raise self.error(f"{name}={got!r}, wanted the model's {wanted!r}; make the two alike")

    def check_names(self, model: PreTrainedModel, part: str, names: list[str]) -> None:
        """Raise ValueError unless source and model have the same tensors in a part."""
        theirs, ours = (each.config.num_hidden_layers for each in (self.model, model))
        layers = f"in the model ({theirs} layers there, {ours} layers here); make the model like the source"
        for name in names:
            if name not in self.tensors or name in self.missing:
                shape = list(model.get_parameter(name).shape)
                raise self.error(f"no tensor {name!r}, wanted one of shape {shape} as {layers}")
        for name in self.parts:
            if self.parts[name] == part and name not in names:
                shape = list(self.tensors[name].shape)
                raise self.error(f"tensor {name!r} of shape {shape}, which has no counterpart {layers}")

    def values(self, name: str, tensor: nn.Parameter, *, by_rows: bool) -> Tensor:
        """Return the source's tensor of a name; ValueError unless shaped like `tensor`, rows aside if `by_rows`."""
        values = self.tensors[name].detach()
        first = 1 if by_rows else 0
        if values.ndim != tensor.ndim or values.shape[first:] != tensor.shape[first:]:
            raise self.error(
                f"tensor {name!r} of shape {list(values.shape)}, wanted {list(tensor.shape)} as in the model; "
                "make the model of the source's width"
            )
        return values

    def differences(self, model: PreTrainedModel) -> dict[str, list[Any]]:
        """Return config values that are not the same: name -> [the source's, the model's]."""
        theirs, ours = self.model.config.to_dict(), model.config.to_dict()
        names = sorted(
            name
            for name in theirs.keys() | ours.keys()
            if not name.startswith("_") and not name.endswith("_token_id") and name not in _NO_DIFFERENCE
        )
        return {name: [theirs.get(name), ours.get(name)] for name in names if theirs.get(name) != ours.get(name)}


EMBEDDINGS = ("by_token", "averaged", "fresh")
_OF_TOKENS = ("embeddings", "head")
_BY_ROWS = (*_OF_TOKENS, "positions")

_Copy = tuple[Source, Tensor, Tensor | slice]  # values of a source for rows of a tensor


def transfer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Source],
    *,
    embeddings: str = "by_token",
    seed: int = 0,
) -> dict[str, Any]:
    """Copy parts of checkpoints into `model` in place; what no source names keeps its weights. Returns a report.

    Of the report: `sources`, the fields of each `Source`, and under `differences` the config values in which it
    differs from the model: name -> [the source's, the model's], ids and size of the vocabulary aside; `embeddings` and
    `seed`, as given; `notes`, sentences about what a reader may not expect; and of each of the model's `parts`:

    - source: the checkpoint that it came from, None if it stayed fresh; shuffled, noise
    - tensors, parameters: how many were copied, and of_tensors, of_parameters, how many the part has
    - rows, of_rows: rows written of the embeddings, the positions or the head, and how many there are; else None
    - norm_before, norm_after: Euclidean norm of all numbers of the part, fresh and after the transfer
    - change: norm of (after - before) over norm_before; 0 means that nothing moved, None that norm_before is 0

    A source has the model's architecture, width, layers and heads; vocabulary and number of positions may differ.
    `seed` is that of controls. Global random state is left as it was, and on an error the model too.

    Errors: ValueError for parts that two sources claim or the model does not have, for a checkpoint that cannot be
    loaded or lacks a tensor, for tensors that do not fit, and for tokenizers without a token in common.
    """
    check_choices("embeddings", [embeddings], EMBEDDINGS)
    parts = parts_of(model)
    copies: dict[str, _Copy] = {}
    notes: list[str] = []
    described = []
    for source, claimed in _claims(sources, set(parts.values()), embeddings).items():
        origin = SourceModel(source)
        origin.check_kind(model, claimed)
        for part in claimed:
            names = [name for name in parts if parts[name] == part]
            origin.check_names(model, part, names)
            copies |= {name: _copy(origin, model, part, name, tokenizer, embeddings, seed) for name in names}
        notes += _notes(origin, model, parts, claimed)
        described.append({**dataclasses.asdict(source), "differences": origin.differences(model)})
    report = {"sources": described, "embeddings": embeddings, "seed": seed, "parts": _write(model, parts, copies)}
    return {**report, "notes": notes, "trained": None}


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
    origin: SourceModel, model: PreTrainedModel, part: str, name: str, tokenizer: PreTrainedTokenizerBase,
    embeddings: str, seed: int,
) -> _Copy:  # fmt: skip
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
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return origin.source, _control(origin.source, values, rng), rows


def _control(source: Source, values: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the numbers as they are, in another order, or noise with their norm or singular values."""
    if source.shuffled:
        return values.flatten()[torch.from_numpy(rng.permutation(values.numel()))].view_as(values)
    if source.noise is None:
        return values
    noise = torch.from_numpy(rng.standard_normal(values.shape)).to(values.dtype)
    if source.noise == "gaussian" or values.dim() < 2:  # the one singular value of a vector is its norm
        return noise * values.norm() / noise.norm()
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    return left * torch.linalg.svdvals(values) @ right


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


def _write(model: PreTrainedModel, parts: Mapping[str, str], copies: Mapping[str, _Copy]) -> list[dict[str, Any]]:
    """Copy the values, and report what changed."""
    fresh = {name: model.get_parameter(name).detach().clone() for name in copies}
    for name, (_, values, rows) in copies.items():
        tensor = model.get_parameter(name).data
        tensor[rows] = values.to(tensor)
    reports = []
    for part in dict.fromkeys(parts.values()):
        now = {name: model.get_parameter(name).detach() for name in parts if parts[name] == part}
        before = {name: fresh.get(name, now[name]) for name in now}
        copied = {name: now[name][copies[name][2]] for name in now if name in copies}
        source = next((copies[name][0] for name in copied), None)
        by_rows = part in _BY_ROWS
        old, moved = _norm(before.values()), _norm(now[name] - before[name] for name in now)
        reports.append(
            {
                "part": part,
                "source": source.path if source else None,
                "shuffled": source is not None and source.shuffled,
                "noise": source.noise if source else None,
                "tensors": len(copied),
                "of_tensors": len(now),
                "parameters": sum(tensor.numel() for tensor in copied.values()),
                "of_parameters": sum(tensor.numel() for tensor in now.values()),
                "rows": max(map(len, copied.values()), default=0) if by_rows else None,
                "of_rows": max(map(len, now.values())) if by_rows else None,
                "norm_before": old,
                "norm_after": _norm(now.values()),
                "change": moved / old if old else None,
            }
        )
    return reports


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


_FIELDS = {
    "path": (str, "a path or a Hub id"),
    "parts": (str | list | tuple, "a part or a list of parts"),
    "revision": (str | None, "a branch, tag or commit in quotes"),
    "shuffled": (bool, "true or false"),
    "noise": (str | None, "gaussian or spectrum"),
}


@dataclasses.dataclass
class TransferArguments:
    """Where the weights of a fresh model come from, and which of them train."""

    init_from: list[dict[str, Any]] | str | None = option(
        None,
        "A checkpoint whose weights are transferred, by path or Hub id, or a list of {path, parts, revision, "
        "shuffled, noise}, as JSON. Parts: attention, mlp, norms, embeddings, positions, head, everything.",
    )
    init_embeddings: str = option(
        "by_token",
        "Embeddings and head: by_token (rows of the tokens that both know), averaged, or fresh.",
        choices=EMBEDDINGS,
    )
    train_parts: list[str] = option([EVERYTHING], "The parts that train; the others stay as they are.")

    def __post_init__(self) -> None:
        self.init_from = _entries(self.init_from)
        self.sources()
        check_fields(self)
        self.train_parts = list(check_parts(self.train_parts, "train_parts"))

    def sources(self) -> list[Source]:
        """Return the sources that `init_from` names; ValueError for unusable values."""
        entries: Any = self.init_from or []
        return [_source(number, entry) for number, entry in enumerate(entries)]


def apply_transfer(
    arguments: TransferArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, Any] | None:
    """Copy weights into the model and freeze what shall not train, both in place; None if neither is set.

    Returns the report of `transfer`; its `trained` has the parts that train, and how many numbers are trained and
    frozen, or is None if all train.

    Call it before the optimizer is made. Errors: as `transfer` and `freeze`.
    """
    everything_trains = arguments.train_parts == [EVERYTHING]
    if not arguments.init_from and everything_trains:
        return None
    report = transfer(model, tokenizer, arguments.sources(), embeddings=arguments.init_embeddings, seed=seed)
    if not everything_trains:
        report["trained"] = {"parts": arguments.train_parts, **freeze(model, arguments.train_parts)}
    return report


def _entries(value: Any) -> list[dict[str, Any]] | None:
    """Return a path, JSON, or a list of paths and mappings as a list of mappings."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = read_json(value, "init_from")
    if not value:
        return None
    entries = value if isinstance(value, list) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


def _source(number: int, entry: Any) -> Source:
    where = f"init_from[{number}]"
    if not isinstance(entry, dict) or not entry.get("path"):
        raise ValueError(f"{where}: got {entry!r}, wanted a path or a mapping with at least path")
    check_choices(where, list(entry), _FIELDS, "unknown key ")
    for key, value in entry.items():
        if not isinstance(value, _FIELDS[key][0]):
            raise ValueError(f"{where}.{key}: got {value!r}, wanted {_FIELDS[key][1]}")
    return Source(**entry)
