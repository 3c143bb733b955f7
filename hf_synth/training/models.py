"""Models and tokenizers of a recipe: a checkpoint by path or Hub id, or a model made from nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from torch.nn.functional import logsigmoid
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
from trl import get_peft_config
from trl.trainer.reward_trainer import DataCollatorForPreference

from hf_synth import models as _registered  # noqa: F401 - the Auto classes know our own models by it
from hf_synth import preferences
from hf_synth.errors import disk_full_error, json_dict, nearest
from hf_synth.sampling import WeightedRewardTrainer
from hf_synth.sampling.language_models import check_causal, load_checkpoint, named_revision
from hf_synth.tokenization import build_tokenizer
from hf_synth.training.arguments import DataArguments, PolicyArguments
from hf_synth.training.data import clusters

_ADAPTER = (
    "which holds an adapter and no whole model; merge it into its model first, with peft's merge_and_unload and "
    "save_pretrained"
)
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
    policy: PolicyArguments, data: DataArguments, texts: Dataset | None = None, template: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer; for a new model that of the tasks, or a BPE trained on `texts`.

    template: a .jinja file whose chat template it gets, before anything is counted in its tokens.
    """
    tokenizer = _tokenizer(policy, data, texts)
    if template:
        if not Path(template).is_file() or not template.endswith((".jinja", ".j2")):
            raise ValueError(f"chat_template_path: got {template!r}, wanted a file that ends in .jinja or .j2")
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
    return tokenizer


def _tokenizer(policy: PolicyArguments, data: DataArguments, texts: Dataset | None) -> PreTrainedTokenizerBase:
    if policy.model_name_or_path:
        tokenizer = from_pretrained(AutoTokenizer, policy.model_name_or_path, revision=policy.model_revision)
        return preferences.ready_for_chat(tokenizer) if data.preferences or data.prompts else tokenizer
    if data.task or data.mixture:
        return build_tokenizer(*(cluster.build() for cluster in clusters(data).values()))
    if texts is None:
        raise ValueError(
            "got neither model_name_or_path nor tasks, wanted one: own prompts need a model to answer them"
        )
    return preferences.train_bpe_tokenizer(preferences.message_texts(texts), vocab_size=policy.tokenizer_vocab_size)


