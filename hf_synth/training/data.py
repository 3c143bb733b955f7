"""From a recipe's data arguments to datasets: rows to imitate, prompts to answer, pairs to compare."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from hf_synth import preferences
from hf_synth.builder import load_dataset
from hf_synth.errors import json_dict, nearest
from hf_synth.evaluation.generation import prompt_ids
from hf_synth.io import is_main_process
from hf_synth.preferences.sources import SUFFIXES, read_rows
from hf_synth.sampling import prompt_text
from hf_synth.tasks import Task, get_task
from hf_synth.training.arguments import DataArguments
from hf_synth.training.run_directory import REJECTED_ROWS

logger = logging.getLogger(__name__)

_MOST_DRAWS = 200
_PROMPT = ("prompt", "src")  # what is kept of a natural prompt
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
        for key, value in values.items():
            if key not in _CLUSTER_VALUES:
                raise ValueError(f"mixture.{name}: got unknown key {key!r}; {nearest(str(key), _CLUSTER_VALUES)}")
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
        return pairs.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    parts = []
    for name, cluster in clusters(data).items():
        size = _count(data, cluster)
        rows = cluster.rows("train", size, data.rows_seed, "prompt_completion")
        parts.append(rows.add_column("cluster", [name] * size))
    return concatenate_datasets(parts).shuffle(seed=data.rows_seed)


def prompt_split(data: DataArguments, folder: Path, held_out: int) -> tuple[Dataset, Dataset, int]:
    """Return distinct prompts to train on, held-out prompts, and how many repeated prompts were left out.

    Columns: {prompt}, with {task, cluster} of tasks and {src} of preference pairs. Held out are `held_out` prompts of
    every cluster, or of natural prompts their `test_share`.
    """
    if data.task or data.mixture:
        return _task_prompt_split(data, held_out)
    if data.preferences:
        parts = [preferences.distinct_prompts(pairs) for pairs in preference_split(data, folder)]
    elif data.test_share:
        own = _own_prompts(Path(data.prompts or ""), folder)
        split = preferences.split_by_prompt(own, test_share=data.test_share, seed=data.rows_seed)
        parts = [split["train"], split["test"]]
    else:
        own = _own_prompts(Path(data.prompts or ""), folder)
        parts = [own, own.select([])]
    repeated = sum(sum(part["count"]) - len(part) for part in parts)
    if repeated:
        logger.warning("%d repeated prompts left out, %d distinct ones kept", repeated, sum(map(len, parts)))
    training, rest = (part.select_columns([name for name in _PROMPT if name in part.column_names]) for part in parts)
    return training, rest, repeated


def _task_prompt_split(data: DataArguments, held_out: int) -> tuple[Dataset, Dataset, int]:
    known = clusters(data)
    draw = _task_prompts if data.duplicates == "replace" else _drawn_prompts
    training = [draw(name, cluster, "train", _count(data, cluster), data.rows_seed) for name, cluster in known.items()]
    drawn = sum(map(len, training))
    if data.duplicates == "drop":
        training = [_without_repeats(part) for part in training]
    avoid = frozenset(prompt for part in training for prompt in part["prompt"])
    prompts = concatenate_datasets(training)
    repeated = drawn - len(prompts)
    if not held_out:
        return prompts, prompts.select([]), repeated
    fresh = [_task_prompts(name, cluster, "test", held_out, data.rows_seed, avoid) for name, cluster in known.items()]
    return prompts, concatenate_datasets(fresh), repeated


def preference_split(
    data: DataArguments, folder: Path, keep: Mapping[str, type] | None = None
) -> tuple[Dataset, Dataset]:
    """Return training and held-out pairs that share no prompt; unusable rows go to rejected_rows.jsonl.

    Pairs of tasks have a column {cluster}, others {id, prompt_id, src} and what `keep` names, as `read_preferences`
    takes it.
    """
    if data.preferences:
        pairs_read = _read_pairs(data, keep or {})
        if pairs_read.rejected_rows:
            if is_main_process():
                pairs_read.write_rejected(folder / REJECTED_ROWS)
            logger.warning(
                "%s: %d rows left out: %s", data.preferences, len(pairs_read.rejected_rows), pairs_read.dropped
            )
        if not data.test_share:
            return pairs_read.dataset, pairs_read.dataset.select([])
        parts = preferences.split_by_prompt(pairs_read.dataset, test_share=data.test_share, seed=data.rows_seed)
        return parts["train"], parts["test"]
    options: dict[str, Any] = {"seed": data.rows_seed, "view": "preference"}
    train: list[Dataset] = []
    test: list[Dataset] = []
    for name, cluster in clusters(data).items():
        size = _count(data, cluster)
        for split, parts, count in (("train", train, size), ("test", test, max(1, round(size * data.test_share)))):
            parts.append(cluster.rows(split, count, **options).add_column("cluster", [name] * count))
    pairs, held_out = concatenate_datasets(train), concatenate_datasets(test)
    seen = frozenset(pairs["prompt"])
    fresh = [row for row, prompt in enumerate(held_out["prompt"]) if prompt not in seen]
    if not fresh:
        raise ValueError(
            f"got {len(held_out)} held-out pairs, all of them with a prompt that is trained on; "
            "lower num_rows, raise test_share, or widen the task's config"
        )
    return pairs.shuffle(seed=data.rows_seed), held_out.select(fresh)


def _read_pairs(data: DataArguments, keep: Mapping[str, type]) -> preferences.PreferenceData:
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
    prompts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    most: int | None,
    template: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return the prompts of at most `most` tokens; an error where none is left. `template`: as `prompt_ids`."""
    if most is None or not len(prompts):
        return prompts
    kept = prompts.filter(lambda row: len(prompt_ids(row["prompt"], tokenizer, template)) <= most)
    if not len(kept):
        raise ValueError(
            f"got {len(prompts)} prompts, all longer than {most} tokens, which is what max_prompt_tokens and the "
            "model's positions leave for them; raise it, shorten completions, or take another model"
        )
    return kept


