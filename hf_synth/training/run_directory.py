"""Run directories: one command at a time, one config, one set of rows; numbers in metrics.json."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from huggingface_hub import try_to_load_from_cache

from hf_synth.errors import changes
from hf_synth.io import directory_lock, is_main_process, load_json, reading, write_json, write_text
from hf_synth.training.arguments import yaml_text
from hf_synth.training.checkpoints import TRAINING_LOG

RESOLVED_CONFIG = "resolved_config.yaml"
METRICS = "metrics.json"
WEIGHTS_TABLE = "prompts.parquet"
UNREAD_FIELDS = "unread_fields.json"
REJECTED_ROWS = "rejected_rows.jsonl"
TRANSFER = "transfer.json"
TRAINED_ON = "trained_on.json"
_WHAT_ROWS_SAY = ("prompt", "completion", "chosen", "rejected", "src", "cluster")
# Where a run writes, what it says while it runs, and how its values were set change nothing about its result.
FREE = {
    "recipe", "settings", "quick", "quick_args", "output_dir", "logging_dir", "run_name", "project", "report_to",
    "disable_tqdm", "local_rank", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy",
    "hub_always_push", "push_samples", "push_arms", "overwrite_card",
}  # fmt: skip
# A secret, and what the Trainer is told of uploads: nothing, whatever the user asked for.
_NOT_KEPT = {"hub_token", "push_to_hub"}
_HEAD = "# The recipe; `settings`: a config that makes the run again, without defaults; then every value.\n"


def open_run(
    output_dir: str, *arguments: Any, recipe: str | None = None, settings: Mapping[str, Any] | None = None
) -> Path:
    """Make the output directory of a run, or come back to it.

    `arguments` are the recipe's dataclasses; together they are the config, kept in resolved_config.yaml. With the
    `recipe`, its name is kept there too, and those of the `settings` (see `Parsed`) that make the same run again.
    A directory in which nothing was trained yet takes the new config.
    Raises ValueError where it holds the run of another config, naming the values that differ.
    """
    folder, before = Path(output_dir), check_run(output_dir, *arguments, settings=settings)
    config = _config(arguments)
    if before is not None and before.keys() >= config.keys() and (recipe is None or "recipe" in before):
        return folder  # else the run of an older version, which had no such field, or kept no recipe
    folder.mkdir(parents=True, exist_ok=True)
    if not is_main_process():
        return folder
    kept = {name: value for name, value in (settings or {}).items() if name in config and name not in FREE}
    head = {"recipe": recipe, "settings": kept} if recipe else {}
    text = yaml_text({**head, **dict(sorted(config.items()))})
    write_text(folder / RESOLVED_CONFIG, _HEAD + text if recipe else text)
    return folder


def check_run(output_dir: str, *arguments: Any, settings: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return what a directory keeps of its run, None where nothing was trained; nothing is written.

    Raises ValueError where it holds another config's run; of fields that its version had not, only `settings` differ.
    """
    path = Path(output_dir) / RESOLVED_CONFIG
    if not path.exists() or not ((path.parent / "warmup").exists() or _has_steps(path.parent)):
        return None
    with reading(path, "give another --output_dir, or remove that directory"):
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("it holds no config")
    config = _config(arguments)
    known = config.keys() if settings is None else config.keys() & settings.keys()
    if differing := changes(before, config, sorted((before.keys() | known) - FREE)):
        raise ValueError(
            f"output_dir {output_dir!r} holds the run of another config ({differing}); "
            "give another --output_dir, or remove that directory"
        )
    return before


