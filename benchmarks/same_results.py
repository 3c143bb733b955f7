"""Check that a change of the code changes no result: a fixed set of runs at two revisions, compared to the last digit.

    python benchmarks/same_results.py between main HEAD          both revisions, each in a git worktree of its own
    python benchmarks/same_results.py run --output /tmp/after    this checkout as it is, uncommitted edits included
    python benchmarks/same_results.py compare /tmp/before /tmp/after

On one machine and one thread everything after a seed is deterministic, so metrics.json (without its times), sampled
answers, prompt weights, tables and model weights must be equal. Nothing is kept for other machines: they round
differently. `compare` and `between` exit with 1 on any difference. All runs of one revision take about six minutes
of a core. The settings are written here, not read from recipes/configs, so that both revisions get the same; only
the quickstart is the recipe's own default. The preference pairs are Anthropic/hh-rlhf's harmless-base/test.jsonl.gz.
"""

import argparse
import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
PAIR_COUNT = 400
SHOWN = 4  # differences of a run that its line names
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    **{"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
}

# Run -> its recipe and its settings; its name is its folder. What begins with a dot is shared by several.
SETTINGS = yaml.safe_load("""
.trained: &trained {seed: 0, use_cpu: true, bf16: false, report_to: none, disable_tqdm: true, logging_steps: 5,
  max_steps: 20, save_strategy: "no", per_device_train_batch_size: 8, learning_rate: 1.0e-3}
.pairs: &pairs {<<: *trained, preferences: pairs.jsonl, max_length: 192}
.pretrained: &pretrained {<<: *trained, recipe: pretrain, eval_strategy: steps, eval_steps: 10, eval_rows: 64,
  test_rows: 64, per_device_eval_batch_size: 64}
.shape: &shape {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 128}

quickstart: {recipe: grpo}  # by the recipe's own default config
sft: {<<: *pairs, recipe: sft, max_prompt_tokens: 128, tokenizer_vocab_size: 1024,
  new_model: {<<: *shape, max_position_embeddings: 512}}
reward: {<<: *pairs, recipe: reward, model_name_or_path: sft, sampling_strength: 0,
  per_device_eval_batch_size: 16}
dpo: {<<: *pairs, recipe: dpo, model_name_or_path: sft, sampling_strength: 1, beta: 0.1,
  per_device_eval_batch_size: 16}
grpo: &grpo {<<: *trained, recipe: grpo, model_name_or_path: sft, preferences: pairs.jsonl, max_prompt_tokens: 128,
  reward: reward, reward_max_length: 192, sampling_strength: 1, beta: 0.05, eval_prompts: 16, sample_every: 10,
  per_device_train_batch_size: 16, num_generations: 4, max_completion_length: 12}
comparison: {<<: *grpo, recipe: compare, seeds: 2, rows_seed: "{seed}", model_name_or_path: "{policy}",
  shared: {policy: {recipe: sft, config: sft.yaml, rows_seed: "{seed}", max_steps: 5}},
  arms: {uniform: {sampling_strength: 0}, density: {sampling_strength: 1}}, primary: reward/tail,
  max_steps: 4, sample_every: 2, final_samples: 2}  # of recipe grpo, the default
procedural: {<<: *pretrained, task: dyck_shuffle, task_args: {k: 2, length: 8, holdout: content}, gpt2_size: "2_2_32"}
rlm: {<<: *pretrained, task: rlm, preset: v128-l1-b2, model_type: rlm_transformer,
  new_model: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}, optim: sgd, optim_args: momentum=0.9,
  decay_steps: 1000, decay_to: 0.1, snapshots_per_doubling: 1, final_model: best}
analogy: {<<: *pretrained, task: analogy, preset: e10, model_type: rope_gpt, optimizer: adam, weight_decay: 0.01,
  weight_decay_on: all, new_model: {<<: *shape, max_position_embeddings: 64}}
hyperdata: {<<: *pretrained, task: tivari3, task_args: {holdout: content}, canonical: stand_in,
  canonical_eval_tokens: 2048, arms: {baseline: {mix_ratio: 0}, explanations-5: {explanation_ratio: 0.05}},
  mix_ratio: 0.1, mix_unit: tokens, block_size: 64, tokenizer_vocab_size: 512, model_type: gpt_neox,
  new_model: {<<: *shape, max_position_embeddings: 128}}
evaluation: {recipe: evaluation, model_name_or_path: procedural, lengths: [8, 12], rows: 64, completions: 32,
  samples: 64}
""")
RUNS = {name: settings for name, settings in SETTINGS.items() if not name.startswith(".")}


