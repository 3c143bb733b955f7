"""Trainers that draw rows by their `sampling_weight` column: those of transformers and TRL, under the mixin."""

from __future__ import annotations

from transformers import Trainer
from trl import DPOTrainer, RewardTrainer, SFTTrainer

from hf_synth.sampling.grpo import WeightedGRPOTrainer
from hf_synth.sampling.mixin import SAMPLER_FILE, WeightedSamplingMixin

__all__ = [
    "SAMPLER_FILE",
    "WeightedDPOTrainer",
    "WeightedGRPOTrainer",
    "WeightedRewardTrainer",
    "WeightedSFTTrainer",
    "WeightedSamplingMixin",
    "WeightedTrainer",
]


class WeightedTrainer(WeightedSamplingMixin, Trainer):
    """`transformers.Trainer`, drawing by `sampling_weight`."""


class WeightedSFTTrainer(WeightedSamplingMixin, SFTTrainer):
    """`trl.SFTTrainer`, drawing by `sampling_weight`; no packing."""


class WeightedRewardTrainer(WeightedSamplingMixin, RewardTrainer):
    """`trl.RewardTrainer`, drawing by `sampling_weight`."""


class WeightedDPOTrainer(WeightedSamplingMixin, DPOTrainer):
    """`trl.DPOTrainer`, drawing by `sampling_weight`."""
