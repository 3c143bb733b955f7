"""Models of any maker: loaded whole or not at all, and run so that a row gives the same alone and in any batch."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import tqdm
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.errors import disk_full_error
from hf_synth.io import is_main_process


def named_revision(name: str) -> tuple[str, str | None]:
    """Split OWNER/NAME@REVISION, a branch, tag or commit of a Hub id; None where there is none, or a path is given."""
    name, at, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    if at and not revision:
        raise ValueError(f"got {name + at!r}, wanted the name of a branch, tag or commit after the @")
    return name, revision or None


def load_checkpoint(auto: Any, name_or_path: str, *, new_head: bool = False, **options: Any) -> Any:
    """Call `auto.from_pretrained`, of a model or a tokenizer; `new_head`: a head of random weights is wanted.

    name_or_path: a path, or a Hub id, with @REVISION behind it or without. Raises ValueError, which names the
    checkpoint, where there is none, where it cannot be read, where it lacks weights or has NaN among them, and where a
    causal model reads what it predicts: transformers would go on. Who asks for `output_loading_info` gets it, and
    judges by it.
    """
    checked = hasattr(auto, "from_config") and "output_loading_info" not in options
    name, revision = (name_or_path, None) if "revision" in options else named_revision(name_or_path)
    options |= {"revision": revision} if revision else {}
    try:
        made = auto.from_pretrained(name, **options, **({"output_loading_info": True} if checked else {}))
    except Exception as error:  # of transformers, safetensors, json, jinja2: whatever a file can hold
        if disk_full_error(error):
            raise
        where, kind = "cannot be loaded", f"{type(error).__name__}: "
        if isinstance(error, OSError):
            where, kind = "is neither here nor on the Hub", ""
        reason = kind + " ".join(str(error).split())[:300]
        raise ValueError(f"got checkpoint {name_or_path!r}, which {where}: {reason}") from error
    if not checked:
        return made
    model, info = made
    body = f"{model.base_model_prefix}."
    missing = sorted(
        key for key in info["missing_keys"] if not new_head or (key.startswith(body) and "pooler" not in key)
    )
    if missing:
        raise ValueError(
            f"got checkpoint {name_or_path!r}, which lacks {len(missing)} weights of a {type(model).__name__}, such "
            f"as {missing[0]}; wanted a whole one"
        )
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise ValueError(f"got checkpoint {name_or_path!r}, which has NaN or infinite weights; wanted a sound one")
    check_causal(model, auto)
    return model


def check_causal(model: PreTrainedModel, auto: Any) -> None:
    """Raise ValueError where `auto` makes causal models and this one reads later tokens, as BERT and XLNet do."""
    if "CausalLM" not in auto.__name__ or model.config._attn_implementation not in ("eager", "sdpa"):
        return
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with evaluating(model):  # two rows that differ in their last token
        ids = torch.tensor([[0, 0, 0], [0, 0, 1]], device=model.device)
        first, second = model(input_ids=ids, **options).logits[:, 0].float()
    if (first - second).abs().max() > 0.01 * first.abs().max():
        raise ValueError(
            f"got a {type(model).__name__}, which reads the tokens that it is to predict; wanted a causal model, such "
            "as a GPT, or is_decoder: true in the config of one like BERT"
        )


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def right_padded(rows: Sequence[Sequence[int]], device: torch.device, pad: int = 0) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` [B, T] of rows of ids.

    Padded on the right every token stands at the position that it has alone, whatever a model makes of positions:
    those of BERT and GPT-2 are counted over padding, RoBERTa's have an offset, others have none.
    """
    ids = [torch.tensor(row, dtype=torch.long, device=device) for row in rows]
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
    return {"input_ids": padded, "attention_mask": mask}


@contextlib.contextmanager
def positions_from_mask(model: Any) -> Iterator[None]:
    """Let forwards of batches that are padded on the left count positions over real tokens, where none are passed.

    TRL's GRPO and RLOO pass none: GPT-2 would read a prompt at positions that depend on the longest of its batch.
    Rotary positions are relative: such models, and those that take no `position_ids`, are left as they are. So are
    models of text and images, which make their own.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # under PEFT's adapter
    takes_them = "position_ids" in inspect.signature(base.forward).parameters
    rotary = any("Rotary" in type(module).__name__ for module in base.modules())
    if not takes_them or rotary or base.config.get_text_config() is not base.config:
        yield
        return

    def fill(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is not None and kwargs.get("position_ids") is None:
            kwargs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return args, kwargs

    hook = base.register_forward_pre_hook(fill, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def most_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a row may have, by the model's table or declared range of positions; None: any."""
    for module in model.modules():  # RoBERTa's table begins after the id of its padding
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return int(table.num_embeddings - table.padding_idx - 1)
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError where the tokenizer has ids for which the model has no embedding."""
    largest, known = max(tokenizer.get_vocab().values()), model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise ValueError(
            f"tokenizer: its ids go up to {largest}, but the model's vocabulary has {known}; give the tokenizer of "
            f"{model.name_or_path or 'that model'}, or call model.resize_token_embeddings({largest + 1})"
        )


def progress(description: str, rows: Any = None, **options: Any) -> Any:
    """Return a bar of tqdm's on the main process, which shows once a step has taken three seconds.

    `huggingface_hub.utils.disable_progress_bars("hf_synth")` turns it off, as `disable_tqdm` of a recipe does.
    """
    return tqdm(
        rows, desc=description, name="hf_synth", delay=3, leave=False, disable=not is_main_process(), **options
    )
