"""What recipes/pretrain.py does around its trainer: checks, callbacks, the dynamics and the numbers of a run."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_synth.evaluation.language import language_scores
from hf_synth.evaluation.model import Measured
from hf_synth.evaluation.scoring import target_mask
from hf_synth.io import is_main_process, reading, whole_file
from hf_synth.metrics.excess_loss import excess_loss
from hf_synth.online import HeldRows, Passes
from hf_synth.tasks import Rows, Task
from hf_synth.tasks.analogy import Analogy
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.training.arguments import PolicyArguments
from hf_synth.training.models import from_pretrained
from hf_synth.training.pretraining_callbacks import (
    VALIDATION_LOSS,
    BestModelCallback,
    CurriculumCallback,
    GeometryCallback,
    SnapshotCallback,
    StoppingCallback,
    logged,
    spaced_steps,
)
from hf_synth.training.pretraining_data import Curriculum, PretrainingData, Settings
from hf_synth.training.pretraining_trainer import PretrainingTrainer


def check_eval_strategy(settings: Settings) -> None:
    """Raise ValueError for settings that need validation losses where no evaluation would measure them."""
    keeping = settings.keeping
    needing = {"final_model: best": keeping.final_model == "best", "patience": keeping.patience is not None}
    needing["loss_threshold"] = keeping.loss_threshold is not None
    named = [name for name, there in needing.items() if there]
    if named and settings.args.eval_strategy == "no" and keeping.snapshots_per_doubling is None:
        raise ValueError(f"{', '.join(named)} needs evaluation during training; set eval_strategy: steps")


def check_task_vocabulary(policy: PolicyArguments, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError where the tokenizer of the checkpoint that training starts from has other ids for our words."""
    if not policy.model_name_or_path:
        return
    try:
        theirs = from_pretrained(AutoTokenizer, policy.model_name_or_path, revision=policy.model_revision)
    except (OSError, ValueError):
        return
    if len(theirs) <= len(theirs.all_special_tokens):  # what transformers makes where a checkpoint has no tokenizer
        return
    known = theirs.get_vocab()
    ours = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if differing := [(word, number) for word, number in ours if known.get(word) != number]:
        word, number = differing[0]
        raise ValueError(
            f"model_name_or_path: got {policy.model_name_or_path!r}, whose tokenizer has other ids for "
            f"{len(differing)} words of the task ({word!r}: {known.get(word)} there, {number} here); transfer "
            "its weights to a new model with init_from, which matches embeddings by token"
        )


def check_model_size(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: PretrainingData) -> None:
    """Raise ValueError where the model has fewer tokens than the tokenizer, or fewer positions than a row."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"got {len(tokenizer)} tokens in the vocabulary and a model of {vocabulary}; wanted a model with at least "
            "as many: start from another checkpoint, or transfer its weights to a new model with init_from"
        )
    most = getattr(model.config, "max_position_embeddings", None)
    # Rows made as needed, or all of one length: the first is as long as any.
    parts: tuple[Any, ...] = (data.train, data.test, *data.eval_sets.values())
    longest = max(getattr(rows, "width", None) or rows[0]["input_ids"].shape[0] for rows in parts)
    if most is not None and longest > most:
        raise ValueError(
            f"got rows of {longest} tokens and a model of {most} positions; set new_model's "
            "max_position_embeddings, or choose shorter rows"
        )


def take_best(trainer: PretrainingTrainer) -> None:
    """Give the trainer's model the weights in best/, as Trainer does at the end of a run that saved each."""
    best = Path(trainer.args.output_dir) / "best"
    if not logged(trainer.state, VALIDATION_LOSS):
        return
    if not best.is_dir():
        raise ValueError(f"final_model: {best} is gone, the best model so far; remove {best.parent} to start anew")
    trainer.state.best_model_checkpoint = str(best)
    with reading(best, f"remove {best.parent} to start anew"):
        trainer._load_best_model()


def final_metrics(
    trainer: PretrainingTrainer,
    settings: Settings,
    task: Task | None,
    tokenizer: PreTrainedTokenizerBase,
    data: PretrainingData,
) -> dict[str, float]:
    """Return metrics on the test rows, and on the language where text was read; every rank takes part."""
    output = trainer.predict(data.test, metric_key_prefix="test")
    left_out = {"test_runtime", "test_samples_per_second", "test_steps_per_second", "test_model_preparation_time"}
    metrics = {}
    for name, value in (output.metrics or {}).items():
        if name not in left_out:  # test_accuracy/near_ood -> accuracy/test/near_ood
            measure, slash, group = name.removeprefix("test_").partition("/")
            metrics[f"{measure}/test{slash}{group}"] = float(value)
    metrics |= over_evaluations(trainer.state.log_history)
    metrics["rows/test"] = float(len(output.label_ids))
    metrics["parameters"] = float(sum(parameter.numel() for parameter in trainer.model.parameters()))
    metrics["rows/trained"] = float(trainer.state.global_step * trainer.rows_per_step)
    if data.epoch is not None:
        metrics["rows/epoch"] = float(data.epoch)
    if isinstance(data.test, HeldRows) and data.test.groups is not None:
        groups, counts = np.unique(data.test.groups, return_counts=True)
        metrics |= {f"rows/test/{group}": float(count) for group, count in zip(groups, counts, strict=True)}
    if isinstance(data.test, HeldRows) and data.test.optimal is not None:
        log_probs, mask = output.predictions[0], target_mask(output.label_ids)
        against_floor = excess_loss(np.where(mask, log_probs, 0.0), data.test.optimal[:, : log_probs.shape[1]], mask)
        names = {"floor": "floor/test", "excess": "excess/test", "excess_share": "excess/test_share"}
        names |= {f"excess/rows_{end}": f"excess/test_rows_{end}" for end in ("low", "high")}
        metrics |= {names[name]: value for name, value in against_floor.items() if name in names}
    if task is not None and isinstance(data.test, HeldRows) and data.curriculum is None and not settings.rows.dataset:
        compared = min(data.epoch or int(metrics["rows/trained"]), MOST_COMPARED)
        metrics["seen/test"] = seen_share(task, data.test.rows, compared, seed=settings.rows.rows_seed)
        metrics["rows/compared"] = float(compared)
    if data.corpus is not None:
        metrics.pop("row_accuracy/test")  # of whole blocks of text
        first = range(min(int(metrics["rows/trained"]), len(data.corpus)))
        metrics |= data.corpus.counts(data.train.numbers(first) if isinstance(data.train, Passes) else first)
        if isinstance(task, Grammar):  # the baseline of a comparison too
            scores = language_scores(
                Measured(trainer.accelerator.unwrap_model(trainer.model), tokenizer, 64, settings.rows.top_p),
                task,
                rows=settings.rows.test_rows,
                samples=settings.rows.test_rows,
                seed=settings.args.seed,
                rows_seed=settings.rows.rows_seed,
                trained=int(data.corpus.counts()["documents/example"]),
                trained_seed=settings.rows.rows_seed,
            )
            metrics |= {f"language/{name}": value for name, value in scores.items()}
    return metrics


