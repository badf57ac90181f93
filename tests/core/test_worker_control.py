"""The worker's life under a launcher: progress, heartbeats, shutdown, exit status."""

import asyncio
import socket

import pytest
from backplane_core.errors import WorkerDiedError
from backplane_core.testing.worker_process import WorkerProcess, WorkerStartError
from backplane_core.worker.control import ORPHANED_STATUS

from tests.core.worker_process import connect, request_of, tokens_of, worker_process


async def test_a_worker_reports_progress_heartbeats_and_drains_on_shutdown():
    with worker_process(load_seconds=0.3, step_seconds=0.02) as worker:
        assert (worker.join.role, worker.join.pid) == ("worker", worker.process.pid)
        assert worker.progress[0].stage == "load"
        assert not any(beat.busy for beat in worker.heartbeats)
        connection = await connect(worker.socket_path)
        stream = await connection.submit(request_of(connection, max_new_tokens=150))
        await asyncio.to_thread(worker.observe, 2.5)
        busy = [beat for beat in worker.heartbeats if beat.busy]
        assert len(busy) >= 2
        assert busy[-1].num_steps > busy[0].num_steps
        worker.shut_down(grace_s=10.0)
        assert len((await tokens_of(stream))[0]) == 150
        assert await asyncio.to_thread(worker.wait) == 0
        assert worker.down.final


def test_loading_progress_is_throttled():
    with worker_process(load_seconds=1.2) as worker:
        assert 3 <= len(worker.progress) <= 6


def failed_start(**options) -> WorkerStartError:
    with pytest.raises(WorkerStartError) as failure, worker_process(**options):
        pass
    return failure.value


def test_a_worker_that_cannot_load_says_why_and_exits_with_3():
    failure = failed_start(load_error="the file is half a file")
    assert failure.status == 3
    assert failure.down.final
    assert "half a file" in failure.down.reason
    assert "Traceback" not in str(failure)


def test_a_worker_without_its_backend_says_what_is_installed():
    failure = failed_start(backend="nonesuch")
    assert failure.status == 3
    assert "nonesuch" in failure.down.reason
    assert "echo" in failure.down.reason


async def test_a_broken_engine_ends_the_worker_with_1_and_a_typed_error():
    with worker_process(raise_on="boom") as worker:
        connection = await connect(worker.socket_path)
        stream = await connection.submit(request_of(connection, b"boom", max_new_tokens=20))
        with pytest.raises(WorkerDiedError):
            await tokens_of(stream)
        assert await asyncio.to_thread(worker.wait) == 1
        assert not worker.down.final
        assert "Traceback" in worker.log


def test_a_worker_does_not_outlive_its_launcher():
    with worker_process() as worker:
        hang_up(worker)
        assert worker.process.wait(5) == ORPHANED_STATUS


def hang_up(worker: WorkerProcess) -> None:
    """Close the launcher's end of the control socket, as its death would."""
    worker._control.socket.shutdown(socket.SHUT_RDWR)
