"""What pretraining adds to a recipe's arguments: rows, schedules, curricula, when to evaluate, to keep and to stop."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import Dataset, Subset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from hf_synth.corpora.blocks import Blocks, corpus_blocks, held_out_blocks
from hf_synth.corpora.splits import CorpusArguments, corpus_tokenizer
from hf_synth.errors import check_fields, nearest, option
from hf_synth.online import HeldRows, OnlineRows, Passes, Stages, TokenColumns
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import SPLITS
from hf_synth.tokenization import build_tokenizer
from hf_synth.training.arguments import PolicyArguments
from hf_synth.training.models import from_pretrained
from hf_synth.training.transfer import TransferArguments
from hf_synth.views import IGNORED


@dataclasses.dataclass
class RowsArguments:
    """What is trained on and what is measured: rows of a task, made as they are needed, or a dataset that is there."""

    task: str | None = option(None, "A task's name, or the path of its file.")
    preset: str | None = option(None, "A preset of the task.")
    task_args: dict[str, Any] | str | None = option(None, "Config values over the preset, as JSON.", json=True)
    train_rows: int | None = option(
        None, "The number of rows in the training set; by default an endless stream of fresh rows.", at_least=1
    )
    rows_seed: int = option(0, "The seed of all rows, for training and for evaluation.", at_least=0)
    dataset: str | None = option(
        None, "Rows of the task from a Hub id, a folder of save_to_disk, or a folder of Parquet files, made with "
        "columns input_ids and labels, as datasets_scripts/ publish them."
    )  # fmt: skip
    dataset_name: str | None = option(None, "The config of that dataset, such as sort-64.")
    dataset_split: str = option("train", "The split of that dataset to train on.")
    eval_rows: int = option(1024, "Rows of the training and of the validation split at each evaluation.", at_least=1)
    test_rows: int = option(4096, "Rows of the test split that the result is measured on.", at_least=1)
    top_p: float = option(1.0, "The top_p at which strings of a language are sampled.", above=0, at_most=1)
    steps_per_epoch: int | None = option(
        None,
        "Steps between two evaluations of endless rows; with num_train_epochs it says how long the run is.",
        at_least=1,
    )

    def __post_init__(self) -> None:
        self.task, self.preset = self.task or None, self.preset or None
        check_fields(self)
        if self.dataset and self.train_rows:
            raise ValueError("got both dataset and train_rows, wanted one: all rows of a dataset are trained on")


@dataclasses.dataclass
class ScheduleArguments:
    """Optimizers and learning rates beyond those of TrainingArguments."""

    optimizer: str = option(
        "optim",
        "optim: the one that `optim` names; adam: Adam, its weight decay an L2 penalty.",
        choices=("optim", "adam"),
    )
    weight_decay_on: str = option(
        "matrices", "matrices, or all: biases, norms and embeddings as well.", choices=("matrices", "all")
    )
    decay_steps: int | None = option(None, "Cosine: the step at which it ends; max_steps by default.", at_least=1)
    decay_to: float | None = option(
        None, "Cosine: the fraction of learning_rate at which it ends and stays.", at_least=0, at_most=1
    )


@dataclasses.dataclass
class CurriculumArguments:
    """A task that grows harder: one field of its config goes from a start by a step, whenever the last is mastered."""

    curriculum_field: str | None = option(None, "The field of the task's config that grows, such as length.")
    curriculum_start: int = option(2, "Its first value; the config's own value is the last.")
    curriculum_step: int = option(2, "By how much it grows.", at_least=1)
    curriculum_threshold: float = option(
        0.99, "The token accuracy on fresh validation rows from which the field grows.", above=0, at_most=1
    )
    curriculum_every: int = option(100, "Steps between two checks.", at_least=1)
    curriculum_rows: int = option(256, "Fresh validation rows of a check.", at_least=1)
    curriculum_delay: int = option(
        8, "Steps from a check to the first row of the next stage; loaders read ahead.", at_least=1
    )


@dataclasses.dataclass
class KeepingArguments:
    """Which models a run keeps, and when it stops before max_steps."""

    snapshots_per_doubling: float | None = option(
        None,
        "Keep models at steps spaced by 2**(1/this), with an evaluation at each; resuming does not need them.",
        at_least=0.1,
        at_most=1000,
    )
    snapshots_linear_after: int | None = option(None, "From this step on snapshots are equally spaced.", at_least=1)
    final_model: str = option(
        "last", "last, or best: of the lowest validation loss at an evaluation.", choices=("last", "best")
    )
    patience: int | None = option(None, "Stop after so many evaluations without a lower validation loss.", at_least=1)
    loss_threshold: float | None = option(
        None, "Stop when the validation loss is at most this.", above=-math.inf, below=math.inf
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.snapshots_linear_after is not None and self.snapshots_per_doubling is None:
            raise ValueError("snapshots_linear_after: got it without snapshots_per_doubling, wanted both")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of one run, part by part, in the order in which the recipe's parser gives them."""

    rows: RowsArguments
    corpus: CorpusArguments
    curriculum: CurriculumArguments
    schedule: ScheduleArguments
    keeping: KeepingArguments
    transfer: TransferArguments
    policy: PolicyArguments
    args: TrainingArguments


