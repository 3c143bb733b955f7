"""What the Hub holds: files, commits that each hold a whole tree, repositories."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha1, sha256
from typing import Any

LARGE = 10 * 2**20  # bytes: larger files are LFS whatever their names
LFS_SUFFIXES = (".parquet", ".safetensors", ".arrow", ".bin", ".npy", ".npz", ".pt", ".tar", ".gz", ".zip", ".zst")


class Refused(Exception):  # noqa: N818
    """What the Hub turns down: a status, words, the code that clients turn into exceptions, more headers."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": ascii(message)[1:-1]} | ({"X-Error-Code": code} if code else {}) | headers


@dataclass(frozen=True)
class Blob:
    """The content of one file and the names that git and LFS have for it."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The name of the content among LFS objects."""
        return sha256(self.content).hexdigest()

    @cached_property
    def stored(self) -> bytes:
        """What git itself holds: the content, or the LFS pointer to it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return pointer.encode() if self.lfs else self.content

    @cached_property
    def oid(self) -> str:
        """The name of the blob in git."""
        return sha1(b"blob %d\0" % len(self.stored) + self.stored).hexdigest()

    @property
    def etag(self) -> str:
        """What a client compares with its cache, and with a local file before an upload."""
        return self.sha256 if self.lfs else self.oid

    def described(self, path: str) -> dict[str, Any]:
        """The entry of the file in a tree."""
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.stored)}
        return entry


@dataclass(frozen=True)
class Commit:
    """One state of a repository: its id, its parent's ("" for the first), its title, and its files by path."""

    id: str
    parent: str
    title: str
    files: dict[str, Blob]
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


class Repository:
    """Commits by id, and the branches and tags that name some of them; it starts with the Hub's own first commit."""

    def __init__(self, repo_id: str, repo_type: str, private: bool = False) -> None:
        self.id, self.type, self.private = repo_id, repo_type, private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.commit("main", "initial commit", {".gitattributes": Blob(rules.encode())})

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a commit id names."""
        named = self.branches.get(revision) or self.tags.get(revision) or revision
        if named not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[named]

    def history(self, revision: str) -> list[Commit]:
        """Commits from a revision back to the first, newest first."""
        result = [self.at(revision)]
        while result[-1].parent:
            result.append(self.commits[result[-1].parent])
        return result

    def commit(self, branch: str, title: str, files: dict[str, Blob]) -> Commit:
        """Put a new tree on top of a branch."""
        parent = self.branches.get(branch, "")
        tree = sorted((path, blob.oid) for path, blob in files.items())
        name = sha1(json.dumps([self.type, self.id, parent, title, tree]).encode()).hexdigest()
        self.commits[name] = Commit(name, parent, title, files)
        self.branches[branch] = name
        return self.commits[name]

    def described(self, revision: str) -> dict[str, Any]:
        """What the Hub says about a repository at a revision."""
        commit = self.at(revision)
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(commit.files.items()):
            entry = {"rfilename": path, "size": len(blob.content), "blobId": blob.oid}
            lfs = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.stored)}
            siblings.append(entry | ({"lfs": lfs} if blob.lfs else {}))
        about = {"id": self.id, "author": self.id.split("/")[0], "sha": commit.id, "lastModified": commit.date}
        return about | {"private": self.private, "gated": False, "disabled": False, "tags": [], "siblings": siblings}

    def tree(self, revision: str, folder: str = "", recursive: bool = True) -> list[dict[str, Any]]:
        """The entries of folders and files under a folder ("" is the root)."""
        prefix = folder + "/" if folder else ""
        inside = {path: blob for path, blob in sorted(self.at(revision).files.items()) if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in inside.items():
            folders = path[len(prefix) :].split("/")[:-1]
            for depth in range(1, 1 + (len(folders) if recursive else min(len(folders), 1))):
                name = prefix + "/".join(folders[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": sha1(name.encode()).hexdigest(), "size": 0}
            if recursive or not folders:
                entries[path] = blob.described(path)
        return list(entries.values())

    def references(self) -> dict[str, Any]:
        """Branches and tags as the Hub lists them."""
        listed = {
            key: [{"name": name, "ref": f"refs/{git}/{name}", "targetCommit": at} for name, at in result.items()]
            for key, git, result in (("branches", "heads", self.branches), ("tags", "tags", self.tags))
        }
        return listed | {"converts": [], "pullRequests": []}


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub would take a file as LFS: by its name, its size, or because it is no text."""
    return path.endswith(LFS_SUFFIXES) or size > LARGE or b"\0" in sample


def change(files: dict[str, Blob], objects: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
    """Apply one line of a commit to a tree; `objects` are the LFS objects that have been uploaded, by SHA-256."""
    path = value["path"]
    folder = path.rstrip("/") + "/"
    match key:
        case "file":
            files[path] = Blob(base64.b64decode(value["content"]))
        case "lfsFile" if value["oid"] in objects:
            files[path] = Blob(objects[value["oid"]], lfs=True)
        case "lfsFile":
            raise Refused(400, f"{path}: the LFS object {value['oid']} was never uploaded")
        case "deletedFile" if path in files:
            del files[path]
        case "deletedFolder" if any(file.startswith(folder) for file in files):
            for file in [file for file in files if file.startswith(folder)]:
                del files[file]
        case "deletedFile" | "deletedFolder":
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        case _:
            raise Refused(501, f"The stand-in knows no {key} in a commit")
