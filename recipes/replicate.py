# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""Published experiments, run again: every study of replication/studies.yaml, and the page that compares.

    python recipes/replicate.py                       what is not recorded yet, then docs/reproduction.md
    python recipes/replicate.py --only rlm_v128       one study
    python recipes/replicate.py --most_runs 0         the page alone, from the records

Each finished run is a line of docs/reproduction/STUDY.jsonl, and is not run again while its config stays as it is.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pretrain
from replication.page import STUDIES, study_config, write_page
from replication.records import add_record, read_records, record_of, run_key
from replication.rlm import counted

from hf_synth.errors import option, user_errors
from hf_synth.experiments.arms import PlannedRun, planned_runs
from hf_synth.io import directory_lock
from hf_synth.training.arguments import parse_recipe

CONFIGS = Path(__file__).parent / "configs"


@dataclasses.dataclass
class ReplicateArguments:
    """Which studies are run, and where their results go."""

    only: list[str] | None = option(None, "Studies to run; all by default.", choices=tuple(STUDIES))
    most_runs: int | None = option(None, "Stop after this many runs.", at_least=0)
    docs: str = option("docs", "The folder that gets reproduction.md.")
    canonical: str | None = option(None, "Natural text for the study of hyperdata: a file, such as wikitext-2's.")


def main(argv: Sequence[str] | None = None) -> Path:
    """Run what is not recorded yet; returns the page."""
    (arguments,) = parse_recipe((ReplicateArguments,), argv, about=__doc__)
    left = arguments.most_runs
    for study in arguments.only or STUDIES:
        with directory_lock(f"runs/replicate/.{study}"):  # two commands would train the same runs
            left = run_study(study, arguments, left)
    return write_page(Path(arguments.docs), CONFIGS)


def run_study(study: str, arguments: ReplicateArguments, left: int | None) -> int | None:
    """Run what is missing of one study, all arms of a seed before the next seed; returns how many runs are left."""
    config = study_config(CONFIGS, study)
    if "canonical" in config and not arguments.canonical:
        print(f"{study}: left out, it wants natural text: --canonical FILE")
        return left
    records = Path(arguments.docs) / "reproduction" / f"{study}.jsonl"
    text = digest(arguments.canonical) if "canonical" in config else ""
    done = {(record.key, record.text) for record in read_records(records)}
    pending = [
        run for run in plan(STUDIES[study].config, arguments) if (run_key(config, run.arm, run.seed), text) not in done
    ]
    for number, run in enumerate(pending):
        if left is not None and left < 1:
            break
        if first := STUDIES[study].first:
            for model in plan(first, arguments):  # those of another config, where they are not there
                if model.seed == run.seed:
                    pretrain.train_run(model, study_argv(first, arguments))
        print(f"{study}: run {number + 1} of {len(pending)}: {run.arm or 'run'}, seed {run.seed}", flush=True)
        metrics = pretrain.train_run(run, study_argv(STUDIES[study].config, arguments))
        key = run_key(config, run.arm, run.seed)
        record = record_of(run.folder, run.arm, run.seed, key, metrics, text)
        if config.get("task") == "rlm":
            record = dataclasses.replace(record, counted=counted(config, record))
        add_record(records, record)
        left = None if left is None else left - 1
    return left


def digest(path: str | None) -> str:
    """Return a digest of a file's content."""
    if path is None or not Path(path).is_file():
        raise ValueError(f"canonical: got {path!r}, wanted a file of natural text")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def plan(config: str, arguments: ReplicateArguments) -> list[PlannedRun]:
    """Return all runs of a study's config, seed by seed."""
    arms, _, *parts = parse_recipe(pretrain.CLASSES, study_argv(config, arguments))
    folder = Path(pretrain.Settings(*parts).args.output_dir)
    return sorted(planned_runs(arms, folder), key=lambda run: run.seed)


def study_argv(config: str, arguments: ReplicateArguments) -> list[str]:
    """Return the command line of a study's config."""
    argv = ["--config", str(CONFIGS / config)]
    if arguments.canonical and config.startswith("hyperdata/"):
        argv += ["--canonical", arguments.canonical]
    return argv


if __name__ == "__main__":
    with user_errors("replicate.py", "the same command goes on with the runs that are not recorded"):
        print(f"Page: {main()}")
