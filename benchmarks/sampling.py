"""What weighted sampling costs: as a share of a GRPO step, and against sorting all distances.

    python benchmarks/sampling.py [--hh harmless-base-test.jsonl.gz]

Times are medians over repeats in one run, in seconds or milliseconds; the ratios are what carries over to other
machines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from sklearn.metrics import pairwise_distances
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig
from trl.trainer.utils import RepeatSampler

from hf_synth.sampling import (
    DensityWeightedSampler,
    WeightedGRPOTrainer,
    effective_sample_size,
    embed_texts,
    intrinsic_dimension,
    knn_density,
    rarity_weights,
)

WORDS = 500


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_hh(path: str) -> list[str]:
    """The prompts (all up to the last answer) of an Anthropic hh-rlhf file, `.jsonl.gz`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        chosen = [json.loads(line)["chosen"] for line in lines]
    return [text[: text.rindex("\n\nAssistant:")] for text in chosen]


def generated_prompts(count: int) -> list[str]:
    """Prompts of 5 to 80 words, a third of them variations of ten themes, for want of real ones."""
    rng = np.random.default_rng(0)
    themes = rng.integers(WORDS, size=(10, 80))
    prompts = []
    for row in range(count):
        words = themes[row % 10].copy() if row % 3 == 0 else rng.integers(WORDS, size=80)
        words[rng.integers(80, size=8)] = rng.integers(WORDS, size=8)
        prompts.append(" ".join(f"word{word}" for word in words[: rng.integers(5, 81)]))
    return prompts


def naive_density(vectors: np.ndarray, k: int = 10) -> np.ndarray:
    """The textbook way: all distances by sklearn, every row sorted in full."""
    distances = np.sort(pairwise_distances(vectors, metric="cosine"), axis=1)
    return 1 / distances[:, 1 : k + 1].mean(axis=1)


def benchmark_density(prompts: list[str], repeats: int) -> None:
    """Print the cost of embedding and density, and what the weights come to."""
    embed = median_seconds(lambda: embed_texts(prompts), 1)
    vectors = embed_texts(prompts)
    naive = median_seconds(lambda: naive_density(vectors), repeats)
    print(f"density of {len(prompts)} prompts, k = 10, {vectors.shape[1]} dimensions (embedding: {embed:.2f} s)")
    print(f"  sorting all distances (sklearn)   {naive:7.3f} s")
    for backend in ("sklearn", "faiss"):
        seconds = median_seconds(lambda backend=backend: knn_density(vectors, backend=backend), repeats)  # type: ignore[misc]
        print(f"  knn_density, {backend:<8}             {seconds:7.3f} s   {naive / seconds:4.1f} times as fast")
    print(f"  intrinsic dimension {intrinsic_dimension(vectors):.1f}; effective sample size at strength 1:", end="")
    for estimator in ("volume", "mean_distance"):
        weights = rarity_weights(knn_density(vectors, estimator=estimator))
        print(f" {estimator} {effective_sample_size(weights) / len(weights):.2f} N", end="")
    print()


def small_grpo(directory: str, steps: int) -> tuple[WeightedGRPOTrainer, list[float]]:
    """A GRPO trainer over a Llama of 200,000 weights, and the list its step times (s) go to."""
    vocab = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"word{i}" for i in range(WORDS))])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    prompts = generated_prompts(256)
    dataset = datasets.Dataset.from_dict({"prompt": prompts, "sampling_weight": np.linspace(0.1, 2, len(prompts))})
    args = GRPOConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=16,
        max_steps=steps,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = WeightedGRPOTrainer(
        LlamaForCausalLM(config),
        lambda completions, **_: [float(len(set(text.split()))) for text in completions],
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    seconds: list[float] = []
    stock_step = trainer.training_step

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        loss = stock_step(*arguments, **options)
        seconds.append(time.perf_counter() - start)
        return loss

    trainer.training_step = timed
    return trainer, seconds


def benchmark_sampler(rows: int, steps: int, repeats: int) -> None:
    """Print what drawing by weight adds to a GRPO step (forward, backward and completions, without the optimiser)."""
    with tempfile.TemporaryDirectory() as directory:
        trainer, seconds = small_grpo(directory, steps)
        trainer.train()
        stock = trainer.weighted_sampler
    assert stock is not None
    step = statistics.median(seconds[1:])
    counts = {"batch_size": stock.batch_size, "repeat_count": stock.repeat_count}
    ours = DensityWeightedSampler(np.random.default_rng(0).random(rows), group_size=stock.group_size, **counts)
    theirs = RepeatSampler(range(rows), stock.group_size, seed=0, **counts)
    steps_a_round = len(ours) / 16
    print(f"drawing from {rows} prompts in GRPO (groups of {stock.group_size}, 16 completions a step)")
    print(f"  a step of a small Llama           {1e3 * step:9.3f} ms")
    for name, sampler in (("DensityWeightedSampler", ours), ("TRL's RepeatSampler", theirs)):
        a_step = median_seconds(lambda sampler=sampler: sum(1 for _ in sampler), repeats) / steps_a_round  # type: ignore[misc]
        print(f"  {name:<32}  {1e3 * a_step:9.3f} ms a step   {100 * a_step / step:8.4f} % of it")
    start = median_seconds(ours.round_rows, repeats)
    print(f"  of it, once a round               {1e3 * start:9.3f} ms in {steps_a_round:.0f} steps")


def main() -> None:
    """Run both benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--hh", metavar="PATH", help="real prompts: an Anthropic hh-rlhf .jsonl.gz file")
    parser.add_argument("--prompts", type=int, default=2312, help="how many to generate without --hh (2312)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows to draw from (100000)")
    parser.add_argument("--steps", type=int, default=12, help="GRPO steps to time (12)")
    parser.add_argument("--repeats", type=int, default=5, help="timings behind each median (5)")
    options = parser.parse_args()
    benchmark_sampler(options.rows, options.steps, options.repeats)
    benchmark_density(read_hh(options.hh) if options.hh else generated_prompts(options.prompts), options.repeats)


if __name__ == "__main__":
    main()