def load_policy(policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Load a causal language model: the checkpoint, or a new one whose weights follow from `seed`."""
    return _load(AutoModelForCausalLM, policy, tokenizer, seed, {})


def load_classifier(
    policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int, heads: Sequence[str] | None = None
) -> PreTrainedModel:
    """Load a sequence classifier of one label, a reward model; or of one label a head, by its name."""
    labels: dict[str, Any] = {"num_labels": 1}
    if heads:
        labels = {"id2label": dict(enumerate(heads)), "label2id": {head: number for number, head in enumerate(heads)}}
    return _load(AutoModelForSequenceClassification, policy, tokenizer, seed, labels)


def adapter_config(policy: PolicyArguments) -> Any:
    """Return what PEFT is asked for, or None; it remembers which revision the adapter is for, not only the name."""
    config: Any = get_peft_config(policy)
    if config is not None and policy.model_revision != "main":
        config.revision = policy.model_revision
    return config


def require_checkpoint(name_or_path: str, made_by: str | None = None) -> None:
    """Raise ValueError for a path that is none yet, naming the command that makes it; Hub ids pass."""
    name_or_path, _ = named_revision(name_or_path)
    path = Path(name_or_path)
    looks_local = path.is_absolute() or name_or_path.startswith(".") or name_or_path.count("/") > 1
    if (path / "config.json").is_file() or not (looks_local or path.exists()):
        return
    if (path / "adapter_config.json").is_file():
        raise ValueError(f"got checkpoint {name_or_path!r}, {_ADAPTER}")
    command = f"; make it with: {made_by}" if made_by else ""
    raise ValueError(f"got checkpoint {name_or_path!r}, which holds no model{command}")


def from_pretrained(auto: Any, name_or_path: str, **options: Any) -> Any:
    """Load a model or tokenizer, with ValueError where neither this machine nor the Hub has a whole checkpoint."""
    require_checkpoint(name_or_path)
    return load_checkpoint(auto, name_or_path, **options)


def fresh_config(
    policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, extra: dict[str, Any] | None = None
) -> PreTrainedConfig:
    """Return the config of a new model: `new_model` over the defaults of `model_type`, or a size of GPT-2.

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
    fields = dataclasses.fields(default) if dataclasses.is_dataclass(default) else ()  # its dictionary leaves some out
    known = {*default.to_dict(), *default.attribute_map, *(field.name for field in fields)}
    if unknown := [name for name in shape if name not in known]:
        wanted = f"wanted fields of {type(default).__name__}; {nearest(unknown[0], known)}"
        raise ValueError(f"new_model: got unknown value {unknown[0]!r}, {wanted}")
    shape = {default.attribute_map.get(name, name): value for name, value in shape.items()}
    set_here = {**(extra or {}), "vocab_size": len(tokenizer), **ids}
    if fixed := sorted(shape.keys() & {*PreTrainedConfig().to_dict(), "use_cache", *set_here}):
        raise ValueError(
            f"new_model: got {fixed[0]!r}, which the recipe sets by its tokenizer and flags; leave it out"
        )
    names = {name: default.attribute_map.get(name, name) for name in _SMALL}
    if none := [name for name in shape.keys() & names.values() if isinstance(shape[name], int) and shape[name] < 1]:
        raise ValueError(f"new_model: got {none[0]}={shape[none[0]]!r}, wanted at least 1")
    small = {name: _SMALL[field] for field, name in names.items() if name in known and kind not in _OWN}
    try:
        return AutoConfig.for_model(kind, **{**small, **shape, **set_here})
    except StrictDataclassError as error:
        raise ValueError(f"new_model: {' '.join(str(error).split())}") from error


def gpt2_shape(size: str) -> dict[str, Any]:
    """Return GPT2Config values of `layers_heads_hidden`, such as 12_12_768; no dropout, as fresh rows need none."""
    numbers = size.split("_")
    if len(numbers) != 3 or not size.isascii() or not all(number.isdecimal() and int(number) for number in numbers):
        quotes = ", in quotes where it stands in YAML, which reads 12_12_768 as one number" if size.isdecimal() else ""
        raise ValueError(f"gpt2_size: got {size!r}, wanted layers_heads_hidden such as '12_12_768'{quotes}")
    layers, heads, hidden = map(int, numbers)
    if hidden % heads:
        raise ValueError(f"gpt2_size: got {size!r}, wanted a hidden size that {heads} heads can share equally")
    dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    return {"n_layer": layers, "n_head": heads, "n_embd": hidden, **dropout}


def _load(
    auto: Any, policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase, seed: int, extra: dict[str, Any]
) -> PreTrainedModel:
    if not policy.model_name_or_path:
        if policy.use_peft:
            raise ValueError("got use_peft without model_name_or_path, wanted a checkpoint that the adapter is for")
        config = fresh_config(policy, tokenizer, extra)
        set_seed(seed)
        dtype = torch.float32 if policy.dtype in (None, "auto") else getattr(torch, policy.dtype)
        try:
            model = auto.from_config(config, dtype=dtype, attn_implementation=policy.attn_implementation)
            check_causal(model, auto)
        except Exception as error:  # whatever an architecture makes of its values
            if isinstance(error, ImportError) or disk_full_error(error):
                raise
            reason = " ".join(str(error).split()).partition(" Model type should be")[0][:300]
            raise ValueError(
                f"got a new model of model_type {config.model_type!r}, which cannot be made: {reason}"
            ) from error
        if isinstance(model, GPT2LMHeadModel):  # transformers finds none by the class's name, and warns at each run
            model.loss_type = "ForCausalLM"
        return model
    options = {"revision": policy.model_revision, "attn_implementation": policy.attn_implementation, **extra}
    if policy.dtype:
        options["dtype"] = policy.dtype if policy.dtype == "auto" else getattr(torch, policy.dtype)
    set_seed(seed)  # a new head is random
    new_head = auto is AutoModelForSequenceClassification
    model = from_pretrained(auto, policy.model_name_or_path, new_head=new_head, **options)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(f"got checkpoint {policy.model_name_or_path!r}, {_ADAPTER}")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


SIGNS = "signs"


def with_head_signs(pairs: Dataset, heads: Sequence[str], aspect_column: str | None = None) -> Dataset:
    """Add a column `signs` to the pairs: for each head 1 where chosen is better, -1 where rejected is, else 0.

    A pair is about one aspect where `aspect_column` names it, and chosen is better in that one. Otherwise each head
    has two columns of numbers, HEAD_chosen and HEAD_rejected; equal or missing ones say nothing. Raises ValueError
    for an aspect that is no head, for missing columns, and for a head about which no pair says anything.
    """
    wanted = [f"{head}_{side}" for side in ("chosen", "rejected") for head in heads]
    if missing := sorted({*([aspect_column] if aspect_column else wanted)} - {*pairs.column_names}):
        raise ValueError(
            f"heads: the pairs have no column {', '.join(missing)}, only {', '.join(pairs.column_names)}; name the "
            "column that says which aspect a pair is about (aspect_column), or give HEAD_chosen and HEAD_rejected"
        )
    if aspect_column:
        aspects = [str(aspect) for aspect in pairs[aspect_column]]
        if strange := sorted({*aspects} - {*heads}):
            raise ValueError(
                f"{aspect_column}: got {', '.join(strange[:5])}, wanted one of the heads {', '.join(heads)}"
            )
        signs = np.eye(len(heads), dtype=np.int8)[[heads.index(aspect) for aspect in aspects]]
    else:
        scores = np.array([pairs[name] for name in wanted], dtype=np.float64).T
        signs = np.nan_to_num(np.sign(scores[:, : len(heads)] - scores[:, len(heads) :])).astype(np.int8)
    silent = [head for head, column in zip(heads, signs.T, strict=True) if not column.any()]
    if silent:
        raise ValueError(f"heads: got {', '.join(silent)}, about which none of {len(signs)} pairs says anything")
    return pairs.add_column(SIGNS, signs.tolist())


@dataclasses.dataclass
class HeadedCollator(DataCollatorForPreference):
    """TRL's batch of chosen and rejected, with signs [B, H]."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate as TRL does, and add the signs."""
        return {**super().torch_call(examples), SIGNS: torch.tensor([example[SIGNS] for example in examples])}


class HeadedRewardTrainer(WeightedRewardTrainer):
    """TRL's RewardTrainer for a classifier of H labels, on pairs with a column `signs` (`with_head_signs`).

    ```txt
    loss = mean over known (pair, head) of -log sigmoid(sign * (logit_head(chosen) - logit_head(rejected)))
    ```

    The mean is over a whole step, on all processes and however many batches it is cut into.
    Logs `accuracy` over all known (pair, head), and `accuracy/HEAD` of each, exactly: rights over known since the
    last log. Needs `remove_unused_columns`, which is RewardConfig's default, or no other columns.
    """

    _signature_columns: Any
    loss_is_scaled_for_ga = True  # Trainer shall not divide it by the number of batches

    def __init__(self, model: Any, args: Any, *, processing_class: Any, **options: Any) -> None:
        heads = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self.heads: list[str] = heads
        self._tallies = {mode: torch.zeros(3, len(heads)) for mode in ("train", "eval")}  # right, known, loss
        pad = processing_class.pad_token_id
        options.setdefault("data_collator", HeadedCollator(pad, pad_to_multiple_of=args.pad_to_multiple_of))
        config, labels = model.config, (model.config.id2label, model.config.label2id)
        config.id2label, config.label2id = (
            {0: "LABEL_0"},
            {"LABEL_0": 0},
        )  # RewardTrainer refuses more: its loss has one
        try:
            super().__init__(model, args, processing_class=processing_class, **options)
        finally:
            config.id2label, config.label2id = labels

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if SIGNS not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, SIGNS]

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Count what is known, and all, of a step's (pair, head)."""
        signs = [batch[SIGNS] for batch in batch_samples]
        counts = torch.tensor([[sum(int((part != 0).sum()) for part in signs), sum(part.numel() for part in signs)]])
        return self.accelerator.gather(counts.to(device)).sum(0)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        """Return the batch's part of the mean over what the step knows; evaluation knows the batch alone."""
        signs = inputs[SIGNS]
        outputs = model(**{name: value for name, value in inputs.items() if name != SIGNS}, use_cache=False)
        chosen, rejected = outputs.logits.chunk(2)  # [B, H] each
        known = signs != 0
        losses = -logsigmoid(signs * (chosen - rejected)) * known
        all_known, everything, processes = known.sum(), known.numel(), 1
        if num_items_in_batch is not None:
            (all_known, everything), processes = num_items_in_batch, self.accelerator.num_processes
        loss = losses.sum() / all_known.clamp(min=1)
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).sum() / everything
        right = signs * (chosen - rejected).detach() > 0
        own = torch.stack([right & known, known, losses.detach()], dim=1).float()  # [B, 3, H]
        tally = self._tallies["train" if self.model.training else "eval"]
        tally += self.accelerator.gather_for_metrics(own).sum(0).cpu()  # rows that pad the last batch are dropped
        loss = loss * processes  # gradients are means over processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as the trainer does, with the accuracies; they are added in place, as TRL adds its own."""
        mode = "train" if self.model.training else "eval"
        right, known, losses = self._tallies[mode].tolist()
        prefix = "" if mode == "train" else "eval_"
        if sum(known):
            logs[f"{prefix}accuracy"] = sum(right) / sum(known)
            if mode == "eval" and self.args.center_rewards_coefficient is None:
                logs["eval_loss"] = sum(losses) / sum(known)  # not the mean over batches, which know unequally much
        for head, good, all_ in zip(self.heads, right, known, strict=True):
            if all_:
                logs[f"{prefix}accuracy/{head}"] = good / all_
        self._tallies[mode].zero_()
        super().log(logs, *args, **kwargs)
