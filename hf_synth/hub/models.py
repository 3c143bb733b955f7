"""A finished run as a model repository on the Hub: model, tokenizer, card, report and numbers, and nothing else."""

import fnmatch
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import yaml
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

from hf_synth.hub.model_cards import model_card
from hf_synth.hub.model_metadata import without_paths
from hf_synth.training.run_directory import METRICS, RESOLVED_CONFIG

CARD, REPORT = "README.md", "report.md"
# What from_pretrained reads. No optimizer, no training_args.bin: that is a pickle, and has paths and perhaps a token.
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "modeling_*.py", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja",
)  # fmt: skip
_NUMBERS = (METRICS, "dynamics.csv")


def push_run(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> str:
    """Push a finished run of recipes/pretrain.py in one commit; returns the commit's address.

    Raises ValueError where the folder holds no such run, and what huggingface_hub raises where the Hub refuses.
    """
    folder, api = Path(folder), HfApi(token=token)
    model_card(folder)  # a folder without a run shall make no repository
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision:
        api.create_branch(repo, branch=revision, exist_ok=True)
    texts = {CARD: model_card(folder, repo), **_report(folder)}
    files = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in run_files(folder)]
    files += [CommitOperationAdd(name, text.encode()) for name, text in texts.items()]
    return str(api.create_commit(repo, files, commit_message="Model, card and report", revision=revision).commit_url)


def push_checkpoint(
    folder: Path, repo_id: str, step: int, *, token: str | None = None, revision: str | None = None
) -> "Future[CommitInfo]":
    """Push the model and the tokenizer of a checkpoint while training goes on; what goes wrong stays in the result."""
    return HfApi(token=token).upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=list(MODEL_FILES),
        commit_message=f"Training in progress, step {step}",
        revision=revision,
        run_as_future=True,
    )


def run_files(folder: Path) -> Iterator[Path]:
    """The files of a run that go to the Hub as they are."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in (*MODEL_FILES, *_NUMBERS)):
            yield path
    yield from sorted((folder / "figures").glob("*.png"))


def _report(folder: Path) -> dict[str, str]:
    path = folder / REPORT
    if not path.exists():
        return {}
    config = yaml.safe_load((folder / RESOLVED_CONFIG).read_text(encoding="utf-8"))
    return {REPORT: without_paths(path.read_text(encoding="utf-8"), config)}
