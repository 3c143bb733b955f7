"""How good sampled completions are, by group of prompts: before, during and after training."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.generation import Completion, Decoding, sample_completions
from hf_synth.io import is_main_process, whole_file
from hf_synth.metrics.intervals import grouped_mean
from hf_synth.rewards import RewardFunction
from hf_synth.sampling import prompt_text

SAMPLES = "samples.parquet"
_SCHEMA = pa.schema(
    {
        "prompt_row": pa.int32(),
        "sample": pa.int32(),
        "prompt": pa.string(),
        "completion": pa.string(),
        "finished": pa.bool_(),
        "tokens": pa.int32(),
        "reward": pa.float64(),
        "truth": pa.float64(),
        "cluster": pa.string(),
        "density": pa.float64(),
        "log_prob": pa.float64(),
        "reference_log_prob": pa.float64(),
        "entropy": pa.float64(),
        "kl": pa.float64(),
    }
)


@dataclasses.dataclass(frozen=True)
class HeldOutPrompts:
    """Prompts that are never trained on, and how a policy's completions of them are scored.

    prompts: {prompt}, with {task} and what else a reward reads. groups: one name a prompt. sizes: how many training
    prompts each cluster has, empty where the groups are no clusters. density: one number a prompt. rewards: the
    measures by name; the first is what is trained on.
    """

    prompts: Dataset
    groups: list[str]
    sizes: Mapping[str, int]
    density: Sequence[float]
    rewards: dict[str, RewardFunction]
    tokenizer: PreTrainedTokenizerBase

    def sample(
        self, policy: PreTrainedModel, reference: PreTrainedModel | None, decoding: Decoding
    ) -> list[Completion]:
        """Sample completions in the order of the prompts."""
        return sample_completions(policy, reference, list(self.prompts["prompt"]), self.tokenizer, decoding)

    def score(self, completions: list[Completion]) -> dict[str, list[float]]:
        """Return each measure of each completion."""
        rows = self.prompts[[completion.row for completion in completions]]
        chats = [
            completion.text if isinstance(prompt, str) else [{"role": "assistant", "content": completion.text}]
            for prompt, completion in zip(rows["prompt"], completions, strict=True)
        ]
        extra = {name: values for name, values in rows.items() if name != "prompt"}
        ids = [completion.ids for completion in completions]
        return {
            name: reward(prompts=rows["prompt"], completions=chats, completion_ids=ids, **extra)
            for name, reward in self.rewards.items()
        }

    def means(self, completions: list[Completion]) -> dict[str, float]:
        """Return each measure over all groups and by group; held_out/kl and held_out/entropy, nats a completion.

        `halves/NAME/common` and `halves/NAME/rare` are means over the larger and the smaller half of the clusters.
        """
        groups = [self.groups[completion.row] for completion in completions]
        order = sorted((group for group in self.sizes if group in groups), key=lambda group: -self.sizes[group])
        middle = len(order) // 2
        metrics: dict[str, float] = {}
        for name, scores in self.score(completions).items():
            # A reward may say nothing of an answer.
            known = [(score, group) for score, group in zip(scores, groups, strict=True) if score is not None]
            known = known or [(math.nan, group) for group in groups]
            means = grouped_mean(*zip(*known, strict=True), name=name)
            metrics |= means
            for half, members in {"common": order[:middle], "rare": order[len(order) - middle :]}.items():
                if own := [means[f"{name}/{group}"] for group in members if f"{name}/{group}" in means]:
                    metrics[f"halves/{name}/{half}"] = float(np.mean(own))
        for name in ("kl", "entropy"):
            values = [getattr(completion, name) for completion in completions]
            metrics[f"held_out/{name}"] = grouped_mean(values, groups, name=name)[name]
        return metrics

    def before_and_after(self, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The measures at the first and the last evaluation of a log, over all groups and at both ends.

        Head and tail: the largest and the smallest cluster of training prompts, or the dense and the rare half.
        """
        ends = {"head": "crowded", "tail": "rare"}
        if self.sizes:
            largest, smallest = (choose(self.sizes, key=self.sizes.__getitem__) for choose in (max, min))
            ends = {"head": largest, "tail": smallest}
        evaluations = [entry for entry in history if next(iter(self.rewards)) in entry]
        metrics: dict[str, float] = {}
        for moment, entry in (("warmup", evaluations[0]), ("final", evaluations[-1])):
            for name in self.rewards:
                metrics[f"{name}/{moment}"] = entry[name]
                for end, group in ends.items():
                    if (value := entry.get(f"{name}/{group}")) is not None:  # a single prompt has one half only
                        metrics[f"{name}/{moment}_{end}"] = value
        return metrics

    def table(self, completions: list[Completion]) -> pa.Table:
        """Return one row a completion: its prompt, its text, and every number that is known of it."""
        scores = self.score(completions)
        texts = [prompt_text(prompt) for prompt in self.prompts["prompt"]]
        rows = [completion.row for completion in completions]
        names = ("sample", "finished", "log_prob", "reference_log_prob", "entropy", "kl")
        columns: dict[str, Any] = {name: [getattr(completion, name) for completion in completions] for name in names}
        columns |= {
            "prompt_row": rows,
            "prompt": [texts[row] for row in rows],
            "completion": [completion.text for completion in completions],
            "tokens": [len(completion.ids) for completion in completions],
            "reward": next(iter(scores.values())),
            "truth": scores.get("validity", [None] * len(rows)),
            "cluster": [self.groups[row] if self.sizes else None for row in rows],
            "density": [self.density[row] for row in rows],
        }
        return pa.table([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)


def write_samples(folder: Path, table: pa.Table) -> None:
    """Write samples.parquet, whole or not at all; only the main process writes."""
    if is_main_process():
        with whole_file(folder / SAMPLES) as part:
            pq.write_table(table, part)
