"""From a recipe's data arguments to datasets: rows to imitate, prompts to answer, pairs to compare."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from hf_synth import preferences
from hf_synth.builder import load_dataset
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import nearest
from hf_synth.training.arguments import DataArguments, json_dict

logger = logging.getLogger(__name__)

_MOST_DRAWS = 200
REJECTED_ROWS = "rejected_rows.jsonl"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One task of a mixture: its share of the rows, and how `get_task` and `load_dataset` call it."""

    task: str
    share: float = 1.0
    preset: str | None = None
    task_args: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self) -> Task:
        """The task itself."""
        return get_task(self.task, self.preset, **self.task_args)

    def rows(self, split: str, size: int, seed: int, view: str, *, streaming: bool = False) -> Any:
        """The task's rows in a view."""
        options: dict[str, Any] = {"split": split, "size": size, "seed": seed, "view": view, "streaming": streaming}
        return load_dataset(self.task, self.preset, **options, **self.task_args)


def clusters(data: DataArguments) -> dict[str, Cluster]:
    """The mixture's tasks by cluster name; a single task is a mixture of one, named after itself."""
    if data.task:
        return {get_task(data.task).name: Cluster(data.task, 1.0, data.preset, json_dict(data.task_args, "task_args"))}
    known = [field.name for field in dataclasses.fields(Cluster)]
    found = {}
    for name, values in json_dict(data.mixture, "mixture").items():
        if not isinstance(values, dict) or "task" not in values or "share" not in values:
            raise ValueError(f"mixture.{name}: got {values!r}, wanted a mapping with at least task and share")
        if unknown := [key for key in values if key not in known]:
            raise ValueError(f"mixture.{name}: got unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
        found[name] = Cluster(**values)
    total = sum(cluster.share for cluster in found.values())
    if any(cluster.share <= 0 for cluster in found.values()) or abs(total - 1) > 1e-6:
        raise ValueError(f"mixture: got shares that sum to {total:g}, wanted positive ones that sum to 1")
    return found


def imitation_rows(data: DataArguments, folder: Path) -> Dataset:
    """What SFT imitates: {prompt, completion} of the tasks by their shares, or prompts with their chosen answers."""
    if data.preferences:
        pairs = preference_split(data, folder)[0]
        return pairs.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    parts = []
    for name, cluster in clusters(data).items():
        size = _count(data, cluster)
        rows = cluster.rows("train", size, data.rows_seed, "prompt_completion")
        parts.append(rows.add_column("cluster", [name] * size))
    return concatenate_datasets(parts).shuffle(seed=data.rows_seed)


def prompt_split(data: DataArguments, folder: Path, held_out: int) -> tuple[Dataset, Dataset]:
    """Distinct prompts to train on, and prompts that are never trained on: {prompt}, with {task, cluster} of tasks.

    Held out are `held_out` prompts of every cluster, or as many of natural prompts, taken from their `test_share`.
    """
    if data.task or data.mixture:
        return _task_prompt_split(data, held_out)
    if data.preferences:
        parts = [preferences.distinct_prompts(pairs) for pairs in preference_split(data, folder)]
    elif data.test_share:
        found = _own_prompts(Path(data.prompts or ""), folder)
        split = preferences.split_by_prompt(found, test_share=data.test_share, seed=data.rows_seed)
        parts = [split["train"], split["test"]]
    else:
        found = _own_prompts(Path(data.prompts or ""), folder)
        parts = [found, found.select([])]
    training, rest = (part.select_columns("prompt") for part in parts)
    return training, rest.select(range(min(held_out, len(rest))))


def _task_prompt_split(data: DataArguments, held_out: int) -> tuple[Dataset, Dataset]:
    known = clusters(data)
    training = [
        _task_prompts(name, cluster, "train", _count(data, cluster), data.rows_seed) for name, cluster in known.items()
    ]
    avoid = frozenset(prompt for part in training for prompt in part["prompt"])
    fresh = [_task_prompts(name, cluster, "test", held_out, data.rows_seed, avoid) for name, cluster in known.items()]
    return concatenate_datasets(training), concatenate_datasets(fresh)


def preference_split(data: DataArguments, folder: Path) -> tuple[Dataset, Dataset]:
    """Training pairs and held-out pairs that share no prompt; rows that cannot be used go to rejected_rows.jsonl."""
    if data.preferences:
        found = _read_pairs(data)
        if found.rejected_rows:
            found.write_rejected(folder / REJECTED_ROWS)
            logger.warning("%s: %d rows left out: %s", data.preferences, len(found.rejected_rows), found.dropped)
        parts = preferences.split_by_prompt(found.dataset, test_share=data.test_share, seed=data.rows_seed)
        return parts["train"], parts["test"]
    options: dict[str, Any] = {"seed": data.rows_seed, "view": "preference"}
    train, test = [], []
    for cluster in clusters(data).values():
        size = _count(data, cluster)
        train.append(cluster.rows("train", size, **options))
        test.append(cluster.rows("test", max(1, round(size * data.test_share)), **options))
    return concatenate_datasets(train).shuffle(seed=data.rows_seed), concatenate_datasets(test)


def _read_pairs(data: DataArguments) -> preferences.PreferenceData:
    source = data.preferences or ""
    inside = None if Path(source).is_file() else data.preferences_dir
    return preferences.read_preferences(source, split=data.preferences_split, data_dir=inside)


def without_long_prompts(prompts: Dataset, tokenizer: PreTrainedTokenizerBase, most: int | None) -> Dataset:
    """The prompts of at most `most` tokens; an error where none is left."""
    if most is None:
        return prompts
    kept = prompts.filter(lambda row: len(prompt_ids(row["prompt"], tokenizer)) <= most)
    if not len(kept):
        raise ValueError(f"max_prompt_tokens={most}: got {len(prompts)} prompts, all of them longer; raise it")
    return kept


def prompt_ids(prompt: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that a policy is given for a prompt, string or messages."""
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def pair_length(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longer side of a preference pair, prompt included, string or messages."""
    if isinstance(row["prompt"], str):
        return max(len(tokenizer(row["prompt"] + row[side]).input_ids) + 1 for side in ("chosen", "rejected"))
    options = {"tokenize": True, "return_dict": True}
    return max(
        len(tokenizer.apply_chat_template(row["prompt"] + row[side], **options)["input_ids"])
        for side in ("chosen", "rejected")
    )


def _count(data: DataArguments, cluster: Cluster) -> int:
    return max(1, round(data.num_rows * cluster.share))


def _task_prompts(
    name: str, cluster: Cluster, split: str, count: int, seed: int, avoid: frozenset[str] = frozenset()
) -> Dataset:
    """The first `count` distinct prompts of a task's endless rows that are not in `avoid`."""
    found: dict[str, None] = {}
    for row in cluster.rows(split, count * _MOST_DRAWS, seed, "prompt", streaming=True):
        if row["prompt"] not in avoid:
            found.setdefault(row["prompt"])
        if len(found) == count:
            return Dataset.from_dict({"prompt": list(found), "task": [name] * count, "cluster": [name] * count})
    raise ValueError(
        f"cluster {name}: got {len(found)} distinct {split} prompts in {count * _MOST_DRAWS} rows, wanted {count}; "
        "lower num_rows, eval_prompts or the cluster's share, or widen the task's config"
    )


def _own_prompts(path: Path, folder: Path) -> Dataset:
    """Distinct prompts of a JSON lines file; bad lines are counted and kept in rejected_rows.jsonl."""
    if not path.is_file():
        raise ValueError(f"prompts: got {str(path)!r}, which is no file; wanted JSON lines with a `prompt` in each")
    found: list[Any] = []
    rejected: list[dict[str, Any]] = []
    for number, (line, prompt, reason) in enumerate(_read_prompts(path), start=1):
        if reason:
            rejected.append({"file": path.name, "line": number, "reason": reason, "row": line[:500]})
        else:
            found.append(prompt)
    if rejected:
        lines = "".join(json.dumps(row) + "\n" for row in rejected)
        (folder / REJECTED_ROWS).write_text(lines, encoding="utf-8")
        logger.warning("%s: %d of %d lines left out, see %s", path, len(rejected), len(found) + len(rejected), folder)
    if not found:
        first = rejected[0]["reason"] if rejected else "the file is empty"
        raise ValueError(
            f'prompts: got no usable line in {str(path)!r} ({first}); wanted lines like {{"prompt": ...}}'
        )
    return preferences.distinct_prompts(Dataset.from_dict({"prompt": found})).select_columns("prompt")


def _read_prompts(path: Path) -> Iterator[tuple[str, Any, str]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                prompt = json.loads(line)["prompt"]
            except (json.JSONDecodeError, KeyError, TypeError):
                yield line, None, "not a JSON object with a `prompt`"
                continue
            yield line, prompt, _prompt_problem(prompt)


def _prompt_problem(prompt: Any) -> str:
    if isinstance(prompt, str):
        return "" if prompt.strip() else "the prompt is empty"
    if not isinstance(prompt, list) or not prompt:
        return "the prompt is neither text nor a list of messages"
    for message in prompt:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return "a message has no role or no content"
        if not isinstance(message["content"], str) or not message["content"].strip():
            return "a message is empty"
    return ""
