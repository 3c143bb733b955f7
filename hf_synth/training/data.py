"""From a recipe's data arguments to datasets: rows to imitate, prompts to answer, pairs to compare."""

import dataclasses
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from hf_synth import preferences
from hf_synth.builder import load_dataset
from hf_synth.errors import check_choices, json_dict
from hf_synth.evaluation.generation import prompt_ids
from hf_synth.io import is_main_process, load_json, reading, write_json
from hf_synth.tasks import Task, get_task
from hf_synth.training.arguments import DataArguments
from hf_synth.training.run_directory import REJECTED_ROWS, UNREAD_FIELDS

logger = logging.getLogger(__name__)

_MOST_DRAWS = 200
_TEMPLATE = "the chat template"  # stands for the file of a row that it refuses
_PROMPT = ("prompt", "src")  # what is kept of the prompt of a preference pair
# Columns of own prompts that a reward cannot get: to TRL's trainer, or to ours, these names mean something else.
_TAKEN = {"prompts", "completion", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
_TAKEN |= {"environments", "image", "images", "prompt_id", "sampling_weight"}
_CLUSTER_VALUES = {
    "task": (str, "a task's name or the path of its file"),
    "share": (int | float, "a number"),
    "preset": (str | None, "a preset's name in quotes"),
    "task_args": (dict, "a mapping"),
}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One task of a mixture: its share of the rows, and how `get_task` and `load_dataset` call it."""

    task: str
    share: float = 1.0
    preset: str | None = None
    task_args: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.task_args):
            raise ValueError(f"task_args: got {self.task_args!r}, wanted a mapping of names to values")

    def build(self) -> Task:
        """Return the task itself."""
        return get_task(self.task, self.preset, **self.task_args)

    def rows(self, split: str, size: int, seed: int, view: str, *, streaming: bool = False) -> Any:
        """Return the task's rows in a view."""
        options: dict[str, Any] = {"split": split, "size": size, "seed": seed, "view": view, "streaming": streaming}
        return load_dataset(self.task, self.preset, **options, **self.task_args)


def clusters(data: DataArguments) -> dict[str, Cluster]:
    """Return the mixture's tasks by cluster name; a single task is a mixture of one, named after itself."""
    if data.task:
        return {get_task(data.task).name: Cluster(data.task, 1.0, data.preset, json_dict(data.task_args, "task_args"))}
    mixture = {}
    for name, values in json_dict(data.mixture, "mixture").items():
        if not isinstance(values, dict) or "task" not in values or "share" not in values:
            raise ValueError(f"mixture.{name}: got {values!r}, wanted a mapping with at least task and share")
        check_choices(f"mixture.{name}", list(values), _CLUSTER_VALUES, "unknown key ")
        for key, value in values.items():
            if not isinstance(value, _CLUSTER_VALUES[key][0]):
                raise ValueError(f"mixture.{name}.{key}: got {value!r}, wanted {_CLUSTER_VALUES[key][1]}")
        mixture[name] = Cluster(**values)
    total = sum(cluster.share for cluster in mixture.values())
    if any(cluster.share <= 0 for cluster in mixture.values()) or not abs(total - 1) <= 1e-6:
        raise ValueError(f"mixture: got shares that sum to {total:g}, wanted positive ones that sum to 1")
    return mixture


def built_tasks(data: DataArguments) -> dict[str, Task]:
    """Return the tasks that the arguments name, by cluster; none for natural prompts and pairs."""
    return {name: cluster.build() for name, cluster in clusters(data).items()} if data.task or data.mixture else {}


def imitation_rows(data: DataArguments, folder: Path) -> Dataset:
    """Return the rows of SFT: {prompt, completion} of the tasks by their shares, or prompts with chosen answers."""
    if data.preferences:
        pairs = preference_split(data, folder)[0]
        return pairs.select_columns(["prompt", "chosen", "src"]).rename_column("chosen", "completion")
    return _task_rows(data, "train", "prompt_completion").shuffle(seed=data.rows_seed)


def _task_rows(data: DataArguments, split: str, view: str, share: float = 1.0) -> Dataset:
    """Return num_rows * share rows of the tasks by their shares, with a column {cluster}."""
    parts = []
    for name, cluster in clusters(data).items():
        count = max(1, round(_count(data, cluster) * share))
        parts.append(cluster.rows(split, count, data.rows_seed, view).add_column("cluster", [name] * count))
    return concatenate_datasets(parts)


def prompt_split(data: DataArguments, folder: Path, held_out: int) -> tuple[Dataset, Dataset, Counter[str]]:
    """Return distinct prompts to train on, held-out prompts, and by prompt_id how many lines each prompt had.

    Columns: {prompt}, with {task, cluster} of tasks, {src} of preference pairs, and all others of one's own prompts,
    for the reward. Held out are `held_out` prompts of every cluster, or of natural prompts their `test_share`.
    `duplicates="keep"` keeps the repeated prompts of a task.
    """
    if data.preferences:
        train, test = map(preferences.distinct_prompts, preference_split(data, folder))
        prompts, held_out_prompts = (part.select_columns(list(_PROMPT)) for part, _ in (train, test))
        return prompts, held_out_prompts, train[1] + test[1]
    if data.prompts:
        own, own_lines = preferences.distinct_prompts(_own_prompts(data, folder))
        if not data.test_share:
            return own, own.select([]), own_lines
        split = preferences.split_by_prompt(own, test_share=data.test_share, seed=data.rows_seed)
        return split["train"], split["test"], own_lines
    known = clusters(data)
    draw = _task_prompts if data.duplicates == "replace" else _drawn_prompts
    training = [draw(name, cluster, "train", _count(data, cluster), data.rows_seed) for name, cluster in known.items()]
    first, lines = zip(*map(preferences.distinct_prompts, training), strict=True)
    if data.duplicates == "drop":
        training = list(first)
    avoid = frozenset(prompt for part in training for prompt in part["prompt"])
    prompts = concatenate_datasets(training)
    if not held_out:
        return prompts, prompts.select([]), sum(lines, Counter())
    fresh = [_task_prompts(name, cluster, "test", held_out, data.rows_seed, avoid) for name, cluster in known.items()]
    return prompts, concatenate_datasets(fresh), sum(lines, Counter())


def preference_split(
    data: DataArguments, folder: Path, keep: Mapping[str, type] | None = None
) -> tuple[Dataset, Dataset]:
    """Return training and held-out pairs that share no prompt; unusable rows go to rejected_rows.jsonl.

    Pairs of tasks have a column {cluster}, others {id, prompt_id, src} and what `keep` names, as `read_preferences`
    takes it.
    """
    if data.preferences:
        pairs_read = _read_pairs(data, keep or {})
        forget_rejected(folder)
        note_unread(folder, pairs_read.unread)
        if pairs_read.rejected_rows:
            reject(folder, pairs_read.rejected_rows)
        if not data.test_share:
            return pairs_read.dataset, pairs_read.dataset.select([])
        parts = preferences.split_by_prompt(pairs_read.dataset, test_share=data.test_share, seed=data.rows_seed)
        return parts["train"], parts["test"]
    pairs, held_out = (
        _task_rows(data, split, "preference", share) for split, share in (("train", 1.0), ("test", data.test_share))
    )
    seen = frozenset(pairs["prompt"])
    fresh = [row for row, prompt in enumerate(held_out["prompt"]) if prompt not in seen]
    if not fresh:
        raise ValueError(
            f"got {len(held_out)} held-out pairs, all of them with a prompt that is trained on; "
            "lower num_rows, raise test_share, or widen the task's config"
        )
    return pairs.shuffle(seed=data.rows_seed), held_out.select(fresh)


def _read_pairs(data: DataArguments, keep: Mapping[str, type]) -> preferences.pairs.PreferenceData:
    source = data.preferences or ""
    path = Path(source)
    # A config's subfolder and split are those of its own dataset; what has neither can replace it with one flag.
    whole = path.is_file() or preferences.is_published(path)
    inside, split = (None, None) if whole else (data.preferences_dir, data.preferences_split)
    try:
        return preferences.read_preferences(source, keep=keep, split=split, data_dir=inside)
    except ConnectionError as error:
        raise ValueError(
            f"preferences: got {source!r}, which is no file or folder here, and the Hub cannot be reached; "
            "give the path of a file"
        ) from error


def without_long_prompts(
    prompts: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None, template: Mapping[str, Any] | None = None
) -> Dataset:
    """Return the prompts of at most `most` tokens; an error where none is left. `template`: as `prompt_ids`."""
    if most is None or not len(prompts):
        return prompts
    kept = prompts.filter(lambda row: len(prompt_ids(row["prompt"], tokenizer, template)) <= most)
    if not len(kept):
        raise ValueError(
            f"got {len(prompts)} prompts, all longer than {max(most, 0)} tokens, which is what max_prompt_tokens and "
            "the model's positions leave beside a completion; raise max_prompt_tokens, shorten completions "
            "(max_completion_length in GRPO), or take a model of more positions"
        )
    return kept


def pair_length(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return tokens of the longer side of a preference pair, prompt included, string or messages."""
    sides = [row["prompt"] + row[side] for side in ("chosen", "rejected")]
    if isinstance(row["prompt"], str):
        return 1 + max(map(len, tokenizer(sides).input_ids))
    return max(map(len, tokenizer.apply_chat_template(sides, tokenize=True, return_dict=True)["input_ids"]))


def _count(data: DataArguments, cluster: Cluster) -> int:
    return max(1, round(data.num_rows * cluster.share))


def _drawn_prompts(name: str, cluster: Cluster, split: str, count: int, seed: int) -> Dataset:
    """Return the first `count` prompts of a task's rows, as often as they come."""
    prompts = cluster.rows(split, count, seed, "prompt")["prompt"]
    return Dataset.from_dict({"prompt": list(prompts), "task": [name] * count, "cluster": [name] * count})


def _task_prompts(
    name: str, cluster: Cluster, split: str, count: int, seed: int, avoid: frozenset[str] = frozenset()
) -> Dataset:
    """Return the first `count` distinct prompts of a task's endless rows that are not in `avoid`."""
    distinct: dict[str, None] = {}
    for row in cluster.rows(split, count * _MOST_DRAWS, seed, "prompt", streaming=True):
        if row["prompt"] not in avoid:
            distinct.setdefault(row["prompt"])
        if len(distinct) == count:
            return Dataset.from_dict({"prompt": list(distinct), "task": [name] * count, "cluster": [name] * count})
    raise ValueError(
        f"cluster {name}: got {len(distinct)} distinct {split} prompts in {count * _MOST_DRAWS} rows, wanted {count}; "
        "lower num_rows, eval_prompts or the cluster's share, or widen the task's config"
    )


def _own_prompts(data: DataArguments, folder: Path) -> Dataset:
    """Return {prompt} and the other columns of the rows, but for those that Arrow cannot hold or that are taken."""
    prompts, rows = zip(*usable_prompts(data.prompts or "", folder, data.prompts_split, all_read=True), strict=True)
    columns: dict[str, Any] = {"prompt": list(prompts)}
    for name in dict.fromkeys(name for row in rows for name in row if name != "prompt"):
        values = [row.get(name) for row in rows]
        try:
            if name in _TAKEN:
                raise ValueError("the name is taken")
            pa.array(values)
        except (ValueError, TypeError, OverflowError) as error:
            logger.warning("prompts: the column %s does not go to the reward: %s", name, str(error).split("\n")[0])
            note_unread(folder, [name])
        else:
            columns[name] = values
    return Dataset.from_dict(columns)


def usable_prompts(
    source: str, folder: Path, split: str | None = None, *, all_read: bool = False
) -> Iterator[tuple[str | list[preferences.Message], Mapping[str, Any]]]:
    """Yield the prompts of a file, a folder or a Hub dataset, as text or as messages, each beside its row's columns.

    Fields that are not read are named at the end: keys of messages, and other columns unless `all_read`.
    Rows without a usable prompt are left out, and kept in rejected_rows.jsonl. All prompts are text, or all messages,
    as the first one is: text and one turn of a user are the same. ValueError without a usable row.
    """
    try:
        reader = preferences.Source(source, split=split).open()
    except (ValueError, ConnectionError) as error:
        raise ValueError(f"prompts: got {source!r}, which cannot be read: {error}") from error
    counts: Counter[str] = Counter()
    first: type | None = None
    usable, unread, columns, shown = 0, set[str](), set[str](), ""
    forget_rejected(folder)
    for row in reader.rows():
        try:
            if row.fields is None:
                raise preferences.RowError(row.reason)
            preferences.UNREAD.set(unread)
            prompt = preferences.read_prompt(row.fields)
            first = first or type(prompt)
            if first is list and isinstance(prompt, str):
                prompt = [{"role": "user", "content": prompt}]
            elif first is str and not isinstance(prompt, str) and [turn["role"] for turn in prompt] == ["user"]:
                prompt = prompt[0]["content"]
            if type(prompt) is not first:
                raise preferences.RowError("the prompt is a list of messages among texts")
            json.dumps(prompt, ensure_ascii=False).encode("utf-8")
        except preferences.RowError as error:
            reason = str(error)
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and Arrow cannot hold
            reason = "not valid Unicode"
        else:
            usable += 1
            columns |= row.fields.keys() if all_read else set()
            yield prompt, row.fields
            continue
        rejected = preferences.RejectedRow(row.file, row.line, reason, preferences.shortened(row.raw))
        shown = shown or f"; line {row.line}, {reason}: {rejected.row[:200]}"
        counts[reason] += 1
        reject(folder, [rejected])
    if first is None:
        raise ValueError(
            f"prompts: got no usable row in {source!r} ({dict(counts) or 'the file is empty'}); wanted a column "
            f"prompt, messages or instruction, of texts or messages{shown}"
        )
    if counts:
        total = counts.total() + usable
        logger.warning("%s: %d of %d rows left out: %s", source, counts.total(), total, dict(counts))
    passed = {"for the reward, not for the prompt": (unread & columns) - _TAKEN, "not read": unread - columns}
    for what, names in passed.items():
        if names:
            logger.warning("%s: %s: %s", source, what, ", ".join(sorted(names)))
    note_unread(folder, unread - columns)


def forget_rejected(folder: Path) -> None:
    """Remove what an earlier start has written of what was left out."""
    if is_main_process():
        for name in (REJECTED_ROWS, UNREAD_FIELDS):
            (folder / name).unlink(missing_ok=True)


def note_unread(folder: Path, names: Iterable[str]) -> None:
    """Add names of fields that are not read to the folder's list of them, for the report."""
    if is_main_process() and (unread := {*unread_fields(folder), *names}):
        write_json(folder / UNREAD_FIELDS, {"unread": sorted(unread)})


def unread_fields(folder: Path) -> list[str]:
    """Return the fields of the source that were not read, sorted."""
    return (load_json(folder / UNREAD_FIELDS) or {}).get("unread", [])


def reject(folder: Path, rows: Iterable[preferences.RejectedRow]) -> None:
    """Add rows to the folder's file of rows that were left out."""
    if is_main_process():
        with (folder / REJECTED_ROWS).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)


def rejected_counts(folder: Path) -> dict[str, float]:
    """Return how many rows of rejected_rows.jsonl reading dropped, and how many the chat template refused."""
    rows = rejected_rows(folder)
    refused = sum(row.get("file") == _TEMPLATE for row in rows)
    return {"rows/dropped": float(len(rows) - refused), "rows/refused": float(refused)}


def rejected_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of rejected_rows.jsonl: which could not be used, and why."""
    path = folder / REJECTED_ROWS
    if not path.exists():
        return []
    with reading(path, "remove it, and the same command writes it again"):
        return [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def accepted_by_template(rows: Dataset, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Dataset:
    """Return the rows whose conversation the chat template renders; the others are left out with the template's words.

    A template may know no `tool` or `developer`, refuse a system turn, or two turns of one role.
    """
    if not len(rows) or isinstance(rows[0]["prompt"], str):
        return rows
    kept: list[int] = []
    refused: list[preferences.RejectedRow] = []
    replies = [name for name in ("chosen", "rejected", "completion") if name in rows.column_names]
    for number, row in enumerate(rows):
        try:
            for reply in replies or [""]:
                turns = row["prompt"] + row.get(reply, [])
                tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not reply)
        except (TemplateError, TypeError) as error:
            shown = preferences.shortened({name: row[name] for name in ("prompt", *replies)})
            refused.append(preferences.RejectedRow(_TEMPLATE, number + 1, str(error), shown))
        else:
            kept.append(number)
    if not refused:
        return rows
    reject(folder, refused)
    reasons = dict(Counter(row.reason for row in refused))
    if not kept:
        raise ValueError(
            f"got {len(rows)} rows, all of them refused by the chat template: {reasons}; take another model"
        )
    logger.warning("%d of %d rows left out, which the chat template refuses: %s", len(refused), len(rows), reasons)
    return rows.select(kept)


def fitting_pairs(
    train: Dataset, test: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None, folder: Path
) -> tuple[Dataset, Dataset, dict[str, float]]:
    """Return the pairs that the chat template takes, of at most `most` tokens on either side, and their counts.

    TRL's trainers would leave the others out, or cut them, without a word; and weights must keep their rows.
    """
    train, test = (accepted_by_template(part, tokenizer, folder) for part in (train, test))
    kept = []
    for part in (train, test):
        kept.append(part if most is None else part.filter(lambda row: pair_length(row, tokenizer) <= most))
        if not len(kept[-1]):
            raise ValueError(f"max_length={most}: got {len(part)} pairs, all of them longer; raise it")
    counts = {
        "pairs/train": float(len(kept[0])),
        "pairs/held_out": float(len(kept[1])),
        "pairs/too_long": float(len(train) + len(test) - len(kept[0]) - len(kept[1])),
        **rejected_counts(folder),
    }
    return kept[0], kept[1], counts


def evaluate_pairs(trainer: Any) -> dict[str, float]:
    """Evaluate TRL's RewardTrainer or DPOTrainer on its held-out pairs, each of which counts once.

    TRL's accuracies and margins are means over batches, so that one pair in a short last batch would count as much as
    a whole batch: the pairs of that batch are evaluated apart, and weigh as many as they are.
    """
    pairs, batch = trainer.eval_dataset, trainer.args.eval_batch_size * trainer.args.world_size
    whole = len(pairs) // batch * batch
    parts = [pairs.select(rows) for rows in (range(whole), range(whole, len(pairs))) if len(rows)]
    trainer.eval_dataset = {str(number): part for number, part in enumerate(parts)}
    # By name: TRL would prepare other rows anew, and cannot where it computed the reference before training.
    results = [trainer.evaluate(name) for name in trainer.eval_dataset]
    trainer.eval_dataset = pairs
    return {
        name: sum(result[name] * len(part) for result, part in zip(results, parts, strict=True)) / len(pairs)
        for name in results[0]
    }


def accuracy_metrics(accuracy: float, loss: float, pairs: int) -> dict[str, float]:
    """Return the accuracy on held-out pairs with its standard error, and the loss per pair."""
    error = math.sqrt(accuracy * (1 - accuracy) / pairs)
    return {"accuracy/held_out": accuracy, "accuracy/standard_error": error, "loss/held_out": loss}
