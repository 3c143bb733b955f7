"""Models and tokenizers of a recipe: a checkpoint by path or Hub id, or a RopeGPT made from nothing."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_synth import preferences
from hf_synth.models.modeling_rope_gpt import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.tasks.base import json_dict
from hf_synth.tokenization import build_tokenizer
from hf_synth.training.arguments import DataArguments, PolicyArguments
from hf_synth.training.data import clusters


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
    """A causal language model: the checkpoint, or a RopeGPT whose weights follow from `seed`."""
    return _load(AutoModelForCausalLM, RopeGPTForCausalLM, policy, tokenizer, seed, {})


def load_classifier(policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A sequence classifier of one label, which is what a reward model is."""
    one = {"num_labels": 1}
    return _load(AutoModelForSequenceClassification, RopeGPTForSequenceClassification, policy, tokenizer, seed, one)


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


def _load(
    auto: Any,
    fresh: Any,
    policy: PolicyArguments,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    extra: dict[str, Any],
) -> PreTrainedModel:
    if not policy.model_name_or_path:
        if policy.use_peft:
            raise ValueError("got use_peft without model_name_or_path, wanted a checkpoint that the adapter is for")
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        shape = json_dict(policy.new_model, "new_model")
        known = set(RopeGPTConfig().to_dict())
        if unknown := [name for name in shape if name not in known]:
            raise ValueError(f"new_model: got unknown value {unknown[0]!r}, wanted fields of RopeGPTConfig")
        set_seed(seed)
        return fresh(RopeGPTConfig(**{**shape, **extra, "vocab_size": len(tokenizer), **ids}))
    options = {"revision": policy.model_revision, "attn_implementation": policy.attn_implementation, **extra}
    if policy.dtype:
        options["dtype"] = policy.dtype if policy.dtype == "auto" else getattr(torch, policy.dtype)
    set_seed(seed)  # a new head is random
    model = from_pretrained(auto, policy.model_name_or_path, **options)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model
