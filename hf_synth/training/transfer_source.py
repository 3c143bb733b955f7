"""The parts of a causal language model, and which of them train.

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
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.errors import nearest
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
    embeddings, head = (_ids(part) for part in (model.get_input_embeddings(), model.get_output_embeddings()))
    parts = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings:
            parts[name] = "embeddings"
        elif id(parameter) in head:
            parts[name] = "head"
        elif part := _part_by_name(name):
            parts[name] = part
        else:
            raise ValueError(
                f"got parameter {name!r} of a {model.config.model_type} model, whose name tells no part; "
                f"wanted one of {', '.join(PARTS)}; transfer such models whole, with model_name_or_path"
            )
    return parts


def check_parts(parts: Sequence[str], name: str) -> tuple[str, ...]:
    """Return `parts` as a tuple; ValueError unless it is "everything" alone or one or more different parts."""
    known = (EVERYTHING, *PARTS)
    for part in parts:
        if part not in known:
            raise ValueError(f"{name}: got unknown part {part!r}; {nearest(str(part), known)}")
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


def _ids(module: object) -> set[int]:
    return {id(parameter) for parameter in module.parameters()} if module is not None else set()  # type: ignore[attr-defined]


def _part_by_name(name: str) -> str | None:
    path = name.removesuffix(".weight").removesuffix(".bias").split(".")
    if _NORM.search(path[-1]):
        return "norms"
    if _ATTENTION & set(path):
        return "attention"
    if _MLP & set(path):
        return "mlp"
    return "positions" if _POSITIONS.search(path[-1]) else None


_NO_DIFFERENCE = {"architectures", "auto_map", "dtype", "transformers_version", "use_cache", "vocab_size"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint, by path or Hub id, and the parts taken from it.

    `shuffled` is a control: the numbers of each copied tensor (of its copied rows) are permuted within it, as the
    seed of the transfer says. What was learned is lost, the distribution of the numbers is not.
    """

    path: str
    parts: tuple[str, ...] = (EVERYTHING,)
    revision: str | None = None
    shuffled: bool = False

    def __post_init__(self) -> None:
        """Check the parts."""
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
            raise self.error(
                "no tokenizer beside the model, which embeddings by_token need; save it there, or choose averaged "
                "or fresh"
            )
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
        for name in names:
            if name not in self.tensors or name in self.missing:
                raise self.error(
                    f"no tensor {name!r}, wanted one of shape {list(model.get_parameter(name).shape)} as in the "
                    f"model ({_layers(self.model)} there, {_layers(model)} here); make the model like the source"
                )
        for name in self.parts:
            if self.parts[name] == part and name not in names:
                raise self.error(
                    f"tensor {name!r} of shape {list(self.tensors[name].shape)}, which has no counterpart in the "
                    f"model ({_layers(self.model)} there, {_layers(model)} here); make the model like the source"
                )

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


def _layers(model: PreTrainedModel) -> str:
    return f"{model.config.num_hidden_layers} layers"