def over_evaluations(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return of the validation rows and each group of them the best and the mean accuracy, and how often it was 1.

    Over the evaluations while training: what was learned and lost again is rarely 1, what is learned early has a high
    mean (the area under the curve of accuracies).
    """
    prefix, metrics = "eval_validation_accuracy", {}
    for name in {name: None for entry in history for name in entry if name.startswith(prefix)}:
        accuracies, group = [entry[name] for entry in history if name in entry], name.removeprefix(prefix)
        metrics[f"best/validation{group}"] = max(accuracies)
        metrics[f"mean/validation{group}"] = sum(accuracies) / len(accuracies)
        metrics[f"all_right/validation{group}"] = sum(value == 1 for value in accuracies) / len(accuracies)
    return metrics


def add_callbacks(
    trainer: PretrainingTrainer, settings: Settings, task: Task | None, curriculum: Curriculum | None
) -> StoppingCallback:
    """Add what happens while it trains: keeping models, stopping, curricula, geometry; returns what may stop it."""
    keeping = settings.keeping
    if keeping.final_model == "best":
        trainer.add_callback(BestModelCallback(trainer))
    stopping = StoppingCallback(keeping.patience, keeping.loss_threshold)
    trainer.add_callback(stopping)
    if keeping.snapshots_per_doubling is not None:
        most = settings.args.max_steps
        steps = spaced_steps(keeping.snapshots_per_doubling, keeping.snapshots_linear_after, most)
        trainer.add_callback(SnapshotCallback(trainer, {*steps, most}))
    if curriculum is not None:
        trainer.add_callback(CurriculumCallback(trainer, curriculum, settings.curriculum, settings.rows.rows_seed))
    if isinstance(task, Analogy):
        trainer.add_callback(GeometryCallback(trainer, task))
    return stopping


DYNAMICS = "dynamics.csv"
_TRAINING = ("loss", "grad_norm")
_EVALUATED = {"eval_train_": "train_", "eval_validation_": "validation_"}
_LEFT_OUT = ("runtime", "_per_second", "model_preparation_time")


def dynamics(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return one row a step of evaluation: step, train_loss, validation_accuracy and so on.

    Names are those of the log with `eval_` left out; learning_rate is the latest one logged. Without evaluation the
    rows are those steps at which training was logged: loss and grad_norm.
    """
    evaluated = any(name.startswith(tuple(_EVALUATED)) for entry in history for name in entry)
    rows: dict[int, dict[str, float]] = {}
    rate: float | None = None
    for entry in history:
        rate = entry.get("learning_rate", rate)
        values = {
            short + name.removeprefix(prefix): value
            for name, value in entry.items()
            for prefix, short in _EVALUATED.items()
            if name.startswith(prefix) and not name.endswith(_LEFT_OUT)
        }
        values |= {name: value for name, value in entry.items() if name.startswith(("curriculum/", "geometry/"))}
        values |= {} if evaluated else {name: entry[name] for name in _TRAINING if name in entry}
        if values:
            row = rows.setdefault(entry["step"], {"step": entry["step"]})
            row |= {**values, **({} if rate is None else {"learning_rate": rate})}
    return [rows[step] for step in sorted(rows)]


def write_dynamics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write dynamics.csv, whole or not at all. Only the main process writes."""
    if not is_main_process():
        return
    rows = dynamics(history)
    names = ["step", *sorted({name for row in rows for name in row} - {"step"})]
    with whole_file(folder / DYNAMICS) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


MOST_COMPARED = 1_000_000  # training rows: some seconds
_AT_ONCE = 50_000


def seen_share(task: Task, test: Rows, trained: int, *, seed: int = 0) -> float:
    """Return the fraction of test rows that are among the first `trained` training rows of `seed`."""
    left, wanted = set(_as_bytes(test)), _as_bytes(test)
    end = min(trained, task.size("train") or trained)
    for start in range(0, end, _AT_ONCE):
        left.difference_update(_as_bytes(task.rows(start, min(_AT_ONCE, end - start), seed=seed)))
    return 1 - sum(row in left for row in wanted) / len(wanted)


def _as_bytes(rows: Rows) -> list[bytes]:
    return [row[:length].tobytes() for row, length in zip(rows.tokens, rows.lengths, strict=True)]