def run(output: Path, only: Sequence[str], pairs: Path) -> None:
    """Run the named runs, and those whose models they start from, with the code beside this file."""
    if not pairs.is_file():
        raise SystemExit(f"--pairs: got {pairs}, wanted the file harmless-base/test.jsonl.gz of Anthropic/hh-rlhf")
    wanted = set(only)
    for name in reversed(RUNS):
        wanted |= {RUNS[name].get(key) for key in ("model_name_or_path", "reward") if name in wanted} & RUNS.keys()
    if there := [name for name in RUNS if name in wanted and (output / name).exists()]:
        raise SystemExit(f"--output: got {output}, which holds {', '.join(there)} already; wanted another folder")
    output.mkdir(parents=True, exist_ok=True)
    with gzip.open(pairs, "rt", encoding="utf-8") as file:
        (output / "pairs.jsonl").write_text("".join(itertools.islice(file, PAIR_COUNT)), encoding="utf-8")
    for name, settings in RUNS.items():
        config = {key: value for key, value in settings.items() if key != "recipe"} | {"output_dir": name}
        (output / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    # A cache of its own: rows that another revision has made would hide a difference.
    environment = {**os.environ, **ENVIRONMENT, "HF_HOME": str(output.resolve() / "cache")}
    environment.pop("HF_DATASETS_CACHE", None)
    for name in (name for name in RUNS if name in wanted):
        recipe = ROOT / "recipes" / f"{RUNS[name]['recipe']}.py"
        recipe = recipe if recipe.is_file() else recipe.with_name("evaluate.py")  # what evaluation.py was called
        flags = ["--output_dir", name] if name == "quickstart" else ["--config", f"{name}.yaml"]
        started, log = os.times(), output / f"{name}.log"
        with log.open("w") as file:
            command = [sys.executable, str(recipe), *flags]
            done = subprocess.run(command, cwd=output, env=environment, stdout=file, stderr=subprocess.STDOUT)
        took = [now - then for then, now in zip(started, os.times(), strict=True)]
        print(f"{name}: {took[4]:.0f} s, {took[2] + took[3]:.0f} s of a processor", flush=True)
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}; its output is in {log}")


def compare(before: Path, after: Path, only: Sequence[str]) -> bool:
    """Print a line for each run; return whether all are equal."""
    equal = True
    for name in only:
        found = list(differences(before / name, after / name))
        equal &= not found
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        print(f"{name}: {'; '.join(found[:SHOWN]) + more if found else 'equal'}")
    return equal


def differences(before: Path, after: Path) -> Iterator[str]:
    """Each difference of two runs: the file, what in it, and by how much."""
    readers = {"metrics.json": read_metrics, "*.csv": read_table, "*.parquet": read_table, "*.safetensors": load_file}
    empty = True
    for pattern, reader in readers.items():
        for path in sorted({file.relative_to(folder) for folder in (before, after) for file in folder.rglob(pattern)}):
            empty = False
            if missing := [str(folder) for folder in (before, after) if not (folder / path).is_file()]:
                yield f"{path} is not in {missing[0]}"
            elif (before / path).read_bytes() != (after / path).read_bytes():
                old, new = reader(before / path), reader(after / path)
                yield from (f"{path} {text}" for text in changed(old, new))
    if empty:
        yield f"no results in {before} and {after}"


def changed(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Each name under which two mappings differ; of columns the first row, of tensors the largest difference."""
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in old or name not in new:
            yield f"{name}: only {'before' if name in old else 'after'}"
        elif isinstance(old[name], np.ndarray):
            if old[name].shape != new[name].shape:
                yield f"{name}: shape {old[name].shape} -> {new[name].shape}"
            elif old[name].tobytes() != new[name].tobytes():
                yield f"{name}: by up to {np.abs(old[name].astype(float) - new[name].astype(float)).max():.3g}"
        elif isinstance(old[name], list):
            if len(old[name]) != len(new[name]):
                yield f"{name}: {len(old[name])} rows -> {len(new[name])}"
            rows = [(i, *pair) for i, pair in enumerate(zip(old[name], new[name], strict=False)) if unlike(*pair)]
            if rows:
                yield f"{name}: {len(rows)} rows, first row {rows[0][0]}: {change(*rows[0][1:])}"
        elif unlike(old[name], new[name]):
            yield f"{name}: {change(old[name], new[name])}"


def unlike(old: Any, new: Any) -> bool:
    """Whether two values differ; NaN equals itself."""
    return old != new and repr(old) != repr(new)


def change(old: Any, new: Any) -> str:
    """Two values, and their difference where they are numbers."""
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return f"{old!r} -> {new!r}" + (f" ({new - old:+.3g})" if numbers else "")


def read_metrics(path: Path) -> dict[str, Any]:
    """metrics.json without its times."""
    return {name: value for name, value in json.loads(path.read_text()).items() if "seconds" not in name.split("/")}


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet or CSV file."""
    table: pa.Table = pa.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def between(revisions: Sequence[str], only: Sequence[str], pairs: Path) -> bool:
    """Run two revisions in worktrees of their own, and compare them; the results stay in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="same_results_"))
    print(f"Results: {folder}", flush=True)
    for side, revision in zip(("before", "after"), revisions, strict=True):
        tree = folder / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        if subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision]).returncode:
            return False
        try:
            script = shutil.copy(__file__, tree / "benchmarks")  # older revisions lack it, or run something else
            command = [sys.executable, script, "run", "--output", str(folder / side), "--pairs", str(pairs.resolve())]
            if subprocess.run([*command, "--only", *only]).returncode:
                return False
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    return compare(folder / "before", folder / "after", only)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    parts = {name: commands.add_parser(name) for name in ("run", "compare", "between")}
    parts["run"].add_argument("--output", type=Path, required=True, help="A folder for the runs.")
    parts["compare"].add_argument("folders", type=Path, nargs=2, help="Two folders that `run` has filled.")
    parts["between"].add_argument("revisions", nargs=2, help="Two revisions, the older first.")
    for part in parts.values():
        part.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="These runs alone.")
    for name in ("run", "between"):
        parts[name].add_argument("--pairs", type=Path, default=PAIRS, help="harmless-base/test.jsonl.gz")
    arguments = parser.parse_args(argv)
    if arguments.command == "run":
        run(arguments.output, arguments.only, arguments.pairs)
        return 0
    if arguments.command == "compare":
        return 0 if compare(*arguments.folders, arguments.only) else 1
    return 0 if between(arguments.revisions, arguments.only, arguments.pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
