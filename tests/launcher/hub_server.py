"""A local HTTP server that speaks the Hub's protocol, with its failures on order."""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote

from huggingface_hub import constants, file_download

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    token: str | None = None  # only this one may read
    claimed_sizes: dict[str, int] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.hub.requests.append(f"{self.command} {path}")
        if token := self.headers.get("authorization"):
            self.server.hub.tokens.add(token.removeprefix("Bearer "))
        if self.server.hub.statuses:
            self._json(self.server.hub.statuses.pop(0), {"error": "ordered by the test"})
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        else:
            self._resolve(path.lstrip("/"), body=body)

    def _repository(self, name: str) -> Repository | None:
        repository = self.server.hub.repositories.get(name)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if repository is None or (
            repository.token and not repository.gated and token != repository.token
        ):
            self._json(401, {"error": "Repository not found"}, "RepoNotFound")
            return None
        return repository

    def _may_read(self, repository: Repository) -> bool:
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if repository.gated and token != repository.token:
            self._json(403 if token else 401, {"error": "gated"}, "GatedRepo")
            return False
        return True

    def _info(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        if (repository := self._repository(name)) is None:
            return
        if revision not in ("", "main", "v1", repository.commit):
            self._json(404, {"error": "Invalid rev id"}, "RevisionNotFound")
            return
        siblings = [
            {"rfilename": file, "size": repository.claimed_sizes.get(file, len(content))}
            for file, content in repository.files.items()
        ]
        self._json(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": repository.commit,
                "siblings": siblings,
                "tags": [],
                "private": False,
            },
        )

    def _resolve(self, path: str, *, body: bool) -> None:
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self._repository(name)
        if repository is None or not self._may_read(repository):
            return
        if file not in repository.files or revision not in ("main", repository.commit):
            self._json(404, {"error": "Entry not found"}, "EntryNotFound")
            return
        self._file(repository, file, body=body)

    def _file(self, repository: Repository, file: str, *, body: bool) -> None:
        content = repository.files[file]
        start = 0
        if wanted := self.headers.get("range"):
            self.server.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if self.server.hub.cut[file] > 0:
            self.server.hub.cut[file] -= 1
            half = start + max(1, (len(content) - start) // 2)
            self.wfile.write(content[start:half])
            self.wfile.flush()
            self.close_connection = True
            return
        half = start + (len(content) - start) // 2
        self.wfile.write(content[start:half])
        if file in self.server.hub.stalled:
            self.server.hub.released.wait(60)
        self.wfile.write(content[half:])

    def _json(self, status: int, document: dict, code: str | None = None) -> None:
        encoded = json.dumps(document).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", document["error"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)


class HubServer:
    """`repositories` by id. `cut` counts down: so many more GETs end mid-file.

    `statuses` are the next answers. `stalled` files stop halfway until `released` is set. `ranges`
    are the Range headers seen.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.cut: Counter[str] = Counter()
        self.statuses: list[int] = []
        self.stalled: set[str] = set()
        self.released = threading.Event()
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.tokens: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def gets(self, file: str) -> int:
        return sum(1 for line in self.requests if line.startswith("GET") and line.endswith(file))


def ask_here(monkeypatch, server: HubServer) -> None:
    """Has the Hub's library in this process ask `server`."""
    # The client reads HF_ENDPOINT and its like once, when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)


@contextlib.contextmanager
def hub_here(monkeypatch, name: str, files: dict[str, bytes]) -> Iterator[HubServer]:
    """A Hub with one repository, which this process asks."""
    with HubServer() as server:
        server.repositories[name] = Repository(files=dict(files))
        ask_here(monkeypatch, server)
        yield server
