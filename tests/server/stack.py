"""A server process and echo workers over real sockets, with the test in the launcher's place."""

import contextlib
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
from backplane_core.backend import AdapterSource, EngineSettings, ModelSource, RunnerSpec
from backplane_core.control import (
    FromChild,
    Join,
    ServerLaunch,
    ServerUp,
    WorkerDown,
    WorkerLaunch,
    WorkerUp,
)
from backplane_core.testing.blocking_channel import BlockingChannel

START_TIMEOUT_S = 30.0
# How long a test waits for what is not about time, on a machine that is busy with other things.
PATIENCE_S = 30.0
MODEL_ID = "echo:test"


class Stack:
    """Use as a context manager. Worker settings are the echo backend's."""

    def __init__(
        self,
        *,
        worker: bool = True,
        max_concurrent_requests: int = 128,
        max_total_tokens: int | None = None,
        settings: dict[str, Any] | None = None,
        adapters: dict[str, Path] | None = None,
        **server: Any,
    ) -> None:
        self._wants_worker = worker
        self._engine = EngineSettings(
            max_concurrent_requests=max_concurrent_requests,
            max_total_tokens=max_total_tokens,
            adapters=tuple(
                AdapterSource(name=name, path=str(path)) for name, path in (adapters or {}).items()
            ),
        )
        self._worker_settings = settings or {}
        self._server_fields = server
        self._folder = tempfile.TemporaryDirectory(prefix="backplane-")
        self.folder = Path(self._folder.name)
        self.heard: queue.Queue[FromChild] = queue.Queue()
        self.processes: list[subprocess.Popen[str]] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.url = ""
        cert = server.get("tls_cert_file")
        verify = ssl.create_default_context(cafile=cert) if cert else True
        self._client = httpx.Client(timeout=60, trust_env=False, verify=verify)

    def __enter__(self) -> Self:
        try:
            self._start_server()
            if self._wants_worker:
                self.start_worker()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        with contextlib.suppress(AttributeError):
            self.control.close()
        self._listener.close()
        self._client.close()
        self._folder.cleanup()

    # ── the launcher's part ──────────────────────────────────────────────────────────────

    def _start_server(self) -> None:
        path = self.folder / "control.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        fields = {
            "server_id": "server-0",
            "hostname": "127.0.0.1",
            "port": 0,
            **self._server_fields,
        }
        launch = ServerLaunch(control_path=str(path), model_id=MODEL_ID, **fields)
        document = self.folder / "server.json"
        document.write_bytes(msgspec.json.encode(launch))
        self.log_path = self.folder / "server.log"
        with self.log_path.open("w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "backplane_server", str(document)],
                stderr=log,
                text=True,
                pass_fds=[fd for fd in [fields.get("listen_fd")] if fd is not None],
            )
        self.processes.append(self.server)
        self._listener.settimeout(0.1)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                connection, _ = self._listener.accept()
                break
            except TimeoutError:
                if self.server.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log()) from None
        connection.setblocking(True)
        self.control: BlockingChannel[FromChild] = BlockingChannel(connection, FromChild)
        threading.Thread(target=self._listen, daemon=True).start()
        join = self.heard.get(timeout=START_TIMEOUT_S)
        assert isinstance(join, Join)
        assert join.role == "server"
        up = self.heard.get(timeout=START_TIMEOUT_S)
        assert isinstance(up, ServerUp)
        self.url = up.address

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while message := self.control.receive():
                self.heard.put(message)

    def say(self, message: msgspec.Struct) -> None:
        self.control.send(message)

    def start_worker(
        self, worker_id: str = "worker-0", *, usable: bool = True, **settings: Any
    ) -> None:
        """Start a worker and wait until the server answers; not if it cannot use the worker."""
        socket_path = self.folder / f"{worker_id}-{len(self.workers)}.sock"
        launch = WorkerLaunch(
            worker_id=worker_id,
            socket_path=str(socket_path),
            backend="echo",
            spec=RunnerSpec(
                model=ModelSource(model_id=MODEL_ID),
                engine=self._engine,
                settings={**self._worker_settings, **settings},
            ),
            log_level="warning",
        )
        document = self.folder / f"{worker_id}.json"
        document.write_bytes(msgspec.json.encode(launch))
        process = subprocess.Popen(
            [sys.executable, "-m", "backplane_core.worker", str(document)], text=True
        )
        self.workers.append(process)
        self.processes.append(process)
        wait_until(socket_path.exists, START_TIMEOUT_S)
        self.worker_socket = str(socket_path)
        self.say(WorkerUp(worker_id=worker_id, socket_path=str(socket_path)))
        if usable:
            wait_until(lambda: self.get("/health/ready").status_code == 200)

    def share_worker(self, other: "Stack") -> None:
        """Have this server use the worker of another stack, too."""
        self.say(WorkerUp(worker_id="worker-0", socket_path=other.worker_socket))
        wait_until(lambda: self.get("/health/ready").status_code == 200)

    def kill_worker(self, reason: str = "killed by signal 9") -> None:
        worker = self.workers[-1]
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.say(WorkerDown(worker_id="worker-0", reason="signal 9", summary=reason))

    # ── the client's part ────────────────────────────────────────────────────────────────

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._client.get(self.url + path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self._client.post(self.url + path, json=body, **options)

    def post_raw(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        fields = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self._client.post(self.url + path, content=body, headers=fields)

    def events(self, path: str, body: Any) -> tuple[httpx.Response, list[Any]]:
        """Post and read a whole stream; events are decoded, "[DONE]" stays text."""
        response = self.post(path, body)
        return response, parse_events(response.content)

    def log(self) -> str:
        return self.log_path.read_text()

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics").text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        host, port = self.url.partition("://")[2].split(":")
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect((host, int(port)))
        raw.settimeout(PATIENCE_S)
        return raw


def http_request(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data


def parse_events(content: bytes) -> list[Any]:
    frames = content.split(b"\n\n")
    assert frames.pop() == b"", "a stream ends with an empty line"
    data = [frame.removeprefix(b"data: ") for frame in frames if frame != b":"]
    assert all(frame.startswith((b"data: ", b":")) for frame in frames)
    return ["[DONE]" if item == b"[DONE]" else json.loads(item) for item in data]


def wait_until(condition: Any, timeout: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def pid_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
