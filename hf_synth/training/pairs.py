"""Preference pairs on their way to a trainer: only those that fit, counted, and what is said of held-out ones."""

import math

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_synth.training.data import pair_length


def fitting_pairs(
    train: Dataset, test: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None
) -> tuple[Dataset, Dataset, dict[str, float]]:
    """The pairs of at most `most` tokens on either side, and their counts for metrics.json.

    TRL's trainers would leave the others out, or cut them, without a word; and weights must keep their rows. Raises
    ValueError where a part is left with none.
    """
    kept = [_fitting(part, tokenizer, most) for part in (train, test)]
    counts = {
        "pairs/train": float(len(kept[0])),
        "pairs/held_out": float(len(kept[1])),
        "pairs/too_long": float(len(train) + len(test) - len(kept[0]) - len(kept[1])),
    }
    return kept[0], kept[1], counts


def accuracy_metrics(accuracy: float, loss: float, pairs: int) -> dict[str, float]:
    """What is said of held-out pairs: the share ordered rightly with its standard error, and the loss per pair.

    Accuracy and loss are as TRL's trainers log them: means over batches, of which the last may be short.
    """
    error = math.sqrt(accuracy * (1 - accuracy) / pairs)
    return {"accuracy/held_out": accuracy, "accuracy/standard_error": error, "loss/held_out": loss}


def _fitting(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None) -> Dataset:
    if most is None:
        return pairs
    kept = pairs.filter(lambda row: pair_length(row, tokenizer) <= most)
    if not len(kept):
        raise ValueError(f"max_length={most}: got {len(pairs)} pairs, all of them longer; raise it")
    return kept
