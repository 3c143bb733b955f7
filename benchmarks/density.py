"""How fast prompts are embedded and their neighbours found, against what a user would take instead.

    python benchmarks/density.py [--hh harmless-base-test.jsonl.gz] [--points 90000]

Ratios of medians within one run; seconds are of processor time over all threads, which other work on the machine
disturbs less than the clock. Brute force is timed on some of the queries, since each costs the same, and the whole is
told from it. With OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1 all of it runs on one thread. pynndescent, where it is
installed, is timed twice: its first call in a process compiles, and numba cannot keep what that gives.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from hf_synth.sampling import embed_texts, intrinsic_dimension
from hf_synth.sampling.neighbors import ExactIndex, Frame, find_neighbors, nearest, sample_rows

K = 10


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median processor time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def read_hh(path: str) -> tuple[list[str], list[str]]:
    """First turns and whole prompts (all up to the last answer) of an Anthropic hh-rlhf file, `.jsonl.gz`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        chosen = [json.loads(line)["chosen"] for line in lines]
    whole = [text[: text.rindex("\n\nAssistant:")] for text in chosen]
    return [text.split("\n\nAssistant:")[0].removeprefix("\n\nHuman: ") for text in whole], whole


def generated_prompts(count: int) -> list[str]:
    """Prompts of 4 to 60 words about 400 topics of Zipf sizes, half of the words the topic's own.

    Their embeddings have about the intrinsic dimension of the first turns of hh-rlhf (26 and 24).
    """
    rng = np.random.default_rng(0)
    topics = (np.minimum(rng.zipf(1.3, count), 10**6) - 1) % 400
    prompts = []
    for topic, length in zip(topics, np.exp(rng.normal(2.6, 0.6, count)).astype(int).clip(4, 60), strict=True):
        own, ranks = rng.random(length) < 0.5, np.minimum(rng.zipf(1.4, length), 200)
        words = [f"t{topic}x{rank:03x}" if mine else f"w{rank:04x}" for mine, rank in zip(own, ranks, strict=True)]
        prompts.append(" ".join(words))
    return prompts


def benchmark_embedding(name: str, texts: list[str], repeats: int) -> None:
    """Print texts a second of processor time."""
    embed_texts(texts[:100])
    texts = texts * max(1, 5_000 // len(texts))
    distinct = [f"{text} {row}" for row, text in enumerate(texts)]  # equal texts would be embedded once
    seconds = median_seconds(lambda: embed_texts(distinct), repeats)
    length = statistics.mean(map(len, distinct))
    print(f"  {name:<16} {length:5.0f} characters   {len(distinct) / seconds:8.0f} texts a second and core")


def benchmark_neighbours(vectors: np.ndarray, queries: int, repeats: int) -> None:
    """Print the cost of neighbours, exact and approximate, against scikit-learn's brute force."""
    rows, share = np.arange(queries), len(vectors) / queries
    frame = Frame.of(vectors)
    brute = NearestNeighbors(n_neighbors=K + 1, algorithm="brute").fit(vectors)
    sklearn = share * median_seconds(lambda: brute.kneighbors(vectors[:queries]), repeats)
    print(f"  scikit-learn brute force   {sklearn:7.1f} s")
    exact = share * median_seconds(lambda: nearest(frame, ExactIndex(frame, "faiss"), rows, K), repeats)
    print(f"  exact                      {exact:7.1f} s   {sklearn / exact:4.1f} times as fast")
    found = []
    seconds = median_seconds(lambda: found.append(find_neighbors(vectors, K, "ivf")), repeats)
    recall = found[-1].recall
    print(
        f"  approximate, recall {recall:.3f}  {seconds:7.1f} s   {sklearn / seconds:4.1f} times as fast, index and all"
    )


def benchmark_pynndescent(vectors: np.ndarray, neighbors: int) -> None:
    """Print what pynndescent takes for the same, compiling and compiled, and its recall at K of a sample of points."""
    from pynndescent import NNDescent

    def graph(points: np.ndarray) -> np.ndarray:
        return NNDescent(points, "euclidean", n_neighbors=neighbors, random_state=0).neighbor_graph[0]

    compiling = median_seconds(lambda: graph(vectors[:5_000]), 1)
    found: list[np.ndarray] = []
    seconds = median_seconds(lambda: found.append(graph(vectors)), 1)
    frame, rows = Frame.of(vectors), sample_rows(len(vectors), 1_000)
    limits = nearest(frame, ExactIndex(frame, "faiss"), rows, K)[0][:, -1:]
    others = vectors[found[0][rows, 1 : K + 1]].astype(np.float64)
    recall = (np.linalg.norm(vectors[rows, None] - others, axis=2) <= limits * (1 + 1e-6)).mean()
    print(f"  pynndescent, recall {recall:.3f}  {seconds:7.1f} s, after {compiling:.1f} s of compiling")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hh", help="an hh-rlhf file; its prompts are embedded")
    parser.add_argument("--points", type=int, default=90_000)
    parser.add_argument("--queries", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pynndescent", type=int, default=24, help="its n_neighbors; fewer find fewer of the nearest")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    prompts = generated_prompts(arguments.points)
    print("Hashing embeddings, D = 384")
    if arguments.hh:
        for name, texts in zip(("first turns", "whole prompts"), read_hh(arguments.hh), strict=True):
            benchmark_embedding(name, texts, arguments.repeats)
    benchmark_embedding("generated", prompts[:20_000], arguments.repeats)
    vectors = np.unique(embed_texts(prompts), axis=0)
    dimension = intrinsic_dimension(vectors[:: max(1, len(vectors) // 20_000)])
    print(f"{K} neighbours of {len(vectors)} points of intrinsic dimension {dimension:.0f} in {vectors.shape[1]}")
    benchmark_neighbours(vectors, min(arguments.queries, len(vectors)), arguments.repeats)
    if importlib.util.find_spec("pynndescent"):
        benchmark_pynndescent(vectors, arguments.pynndescent)


if __name__ == "__main__":
    main()
