"""Arms of any origin, paired by seed: differences with intervals, p-values with Holm's correction, and verdicts.

A FOLDER is an arm; a single FOLDER holds the arms as its folders, a single .jsonl lines of arm, seed and metrics. An
arm has one file of numbers a seed: metrics.json, wandb-summary.json, lm-eval's results_*.json, .eval_results/ in a
run's folder, or else any SEED.json. Seeds are paired by their number in the path (seed-3/..., run_3.json), or by the
`seed` of their config.
"""

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_synth.errors import check_choices, json_dict, likely
from hf_synth.io import reading

# What holds the numbers of a run: the first kind that an arm has. What a run was given: in its folder, or above it.
_FILES = ("metrics.json", "wandb-summary.json", "results*.json", ".eval_results/*.yaml", "*.json")
_CONFIGS = ("resolved_config.yaml", "config.yaml")
_SETTINGS = ("config", "configs", "n-shot", "n-samples", "versions")  # of lm-eval
_SIZES = ("rows/test", "prompts/evaluated", "pairs/held_out")  # what arms are measured on
_SEED = re.compile(r"seed[-_=]?(\d+)")
_NO_MEASURE = re.compile(r"(^|/)_|_stderr|(^|/)(epoch|global_step)$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arms, and what the answer rests on."""
    parser.add_argument("folder", nargs="+", type=Path, help="an arm, or one folder or .jsonl file of arms")
    parser.add_argument("--primary", help="the metric that the answer rests on; without it there are no verdicts")
    parser.add_argument("--better", choices=("higher", "lower"), help="by default lower in a loss or an excess")
    parser.add_argument("--smallest_effect", type=float, help="the smallest difference that matters, in its unit")
    parser.add_argument("--against", help="the arm that the others are compared with (default: the first)")
    parser.add_argument("--config", type=Path, help="a comparison's: metric, direction, effect, arms and pairs")
    parser.add_argument("--varied", nargs="+", default=[], metavar="NAME", help="settings that arms may differ in")
    parser.add_argument("--common_seeds", action="store_true", help="leave out seeds that an arm lacks, not an error")


def run(arguments: argparse.Namespace) -> None:
    """Print a page in Markdown."""
    from hf_synth.experiments import statistics
    from hf_synth.experiments.arms import SHARED, CompareArguments, split_config
    from hf_synth.reports.read import check_alike
    from hf_synth.reports.tables import render

    folders, arms, plan = arguments.folder, {}, None
    if arguments.config:
        own = {field.name for field in dataclasses.fields(CompareArguments)}
        if given := [name for name in own if getattr(arguments, name, None) is not None]:
            raise ValueError(f"{min(given)}: got it beside --config, which fixes it; give one of them")
        plan = CompareArguments(**split_config(["--config", str(arguments.config)], own)[0])
        vars(arguments).update(primary=plan.primary, better=plan.better, smallest_effect=plan.smallest_effect)
        arguments.varied += [name for values in plan.arms.values() for name in values or ()]
    if arguments.smallest_effect is not None and not 0 < arguments.smallest_effect < math.inf:
        raise ValueError(f"smallest_effect: got {arguments.smallest_effect}, wanted a number above 0")
    if len(folders) == 1 and folders[0].suffix == ".jsonl":
        arms, folders = _records(folders[0]), []
    elif len(folders) == 1:
        inside = [path for path in sorted(folders[0].iterdir()) if path.is_dir() and path.name != SHARED]
        folders = [path for path in inside if not _SEED.search(path.name) and _runs(path)]
    arms |= {path.resolve().name: dict(_arm(path)) for path in folders}
    if len(arms) < 2 or len(arms) < len(folders):
        raise ValueError(f"arms: got {', '.join(map(repr, arms)) or 'none'}, wanted at least two of different names")
    for arm, by_seed in arms.items():
        if (missing := sorted(set().union(*arms.values()) - by_seed.keys())) and not arguments.common_seeds:
            raise ValueError(
                f"got arm {arm!r} without seed {', '.join(missing[:5])}, which another has, wanted the same seeds: "
                "one that failed may have failed because of its arm; --common_seeds leaves out what an arm lacks"
            )
    if not (seeds := sorted(set.intersection(*map(set, arms.values())))):
        raise ValueError(f"got no seed that all of {', '.join(arms)} have, wanted at least two")
    for seed in seeds:
        runs = {arm: by_seed[seed] for arm, by_seed in arms.items()}
        sizes = {arm: {name: run[0][name] for name in _SIZES if name in run[0]} for arm, run in runs.items()}
        check_alike({arm: runs[arm][1] | sizes[arm] for arm in runs}, arguments.varied)
    results = {arm: {seed: by_seed[seed][0] for seed in seeds} for arm, by_seed in arms.items()}
    first = arguments.against or next(iter(arms))
    check_choices("against", [first, *(plan.arms if plan else [])], arms, "arm ")
    pairs = plan.pairs if plan else [(arm, first) for arm in arms if arm != first]
    asked, known = arguments.primary or "", statistics.known_measures(results)
    measures = [asked] if asked else [name for name in known if not _NO_MEASURE.search(name)]
    names = {name for by_seed in results.values() for run in by_seed.values() for name in run}
    if not measures or measures[0] not in names:
        raise ValueError(f"primary: got {asked!r}, which no run has; {likely(asked, names)}")
    without = [f"{arm}, seed {seed}" for arm, by_seed in results.items() for seed, run in by_seed.items()
               if asked and asked not in run]  # fmt: skip
    arguments.better = arguments.better or statistics.better_direction(asked)
    sides = {pair: {name: statistics.results_of(results, name) for name in pair} for pair in pairs}
    differences = statistics.differences(sides, measures, interactions=[pair for pair in pairs if pair[0] not in arms])
    answered = [(each, statistics.verdict(each, arguments.better, arguments.smallest_effect)) for each in differences]
    tests = max((each.tests for each in differences), default=len(pairs) * len(measures))
    tested = min((each.seeds for each in differences if asked), default=len(seeds))
    print(render("results", arguments=arguments, arms=list(arms), seeds=len(seeds), tests=tests, differences=answered,
                 level=statistics.LEVEL, power=statistics.POWER, fewest=statistics.FEWEST_FOR_A_CLAIM,
                 detectable=statistics.detectable(tested, tests), tested=tested, without=without,
                 unanswered=sorted({*pairs} - {(each.arm, each.other) for each in differences})))  # fmt: skip


def _runs(arm: Path) -> list[Path]:
    """The files of numbers of an arm: of the first kind that there is."""
    kinds = (sorted(path for path in arm.rglob(kind) if path.is_file()) for kind in _FILES)
    files = next(filter(None, kinds), [])
    seeded = [path for path in files if _SEED.search(path.relative_to(arm).as_posix())]
    folders = {path.parent for path in seeded}
    # Beside the runs of seeds lie means over them, and inside a run others that it is made of.
    return [path for path in seeded if folders.isdisjoint(path.parents[1:])] if seeded else files


def _arm(folder: Path) -> Iterator[tuple[str, tuple[dict[str, float], dict[str, Any]]]]:
    """Seed -> (numbers, settings) of an arm."""
    seen: dict[str, Path] = {}
    for path in _runs(folder):
        inside = path.relative_to(folder).as_posix()
        values, settings = _read(path)
        numbers = _SEED.findall(inside) or re.findall(r"^\D*(\d+)$", path.stem)
        seed = str(numbers[-1] if numbers else settings.get("seed", settings.get("config/random_seed", inside)))
        if (other := seen.setdefault(seed, path)) != path:
            raise ValueError(f"got two files for seed {seed} of one arm: {other} and {path}; wanted one per seed")
        yield seed, (values, settings)
    if not seen:
        raise ValueError(
            f"got {str(folder)!r}, which has no file of numbers; wanted one per seed, such as seed-0/metrics.json"
        )


def _records(path: Path) -> dict[str, dict[str, tuple[dict[str, float], dict[str, Any]]]]:
    """Arm -> seed -> (numbers, no settings) of a file of records."""
    from hf_synth.experiments.statistics import finite

    arms: dict[str, dict[str, tuple[dict[str, float], dict[str, Any]]]] = {}
    with reading(path):
        for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
            row = json_dict(line, f"line {number}")
            arm, seed = str(row["arm"]), str(row["seed"])
            if seed in arms.setdefault(arm, {}):
                raise ValueError(f"line {number} is a second one for seed {seed} of arm {arm!r}")
            arms[arm][seed] = finite(dict(_flat(json_dict(row["metrics"], "metrics")))), {}
    return arms


def _read(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Numbers of a file by flat name, and the settings in it and in the config beside it."""
    import yaml

    from hf_synth.experiments.statistics import finite
    from hf_synth.training.arguments import read_yaml
    from hf_synth.training.run_directory import FREE

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: got no valid file of numbers ({str(error).splitlines()[0]})") from None
    if isinstance(content, list):  # .eval_results: one entry a benchmark
        entries = [entry for entry in content if isinstance(entry, dict)]
        datasets = [entry["dataset"] if isinstance(entry.get("dataset"), dict) else {} for entry in entries]
        names = ["/".join(str(each[key]) for key in ("id", "task_id") if key in each) or "value" for each in datasets]
        content = {name: entry.get("value") for name, entry in zip(names, entries, strict=True)}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: got {type(content).__name__}, wanted a mapping of names to numbers")
    settings = {name: content.pop(name) for name in _SETTINGS if name in content}
    content = content["results"] if isinstance(content.get("results"), dict) else content
    values = finite(dict(_flat(content)))
    configs = [folder / name for folder in path.parents[:2] for name in _CONFIGS if (folder / name).is_file()]
    settings |= {name: value for name, value in read_yaml(configs[0]).items() if name not in FREE} if configs else {}
    flat = {name.removesuffix("/value"): value for name, value in _flat(settings) if not name.startswith("_")}
    return values, flat


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
