"""Tokenizers beside published data: of each config's words, with the ids of its rows, and of all words together."""

import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd

from hf_synth.hub.repository import CARD, TAG, Repository
from hf_synth.tasks.base import SPECIAL_TOKENS
from hf_synth.tokenization import word_tokenizer

TOKENIZER = "tokenizer.json"
_MARK = "# Tokenizer of the dataset [{0}](https://huggingface.co/datasets/{0})\n"


def tokenizer_files(manifests: Mapping[str, Mapping[str, Any]], there: str) -> dict[str, bytes]:
    """The files by path: a tokenizer in the folder of each task's config, and at the top one of all their words.

    there: the tokenizer.json of before, whose words keep their ids. Raises ValueError for one of others.
    """
    facts = {f"{name}/": manifest.get("facts", {}) for name, manifest in manifests.items()}
    words = {folder: each["words"] for folder, each in facts.items() if "words" in each}
    try:
        before = [*json.loads(there)["model"]["vocab"]] if there else [*SPECIAL_TOKENS]
    except (ValueError, TypeError, KeyError):
        before = []
    if before[: len(SPECIAL_TOKENS)] != [*SPECIAL_TOKENS]:
        raise ValueError(f"got a {TOKENIZER} that hf_synth did not write, wanted none or its own; remove it")
    files: dict[str, bytes] = {}
    for folder, known in {"": [*before, *itertools.chain(*words.values())], **words}.items() if words else ():
        with tempfile.TemporaryDirectory() as temporary:
            word_tokenizer(known).save_pretrained(temporary)
            files |= {f"{folder}{path.name}": path.read_bytes() for path in Path(temporary).iterdir()}
    return files


def open_tokenizer(repo_id: str, private: bool) -> Repository | None:
    """The model repository of a dataset's name, where AutoTokenizer looks; None where it holds anything else."""
    repository = Repository(repo_id, "model")
    repository.flag = "repo_id"
    repository.open(private, overwrite_card=True)
    files = repository.files().keys() - {".gitattributes"}
    if not files or _MARK.format(repo_id) in repository.text(CARD, files):
        return repository
    print(f"{repo_id} is also a model, whose tokenizer stays: the tokenizer of the data lies beside the data alone")
    return None


def send(files: Mapping[str, bytes], repository: Repository) -> None:
    """Upload the files with a card."""
    card = f"---\nlicense: apache-2.0\ntags: [{TAG}]\n---\n\n{_MARK.format(repository.id)}"
    added = [CommitOperationAdd(path, content) for path, content in {**files, CARD: card.encode()}.items()]
    repository.commit(lambda: added, lambda: "Tokenizer of the dataset of this name")
