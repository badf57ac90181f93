"""A real worker on the echo backend, and requests to it, for tests of client and worker."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.client import WorkerConnection
from backplane_core.messages import SequenceDelta, Submit, TokenSegment
from backplane_core.request_stream import RequestStream
from backplane_core.sampling import StoppingParams
from backplane_core.testing.worker_process import WorkerProcess

START_TIMEOUT_S = 30.0
PROMPT = list(b"the quick brown fox")


@contextlib.contextmanager
def worker_process(
    *, max_concurrent_requests: int = 128, backend: str = "echo", **settings: Any
) -> Iterator[WorkerProcess]:
    """Start a worker, wait until it serves, kill it at the end."""
    spec = RunnerSpec(
        model=ModelSource(model_id="echo:test"),
        engine=EngineSettings(max_concurrent_requests=max_concurrent_requests),
        settings=settings,
    )
    with contextlib.closing(WorkerProcess(backend, spec, timeout_s=START_TIMEOUT_S)) as worker:
        yield worker


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


async def stats_until(connection: WorkerConnection, condition, within_s: float = 5.0):
    deadline = time.monotonic() + within_s
    while not condition(stats := await connection.stats()):
        assert time.monotonic() < deadline, stats
        await asyncio.sleep(0.01)
    return stats
