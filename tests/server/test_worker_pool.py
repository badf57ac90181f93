"""A worker the server cannot use: said, not waited for, and its connection given back."""

import asyncio

import pytest
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.control import WorkerUp
from backplane_core.errors import ModelError, ProtocolError
from backplane_core.messages import ModelInfo, Ready, RunnerInfo
from backplane_core.version import PROTOCOL
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary
from backplane_core.wire import encode
from backplane_server.services.readiness import Readiness
from backplane_server.services.worker_pool import WorkerPool

LIMITS = Limits(
    max_total_tokens=100,
    max_input_tokens=90,
    max_batch_tokens=64,
    max_sequences=4,
    max_waiting_requests=8,
    cache_tokens=400,
)
READY = Ready(
    protocol=PROTOCOL,
    worker_id="worker-0",
    info=RunnerInfo(
        model=ModelInfo(model_id="m", backend="plain", backend_version="1", device="cpu"),
        limits=LIMITS,
        capabilities=Capabilities(),
        vocabulary=Vocabulary(tokens=[b"a"]),
        tokenizer=RemoteTokenizer(),
    ),
)


@pytest.mark.parametrize(
    ("error", "told", "trace"),
    [
        (ModelError("x is broken", remedy="mend it"), "x is broken (mend it)", False),
        (ProtocolError("says nonsense"), "says nonsense", False),
        (RuntimeError("/secret"), "the server cannot use its worker", True),
    ],
)
async def test_what_fails_after_the_handshake_is_final(tmp_path, caplog, error, told, trace):
    given_back = asyncio.Event()

    async def worker(reader, writer):
        await reader.read(4096)
        writer.write(encode(READY))
        assert await reader.read() == b""
        given_back.set()
        writer.close()

    async def fail(_):
        raise error

    readiness = Readiness()
    pool = WorkerPool("server-0", readiness, fail)
    path = str(tmp_path / "worker.sock")
    async with await asyncio.start_unix_server(worker, path):
        await pool.worker_up(WorkerUp(worker_id="worker-0", socket_path=path))
        await asyncio.wait_for(given_back.wait(), 30)
    assert pool.connections == []
    report = readiness.report()
    assert report.workers[0].phase == "failed"
    assert told in report.sentence
    assert "secret" not in report.sentence
    assert "worker-0 cannot be used" in caplog.text
    assert ("Traceback" in caplog.text) is trace


async def test_a_worker_that_is_gone_is_awaited(tmp_path):
    readiness = Readiness()

    async def connected(_):
        raise AssertionError

    pool = WorkerPool("server-0", readiness, connected)
    await pool.worker_up(WorkerUp(worker_id="w", socket_path=str(tmp_path / "nobody.sock")))
    assert readiness.report().workers[0].phase == "down"
