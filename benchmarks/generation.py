"""How fast rows, exact floors and datasets are made: per second, and against plain Python timed in the same run.

    python benchmarks/generation.py [--only rlm]

Medians over repeats; where a figure is promised it stands beside. The ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
from plain import PLAIN_ROWS, Grammar, Row, dyck_losses, dyck_shuffle_losses, knowledge_graph

import hf_synth
from hf_synth.tasks.base import FIRST_CONTENT, Rows, Task

REPEATS = 7
SEQUENCES = ("sort", "reverse", "identity", "set", "union", "delete", "stack")
LANGUAGES = ("start_mid_end", "color_shape", "palindrome", "tivari", "tivari3")


def seconds_each(call: Callable[[int], Any], repeats: int = REPEATS) -> float:
    """Median wall time of `call(repeat)`, after one call that is not counted."""
    call(repeats)
    times = []
    for repeat in range(repeats):
        start = time.perf_counter()
        call(repeat)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def line(what: str, each: float, count: int, tokens: float, plain: float | None, promised: float | None) -> None:
    """Print one figure: `each` seconds a call of `count` rows of `tokens` tokens, `plain` seconds a plain row."""
    rate = count / each
    ratio = f"{plain * rate:9,.0f} x" if plain else " " * 11
    promise = f"  (promised {promised:,.0f}{'' if rate >= promised else ': MISSED'})" if promised else ""
    print(f"{what:44} {rate:14,.0f} rows/s {rate * tokens / 1e6:9,.1f} M tokens/s {ratio}{promise}", flush=True)


def plain_seconds(row: Callable[[random.Random], Row], budget: float = 0.3) -> float:
    """Seconds a row of plain Python: the mean over as many as fit into `budget` seconds."""
    rng, rows = random.Random(0), 0
    start = time.perf_counter()
    while time.perf_counter() - start < budget:
        row(rng)
        rows += 1
    return (time.perf_counter() - start) / rows


def benchmark_rows(name: str, preset: str, block: int, promised: float | None, **config: Any) -> None:
    """Rows of a task in blocks, against its plain row."""
    task = hf_synth.get_task(name, preset, **config)
    plain = Grammar(task.config.vocab_size, task.config.depth).row if name == "rlm" else PLAIN_ROWS.get(name)  # type: ignore[attr-defined]
    each = seconds_each(lambda repeat: task.rows(repeat * block, block))
    tokens = float(task.rows(0, 1_000).lengths.mean())
    line(f"rows  {name}-{preset}", each, block, tokens, plain and plain_seconds(plain), promised)


def words_of(task: Task, rows: Rows) -> list[list[int]]:
    """The content of each row as numbers from 0, `<bos>` and `<eos>` left out."""
    stops = rows.lengths - (rows.tokens[:, 1:].max(axis=1) > 0) * (task.name != "rlm")
    pairs = zip(rows.tokens.tolist(), stops.tolist(), strict=True)
    return [[token - FIRST_CONTENT for token in tokens[1:stop]] for tokens, stop in pairs]


def benchmark_floor(name: str, preset: str, block: int, promised: float, plain: Callable[[list[int]], Any]) -> None:
    """Exact log probabilities in blocks, against one row of plain Python."""
    task = hf_synth.get_task(name, preset)
    rows = task.rows(0, block)
    each = seconds_each(lambda repeat: task.optimal_log_probs(rows), 3)
    words = words_of(task, rows.select(list(range(3))))
    slow = seconds_each(lambda repeat: [plain(word) for word in words], 3) / len(words)
    line(f"floor {name}-{preset}", each, block, float(rows.lengths.mean()), slow, promised)


def benchmark_graph() -> None:
    """A knowledge graph of 200 entities; the plain one has 60, and is scaled by facts."""
    from hf_synth.tasks.analogy import Analogy

    def graph(seed: int) -> Task:
        task = Analogy(Analogy.presets["e200"].replace(graph_seed=seed))
        task.size("test")
        return task

    each = seconds_each(graph)
    facts = graph(0).size("test") or 0
    start = time.perf_counter()
    known = sum(knowledge_graph(random.Random(0), 60, 10_000))
    plain = (time.perf_counter() - start) / known
    line(f"graph analogy-e200, {facts:,} facts: {each:.3f} s", each, facts, 1.0, plain, 1.9e6 / 0.5)


def benchmark_datasets() -> None:
    """Rows of sort-64 into the Arrow cache, one process."""
    datasets.disable_progress_bars()
    size = 400_000
    for view in ("tokens", "text"):

        def load(seed: int, view: str = view) -> None:
            with tempfile.TemporaryDirectory() as folder:
                hf_synth.load_dataset("sort", "64", split="train", size=size, seed=seed, view=view, cache_dir=folder)

        line(f'load_dataset("sort", "64", view="{view}")', seconds_each(load, 3), size, 131, None, 400_000)


def benchmark_first_call(names: list[str]) -> None:
    """A first call in a fresh process: kernels compiling, and from the cache on disk."""
    for name in names:
        program = (
            f"import time, hf_synth; task = hf_synth.get_task({name!r}); start = time.perf_counter();"
            "rows = task.rows(0, 100); task.optimal_log_probs(rows); print(time.perf_counter() - start)"
        )
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            compiled, cached = (
                float(
                    subprocess.run(
                        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
                    ).stdout
                )
                for _ in range(2)
            )
        late = ": MISSED" if compiled > 5 else ""
        print(
            f"first rows and floors of {name:16} compiling {compiled:.2f} s (promised 5{late}), cached {cached:.2f} s"
        )


def main() -> None:
    """Run all, or those whose name holds what `--only` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default="", help="part of a benchmark's name: sort, floor, graph, load, first ...")
    wanted = parser.parse_args().only
    benches: dict[str, Callable[[], None]] = {}
    for name in SEQUENCES:
        benches[f"rows {name}"] = lambda name=name: benchmark_rows(name, "64", 20_000, 1e6)  # type: ignore[misc]
    for name in LANGUAGES:
        benches[f"rows {name}"] = lambda name=name: benchmark_rows(name, "default", 20_000, 5e6)  # type: ignore[misc]
    for name, preset in (("haystack", "30"), ("addition", "5"), ("multiplication", "5"), ("eca", "110-w16-s15")):
        benches[f"rows {name}"] = lambda name=name, preset=preset: benchmark_rows(name, preset, 20_000, None)  # type: ignore[misc]
    for name, promised in (("dyck", 70_000), ("dyck_shuffle", 30_000)):
        benches[f"rows {name}"] = lambda name=name, promised=promised: benchmark_rows(
            name, "k64-l2048", 5_000, promised
        )  # type: ignore[misc]
    for depth, promised in ((1, 8e6), (6, 4e5), (10, 2.5e4)):
        block = 20_000 if depth < 10 else 5_000
        benches[f"rows rlm {depth}"] = lambda depth=depth, block=block, promised=promised: benchmark_rows(  # type: ignore[misc]
            "rlm", f"v128-l{depth}-b2", block, promised
        )
    grammar = Grammar(128, 6)
    benches["floor rlm"] = lambda: benchmark_floor("rlm", "v128-l6-b2", 512, 150, grammar.last_leaf)
    benches["floor dyck"] = lambda: benchmark_floor("dyck", "k64-l2048", 5_000, 20_000, dyck_losses)
    benches["floor dyck_shuffle"] = lambda: benchmark_floor(
        "dyck_shuffle", "k64-l2048", 5_000, 20_000, dyck_shuffle_losses
    )
    benches["graph analogy"] = benchmark_graph
    benches["load_dataset"] = benchmark_datasets
    benches["first call"] = lambda: benchmark_first_call(hf_synth.list_tasks())
    chosen = {name: bench for name, bench in benches.items() if wanted in name}
    if not chosen:
        parser.error(f"--only {wanted}: no benchmark of that name; there are {', '.join(benches)}")
    for bench in chosen.values():
        bench()


if __name__ == "__main__":
    main()
