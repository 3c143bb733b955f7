"""Pretraining on rows of a task, on a corpus with a language in it, or from a warm-up's weights.

    accelerate launch recipes/pretrain.py --config recipes/configs/procedural/sort.yaml
    accelerate launch recipes/pretrain.py --config recipes/configs/rlm/v128.yaml --seeds 0 1 2

With `arms` or several `seeds` each run has a folder of its own, and the report compares them.
It ends in what was learned, how far from the exact floor, and how sure that is. No reward is known here.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_synth.corpora.splits import CorpusArguments
from hf_synth.errors import user_errors
from hf_synth.experiments.arms import ArmsArguments, PlannedRun, as_flags, over_seeds, planned_runs, with_seed
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import directory_lock, is_main_process
from hf_synth.reports import write_report
from hf_synth.training.arguments import PolicyArguments, parse_recipe
from hf_synth.training.checkpoints import read_training_log
from hf_synth.training.models import require_checkpoint
from hf_synth.training.pretraining import Settings, pretrain
from hf_synth.training.pretraining_data import (
    CurriculumArguments,
    KeepingArguments,
    RowsArguments,
    ScheduleArguments,
    chosen_task,
)
from hf_synth.training.run_directory import check_run, open_run, write_metrics
from hf_synth.training.transfer import TransferArguments

CONFIG = Path(__file__).parent / "configs" / "procedural" / "sort.yaml"
CLASSES = (
    ArmsArguments,
    PublishArguments,
    RowsArguments,
    CorpusArguments,
    CurriculumArguments,
    ScheduleArguments,
    KeepingArguments,
    TransferArguments,
    PolicyArguments,
    TrainingArguments,
)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory, which holds the model, or a folder for each arm and seed."""
    started = time.monotonic()
    words = list(sys.argv[1:] if argv is None else argv)
    parsed = parse_recipe(CLASSES, words, CONFIG, __doc__)
    if parsed[0].quick:
        words = [*as_flags(parsed[0].quick_args), *words]
        parsed = parse_recipe(CLASSES, words, CONFIG)
    arms, publishing, *parts = parsed
    args = Settings(*parts).args
    planned = planned_runs(arms, Path(args.output_dir), args.seed, publishing.repo_id)
    published = [run for run in planned if publishing.push_arms or run.arm == planned[0].arm]
    if publishing.wanted and len(planned) > 1 and not publishing.repo_id:
        raise ValueError(f"hub_model_id: got none for {len(planned)} runs, wanted the name that theirs begin with")
    alone = planned[0].folder == Path(args.output_dir)
    more = [arms] if alone else []  # a run of several names no other: arms and seeds can be added later
    with directory_lock(args.output_dir):
        for run in planned:  # a mistake in the last arm shall not wait for the first to be trained
            settings, _ = settings_of(run, words)
            chosen_task(settings.rows)
            check_run(str(run.folder), *more, *vars(settings).values())
            check_sources(run, settings, planned)
        if not alone:
            open_run(args.output_dir, arms, *parts, recipe="pretrain", settings=parsed.settings)
        open_repository(published[0].folder, publishing, published[0].hub_model_id)
        train_all(planned, words, more, Path(args.output_dir), started)
        for run in published:
            publish_run(run.folder, publishing, run.hub_model_id)
    return Path(args.output_dir)


def check_sources(run: PlannedRun, settings: Settings, planned: Sequence[PlannedRun]) -> None:
    """Raise ValueError where a run that has not begun would start from a warm-up that nobody has trained."""
    if read_training_log(run.folder) or any(run.folder.glob("checkpoint-*")):
        return
    made = {other.folder for other in planned}
    for source in settings.transfer.sources():
        if Path(source.path) not in made:
            require_checkpoint(source.path, f"accelerate launch recipes/pretrain.py --output_dir {source.path} ...")


def train_all(
    planned: Sequence[PlannedRun], words: Sequence[str], more: Sequence[Any], folder: Path, started: float
) -> None:
    """Train every run of a plan, and report on all of them."""
    found: dict[str, list[dict[str, float]]] = {}
    for number, run in enumerate(planned):
        if is_main_process() and len(planned) > 1:
            finished = ", finished before" if read_training_log(run.folder) else ""
            print(f"Run {number + 1} of {len(planned)}, in {run.folder}{finished}")
        try:
            found.setdefault(run.arm, []).append(run_one(run, words, more))
        except ValueError as error:
            raise ValueError(f"{run.folder}: {error}" if len(planned) > 1 else str(error)) from error
    write_metrics(folder, {**over_seeds(found), "seconds/total": time.monotonic() - started})
    if is_main_process():
        print(f"Report: {write_report(folder)}")


def run_one(run: PlannedRun, words: Sequence[str], more: Sequence[Any] = ()) -> dict[str, float]:
    """Train one run of the plan; its own values go before those of the command line.

    `more`: further arguments that its config shall name.
    """
    settings, not_defaults = settings_of(run, words)
    open_run(str(run.folder), *more, *vars(settings).values(), recipe="pretrain", settings=not_defaults)
    return pretrain(settings, run.folder)


def settings_of(run: PlannedRun, words: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
    """The arguments of one run of the plan, and those that were set to other values than the defaults."""
    parsed = parse_recipe(CLASSES, [*words, *run.flags], CONFIG)
    settings = Settings(*parsed[2:])
    settings.rows.task_args = with_seed(settings.rows.task_args, run.seed)
    settings.transfer.init_from = with_seed(settings.transfer.init_from, run.seed)
    return settings, parsed.settings


if __name__ == "__main__":
    with user_errors("pretrain.py"):
        main()
