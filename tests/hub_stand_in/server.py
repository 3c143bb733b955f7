"""The stand-in as a test sees it: started, filled, made to fail, read."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import Popen

from .api import KINDS, TOKEN, Api, as_json
from .repositories import Blob, Commit, Repository, is_large


@dataclass
class Request:
    """One line of the log; `sent` bytes of content left here. Status 0: the connection was cut without an answer."""

    method: str
    path: str
    status: int
    range: str
    sent: int = 0


@dataclass
class Failure:
    """Requests that are to go wrong: which, how, how often, after how many that do not."""

    method: str
    path: str
    status: int
    times: int
    after: int
    done: bool
    kill: bool = False

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is to go wrong; counts it."""
        if method != self.method or self.path not in path or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class HubStandIn:
    """A Hub on a port of this machine, 0 for a free one. `url` is its endpoint; `token` may write, as "user"."""

    token = TOKEN

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.clients: list[Popen[str]] = []
        self.failures: list[Failure] = []
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        os.register_at_fork(after_in_child=self.server.socket.close)  # a fork may outlive this Hub, not keep its port
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.api = Api(self.url)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "HubStandIn":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        for connection in self.connections:  # or clients would keep them, and ask this Hub when they mean the next
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def repository(self, repo_id: str, repo_type: str | None = None) -> Repository:
        """The repository of this name; `repo_type` is needed only where a model and a dataset share it."""
        types = [repo_type] if repo_type else KINDS.values()
        result = [self.api.repositories[kind, repo_id] for kind in types if (kind, repo_id) in self.api.repositories]
        if len(result) != 1:
            there = sorted(self.api.repositories)
            raise ValueError(f"{repo_id}: {len(result)} repositories, wanted 1; there are {there}")
        return result[0]

    def files(self, repo_id: str, revision: str = "main", repo_type: str | None = None) -> dict[str, bytes]:
        """Every file of a repository at a revision; LFS files with their content."""
        commit = self.repository(repo_id, repo_type).at(revision)
        return {path: blob.content for path, blob in sorted(commit.files.items())}

    def commits(self, repo_id: str, revision: str = "main", repo_type: str | None = None) -> list[Commit]:
        """Commits from a revision back to the first, newest first."""
        return self.repository(repo_id, repo_type).history(revision)

    def seen(self, method: str = "", path: str = "", status: int | None = None) -> list[Request]:
        """Requests of the log of this method, with this part in their address, with this status."""
        return [
            request
            for request in self.requests
            if method in ("", request.method) and path in request.path and status in (None, request.status)
        ]

    def put(self, repo_id: str, files: Mapping[str, bytes | str], repo_type: str = "dataset") -> str:
        """Commit files without a client, in a repository that is made if need be; returns the commit's id."""
        with self.lock:
            key = (repo_type, repo_id)
            repository = self.api.repositories.setdefault(key, Repository(repo_id, repo_type))
            tree = dict(repository.at("main").files)
            for path, content in files.items():
                content = content.encode() if isinstance(content, str) else content
                tree[path] = Blob(content, is_large(path, len(content), content[:512]))
            return repository.commit("main", "put", tree).id

    def fail_next(
        self, method: str, *, path: str = "", status: int = 500, times: int = 1, after: int = 0, done: bool = False
    ) -> None:
        """Let `after` requests of this method with `path` in their address pass, then answer `times` with `status`.

        Status 0 cuts the connection. Clients try an LFS upload again by themselves, up to five times, after a cut and
        after 408, 429 and 5xx; 403 is final. With `done` the request is carried out and only its answer lost.
        """
        self.failures.append(Failure(method, path, status, times, after, done))

    def kill_next(self, method: str, *, path: str = "", after: int = 0, done: bool = False) -> None:
        """Let `after` such requests pass, then kill the client processes (SIGKILL) in the middle of the next."""
        self.failures.append(Failure(method, path, 0, 1, after, done, kill=True))

    def kill_clients(self) -> None:
        """Kill every client that is still running, with the processes that it started."""
        for client in self.clients:
            if client.poll() is None:
                os.killpg(client.pid, signal.SIGKILL)


class _Handler(BaseHTTPRequestHandler):
    """HTTP around Api.answer: bodies, the log, arranged failures."""

    hub: HubStandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Note the connection."""
        super().setup()
        self.hub.connections.append(self.connection)

    def serve(self) -> None:
        """Answer one request."""
        body = self.body()
        with self.hub.lock:
            failure = next((failure for failure in self.hub.failures if failure.meets(self.command, self.path)), None)
            if failure and failure.kill:
                self.hub.kill_clients()
            if failure is None or failure.done:
                response = self.hub.api.answer(self.command, self.path, self.headers, body)
            if failure:
                response = as_json({"error": "arranged failure"}, failure.status)
            request = Request(self.command, self.path, response[0], self.headers.get("Range", ""))
            self.hub.requests.append(request)
        self.reply(request, response[1], response[2])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

    def reply(self, request: Request, headers: dict[str, str], content: bytes) -> None:
        """Send a response in pieces: streams that have seen enough hang up."""
        if request.status == 0:
            self.close_connection = True
            return
        try:
            self.send_response(request.status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, 0 if self.command == "HEAD" else len(content), 2**16):
                request.sent += self.wfile.write(content[start : start + 2**16])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def body(self) -> bytes:
        """The body, of known length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen: the log is `hub.requests`."""
