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
import fnmatch
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
import trl
from accelerate import PartialState

import hf_synth
from hf_synth.errors import json_dict, likely, user_errors
from hf_synth.experiments.arms import (
    COMPARISON,
    CompareArguments,
    PlannedRun,
    compared_runs,
    in_turn,
    split_config,
)
from hf_synth.experiments.statistics import EQUAL_KL, recipe_measures
from hf_synth.hub.publish import PublishArguments, publish_run
from hf_synth.io import directory_lock, is_main_process, write_json, write_text
from hf_synth.reports import write_report
from hf_synth.reports.comparison import power_statement
from hf_synth.reports.read import check_finished
from hf_synth.training.arguments import parse_recipe, yaml_text
from hf_synth.training.run_directory import read_metrics, resolved

CONFIGS = Path(__file__).parent / "configs"
PLAN, SCRIPT = "plan.json", "plan.sh"
_BEGUN = ' & begun="$begun $!"'
_WAIT = 'for job in $begun; do wait "$job" || exit 1; done; begun='  # what follows needs all of them
MADE_BY = (hf_synth, torch, transformers, trl, accelerate)  # half of the runs by others would compare those


def main(argv: Sequence[str] | None = None) -> Path:
    """Run what is missing of a comparison, then report; returns the output directory."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(argv):
        fields = dataclasses.fields(CompareArguments)
        lines = [f"  --{field.name:16} {field.metadata['help']}" for field in fields]
        print(__doc__, *lines, "", "and every flag of the recipe: python recipes/grpo.py --help", sep="\n")
        return Path()
    own, base = split_config(argv, {field.name for field in dataclasses.fields(CompareArguments)})
    arguments = CompareArguments(**own)
    folder = Path(str(base.pop("output_dir", f"runs/compare_{arguments.recipe}")))
    if arguments.plan == "jobs" and not folder.is_absolute():
        raise ValueError(f"output_dir: got {str(folder)!r}, wanted an absolute path: jobs mount their bucket there")
    runs = compared_runs(arguments, base, folder, CONFIGS)
    check_measured(arguments, base)
    with directory_lock(str(folder)):
        check(runs)
        preregister(arguments, base, folder, begun=len({run.arm for run in runs if run.arm and run.finished}) > 1)
        if arguments.plan:
            if isinstance(arguments.plan, str) and is_main_process():
                write_text(folder / SCRIPT, text := script(arguments.plan, runs, folder))
                print(text)
            return folder
        having: list[bool] = []  # of the runs so far, whether they have the primary metric; one may have diverged
        for run in in_turn(runs):
            train(run)
            known = read_metrics(run.folder) or {}
            having += [arguments.primary in known] if run.arm is not None else []
            if len(having) == 2 and not any(having) and not arguments.primary.startswith(EQUAL_KL):
                raise ValueError(
                    f"primary: got {arguments.primary!r}, which two runs do not have; "
                    + likely(arguments.primary, known)
                )
        if is_main_process():
            print(f"Report: {write_report(folder)}")
    return folder


def check(runs: Sequence[PlannedRun]) -> None:
    """Refuse a plan with a run that its recipe would refuse, or that a folder holds with other values."""
    for run in runs:
        check_finished(run)
        if is_main_process():
            run.write()
    PartialState().wait_for_everyone()
    for run in runs:
        parse_recipe(importlib.import_module(run.recipe).CLASSES, run.argv)


def script(kind: str, runs: Sequence[PlannedRun], folder: Path) -> str:
    """Write the runs as a SLURM array or as jobs of the Hub: what arms share, then the arms, then the comparison."""
    recipes = Path("/tmp/recipes") if kind == "jobs" else Path(__file__).parent
    runs = [*(run for run in runs if run.arm is None), *(run for run in runs if run.arm is not None)]
    commands = [shlex.join(["accelerate", "launch", f"{recipes / run.recipe}.py", *run.argv]) for run in runs]
    commands.append(shlex.join(["hf-synth", "report", str(folder)]))
    ends = sorted({sum(run.arm is None for run in runs), len(runs), len(commands)} - {0})
    stages = list(zip([0, *ends], ends, strict=False))
    if kind == "slurm":
        submit = "# job=$(sbatch --parsable --array={}-{} ${{job:+--dependency=afterok:$job}} {})"
        lines = ["#!/bin/bash", f"#SBATCH --job-name={shlex.quote(folder.name)} --requeue --open-mode=append"]
        lines += [submit.format(first, end - 1, shlex.quote(str(folder / SCRIPT))) for first, end in stages]
        cases = [f"{number}) {command} ;;" for number, command in enumerate(commands)]
        return "\n".join([*lines, 'case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac\n"])
    lines = ["#!/bin/bash", f'hf buckets sync {(mounted := shlex.quote(str(folder)))} "hf://buckets/$BUCKET"']
    flags = f'--with hf_synth --secrets HF_TOKEN --volume "hf://buckets/$BUCKET":{mounted} $JOB_FLAGS'
    for first, end in stages:
        inside = (shlex.quote(f"hf-synth recipes {recipes}; {command};") for command in commands[first:end])
        lines += [*(f"hf jobs uv run {flags} sh -c {each}{_BEGUN}" for each in inside), _WAIT]
    return "\n".join([*lines, ""])


def check_measured(arguments: CompareArguments, base: dict[str, Any]) -> None:
    """Refuse a primary metric that no run of the recipe can have, before anything is trained."""
    configs = [{**base, **(values or {})} for values in arguments.arms.values()]
    clusters = [str(config.get("task")) for config in configs]
    clusters += [name for config in configs for name in json_dict(config.get("mixture"), "mixture")]
    names = recipe_measures(arguments.recipe, clusters)
    if not any(fnmatch.fnmatchcase(arguments.primary, name) for name in names):
        raise ValueError(
            f"primary: got {arguments.primary!r}, which recipes/{arguments.recipe}.py does not measure; "
            f"{likely(arguments.primary, names)}"
        )


def preregister(arguments: CompareArguments, base: dict[str, Any], folder: Path, *, begun: bool) -> None:
    """Say, and keep in plan.json, what the answer will rest on.

    begun: whether two arms have finished runs; then a plan that is kept there must be this one.
    """
    plan = {
        "primary": arguments.primary,
        "better": arguments.better,
        "smallest_effect": arguments.smallest_effect,
        "noise": arguments.noise,
        "pairs": [list(pair) for pair in arguments.pairs],
        "seeds": arguments.seeds,
        "versions": {package.__name__: str(package.__version__) for package in MADE_BY},
    }
    path = folder / PLAN
    kept = plan
    if path.exists() and begun:
        try:
            kept = json_dict(path.read_text(encoding="utf-8"), PLAN)
        except ValueError:
            raise ValueError(
                f"{path}: got a damaged plan, which says what the finished runs were to answer; restore it, or give "
                "another --output_dir"
            ) from None
    for name, value in plan.items():
        if kept.get(name) != value:
            raise ValueError(
                f"{name}: got {value!r}, and {path} says {kept.get(name)!r}: the plan of a comparison is made before "
                "its results are known; give another --output_dir"
            )
    if not is_main_process():
        return
    write_json(path, plan)
    whole = {**resolved(arguments), "base": base}
    write_text(folder / COMPARISON, yaml_text(whole, allow_unicode=True))
    print(f"Primary metric: {arguments.primary}, {arguments.better} is better.")
    print(power_statement(arguments))


def train(run: PlannedRun) -> None:
    """Give a run to its recipe, unless it is finished; then it is only uploaded, if that is wanted."""
    recipe = importlib.import_module(run.recipe)
    if not run.finished:
        recipe.main(run.argv)
    elif run.values.get("push_to_hub"):
        parsed = parse_recipe(recipe.CLASSES, run.argv)
        publish_run(run.folder, next(part for part in parsed if isinstance(part, PublishArguments)))


if __name__ == "__main__":
    with user_errors("compare.py", "the same command goes on with the runs that are missing"):
        main()
