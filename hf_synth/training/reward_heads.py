"""Reward models with several heads: one logit an aspect of quality, trained by Bradley and Terry's loss on each.

The model is a plain sequence classifier whose labels are the heads, so `AutoModelForSequenceClassification` loads it;
`hf_synth.rewards.reward_model` weighs its heads when it is used.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import PreTrainedConfig
from trl.trainer.reward_trainer import DataCollatorForPreference

from hf_synth.sampling import WeightedRewardTrainer

SIGNS = "signs"


def with_head_signs(pairs: Dataset, heads: Sequence[str], aspect_column: str | None = None) -> Dataset:
    """The pairs with a column `signs`: for each head 1 where chosen is better, -1 where rejected is, 0 where unknown.

    A pair is about one aspect where `aspect_column` names it, and chosen is better in that one. Otherwise each head
    has two columns of numbers, HEAD_chosen and HEAD_rejected; equal or missing ones say nothing. Raises ValueError
    for an aspect that is no head, for missing columns, and for a head about which no pair says anything.
    """
    signs = _signs_of_aspects(pairs, heads, aspect_column) if aspect_column else _signs_of_scores(pairs, heads)
    silent = [head for head, column in zip(heads, signs.T, strict=True) if not column.any()]
    if silent:
        raise ValueError(f"heads: got {', '.join(silent)}, about which none of {len(signs)} pairs says anything")
    return pairs.add_column(SIGNS, signs.tolist())


def _signs_of_aspects(pairs: Dataset, heads: Sequence[str], column: str) -> np.ndarray:
    _require(pairs, [column])
    number = {head: index for index, head in enumerate(heads)}
    aspects = list(pairs[column])
    if strange := sorted({str(aspect) for aspect in aspects} - set(number)):
        raise ValueError(f"{column}: got {', '.join(strange[:5])}, wanted one of the heads {', '.join(heads)}")
    return np.eye(len(heads), dtype=np.int8)[[number[aspect] for aspect in aspects]]


def _signs_of_scores(pairs: Dataset, heads: Sequence[str]) -> np.ndarray:
    _require(pairs, [f"{head}_{side}" for head in heads for side in ("chosen", "rejected")])
    chosen, rejected = (
        np.array([pairs[f"{head}_{side}"] for head in heads], dtype=np.float64).T for side in ("chosen", "rejected")
    )
    return np.nan_to_num(np.sign(chosen - rejected)).astype(np.int8)


def _require(pairs: Dataset, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in pairs.column_names]:
        raise ValueError(
            f"heads: the pairs have no column {', '.join(missing)}, only {', '.join(pairs.column_names)}; name the "
            "column that says which aspect a pair is about (aspect_column), or give HEAD_chosen and HEAD_rejected"
        )


@dataclasses.dataclass
class HeadedCollator(DataCollatorForPreference):
    """TRL's batch of chosen and rejected, with signs [B, H]."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, and the signs."""
        return {**super().torch_call(examples), SIGNS: torch.tensor([example[SIGNS] for example in examples])}


class HeadedRewardTrainer(WeightedRewardTrainer):
    """TRL's RewardTrainer for a classifier of H labels, on pairs with a column `signs` (`with_head_signs`).

    ```txt
    loss = mean over known (pair, head) of -log sigmoid(sign * (logit_head(chosen) - logit_head(rejected)))
    ```

    Logs `accuracy` over all known (pair, head), and `accuracy/HEAD` of each, exactly: rights over known since the
    last log. Needs `remove_unused_columns`, which is RewardConfig's default, or no other columns.
    """

    _signature_columns: Any

    def __init__(self, model: Any, args: Any, *, processing_class: Any, **options: Any) -> None:
        heads = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self.heads: list[str] = heads
        self._tallies = {mode: torch.zeros(2, len(heads)) for mode in ("train", "eval")}  # right, known
        pad = processing_class.pad_token_id
        options.setdefault("data_collator", HeadedCollator(pad, pad_to_multiple_of=args.pad_to_multiple_of))
        with _said_to_have_one_label(model.config):
            super().__init__(model, args, processing_class=processing_class, **options)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if SIGNS not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, SIGNS]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """The mean over what is known; a batch in which nothing is known has loss 0."""
        signs = inputs[SIGNS]
        outputs = model(**{name: value for name, value in inputs.items() if name != SIGNS}, use_cache=False)
        chosen, rejected = outputs.logits.chunk(2)  # [B, H] each
        known = signs != 0
        losses = -logsigmoid(signs * (chosen - rejected)) * known
        loss = losses.sum() / known.sum().clamp(min=1)
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        self._tally(signs * (chosen - rejected).detach() > 0, known)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the trainer's own, with the accuracies; they are added in place, as TRL adds its own."""
        mode = "train" if self.model.training else "eval"
        right, known = self._tallies[mode].tolist()
        prefix = "" if mode == "train" else "eval_"
        if sum(known):
            logs[f"{prefix}accuracy"] = sum(right) / sum(known)
        for head, good, all_ in zip(self.heads, right, known, strict=True):
            if all_:
                logs[f"{prefix}accuracy/{head}"] = good / all_
        self._tallies[mode].zero_()
        super().log(logs, *args, **kwargs)

    def _tally(self, right: torch.Tensor, known: torch.Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        own = torch.stack([right & known, known], dim=1).float()  # [B, 2, H]; by row, so that padding rows are dropped
        self._tallies[mode] += self.accelerator.gather_for_metrics(own).sum(0).cpu()


@contextlib.contextmanager
def _said_to_have_one_label(config: PreTrainedConfig) -> Iterator[None]:
    """RewardTrainer refuses other numbers when it is made, because its own loss, replaced here, reads one logit."""
    labels = config.id2label, config.label2id
    config.id2label, config.label2id = {0: "LABEL_0"}, {"LABEL_0": 0}
    try:
        yield
    finally:
        config.id2label, config.label2id = labels
