"""Trainers small enough to test with: a tokenizer made on the spot, a model of a few thousand weights, no network."""

from __future__ import annotations

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = 64  # row i's prompt is the word of i


def tokenizer():
    vocab = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(WORDS))])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def model(kind=GPT2LMHeadModel):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS + 3,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        num_labels=1,
    )
    return kind(config)


def reward_model():
    return model(GPT2ForSequenceClassification)


def rows(weights, **columns):
    """A dataset whose row i says w{i}, with the weights as its column and more columns by name."""
    names = [f"w{i}" for i in range(len(weights))]
    filled = {name: [template.format(w) for w in names] for name, template in columns.items()}
    return datasets.Dataset.from_dict({**filled, "sampling_weight": np.asarray(weights, dtype=np.float64)})


def prompts(weights):
    return rows(weights, prompt="{}")


def arguments(kind, directory, **changes):
    return kind(
        **{
            "output_dir": str(directory),
            "use_cpu": True,
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "learning_rate": 0.01,
            "bf16": False,
            **changes,
        }
    )


class Recorded:
    """A reward function that keeps the prompts it was asked about, call by call."""

    __name__ = "recorded"

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, completions, **kwargs):
        self.calls.append(list(prompts))
        return [float(len(completion) % 5) for completion in completions]


def causal_rows(weights):
    """For a plain Trainer: row i is the token of w{i} twice, and its label."""
    ids = [[i + 3, i + 3] for i in range(len(weights))]
    return datasets.Dataset.from_dict(
        {"input_ids": ids, "labels": ids, "sampling_weight": np.asarray(weights, dtype=np.float64)}
    )


def record_rows(trainer):
    """Make a trainer note the first token of each row it trains on, step by step."""
    seen, step = [], trainer.training_step

    def training_step(model, inputs, *args, **kwargs):
        seen.append(inputs["input_ids"][:, 0].tolist())
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = training_step
    return seen


def parameters(trainer):
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