def pair_length(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return tokens of the longer side of a preference pair, prompt included, string or messages."""
    if isinstance(row["prompt"], str):
        return max(len(tokenizer(row["prompt"] + row[side]).input_ids) + 1 for side in ("chosen", "rejected"))
    options = {"tokenize": True, "return_dict": True}
    return max(
        len(tokenizer.apply_chat_template(row["prompt"] + row[side], **options)["input_ids"])
        for side in ("chosen", "rejected")
    )


def _count(data: DataArguments, cluster: Cluster) -> int:
    return max(1, round(data.num_rows * cluster.share))


def _drawn_prompts(name: str, cluster: Cluster, split: str, count: int, seed: int) -> Dataset:
    """Return the first `count` prompts of a task's rows, as often as they come."""
    prompts = cluster.rows(split, count, seed, "prompt")["prompt"]
    return Dataset.from_dict({"prompt": list(prompts), "task": [name] * count, "cluster": [name] * count})


def _without_repeats(prompts: Dataset) -> Dataset:
    """Return the first row of each prompt."""
    first: dict[str, int] = {}
    for row, prompt in enumerate(prompts["prompt"]):
        first.setdefault(prompt, row)
    return prompts.select(list(first.values()))


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


def _own_prompts(path: Path, folder: Path) -> Dataset:
    """Read distinct prompts of a JSON lines file; bad lines are counted and kept in rejected_rows.jsonl."""
    if not path.is_file():
        raise ValueError(f"prompts: got {str(path)!r}, which is no file; wanted JSON lines with a `prompt` in each")
    prompts: list[Any] = []
    rejected: list[dict[str, Any]] = []
    for row in read_rows(path):
        prompt: Any = None if row.fields is None else row.fields.get("prompt")
        if reason := row.reason or _prompt_problem(prompt, prompts):
            rejected.append({"file": row.file, "line": row.line, "reason": reason, "row": str(row.raw)[:500]})
        else:
            prompts.append(
                prompt
                if isinstance(prompt, str)
                else [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
            )
    if rejected:
        if is_main_process():
            lines = "".join(json.dumps(row) + "\n" for row in rejected)
            (folder / REJECTED_ROWS).write_text(lines, encoding="utf-8")
        logger.warning(
            "%s: %d of %d lines left out, see %s",
            path,
            len(rejected),
            len(prompts) + len(rejected),
            folder / REJECTED_ROWS,
        )
    if not prompts:
        first = rejected[0]["reason"] if rejected else "the file is empty"
        raise ValueError(
            f'prompts: got no usable line in {str(path)!r} ({first}); wanted lines like {{"prompt": ...}}'
        )
    return preferences.distinct_prompts(Dataset.from_dict({"prompt": prompts}))


def _prompt_problem(prompt: Any, before: list[Any]) -> str:
    """Return why a prompt cannot be used after those `before` it; empty where it can."""
    if prompt is None:
        return "there is no `prompt`"
    if isinstance(prompt, str):
        problem = "" if prompt.strip() else "the prompt is empty"
    elif isinstance(prompt, list) and prompt:
        problem = next(filter(None, map(_message_problem, prompt)), "")
    else:
        return "the prompt is neither text nor a list of messages"
    if not problem and before and type(prompt) is not type(before[0]):
        return "the prompt is text among lists of messages, or the other way round"
    return problem or _unicode_problem(prompt)


def _message_problem(message: Any) -> str:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        return "a message has no role or no content"
    if not isinstance(message["role"], str):
        return "a message's role is no text"
    if not isinstance(message["content"], str) or not message["content"].strip():
        return "a message is empty"
    return ""


def _unicode_problem(prompt: Any) -> str:
    try:  # JSON can spell half of a surrogate pair, which neither Arrow nor a tokenizer can hold
        json.dumps(prompt, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "not valid Unicode"
    return ""


def fitting_pairs(
    train: Dataset, test: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None
) -> tuple[Dataset, Dataset, dict[str, float]]:
    """Return the pairs of at most `most` tokens on either side, and their counts for metrics.json.

    TRL's trainers would leave the others out, or cut them, without a word; and weights must keep their rows. Raises
    ValueError where a part is left with none.
    """
    kept = [_fitting(part, tokenizer, most) for part in (train, test)]
    counts = {
        "pairs/train": float(len(kept[0])),
        "pairs/held_out": float(len(kept[1])),
        "pairs/too_long": float(len(train) + len(test) - len(kept[0]) - len(kept[1])),
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
    results = [trainer.evaluate(part) for part in parts]
    return {
        name: sum(result[name] * len(part) for result, part in zip(results, parts, strict=True)) / len(pairs)
        for name in results[0]
    }


def accuracy_metrics(accuracy: float, loss: float, pairs: int) -> dict[str, float]:
    """Return the accuracy on held-out pairs with its standard error, and the loss per pair."""
    error = math.sqrt(accuracy * (1 - accuracy) / pairs)
    return {"accuracy/held_out": accuracy, "accuracy/standard_error": error, "loss/held_out": loss}


def _fitting(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None) -> Dataset:
    if most is None:
        return pairs
    kept = pairs.filter(lambda row: pair_length(row, tokenizer) <= most)
    if not len(kept):
        raise ValueError(f"max_length={most}: got {len(pairs)} pairs, all of them longer; raise it")
    return kept


def prompt_files(path: Path) -> list[Path]:
    """List the file itself, or all data files of a folder, by name; ValueError where there is none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    data_files = [file for file in files if file.name.endswith(SUFFIXES)]
    if not data_files:
        raise ValueError(
            f"prompts: got {str(path)!r}, where there is no data file; wanted one that ends in {', '.join(SUFFIXES)}, "
            "or a folder of them"
        )
    return data_files


def usable_prompts(files: Sequence[Path], folder: Path) -> Iterator[Any]:
    """Yield the column `prompt`; rows without a usable one are left out, and kept in rejected_rows.jsonl.

    Raises ValueError, with the counts, where no row is usable.
    """
    rows = bad = 0
    with (folder / REJECTED_ROWS).open("w", encoding="utf-8") as rejected:
        for file in files:
            for row in read_rows(file):
                prompt = row.fields.get("prompt") if row.fields else None
                rows += 1
                if reason := row.reason or _problem(prompt):
                    bad += 1
                    kept = {"file": row.file, "line": row.line, "reason": reason, "row": str(row.raw)[:500]}
                    rejected.write(json.dumps(kept) + "\n")
                else:
                    yield prompt
    if bad == rows:
        raise ValueError(f"prompts: got {rows} rows, all of them unusable; see {folder / REJECTED_ROWS}")
    if bad:
        logger.warning("%d of %d rows left out, see %s", bad, rows, folder / REJECTED_ROWS)


def _problem(prompt: Any) -> str:
    """Return why a prompt cannot be used; empty where it can."""
    if not isinstance(prompt, str | list):
        return "there is no `prompt`" if prompt is None else "the prompt is neither text nor a list of messages"
    try:
        text = prompt_text(prompt)
        text.encode("utf-8")  # JSON can spell half of a surrogate pair, which Arrow cannot hold
    except UnicodeEncodeError:
        return "not valid Unicode"
    except ValueError as error:
        return str(error)
    return "" if text.strip() else "the prompt is empty"
