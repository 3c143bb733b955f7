"""Models and tokenizers of a recipe: a checkpoint by path or Hub id, or a model made from nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_synth import models as _registered  # noqa: F401 - the Auto classes know our own models by it
from hf_synth import preferences
from hf_synth.tasks.base import json_dict, nearest
from hf_synth.tokenization import build_tokenizer
from hf_synth.training.arguments import DataArguments, PolicyArguments
from hf_synth.training.data import clusters

_OWN = {"rope_gpt", "rlm_transformer"}  # their own defaults are small
_SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
}


def load_tokenizer(
    policy: PolicyArguments, data: DataArguments, texts: Dataset | None = None
) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer; for a model made from nothing that of the tasks, or a BPE trained on `texts`."""
    if policy.model_name_or_path:
        found = from_pretrained(AutoTokenizer, policy.model_name_or_path, revision=policy.model_revision)
        return preferences.ready_for_chat(found) if data.preferences or data.prompts else found
    if data.task or data.mixture:
        return build_tokenizer(*(cluster.build() for cluster in clusters(data).values()))
    if texts is None:
        raise ValueError(
            "got neither model_name_or_path nor tasks, wanted one: own prompts need a model to answer them"
        )
    return preferences.train_bpe_tokenizer(preferences.message_texts(texts), vocab_size=policy.tokenizer_vocab_size)


def load_policy(policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A causal language model: the checkpoint, or one made from nothing whose weights follow from `seed`."""
    return _load(AutoModelForCausalLM, policy, tokenizer, seed, {})


def load_classifier(
    policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int, heads: Sequence[str] | None = None
) -> PreTrainedModel:
    """A sequence classifier of one label, which is what a reward model is; or of one label a head, by its name."""
    labels: dict[str, Any] = {"num_labels": 1}
    if heads:
        labels = {"id2label": dict(enumerate(heads)), "label2id": {head: number for number, head in enumerate(heads)}}
    return _load(AutoModelForSequenceClassification, policy, tokenizer, seed, labels)


def require_checkpoint(name_or_path: str, made_by: str | None = None) -> None:
    """Raise ValueError for a path that is none yet, naming the command that makes it; Hub ids pass."""
    path = Path(name_or_path)
    looks_local = path.is_absolute() or name_or_path.startswith(".") or name_or_path.count("/") > 1
    if (path / "config.json").is_file() or not (looks_local or path.exists()):
        return
    if (path / "adapter_config.json").is_file():
        raise ValueError(
            f"got checkpoint {name_or_path!r}, which holds an adapter and no whole model; merge it into its model "
            "first, with peft's merge_and_unload and save_pretrained"
        )
    command = f"; make it with: {made_by}" if made_by else ""
    raise ValueError(f"got checkpoint {name_or_path!r}, which holds no model{command}")


def from_pretrained(auto: Any, name_or_path: str, **options: Any) -> Any:
    """`auto.from_pretrained`, with ValueError where neither this machine nor the Hub has such a checkpoint."""
    require_checkpoint(name_or_path)
    try:
        return auto.from_pretrained(name_or_path, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"got checkpoint {name_or_path!r}, which is neither here nor on the Hub: {reason}") from error


def fresh_config(
    policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, extra: dict[str, Any] | None = None
) -> PreTrainedConfig:
    """The config of a model made from nothing: `new_model` over the defaults of `model_type`, or a size of GPT-2.

    The architectures of transformers have defaults of billions of weights: here they are small ones.
    """
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    kind, shape = policy.model_type, json_dict(policy.new_model, "new_model")
    if policy.gpt2_size:
        kind, shape = "gpt2", {**gpt2_shape(policy.gpt2_size), **shape}
    try:
        default = AutoConfig.for_model(kind)
    except ValueError:
        raise ValueError(f"model_type: got {kind!r}; {nearest(kind, CONFIG_MAPPING)[:200]}") from None
    known = {*default.to_dict(), *default.attribute_map, *_others_of(type(default))}
    if unknown := [name for name in shape if name not in known]:
        wanted = f"wanted fields of {type(default).__name__}; {nearest(unknown[0], known)}"
        raise ValueError(f"new_model: got unknown value {unknown[0]!r}, {wanted}")
    names = {name: default.attribute_map.get(name, name) for name in _SMALL if kind not in _OWN}
    given = {default.attribute_map.get(name, name) for name in shape}
    small = {name: _SMALL[word] for word, name in names.items() if name in known and name not in given}
    try:
        return AutoConfig.for_model(kind, **{**small, **shape, **(extra or {}), "vocab_size": len(tokenizer), **ids})
    except StrictDataclassError as error:
        raise ValueError(f"new_model: {' '.join(str(error).split())}") from error


def with_loss_type(model: PreTrainedModel) -> PreTrainedModel:
    """The model, its loss named where transformers finds none by the class's name (GPT-2) and warns at each run."""
    if isinstance(model, GPT2LMHeadModel):
        model.loss_type = "ForCausalLM"
    return model


def gpt2_shape(size: str) -> dict[str, Any]:
    """GPT2Config values of `layers_heads_hidden`, such as 12_12_768; without dropout, as fresh rows need none."""
    numbers = size.split("_")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
        quotes = ", in quotes where it stands in YAML, which reads 12_12_768 as one number" if size.isdecimal() else ""
        raise ValueError(f"gpt2_size: got {size!r}, wanted layers_heads_hidden such as '12_12_768'{quotes}")
    layers, heads, hidden = map(int, numbers)
    if hidden % heads:
        raise ValueError(f"gpt2_size: got {size!r}, wanted a hidden size that {heads} heads can share equally")
    dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    return {"n_layer": layers, "n_head": heads, "n_embd": hidden, **dropout}


def _others_of(config_class: type) -> set[str]:
    """Fields of a config class that its own dictionary leaves out."""
    return (
        {field.name for field in dataclasses.fields(config_class)} if dataclasses.is_dataclass(config_class) else set()
    )


def _load(
    auto: Any,
    policy: PolicyArguments,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    extra: dict[str, Any],
) -> PreTrainedModel:
    if not policy.model_name_or_path:
        if policy.use_peft:
            raise ValueError("got use_peft without model_name_or_path, wanted a checkpoint that the adapter is for")
        config = fresh_config(policy, tokenizer, extra)
        set_seed(seed)
        return with_loss_type(auto.from_config(config))
    options = {"revision": policy.model_revision, "attn_implementation": policy.attn_implementation, **extra}
    if policy.dtype:
        options["dtype"] = policy.dtype if policy.dtype == "auto" else getattr(torch, policy.dtype)
    set_seed(seed)  # a new head is random
    model = from_pretrained(auto, policy.model_name_or_path, **options)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model
