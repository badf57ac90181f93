"""A worker the server cannot use: said, not waited for, and its connection given back."""

import asyncio

import pytest
from backplane_core.control import WorkerDown, WorkerUp
from backplane_core.errors import ModelError, ProtocolError, WorkerDiedError
from backplane_core.messages import Ready
from backplane_core.version import PROTOCOL
from backplane_core.wire import encode
from backplane_server.services.readiness import Readiness
from backplane_server.services.worker_pool import WorkerPool


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- what is awaited has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelError("x is broken", remedy="mend it"), "x is broken (mend it)"),
        (ProtocolError("says nonsense"), "says nonsense"),
        (RuntimeError("/secret"), "the server cannot use its worker"),
    ],
)
async def test_what_fails_after_the_handshake_is_final(tmp_path, caplog, info, error, told):
    given_back = asyncio.Event()
    ready = Ready(protocol=PROTOCOL, worker_id="worker-0", info=info())

    async def worker(reader, writer):
        await reader.read(4096)
        writer.write(encode(ready))
        assert await reader.read() == b""
        given_back.set()
        writer.close()

    async def fail(_):
        raise error

    readiness = Readiness()
    pool = WorkerPool("server-0", readiness, fail)
    path = str(tmp_path / "worker.sock")
    async with await asyncio.start_unix_server(worker, path):
        pool.worker_up(WorkerUp(worker_id="worker-0", socket_path=path))
        await asyncio.wait_for(given_back.wait(), 30)
        await until(lambda: readiness.report().workers)
    assert pool.connections == []
    report = readiness.report()
    assert report.workers[0].phase == "failed"
    assert told in report.sentence
    assert "secret" not in report.sentence
    assert "worker-0 cannot be used" in caplog.text
    # Only what nobody foresaw has its trace in the log.
    assert ("Traceback" in caplog.text) is isinstance(error, RuntimeError)


async def test_a_worker_that_is_gone_is_awaited(tmp_path):
    readiness = Readiness()

    async def connected(_):
        raise AssertionError

    pool = WorkerPool("server-0", readiness, connected)
    pool.worker_up(WorkerUp(worker_id="w", socket_path=str(tmp_path / "nobody.sock")))
    await until(lambda: readiness.report().workers)
    assert readiness.report().workers[0].phase == "down"
    await pool.close()


class FakeWorker:
    """Shakes hands on a real socket, then does nothing until it is left, or `release`d if hung."""

    def __init__(self, path, info, *, hangs=False):
        self.path = str(path)
        self.ready = Ready(protocol=PROTOCOL, worker_id="w", info=info)
        self.writers = []
        self.released = asyncio.Event()
        self.hangs = hangs

    async def serve(self, reader, writer):
        self.writers.append(writer)
        await reader.read(4096)
        writer.write(encode(self.ready))
        await (self.released.wait() if self.hangs else reader.read())
        writer.close()

    async def listen(self):
        return await asyncio.start_unix_server(self.serve, self.path)

    @property
    def up(self):
        return WorkerUp(worker_id="w", socket_path=self.path)


async def connected(_):
    """What a pool does with a connection, where a test asks for nothing more."""


async def test_a_broken_connection_to_a_living_worker_is_made_again(tmp_path, info):
    worker, readiness = FakeWorker(tmp_path / "worker.sock", info()), Readiness()
    pool = WorkerPool("server-0", readiness, connected)
    async with await worker.listen():
        pool.worker_up(worker.up)
        await until(lambda: pool.connections)
        for times in range(2, 4):
            worker.writers[-1].close()
            await until(lambda: len(worker.writers) == times and pool.connections)  # noqa: B023 -- at once
        assert readiness.report().ready
        pool.worker_down(WorkerDown(worker_id="w", reason="killed"))
        worker.writers[-1].close()
        await asyncio.sleep(0.5)
        assert len(worker.writers) == 3  # the launcher said it is down: nobody calls on it
        await pool.close()


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("first", ["the launcher", "the connection"])
async def test_who_tells_first_that_a_worker_is_gone_makes_no_difference(
    tmp_path, info, caplog, first, draining
):
    caplog.set_level("INFO")
    worker, readiness = FakeWorker(tmp_path / "worker.sock", info()), Readiness()
    pool = WorkerPool("server-0", readiness, connected)
    down = WorkerDown(worker_id="w", reason="signal 9", summary="it was killed")
    async with await worker.listen():
        pool.worker_up(worker.up)
        await until(lambda: pool.connections)
        readiness.draining = draining
        [connection] = pool.connections
        if first == "the launcher":
            pool.worker_down(down)
            await connection.closed.wait()
        else:
            worker.writers[-1].close()
            await until(lambda: readiness.report().workers[0].phase != "ready")
            pool.worker_down(down)
        await pool.close()
        await until(worker.writers[-1].is_closing)
        await worker.writers[-1].wait_closed()
    level = "INFO" if draining else "WARNING"
    told = [(line.levelname, line.getMessage()) for line in caplog.records]
    gone = [each for each in told if each[1].startswith("worker w is gone: ")]
    why = {"the launcher": "it was killed", "the connection": "its connection ended"}[first]
    assert [(each[0], each[1].partition("gone: ")[2]) for each in gone] == [(level, why)]
    assert (level, "worker w is down: signal 9") in told


async def test_a_worker_that_listens_late_is_reached(tmp_path, info):
    worker, readiness = FakeWorker(tmp_path / "worker.sock", info()), Readiness()
    pool = WorkerPool("server-0", readiness, connected)
    pool.worker_up(worker.up)
    await until(lambda: readiness.report().workers)
    assert not readiness.report().ready
    async with await worker.listen():
        await until(lambda: readiness.report().ready)
        await pool.close()


async def test_up_and_down_in_one_breath_leaves_it_down(tmp_path, info):
    worker, readiness = FakeWorker(tmp_path / "worker.sock", info()), Readiness()
    pool = WorkerPool("server-0", readiness, connected)
    async with await worker.listen():
        pool.worker_up(worker.up)
        pool.worker_down(WorkerDown(worker_id="w", reason="torn", summary="torn", final=True))
        await asyncio.sleep(0.5)
        assert pool.connections == []
        assert readiness.report().workers[0].phase == "failed"
        await pool.close()


async def test_what_a_lost_worker_owes_ends_before_its_socket_does(tmp_path, info):
    """A worker that hangs keeps its sockets open; the launcher's word is enough."""
    worker = FakeWorker(tmp_path / "worker.sock", info(), hangs=True)
    pool = WorkerPool("server-0", Readiness(), connected)
    async with await worker.listen():
        pool.worker_up(worker.up)
        await until(lambda: pool.connections)
        stats = asyncio.create_task(pool.connections[0].stats())
        await asyncio.sleep(0.05)
        assert not stats.done()
        pool.worker_down(WorkerDown(worker_id="w", reason="hung: /x", summary="it was hung"))
        with pytest.raises(WorkerDiedError, match="it was hung"):
            await asyncio.wait_for(stats, 5)
        worker.released.set()
        await pool.close()
