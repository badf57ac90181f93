"""A real worker process on the echo backend, for tests of the wire, the client and the worker."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.client import RequestStream, WorkerConnection
from backplane_core.control import WorkerLaunch
from backplane_core.messages import SequenceDelta, Submit, TokenSegment
from backplane_core.sampling import StoppingParams

START_TIMEOUT_S = 20.0
PROMPT = list(b"the quick brown fox")


def launch_document(
    folder: Path,
    *,
    control_path: str = "",
    max_concurrent_requests: int = 128,
    backend: str = "echo",
    **settings: Any,
) -> tuple[Path, Path]:
    """Write a launch document; returns its path and the socket's."""
    socket_path = folder / "worker.sock"
    launch = WorkerLaunch(
        worker_id="worker-0",
        socket_path=str(socket_path),
        control_path=control_path,
        backend=backend,
        spec=RunnerSpec(
            model=ModelSource(model_id="echo:test"),
            engine=EngineSettings(max_concurrent_requests=max_concurrent_requests),
            settings=settings,
        ),
    )
    document = folder / "worker.json"
    document.write_bytes(msgspec.json.encode(launch))
    return document, socket_path


@contextlib.contextmanager
def worker_process(folder: Path, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a worker, wait until it listens, kill it at the end."""
    document, socket_path = launch_document(folder, **options)
    process = subprocess.Popen(
        [sys.executable, "-m", "backplane_core.worker", str(document)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not socket_path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no worker: {process.stderr.read()}")
            time.sleep(0.01)
        yield process, str(socket_path)
    finally:
        process.kill()
        process.communicate()


async def connect(path: str, server_id: str = "s0") -> WorkerConnection:
    return await WorkerConnection.connect(path, server_id)


def request_of(connection: WorkerConnection, prompt=PROMPT, max_new_tokens=8, **fields) -> Submit:
    stopping = fields.pop("stopping", None) or StoppingParams(
        max_new_tokens=max_new_tokens, ignore_eos=True
    )
    return Submit(
        request_id=connection.next_request_id(),
        prompt=[TokenSegment(token_ids=list(prompt))],
        stopping=stopping,
        **fields,
    )


async def tokens_of(stream: RequestStream) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {}
    async for item in stream:
        assert isinstance(item, SequenceDelta)
        tokens.setdefault(item.index, []).extend(item.token_ids)
    return tokens


async def stats_until(connection: WorkerConnection, condition, within_s: float = 2.0):
    deadline = time.monotonic() + within_s
    while not condition(stats := await connection.stats()):
        assert time.monotonic() < deadline, stats
        await asyncio.sleep(0.01)
    return stats
