"""A language model's own view of a text: the mean of its hidden states over the text's tokens."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.sampling.hashing import unit_rows


def embed_hidden_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    layer: int = -1,
    batch_size: int = 32,
    max_length: int | None = None,
) -> np.ndarray:
    """One unit vector per text: the mean over its real tokens of one layer's hidden states; padding never counts.

    Texts are batched by length, each distinct text once, and the model is left in the mode in which it came.

    Args:
        model: any causal model of transformers, on its own device; not a wrapper such as DDP.
        texts: N strings.
        layer: an index into the model's `hidden_states`: 0 is the embeddings, -1 the last layer.
        batch_size: texts on the device at a time.
        max_length: longer texts keep their last so many tokens; None keeps all.

    Returns:
        [N, D] float32, L2-normalised, D the model's hidden size.

    Raises:
        ValueError: a text without tokens, named by row; a layer that the model does not have.
    """
    distinct = list(dict.fromkeys(texts))
    place = {text: row for row, text in enumerate(distinct)}
    ids = [list(row)[-(max_length or 0) :] for row in tokenizer(distinct).input_ids] if distinct else []
    if empty := [row for row, text in enumerate(texts) if not ids[place[text]]]:
        raise ValueError(f"texts: {len(empty)} of {len(texts)} have no tokens: rows {empty[:10]}. Drop them.")
    out = np.empty((len(ids), model.config.get_text_config().hidden_size), np.float32)
    longest_first = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    with _evaluating(model):
        for start in range(0, len(ids), batch_size):
            rows = longest_first[start : start + batch_size]
            out[rows] = _mean_states(model, [ids[row] for row in rows], layer)
    return unit_rows(out)[np.array([place[text] for text in texts], dtype=np.int64)]


def _mean_states(model: PreTrainedModel, ids: list[list[int]], layer: int) -> np.ndarray:
    """[B] lists of ids -> [B, D]."""
    mask = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    tokens = torch.zeros_like(mask)  # what stands under the padding is masked, so that any id will do
    for row, known in enumerate(ids):
        mask[row, : len(known)] = 1
        tokens[row, : len(known)] = torch.tensor(known)
    mask, tokens = mask.to(model.device), tokens.to(model.device)
    found = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    if not -len(found) <= layer < len(found):
        raise ValueError(f"layer={layer}: the model has {len(found)}, from 0 (the embeddings) to {len(found) - 1}.")
    states = found[layer].float() * mask[..., None]
    return (states.sum(dim=1) / mask.sum(dim=1, keepdim=True)).cpu().numpy()


@contextlib.contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients; afterwards in the mode it had."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def fingerprint_model(model: torch.nn.Module) -> str:
    """32 hex digits of a hash over the names and values of all parameters and buffers, wherever they come from."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        hashed.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
