# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_synth"]
# ///
"""Pretraining on rows of a task, on a corpus with a language in it, or from a warm-up's weights.

    accelerate launch recipes/pretrain.py --config recipes/configs/procedural/sort.yaml
    accelerate launch recipes/pretrain.py --config recipes/configs/rlm/v128.yaml --seeds 0 1 2

With `arms` or several `seeds` each run has a folder of its own, and the report compares them.
It ends in what was learned, how far from the exact floor, and how sure that is. No reward is known here.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model
from transformers import TrainingArguments

from hf_synth.corpora.blocks import tokenizer_digest
from hf_synth.corpora.splits import CorpusArguments
from hf_synth.errors import user_errors
from hf_synth.experiments.arms import ArmsArguments, PlannedRun, as_flags, filled_in, in_turn, planned_runs
from hf_synth.experiments.statistics import over_seeds
from hf_synth.hub.publish import PublishArguments, open_repository, publish_run
from hf_synth.io import directory_lock, is_main_process, write_json
from hf_synth.reports import write_report
from hf_synth.training.arguments import PolicyArguments, parse_recipe
from hf_synth.training.checkpoints import last_complete_checkpoint, read_training_log, train
from hf_synth.training.models import adapter_config, load_policy, require_checkpoint
from hf_synth.training.pretraining import (
    add_callbacks,
    check_eval_strategy,
    check_model_size,
    check_task_vocabulary,
    final_metrics,
    take_best,
    write_dynamics,
)
from hf_synth.training.pretraining_data import (
    CurriculumArguments,
    KeepingArguments,
    RowsArguments,
    ScheduleArguments,
    Settings,
    chosen_task,
    fingerprint,
    pretraining_data,
    pretraining_tokenizer,
    resolve_max_steps,
)
from hf_synth.training.pretraining_trainer import PretrainingTrainer
from hf_synth.training.run_directory import TRANSFER, check_run, claim, open_run, read_metrics, write_metrics
from hf_synth.training.transfer import EVERYTHING, TransferArguments, apply_transfer

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
    argv = list(sys.argv[1:] if argv is None else argv)
    parsed = parse_recipe(CLASSES, argv, CONFIG, __doc__)
    if parsed[0].quick:
        argv = [*as_flags(parsed[0].quick_args), *argv]
        parsed = parse_recipe(CLASSES, argv, CONFIG)
    arms, publishing, *parts = parsed
    args = Settings(*parts).args
    common = {"project": args.project, "run_name": args.run_name, "push_arms": publishing.push_arms}
    common |= {"push_to_hub": publishing.wanted, "hub_model_id": publishing.repo_id}
    planned = planned_runs(arms, Path(args.output_dir), args.seed, common)
    published = [run for run in planned if run.pushed]
    alone = planned[0].folder == Path(args.output_dir)
    more = [arms] if alone else []  # a run of several names no other: arms and seeds can be added later
    with directory_lock(args.output_dir):
        for run in planned:  # a mistake in the last arm shall not wait for the first to be trained
            settings, not_defaults = settings_of(run, argv)
            chosen_task(settings.rows)
            check_run(str(run.folder), *more, *vars(settings).values(), settings=not_defaults)
            check_sources(run, settings, planned)
        if not alone:
            open_run(args.output_dir, arms, *parts, recipe="pretrain", settings=parsed.settings)
        for run in published[:1]:
            open_repository(run.folder, publishing, run.hub_model_id)
        metrics: dict[str, list[dict[str, float]]] = {}
        all_finished = all(read_training_log(run.folder) for run in planned)
        before = (read_metrics(Path(args.output_dir)) or {}) if all_finished else {}
        for run in in_turn(planned):
            try:
                metrics.setdefault(str(run.arm), []).append(train_run(run, argv, more))
            except ValueError as error:
                raise ValueError(f"{run.folder}: {error}" if len(planned) > 1 else str(error)) from error
        seconds = before.get("seconds/total", time.monotonic() - started)
        write_metrics(Path(args.output_dir), {**over_seeds(metrics), "seconds/total": seconds})
        if is_main_process():
            print(f"Report: {write_report(Path(args.output_dir))}")
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


def train_run(run: PlannedRun, argv: Sequence[str], more: Sequence[Any] = ()) -> dict[str, float]:
    """Train one run of the plan, unless it is finished, and write its metrics.json; returns those.

    Its own values take precedence over the command line's. more: further arguments that its config shall name.
    """
    settings, not_defaults = settings_of(run, argv)
    folder, args, transfer = run.folder, settings.args, settings.transfer
    open_run(str(folder), *more, *vars(settings).values(), recipe="pretrain", settings=not_defaults)
    log = read_training_log(folder)
    if log is None:
        task = chosen_task(settings.rows)
        tokenizer = pretraining_tokenizer(task, settings.corpus, settings.policy)
        data = pretraining_data(task, settings, tokenizer)
        epoch_steps = resolve_max_steps(args, settings.rows, data.epoch)
        if not settings.corpus.canonical:
            check_task_vocabulary(settings.policy, tokenizer)
        check_eval_strategy(settings)
        claim(folder, tokenizer=tokenizer_digest(tokenizer)[:16], fingerprint=fingerprint(data))

        model = load_policy(settings.policy, tokenizer, args.seed)
        check_model_size(model, tokenizer, data)
        adapter = adapter_config(settings.policy)
        if adapter is not None and (transfer.init_from or transfer.train_parts != [EVERYTHING]):
            raise ValueError(
                "got use_peft with init_from or train_parts, wanted one of them: an adapter is saved without the "
                "weights below it, and says itself what trains"
            )
        resumed = last_complete_checkpoint(folder) is not None  # it has its weights; parts are frozen again
        if resumed:
            transfer = dataclasses.replace(transfer, init_from=None)
        copied = apply_transfer(transfer, model, tokenizer, args.seed)
        if copied is not None and not resumed and is_main_process():
            write_json(folder / TRANSFER, copied)

        trainer = PretrainingTrainer(
            model if adapter is None else get_peft_model(model, adapter),
            args,
            train_dataset=data.train,
            eval_dataset=data.eval_sets,
            schedule=settings.schedule,
            epoch_steps=epoch_steps,
            processing_class=tokenizer,
        )
        stopping = add_callbacks(trainer, settings, task, data.curriculum)

        def finish() -> dict[str, Any]:
            if settings.keeping.final_model == "best":
                take_best(trainer)
            return {"final": final_metrics(trainer, settings, task, tokenizer, data)}

        log = train(trainer, is_over=stopping.is_over, finish=finish)
    metrics = {**log["final"], "seconds/training": log["seconds"], "steps": float(log["steps"])}
    write_dynamics(folder, log["history"])
    write_metrics(folder, metrics)
    return metrics


def settings_of(run: PlannedRun, argv: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
    """The arguments of one run of the plan, and those that were set to other values than the defaults."""
    parsed = parse_recipe(CLASSES, [*argv, *run.flags], CONFIG)
    settings = Settings(*parsed[2:])
    settings.rows.task_args = filled_in(settings.rows.task_args, {"seed": run.seed})
    settings.transfer.init_from = filled_in(settings.transfer.init_from, {"seed": run.seed})
    return settings, parsed.settings


if __name__ == "__main__":
    with user_errors("pretrain.py"):
        main()