def rows_per_step(args: TrainingArguments) -> int:
    """Return the rows of one optimizer step, on all processes together."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def resolve_max_steps(args: TrainingArguments, rows: RowsArguments, epoch: int | None) -> float:
    """Set max_steps, and where nothing else is said the steps between evaluations; return the steps of an epoch.

    `epoch`: rows in one pass over the training set, None of endless rows. An epoch of endless rows is
    `steps_per_epoch` steps, or the whole run; what shall happen every epoch happens every so many steps.
    Raises ValueError where the run would have no end.
    """
    batch = rows_per_step(args)
    steps = rows.steps_per_epoch or (None if epoch is None else epoch / batch)
    if args.max_steps < 1:
        if steps is None:
            raise ValueError(
                "got neither max_steps nor steps_per_epoch, and fresh rows never end; wanted one: set max_steps, or "
                "steps_per_epoch with num_train_epochs"
            )
        args.max_steps = math.ceil(args.num_train_epochs * steps)
    epoch_steps = steps or args.max_steps
    if rows.steps_per_epoch and args.eval_strategy == "no":
        args.eval_strategy = IntervalStrategy.EPOCH
    for name in ("eval", "save", "logging"):  # Trainer sees rows without end, and would wait for ever
        if getattr(args, f"{name}_strategy") == "epoch":
            setattr(args, f"{name}_strategy", type(getattr(args, f"{name}_strategy"))("steps"))
            setattr(args, f"{name}_steps", max(1, round(epoch_steps)))
    return epoch_steps


_CHECKED_TOGETHER = 10_000
_GROUPS = "fact_type"  # the column of a task by which its rows are measured apart


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """The stages of a task that grows: `task_of` gives the task of each, up to `last`."""

    stages: Stages
    task_of: Callable[[int], Task]
    last: int


@dataclasses.dataclass(frozen=True)
class PretrainingData:
    """The data of one run: `eval_sets` are measured during training, `test` at the end; `epoch` is rows in a pass."""

    train: Dataset
    eval_sets: Mapping[str, Dataset]
    test: Dataset
    epoch: int | None = None
    curriculum: Curriculum | None = None
    corpus: Blocks | None = None


def chosen_task(rows: RowsArguments) -> Task | None:
    """Return the task that the arguments name."""
    return get_task(rows.task, rows.preset, **rows.task_args) if rows.task else None  # type: ignore[arg-type]


def pretraining_tokenizer(
    task: Task | None, corpus: CorpusArguments, policy: PolicyArguments
) -> PreTrainedTokenizerBase:
    """Return the task's tokenizer; where text is read, the checkpoint's or a BPE trained on the corpus."""
    if corpus.canonical:
        name = policy.model_name_or_path
        pretrained = from_pretrained(AutoTokenizer, name, revision=policy.model_revision) if name else None
        return corpus_tokenizer(task, corpus, pretrained=pretrained, vocab_size=policy.tokenizer_vocab_size)
    if task is None:
        raise ValueError("got neither task nor canonical, wanted one of them (or both) to train on")
    return build_tokenizer(task)


def pretraining_data(task: Task | None, settings: Settings, tokenizer: PreTrainedTokenizerBase) -> PretrainingData:
    """Make everything that a run reads; see `PretrainingData`."""
    rows, curriculum = settings.rows, settings.curriculum
    if settings.corpus.canonical:
        values = {**vars(rows), **vars(curriculum)}
        if named := [name for name in ("dataset", "train_rows", "curriculum_field") if values[name]]:
            raise ValueError(
                f"got canonical text with {', '.join(named)}, wanted one of the two: a corpus is endless, or as long "
                "as corpus_tokens says"
            )
        return _text_data(task, settings, tokenizer)
    if task is None:
        raise ValueError("got no task, wanted one whose rows are trained on")
    eval_sets: dict[str, Dataset] = {
        "train": held_rows(task, "train", min(rows.eval_rows, rows.train_rows or rows.eval_rows), rows.rows_seed),
        "validation": held_rows(task, "validation", rows.eval_rows, rows.rows_seed),
    }
    test = held_rows(task, "test", rows.test_rows, rows.rows_seed)
    if curriculum.curriculum_field:
        if rows.dataset or rows.train_rows:
            raise ValueError("got a curriculum with dataset or train_rows, wanted fresh rows: neither of the two")
        grown = _curriculum(task, curriculum)
        online = OnlineRows(grown.task_of, seed=rows.rows_seed, stages=grown.stages)
        return PretrainingData(online, eval_sets, test, curriculum=grown)
    if rows.dataset:
        columns = TokenColumns(token_dataset(rows, len(tokenizer)))
        eval_sets["train"] = Subset(columns, range(min(len(columns), rows.eval_rows)))
        return PretrainingData(Passes(columns, rows.rows_seed), eval_sets, test, len(columns))
    if rows.train_rows:
        held = HeldRows(task.rows(0, rows.train_rows, seed=rows.rows_seed))
        return PretrainingData(Passes(held, rows.rows_seed), eval_sets, test, rows.train_rows)
    return PretrainingData(OnlineRows(task, seed=rows.rows_seed), eval_sets, test, task.size("train"))


def fingerprint(data: PretrainingData) -> str:
    """Return a digest of all finite rows that a run reads; endless rows add nothing."""
    digest = hashlib.sha256()
    sources = map(_source, (data.train, *data.eval_sets.values(), data.test))
    for source in {id(source): source for source in sources}.values():  # evaluation sets are often parts of one
        if isinstance(source, HeldRows):
            for array in (source.rows.tokens, source.rows.loss_start, source.rows.loss_stop):
                digest.update(array.tobytes())
        if isinstance(source, datasets.Dataset):
            named = [name for name in ("input_ids", "labels") if name in source.column_names]
            for table in source.select_columns(named).with_format("arrow").iter(_CHECKED_TOGETHER):
                for column in table.columns:
                    digest.update(pc.list_value_length(column).to_numpy().tobytes())
                    digest.update(pc.list_flatten(column).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def _source(rows: Any) -> Any:
    """Return what rows are taken from, below all that orders and selects them."""
    while not isinstance(rows, (HeldRows, OnlineRows, datasets.Dataset)):
        rows = rows.dataset
    return rows


def held_rows(task: Task, split: str, most: int, seed: int) -> HeldRows:
    """Return the first rows of a split with their floor, or all rows of a finite task that has fewer than `most`."""
    rows = task.rows(0, min(most, task.size(split) or most), split=split, seed=seed)
    return HeldRows(rows, task.optimal_log_probs(rows), rows.columns.get(_GROUPS))


def token_dataset(rows: RowsArguments, vocabulary: int) -> datasets.Dataset:
    """Load the dataset that the arguments name. Raises ValueError where its split, columns or ids do not fit."""
    name = rows.dataset or ""
    if measured := {part.partition("[")[0].strip() for part in rows.dataset_split.split("+")} & {*SPLITS[1:], "all"}:
        raise ValueError(
            f"dataset_split: got {rows.dataset_split!r}, wanted rows to train on, such as 'train': what is trained on "
            f"is measured on {SPLITS[1]} and {SPLITS[2]} rows, which {min(measured)!r} holds as well"
        )
    try:
        if (Path(name) / "state.json").is_file():
            dataset = datasets.load_from_disk(name)
        else:
            dataset = datasets.load_dataset(name, rows.dataset_name, split=rows.dataset_split)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"dataset: got {name!r}, which cannot be loaded: {reason}") from None
    if not {"input_ids", "labels"} <= set(dataset.column_names):
        raise ValueError(
            f"dataset: got {name!r} with columns {', '.join(dataset.column_names)}, wanted input_ids and labels; "
            "for text set `canonical`"
        )
    dataset = dataset.select_columns(["input_ids", "labels"])
    for number, table in enumerate(dataset.with_format("arrow").iter(_CHECKED_TOGETHER)):
        if problem := _problem(table, vocabulary):
            raise ValueError(f"dataset: got {problem} in {name!r}, in row {number * _CHECKED_TOGETHER} or later")
    return dataset


def _problem(table: pa.Table, vocabulary: int) -> str | None:
    """Return what is wrong with rows of token ids as text, or None."""
    ids, labels = table["input_ids"], table["labels"]
    if not all(pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type) for column in table):
        return "columns that are no lists of whole numbers"
    if not pc.all(pc.equal(pc.list_value_length(ids), pc.list_value_length(labels)), skip_nulls=False).as_py():
        return "labels of another length than input_ids, or none"
    for name, column, least in (("id", ids, 0), ("label", labels, IGNORED)):
        bounds = pc.min_max(pc.list_flatten(column)).as_py()
        for value in (bounds["min"], bounds["max"]):
            if value is not None and not (value == least or 0 <= value < vocabulary):
                return (
                    f"the {name} {value}, where the task has {vocabulary} words (set task, preset and task_args to "
                    "those that the dataset was made of)"
                )
    return None


def _curriculum(task: Task, arguments: CurriculumArguments) -> Curriculum:
    name = arguments.curriculum_field or ""
    fields = {field.name: field.type for field in dataclasses.fields(task.config)}
    known = [each for each, kind in fields.items() if kind in (int, "int") and not each.endswith("seed")]
    if name not in known:
        what = ", which is no size in whole numbers" if name in fields else ""
        raise ValueError(f"curriculum_field: got {name!r}{what}; {nearest(name, known)}")
    final = getattr(task.config, name)
    if not arguments.curriculum_start < final:
        raise ValueError(
            f"curriculum_start: got {arguments.curriculum_start}, wanted less than {final}, the config's own {name}"
        )

    @functools.cache
    def task_of(stage: int) -> Task:
        value = min(final, arguments.curriculum_start + stage * arguments.curriculum_step)
        stage_task = type(task)(task.config.replace(**{name: value}))
        if stage_task.vocabulary() != task.vocabulary():
            raise ValueError(f"curriculum_field: got {name!r}, which changes the vocabulary; wanted one that does not")
        return stage_task

    task_of(0)
    last = math.ceil((final - arguments.curriculum_start) / arguments.curriculum_step)
    return Curriculum(Stages(), task_of, last)


def _text_data(task: Task | None, settings: Settings, tokenizer: PreTrainedTokenizerBase) -> PretrainingData:
    corpus, args, seed = settings.corpus, settings.args, settings.rows.rows_seed
    if args.max_steps < 1 and corpus.corpus_tokens is None:
        raise ValueError("max_steps: got none with endless text, wanted how many steps to train")
    wanted = args.max_steps * rows_per_step(args) if args.max_steps > 0 else None
    train = corpus_blocks(task, corpus, tokenizer, blocks=wanted, seed=seed)
    held_out = held_out_blocks(corpus, tokenizer)
    endless = train if corpus.corpus_tokens is None else Passes(train, seed)
    eval_sets = {"train": Subset(train, range(min(len(train), len(held_out)))), "validation": held_out}
    return PretrainingData(endless, eval_sets, held_out, len(train), corpus=train)
