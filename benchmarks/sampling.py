"""What drawing by weight costs: a sampler over ten million weights, and the mixin's share of a GRPO step.

    python benchmarks/sampling.py

Medians over repeats in one run, in seconds of CPU time (`time.process_time`, one process): other programs on the same
cores disturb it less than wall time. The ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig
from trl.trainer.utils import RepeatSampler

from hf_synth.sampling import ChangingWeightsCallback, DensityWeightedSampler, PassRates, WeightedGRPOTrainer

WORDS = 500


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median CPU time of a call, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def benchmark_sampler(rows: int, repeats: int) -> None:
    """Print what it takes to build a sampler, to order a round, and to hand out its indices."""
    weights = np.random.default_rng(0).random(rows)
    sampler = DensityWeightedSampler(weights, batch_size=64)
    build = median_seconds(lambda: DensityWeightedSampler(weights, batch_size=64), repeats)
    order = median_seconds(sampler.round_rows, repeats)
    ours = median_seconds(lambda: sum(1 for _ in sampler), repeats)
    stock = RepeatSampler(range(rows), 1, batch_size=64, seed=0)
    theirs = median_seconds(lambda: sum(1 for _ in stock), repeats)
    print(f"a sampler over {rows:,} weights")
    print(f"  built in                             {build:8.3f} s")
    print(f"  the order of a round                 {order:8.3f} s")
    print(f"  a round, its order included          {ours:8.3f} s   {len(sampler) / ours / 1e6:6.2f} million indices/s")
    print(f"  TRL's RepeatSampler, without weights {theirs:8.3f} s   {theirs / ours:6.2f} times as long")


class Clock:
    """CPU seconds within chosen methods of an object's class, calls within calls not counted again."""

    def __init__(self) -> None:
        self.seconds, self._inside = 0.0, False

    def watch(self, owner: Any, name: str, without: Callable[[], float] = lambda: 0.0) -> None:
        """Replace a method by itself, timed; what the clock `without` counts meanwhile is not counted here."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return method(*arguments, **options)
            self._inside, start, other = True, time.process_time(), without()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.process_time() - start - (without() - other)
                self._inside = False

        setattr(owner, name, timed)


def small_grpo(directory: str, steps: int, prompts: int, learnt: bool) -> WeightedGRPOTrainer:
    """A GRPO trainer over a Llama of 200,000 weights; with pass rates where weights are to be learnt."""
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
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{word}" for word in rng.integers(WORDS, size=12)) for _ in range(prompts)]
    args = GRPOConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=16,
        max_steps=steps,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = WeightedGRPOTrainer(
        LlamaForCausalLM(config),
        lambda completions, **_: [float(len(set(text.split())) > 12) for text in completions],
        args=args,
        train_dataset=datasets.Dataset.from_dict({"prompt": texts, "sampling_weight": np.linspace(0.1, 2, prompts)}),
        processing_class=tokenizer,
        round_size=16,
    )
    trainer.remove_callback(PrinterCallback)
    if learnt:
        trainer.add_callback(ChangingWeightsCallback(trainer, [PassRates(texts)]))
    return trainer


def benchmark_mixin(prompts: int, steps: int) -> None:
    """Print what drawing by weight takes of GRPO training, in rounds of 8 steps: all that the mixin adds."""
    print(f"GRPO on a small Llama: 16 completions a step, {prompts:,} prompts, {steps} steps, all logged")
    for learnt in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            trainer = small_grpo(directory, steps, prompts, learnt)
            ours, stock = Clock(), Clock()
            stock.watch(WeightedGRPOTrainer.__mro__[2], "log")
            sampler = trainer._get_train_sampler()
            ours.watch(sampler, "round_rows")
            ours.watch(trainer, "log", without=lambda clock=stock: clock.seconds)  # type: ignore[misc]
            for callback in trainer.callback_handler.callbacks:
                if type(callback).__module__.startswith("hf_synth."):
                    for event in ("on_train_begin", "on_epoch_begin", "on_step_begin", "on_save"):
                        ours.watch(callback, event)
            start = time.process_time()
            trainer.train()
            total = time.process_time() - start
        kind = "weights by pass rate, learnt" if learnt else "fixed weights"
        mine, all_ = (1e3 * seconds / steps for seconds in (ours.seconds, total))
        print(f"  {kind:<28} {mine:8.3f} ms of {all_:8.1f} ms a step: {100 * mine / all_:.2f} %")


def main() -> None:
    """Run both benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="weights of the sampler (10,000,000)")
    parser.add_argument("--prompts", type=int, default=2000, help="prompts of the trainer (2000)")
    parser.add_argument("--steps", type=int, default=40, help="GRPO steps to time (40)")
    parser.add_argument("--repeats", type=int, default=3, help="timings behind each median (3)")
    options = parser.parse_args()
    benchmark_sampler(options.rows, options.repeats)
    benchmark_mixin(options.prompts, options.steps)


if __name__ == "__main__":
    main()