@contextlib.contextmanager
def run_directory(
    output_dir: str, *arguments: Any, recipe: str | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """The directory of a run as `open_run` gives it, with other commands kept out of it meanwhile.

    A directory that holds another config's run is refused before anything is written into it.
    """
    check_run(output_dir, *arguments, settings=settings)
    with directory_lock(output_dir):
        yield open_run(output_dir, *arguments, recipe=recipe, settings=settings)


def is_finished(folder: Path) -> bool:
    """Whether a run has trained to its end and written its numbers."""
    return (folder / TRAINING_LOG).exists() and (folder / METRICS).exists()


def record_data_fingerprint(
    folder: Path, rows: Dataset, models: Sequence[tuple[str | None, str | None]] = (), code: Sequence[str] = ()
) -> None:
    """`claim` a folder for rows, as they were read or made, before any is left out for its length, and for models.

    The fingerprint is of the rows' texts, sources and clusters, in order, and of all columns where code reads them;
    `models` are paths or Hub ids with their revisions: no checkpoint holds its reference, its rewards, or what lies
    below an adapter. code: digests of rewards.
    """
    known = [(name, revision) for name, revision in models if name]
    named = {"models": [_model_fingerprint(name, revision) for name, revision in known]} if known else {}
    named |= {"code": list(code)} if code else {}
    read = rows.column_names if code else [name for name in _WHAT_ROWS_SAY if name in rows.column_names]
    digest = hashlib.sha256()
    for part in rows.select_columns(read).with_format("arrow").iter(1024):
        digest.update(json.dumps(part.to_pylist(), sort_keys=True, default=str).encode())
    claim(folder, rows=len(rows), fingerprint=digest.hexdigest()[:16], **named)


def claim(folder: Path, **trained_on: Any) -> None:
    """Keep what a run trains on in trained_on.json: the values `trained_on`, and how many processes read it.

    Raises ValueError where a run that has begun had other values, or other processes.
    """
    trained_on["processes"] = int(os.environ.get("WORLD_SIZE", "1"))
    if not _has_steps(folder):
        if is_main_process():
            write_json(folder / TRAINED_ON, trained_on)
        return
    before = read_trained_on(folder) or trained_on  # of a run that kept nothing, nothing is known
    if differing := changes(before, trained_on, [name for name in trained_on if name in before]):
        raise ValueError(
            f"output_dir {str(folder)!r} holds a run that began otherwise ({differing}): give it the data, models and "
            "number of processes that it began with, or give another --output_dir"
        )


def read_trained_on(folder: Path) -> dict[str, Any] | None:
    """What `claim` kept, or None."""
    return load_json(folder / TRAINED_ON)


def _config(arguments: Sequence[Any]) -> dict[str, Any]:
    return {name: value for part in arguments for name, value in resolved(part).items()}


def resolved(arguments: Any) -> dict[str, Any]:
    """A dataclass as plain values that YAML can hold; secrets, and whether the Trainer uploads, are left out."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments) if field.init}
    kept = {name: value for name, value in values.items() if name not in _NOT_KEPT}
    return json.loads(json.dumps(kept, default=lambda value: value.value if isinstance(value, Enum) else str(value)))


def write_metrics(folder: Path, metrics: dict[str, float]) -> None:
    """Write metrics.json: flat name -> number; what is none, such as an interval of one row, is left out.

    Only the main process writes.
    """
    if is_main_process():
        write_json(folder / METRICS, {name: metrics[name] for name in sorted(metrics) if math.isfinite(metrics[name])})


def read_metrics(folder: Path) -> dict[str, float] | None:
    """The metrics of a finished run, or None while there are none."""
    return load_json(folder / METRICS)


_WEIGHTS = re.compile(r".*\.(safetensors|gguf)|(pytorch|adapter)_model.*\.bin")  # training_args.bin names the folder


def _model_fingerprint(name: str, revision: str | None) -> str:
    """Return a digest of a checkpoint's weights; of one on the Hub its commit."""
    files = sorted(path for path in Path(name).glob("*") if _WEIGHTS.fullmatch(path.name))
    if not files:
        config = try_to_load_from_cache(name, "config.json", revision=revision or "main")
        return Path(config).parent.name if isinstance(config, str) else ""
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _has_steps(folder: Path) -> bool:
    return (folder / TRAINING_LOG).exists() or any(folder.glob("checkpoint-*"))
