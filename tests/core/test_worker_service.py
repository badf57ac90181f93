"""`WorkerService` in this process: the order of what its two threads send."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import BackendError, GenerationError
from backplane_core.messages import Drained, StepOutput
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_runner import EchoRunner
from backplane_core.worker.connection import ServerConnection
from backplane_core.worker.service import WorkerService

from tests.core.worker_process import connect, request_of, tokens_of


@contextlib.asynccontextmanager
async def service_at(path: str, gate: "Gate") -> AsyncIterator[WorkerService]:
    spec = RunnerSpec(model=ModelSource(model_id="echo:test"), engine=EngineSettings(), settings={})
    runner = EchoBackend().create_runner(spec, lambda *_: None)
    service = WorkerService("w0", runner, 8)
    await service.start(path)
    engine = threading.Thread(target=service.engine.run)
    engine.start()
    try:
        yield service
    finally:
        gate.opened.set()
        service.engine.stop()
        await asyncio.to_thread(engine.join)
        await service.close()
        runner.close()


class Gate:
    """Records what connections send; holds the engine thread up before a request's end."""

    def __init__(self, monkeypatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.sent: list[type] = []
        send = ServerConnection.send

        def gated(connection, *messages):
            if any(isinstance(one, StepOutput) and _ends(one) for one in messages):
                self.reached.set()
                assert self.opened.wait(10)
            self.sent += map(type, messages)
            send(connection, *messages)

        monkeypatch.setattr(ServerConnection, "send", gated)


def _ends(output: StepOutput) -> bool:
    return any(delta.finish_reason is not None for delta in output.deltas)


async def test_drained_is_not_said_while_the_last_tokens_are_on_their_way(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    async with service_at(str(tmp_path / "worker"), gate) as service:
        connection = await connect(str(tmp_path / "worker"))
        stream = await connection.submit(request_of(connection, max_new_tokens=1))
        assert await asyncio.to_thread(gate.reached.wait, 10)
        assert not service.busy
        drained = asyncio.create_task(connection.drain())
        await asyncio.sleep(0)  # lets it ask
        await connection.tokenize(["asked after it, answered by the same thread"])
        gate.opened.set()
        assert len((await tokens_of(stream))[0]) == 1
        await asyncio.wait_for(drained, 10)
        await connection.close()
    assert gate.sent.index(StepOutput) < gate.sent.index(Drained)


async def test_a_stop_waits_for_the_last_tokens(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    async with service_at(str(tmp_path / "worker"), gate) as service:
        connection = await connect(str(tmp_path / "worker"))
        stream = await connection.submit(request_of(connection, max_new_tokens=1))
        assert await asyncio.to_thread(gate.reached.wait, 10)
        stopping = asyncio.create_task(service.drain(10))
        await asyncio.sleep(0)
        assert not stopping.done()
        gate.opened.set()
        await asyncio.wait_for(stopping, 10)
        assert StepOutput in gate.sent
        assert len((await tokens_of(stream))[0]) == 1
        await connection.close()


LONG = "a text that takes long " * 1000


async def test_a_short_text_does_not_wait_for_a_long_one(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    tokenize = EchoRunner.tokenize

    def slow_where_long(runner, texts, **kwargs):
        if LONG in texts:
            gate.reached.set()
            assert gate.opened.wait(10)
        return tokenize(runner, texts, **kwargs)

    monkeypatch.setattr(EchoRunner, "tokenize", slow_where_long)
    async with service_at(str(tmp_path / "worker"), gate):
        connection = await connect(str(tmp_path / "worker"))
        waiting = asyncio.create_task(connection.tokenize([LONG], add_special=False))
        assert await asyncio.to_thread(gate.reached.wait, 10)
        assert await connection.tokenize(["short"], add_special=False) == [[*b"short"]]
        assert not waiting.done()
        gate.opened.set()
        assert await waiting == [[*LONG.encode()]]
        await connection.close()


@pytest.mark.parametrize("text", ["short", LONG])
async def test_a_tokenizer_that_breaks_fails_its_text_alone(tmp_path, monkeypatch, text):
    gate = Gate(monkeypatch)
    tokenize = EchoRunner.tokenize

    def broken(runner, texts, **kwargs):
        if text in texts:
            raise RuntimeError("out of order")
        return tokenize(runner, texts, **kwargs)

    monkeypatch.setattr(EchoRunner, "tokenize", broken)
    async with service_at(str(tmp_path / "worker"), gate):
        connection = await connect(str(tmp_path / "worker"))
        with pytest.raises(GenerationError):
            await connection.tokenize([text])
        assert await connection.tokenize(["another"], add_special=False) == [[*b"another"]]
        await connection.close()


async def test_what_cannot_be_told_of_a_model_ends_the_start_and_not_every_handshake():
    class OwnVersion:
        """As torch has one: a string to the eye."""

    spec = RunnerSpec(model=ModelSource(model_id="echo:test"), engine=EngineSettings(), settings={})
    runner = EchoBackend().create_runner(spec, lambda *_: None)
    model = msgspec.structs.replace(runner.info.model, backend_version=OwnVersion())
    runner._info = msgspec.structs.replace(runner.info, model=model)
    with pytest.raises(BackendError, match="OwnVersion"):
        WorkerService("w0", runner, 8)
    runner.close()
