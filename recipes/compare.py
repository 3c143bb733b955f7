# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""Arms that differ in named values and in nothing else, paired by seed: is one better, and how sure is that?

    accelerate launch recipes/compare.py --config recipes/configs/density/quickstart.yaml \
        --vary sampling_strength=0,1 --seeds 8 --output_dir runs/strength
    accelerate launch recipes/compare.py --config recipes/configs/density/testbed_verifier.yaml

The config is the recipe's own, with what CompareArguments adds; each run is that recipe's, in ARM/seed-N.
The primary measure, and what the seeds can detect in it, are written down before anything is trained.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
import trl
import yaml
from accelerate import PartialState

import hf_synth
from hf_synth.errors import user_errors
from hf_synth.experiments.plan import COMPARISON, CompareArguments, ComparedRun, planned, split_config
from hf_synth.experiments.statistics import PREFIX as EQUAL_KL
from hf_synth.experiments.statistics import power_statement
from hf_synth.hub.publish import PublishArguments, publish_run
from hf_synth.io import directory_lock, is_main_process, write_json
from hf_synth.reports import write_report
from hf_synth.reports.read import check_finished, check_primary
from hf_synth.training.arguments import parse_recipe
from hf_synth.training.run_directory import read_metrics, resolved

CONFIGS = Path(__file__).parent / "configs"
PLAN = "plan.json"


def main(argv: Sequence[str] | None = None) -> Path:
    """Run what is missing of a comparison, then report; returns the output directory."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(words):
        print(usage())
        return Path()
    own, base = split_config(words, {field.name for field in dataclasses.fields(CompareArguments)})
    arguments = CompareArguments(**own)
    folder = Path(base.pop("output_dir", f"runs/compare_{arguments.recipe}"))
    runs = planned(arguments, base, folder, CONFIGS)
    with directory_lock(str(folder)):
        check(runs)
        promise(arguments, base, folder, begun=len({run.arm for run in runs if run.arm and run.finished}) > 1)
        if arguments.plan:
            return folder
        for number, run in enumerate(runs, start=1):
            train(run, number, len(runs))
            if run.arm is not None:
                check_known(arguments.primary, run)
        if is_main_process():
            print(f"Report: {write_report(folder)}")
    return folder


def usage() -> str:
    """What the command line takes beside the recipe's own flags."""
    fields = dataclasses.fields(CompareArguments)
    lines = [f"  --{field.name:16} {field.metadata['help']}" for field in fields]
    return "\n".join([str(__doc__), *lines, "", "and every flag of the recipe: python recipes/grpo.py --help"])


def check(runs: Sequence[ComparedRun]) -> None:
    """Refuse a plan with a run that its recipe would refuse, or that a folder holds with other values."""
    for run in runs:
        check_finished(run)
        if is_main_process():
            run.write()
    PartialState().wait_for_everyone()
    for run in runs:
        parse_recipe(importlib.import_module(run.recipe).CLASSES, run.words)


def promise(arguments: CompareArguments, base: dict[str, Any], folder: Path, *, begun: bool) -> None:
    """Say, and keep in plan.json, what the answer will rest on.

    begun: whether two arms have finished runs; then a plan that is kept there must be this one.
    """
    found = {
        "primary": arguments.primary,
        "better": arguments.better,
        "smallest_effect": arguments.smallest_effect,
        "noise": arguments.noise,
        "pairs": [list(pair) for pair in arguments.pairs],
        "seeds": arguments.seeds,
        "versions": versions(),
    }
    path = folder / PLAN
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() and begun else found
    for name, value in found.items():
        if kept.get(name) != value:
            raise ValueError(
                f"{name}: got {value!r}, and {path} says {kept.get(name)!r}: the plan of a comparison is made before "
                "its results are known; give another --output_dir"
            )
    if not is_main_process():
        return
    write_json(path, found)
    whole = {**resolved(arguments), "base": base}
    (folder / COMPARISON).write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), encoding="utf-8")
    print(f"Primary measure: {arguments.primary}, {arguments.better} is better.")
    print("\n".join(power_statement(arguments)))


def check_known(primary: str, run: ComparedRun) -> None:
    """Refuse a primary measure that runs do not have as soon as one has ended."""
    found = read_metrics(run.folder) or {}
    if primary not in found and not primary.startswith(EQUAL_KL):
        check_primary(primary, {str(run.arm): {run.seed: found}})


def versions() -> dict[str, str]:
    """What the runs are made by: half of them by other versions would be a comparison of those."""
    packages = (hf_synth, torch, transformers, trl, accelerate)
    return {package.__name__: str(package.__version__) for package in packages}


def train(run: ComparedRun, number: int, count: int) -> None:
    """Give a run to its recipe, unless it is finished; then it is only uploaded, if that is wanted."""
    done = run.finished
    if is_main_process():
        name = f"{run.arm or run.folder.parent.name}, seed {run.seed}"
        print(f"Run {number} of {count}: {name}{', finished before' if done else f', in {run.folder}'}", flush=True)
    recipe = importlib.import_module(run.recipe)
    if not done:
        recipe.main(run.words)
    elif run.config.get("push_to_hub"):
        parsed = parse_recipe(recipe.CLASSES, run.words)
        publish_run(run.folder, next(part for part in parsed if isinstance(part, PublishArguments)))


if __name__ == "__main__":
    with user_errors("compare.py", "the same command goes on with the runs that are missing"):
        main()
