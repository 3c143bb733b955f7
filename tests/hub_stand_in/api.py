"""What clients ask of the Hub, as huggingface_hub asks it with Xet switched off.

Regular files travel inside a commit; large ones (LFS) are put first, and the commit names them. An address that is not
served is refused with 501, so that a client which needs more fails where it asks.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .repositories import Blob, Refused, Repository, change, is_large

KINDS = {"models": "model", "datasets": "dataset"}
TOKEN, USER = "hf_stand_in", "user"

Response = tuple[int, dict[str, str], bytes]


@dataclass
class Api:
    """Repositories by (type, id) and LFS objects by SHA-256, and the answers to requests about them."""

    url: str
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """The response to one request: status, headers, content."""
        try:
            return self.route(method, target, headers, body)
        except Refused as refused:
            return as_json({"error": refused.message}, refused.status, refused.headers)

    def route(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Find who answers."""
        address = urlsplit(target)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN):
            raise Refused(401, "Invalid credentials in Authorization header")
        if not token and (method in ("POST", "DELETE") or "whoami-v2" in parts) and "validate-yaml" not in parts:
            raise Refused(401, "Invalid username or password.")
        match [method, *parts]:
            case ["GET", "api", "whoami-v2"]:
                role = {"accessToken": {"role": "write", "displayName": "stand-in"}}
                return as_json({"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": role})
            case ["POST", "api", "validate-yaml"]:
                return as_json({"errors": [], "warnings": []})
            case ["POST", "api", "repos", "create"]:
                return self.create(json.loads(body))
            case ["DELETE", "api", "repos", "delete"]:
                repository = self.find(*named(json.loads(body)), token)
                return as_json({"deleted": self.repositories.pop((repository.type, repository.id)).id})
            case [_, "api", "models" | "datasets" as kind, name]:
                self.find(KINDS[kind], name, token)
            case [_, "api", "models" | "datasets" as kind, owner, name, *rest]:
                repository = self.find(KINDS[kind], f"{owner}/{name}", token)
                return self.about(method, repository, rest, parse_qs(address.query), body)
            case ["PUT", "lfs", oid]:
                return self.put_object(oid, body)
            case ["POST", "lfs", oid, "verify"] if len(self.objects.get(oid, b"")) == json.loads(body)["size"]:
                return as_json({})
            case ["POST", "datasets", owner, name, "info", "lfs", "objects", "batch"]:
                return self.offer(self.find("dataset", f"{owner}/{name.removesuffix('.git')}", token), body)
            case ["POST", owner, name, "info", "lfs", "objects", "batch"]:
                return self.offer(self.find("model", f"{owner}/{name.removesuffix('.git')}", token), body)
            case ["GET" | "HEAD", "datasets", owner, name, "resolve", revision, *path]:
                return resolve(self.find("dataset", f"{owner}/{name}", token), revision, "/".join(path), headers)
            case ["GET" | "HEAD", owner, name, "resolve", revision, *path]:
                return resolve(self.find("model", f"{owner}/{name}", token), revision, "/".join(path), headers)
        raise Refused(501, f"The stand-in does not serve {method} {target}")

    def find(self, repo_type: str, repo_id: str, token: str) -> Repository:
        """The repository that a client names, if it exists and the client may see it."""
        repository = self.repositories.get((repo_type, repo_id))
        if repository is None or (repository.private and not token):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return repository

    def address(self, repo_type: str, repo_id: str) -> str:
        """The page of a repository."""
        return f"{self.url}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"

    def create(self, wanted: dict[str, Any]) -> Response:
        """Make a repository, or say that there is one already."""
        repo_type, repo_id = named(wanted)
        if repo_id.split("/")[0] != USER:
            raise Refused(403, f"You don't have the rights to create a {repo_type} under this namespace")
        answer = {"url": self.address(repo_type, repo_id), "name": repo_id}
        if (repo_type, repo_id) in self.repositories:
            return as_json(answer | {"error": f"You already created this {repo_type} repo"}, 409)
        private = wanted.get("visibility") == "private"
        self.repositories[repo_type, repo_id] = Repository(repo_id, repo_type, private)
        return as_json(answer | {"private": private})

    def about(
        self, method: str, repository: Repository, rest: list[str], query: dict[str, list[str]], body: bytes
    ) -> Response:
        """What is asked of one repository."""
        if "create_pr" in query:
            raise Refused(501, "The stand-in has no pull requests")
        match [method, *rest]:
            case ["GET"]:
                return as_json(repository.described("main"))
            case ["GET", "revision", revision]:
                return as_json(repository.described(revision))
            case ["GET", "tree", revision, *folder]:
                recursive = query.get("recursive") in (["true"], ["True"])
                return as_json(repository.tree(revision, "/".join(folder), recursive))
            case ["POST", "paths-info", revision]:
                entries = {entry["path"]: entry for entry in repository.tree(revision)}
                paths = parse_qs(body.decode()).get("paths", [])
                return as_json([entries[path] for path in paths if path in entries])
            case ["POST", "preupload", revision]:
                files = repository.at(revision).files
                return as_json({"files": [upload_mode(file, files) for file in json.loads(body)["files"]]})
            case ["POST", "commit", branch]:
                return self.commit(repository, branch, [json.loads(line) for line in body.splitlines()])
            case ["GET", "commits", revision]:
                return as_json([listed(commit.__dict__) for commit in repository.history(revision)])
            case ["GET", "refs"]:
                return as_json(repository.references())
            case ["POST", "branch", name]:
                start = repository.at(json.loads(body).get("startingPoint") or "main").id
                return name_commit(repository.branches, name, start)
            case ["POST", "tag", revision]:
                return name_commit(repository.tags, json.loads(body)["tag"], repository.at(revision).id)
            case ["DELETE", "branch" | "tag" as what, name]:
                if (repository.branches if what == "branch" else repository.tags).pop(name, None) is None:
                    raise Refused(404, f"There is no {what} {name}", "RevisionNotFound")
                return as_json({})
        raise Refused(501, f"The stand-in does not serve {method} {'/'.join(rest)} of a repository")

    def commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> Response:
        """Carry out a commit, all of it or nothing."""
        if branch not in repository.branches:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header, before = lines[0]["value"], repository.at(branch)
        if header.get("parentCommit", before.id) != before.id:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(before.files)
        for line in lines[1:]:
            change(files, self.objects, line["key"], line["value"])
        made = repository.commit(branch, header["summary"], files)
        url = f"{self.address(repository.type, repository.id)}/commit/{made.id}"
        return as_json({"success": True, "commitOid": made.id, "commitUrl": url})

    def offer(self, repository: Repository, body: bytes) -> Response:
        """How a client may upload LFS objects: not at all where they are here already."""
        offers = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(body)["objects"]]
        for offered in offers:
            if offered["oid"] not in self.objects:
                href = f"{self.url}/lfs/{offered['oid']}"
                offered["actions"] = {"upload": {"href": href}, "verify": {"href": href + "/verify"}}
        return as_json({"transfer": "basic", "objects": offers})

    def put_object(self, oid: str, body: bytes) -> Response:
        """Keep an LFS object whose content has the name it came under."""
        if sha256(body).hexdigest() != oid:
            raise Refused(400, f"The content of {oid} has another SHA-256")
        self.objects[oid] = body
        return as_json({})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


