"""The worker's life under a launcher: progress, heartbeats, shutdown, exit status."""

import asyncio
import sys

import pytest
from backplane_core.control import (
    FromChild,
    Heartbeat,
    Join,
    Progress,
    Shutdown,
    WorkerDown,
    WorkerUp,
)
from backplane_core.errors import WorkerDiedError
from backplane_core.wire import FrameDecoder, encode, read_messages

from tests.core.worker_process import connect, launch_document, request_of, tokens_of


class Launcher:
    """The launcher's end of a control socket, in the test."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[object] = asyncio.Queue()
        self.writer: asyncio.StreamWriter
        self.frames: FrameDecoder[FromChild] = FrameDecoder(FromChild)

    async def accept(self, reader, writer) -> None:
        self.writer = writer
        while messages := await read_messages(reader, self.frames):
            for message in messages:
                self.messages.put_nowait(message)

    async def expect(self, message_type, within_s: float = 10):
        async with asyncio.timeout(within_s):
            while not isinstance(message := await self.messages.get(), message_type):
                pass
        return message


@pytest.fixture
async def launcher(tmp_path):
    launcher = Launcher()
    server = await asyncio.start_unix_server(launcher.accept, str(tmp_path / "control.sock"))
    yield launcher
    server.close()


async def start_worker(tmp_path, **settings):
    document, _ = launch_document(tmp_path, control_path=str(tmp_path / "control.sock"), **settings)

    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backplane_core.worker", str(document), stderr=-1
    )


async def test_a_worker_reports_progress_heartbeats_and_drains_on_shutdown(tmp_path, launcher):
    process = await start_worker(tmp_path, load_seconds=0.3, step_seconds=0.02)
    join = await launcher.expect(Join)
    assert (join.role, join.member_id, join.pid) == ("worker", "worker-0", process.pid)
    assert (await launcher.expect(Progress)).stage == "load"
    up = await launcher.expect(WorkerUp)
    connection = await connect(up.socket_path)
    idle = await launcher.expect(Heartbeat)
    assert not idle.busy
    stream = await connection.submit(request_of(connection, max_new_tokens=80))
    beats = [await launcher.expect(Heartbeat) for _ in range(2)]
    assert any(beat.busy for beat in beats)
    assert beats[-1].num_steps > idle.num_steps
    launcher.writer.write(encode(Shutdown(grace_s=10.0)))
    assert len((await tokens_of(stream))[0]) == 80
    assert (await launcher.expect(WorkerDown)).final
    assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_worker_that_cannot_load_says_why_and_exits_with_3(tmp_path, launcher):
    process = await start_worker(tmp_path, load_error="the file is half a file")
    down = await launcher.expect(WorkerDown)
    assert down.final
    assert "half a file" in down.reason
    assert await asyncio.wait_for(process.wait(), 5) == 3


async def test_a_broken_engine_ends_the_worker_with_1_and_a_typed_error(tmp_path, launcher):
    process = await start_worker(tmp_path, raise_on="boom")
    connection = await connect((await launcher.expect(WorkerUp)).socket_path)
    stream = await connection.submit(request_of(connection, b"boom", max_new_tokens=20))
    with pytest.raises(WorkerDiedError):
        await tokens_of(stream)
    assert not (await launcher.expect(WorkerDown)).final
    assert await asyncio.wait_for(process.wait(), 5) == 1


async def test_a_worker_does_not_outlive_its_launcher(tmp_path, launcher):
    process = await start_worker(tmp_path)
    await launcher.expect(WorkerUp)
    launcher.writer.close()
    assert await asyncio.wait_for(process.wait(), 3) == 4


async def test_a_worker_without_its_backend_says_what_is_installed(tmp_path, launcher):
    process = await start_worker(tmp_path, backend="nonesuch")
    down = await launcher.expect(WorkerDown)
    assert "nonesuch" in down.reason
    assert "echo" in down.reason
    assert await asyncio.wait_for(process.wait(), 5) == 3
