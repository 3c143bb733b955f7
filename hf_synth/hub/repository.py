"""A repository on the Hub, and the one way to write into it: commits that are tried again, errors in one line.

Of datasets only what is not there yet is sent, a few shards a commit, the card last. What was measured on a config is
its manifest, CONFIG/published.json: cards are made of manifests, so that configs of different times end up in one.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from hf_synth.tasks import Task

CARD = "README.md"
_SHOWN_WORDS = 48  # of a row in a card
MANIFEST = "published.json"
TAG = "hf_synth"  # by which the Hub finds what this package made, and this package its own cards
_PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
_SHARDS_A_COMMIT = 16
_PAUSES = (1, 2, 4, 8, 16, 32)  # seconds; one commit at a time is taken of a repository
_PASSING = {None, 408, 409, 412, 429, 500, 502, 503, 504}  # None: the connection broke before an answer came

Operation = CommitOperationAdd | CommitOperationDelete
Others = Callable[[Mapping[str, Any], Callable[[str], str]], Mapping[str, bytes]]  # files of manifests, and of texts


class Repository:
    """A repository; its methods raise ValueError with one line for whatever the Hub refuses."""

    def __init__(
        self, repo_id: str, repo_type: str = "dataset", *, token: str | None = None, revision: str | None = None
    ) -> None:
        """Ask nothing of the Hub yet. `repo_id`: user/name; `revision`: the branch that is written to."""
        validate_repo_id(repo_id)
        self.flag = {"dataset": "repo_id", "model": "hub_model_id"}[repo_type]  # what an error calls the name
        self.id, self._type, self._revision, self._api = repo_id, repo_type, revision, HfApi(token=token)
        self._seen = revision  # what is read: the branch, or the one commit that another will be put upon

    def open(self, private: bool | None, overwrite_card: bool = False) -> str:
        """Make the repository where there is none and return its URL; the Hub adds the user to a name without one.

        Raises ValueError where the card is of others, unless its text is to be replaced.
        """
        with self._errors():
            url = self._api.create_repo(self.id, repo_type=self._type, private=private, exist_ok=True)
            self.id = url.repo_id
            if self._revision:
                self._api.create_branch(self.id, repo_type=self._type, branch=self._revision, exist_ok=True)
            refuse_card(self.text(CARD), f"{self.flag}: {self.id}", overwrite_card)
            return str(url)

    def files(self) -> dict[str, tuple[int, str | None]]:
        """Size in bytes and SHA-256 (None for small files) of every file by its path."""
        with self._errors():
            tree = self._api.list_repo_tree(self.id, repo_type=self._type, revision=self._seen, recursive=True)
            files = (entry for entry in tree if isinstance(entry, RepoFile))
            return {entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else None) for entry in files}

    def send_shards(self, folder: Path, shards: Mapping[str, tuple[int, str]]) -> int:
        """Upload what lies in the folder under these paths, unless the Hub has it in this size and SHA-256 already.

        Returns how many were sent.
        """
        there = self.files()
        missing = [path for path, content in shards.items() if there.get(path) != content]
        for first in range(0, len(missing), _SHARDS_A_COMMIT):
            batch = missing[first : first + _SHARDS_A_COMMIT]
            self.commit(
                lambda batch=batch: [CommitOperationAdd(path, folder / path) for path in batch],  # type: ignore[misc]
                lambda batch=batch: f"{batch[0]} and {len(batch) - 1} more" if batch[1:] else batch[0],  # type: ignore[misc]
            )
        return len(missing)

    def finish(self, manifests: Mapping[str, dict[str, Any]], others: "Others") -> None:
        """Check that every shard is there, then commit the manifests and the card, and remove shards of before.

        `others` makes the card and its like from the manifests of all configs, those published earlier included, and
        from what is there: on top of one commit, and again where another one came in between.
        """
        shards, known = sent_shards(manifests), dict(manifests)

        def operations() -> list[Operation]:
            there = self.files()
            if missing := [path for path, content in shards.items() if there.get(path) != content]:
                raise ValueError(f"repo_id: {self.id} lacks {len(missing)} shards, such as {missing[0]}; start again")
            paths = {path.split("/")[0]: path for path in there if re.fullmatch(rf"[^/]+/{MANIFEST}", path)}
            earlier = {name: as_manifest(self.text(path, there), name) for name, path in paths.items()}
            known.update({name: one for name, one in earlier.items() if one and name not in manifests})
            files = {f"{name}/{MANIFEST}": manifest_text(manifest).encode() for name, manifest in manifests.items()}
            files |= others(known, lambda path: self.text(path, there))
            ours = (path for path in there if path.endswith(".parquet") and path.split("/")[0] in manifests)
            added = [CommitOperationAdd(path, content) for path, content in files.items()]
            return [*added, *(CommitOperationDelete(path) for path in ours if path not in shards)]

        self.commit(operations, lambda: f"Card of {len(known)} configs", alone=True)

    def text(self, path: str, there: Container[str] | None = None) -> str:
        """The text of a file; empty where it is not `there`, among the repository's files."""
        if path not in (self.files() if there is None else there):
            return ""
        with self._errors():
            base = f"{self._api.endpoint}/{'datasets/' * (self._type == 'dataset')}{self.id}/resolve"
            url = f"{base}/{quote(self._seen or 'main', safe='')}/{quote(path)}"
            answer = get_session().get(url, headers=build_hf_headers(token=self._api.token), follow_redirects=True)
            hf_raise_for_status(answer)
            return answer.content.decode("utf-8", "replace")

    def commit(
        self, operations: Callable[[], Iterable[Operation]], message: Callable[[], str], *, alone: bool = False
    ) -> str:
        """Commit and return the address; again after a pause where another process was faster, or the Hub is busy.

        `alone`: only on top of the commit that `operations` looked at.
        """
        with self._errors():
            pauses = iter(_PAUSES)
            while True:
                try:
                    if alone:
                        info = self._api.repo_info(self.id, repo_type=self._type, revision=self._revision)
                        self._seen = info.sha
                    made = self._api.create_commit(
                        self.id,
                        operations(),
                        commit_message=message(),
                        repo_type=self._type,
                        revision=self._revision,
                        parent_commit=self._seen if alone else None,
                    )
                    return str(made.commit_url)
                except (HTTPError, RuntimeError) as error:
                    # An upload's own error comes as the cause of another.
                    refused = error if isinstance(error, HTTPError) else error.__cause__
                    status = getattr(getattr(refused, "response", None), "status_code", None)
                    pause = next(pauses, None)
                    if pause is None or not isinstance(refused, HTTPError) or status not in _PASSING:
                        raise
                time.sleep(pause)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (HTTPError, RuntimeError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
            if isinstance(error, RuntimeError) and not isinstance(error.__cause__, HTTPError):
                raise
            refused = error.__cause__ if isinstance(error, RuntimeError) else ""  # an HTTPError has its cause's words
            said = " ".join(f"{error} {refused}".split())
            raise ValueError(
                f"{self.flag}: the Hub did not take {self.id}: {said} (what is made, or sent, is kept; "
                "HF_TOKEN or `hf auth login` says who you are)"
            ) from error


def prose(text: str) -> str:
    """A text of this package as the Markdown of a card: `<` outside of backticks is shown, a paper has its link.

    The Hub lists a card under the papers that it links to.
    """
    parts = text.split("`")
    parts[::2] = [_PAPER.sub(r"[\g<0>](https://arxiv.org/abs/\1)", part.replace("<", "&lt;")) for part in parts[::2]]
    return "`".join(parts)


def example(task: Task, split: str, seed: int) -> dict[str, str]:
    """The first row of a split in words: what stands before the tokens that carry loss, and the rest."""
    from hf_synth.tokenization import all_words

    rows = task.rows(0, 1, split=split, seed=seed)
    text = [all_words(task)[token] for token in rows.tokens[0, : rows.lengths[0]]]
    cut = rows.loss_start[0]
    return {"input": " ".join(text[:cut]), "target": " ".join(text[cut:])}


def lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    """A line for each part of a row: words or ids, of many the first."""
    for name, value in row.items():
        items = value if isinstance(value, list) else str(value).split()
        more = f" ... {len(items) - _SHOWN_WORDS:,} more" if len(items) > _SHOWN_WORDS else ""
        yield f"{name + ':':11} {' '.join(map(str, items[:_SHOWN_WORDS]))}{more}"


def text_in(folder: Path, name: str) -> str:
    """The text of a file that lies in a folder; empty where there is none."""
    path = folder / name
    return path.read_text("utf-8", "replace") if path.exists() else ""


def refuse_card(card: str, where: str, overwrite_card: bool) -> None:
    """Raise ValueError for a card of others, unless its text is to be replaced."""
    if not (overwrite_card or is_ours(card)):
        raise ValueError(
            f"{where} has a {CARD} that was not written by hf_synth; give another name, or --overwrite_card to "
            "replace its text"
        )


def is_ours(card: str) -> bool:
    """Whether a README.md is a card of this package, or has no text that could be lost."""
    data = card_metadata(card)
    if data is None:
        return not card.strip()
    return not card.split("---\n", 2)[2].strip() or TAG in (data.get("tags") or [])


def card_metadata(card: str) -> dict[str, Any] | None:
    """The YAML on top of a card; None where there is none that can be read."""
    parts = card.split("---\n", 2)
    try:
        data = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None


def sent_shards(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every shard of the manifests by its path."""
    splits = (split for manifest in manifests.values() for split in manifest["splits"].values())
    return {shard["path"]: (shard["size"], shard["sha256"]) for split in splits for shard in split["shards"]}


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as JSON, in the order of its keys: splits and columns keep theirs."""
    return json.dumps(manifest, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_manifest(text: str, name: str) -> dict[str, Any] | None:
    """The manifest of a config of this name; None for a file of this name that is of others."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("name") == name and "splits" in content else None


def read_manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests that lie in a folder, by config."""
    texts = {path.parent.name: path.read_text("utf-8", "replace") for path in sorted(folder.glob(f"*/{MANIFEST}"))}
    return {name: one for name, text in texts.items() if (one := as_manifest(text, name))}