def named(wanted: dict[str, Any]) -> tuple[str, str]:
    """The type and the full name of a repository that a client wants made or deleted."""
    return wanted.get("type") or "model", f"{wanted.get('organization') or USER}/{wanted['name']}"


def listed(commit: dict[str, Any]) -> dict[str, Any]:
    """A commit as the Hub lists it."""
    return {key: commit[key] for key in ("id", "title", "date")} | {"message": "", "authors": [{"user": USER}]}


def upload_mode(file: dict[str, Any], files: dict[str, Blob]) -> dict[str, Any]:
    """How a file is to be uploaded, and the name of what is there under its path."""
    path = file["path"]
    mode = "lfs" if is_large(path, file["size"], base64.b64decode(file["sample"])) else "regular"
    oid = files[path].etag if path in files else None
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def name_commit(names: dict[str, str], name: str, commit: str) -> Response:
    """Let a branch or a tag name a commit, unless the name is taken."""
    if name in names:
        raise Refused(409, f"Reference already exists: {name}")
    names[name] = commit
    return as_json({})


def resolve(repository: Repository, revision: str, path: str, headers: Mapping[str, str]) -> Response:
    """The content of a file, or the range of it that is asked for."""
    commit = repository.at(revision)
    if path not in commit.files:
        raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.id})
    content, etag = commit.files[path].content, commit.files[path].etag
    about = {"X-Repo-Commit": commit.id, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    if "Range" not in headers:
        return 200, about, content
    first, last = headers["Range"].removeprefix("bytes=").split("-")
    start = int(first) if first else max(len(content) - int(last), 0)
    end = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= end:
        return 416, about | {"Content-Range": f"bytes */{len(content)}"}, b""
    return 206, about | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}, content[start:end]
