"""Conformance: a worker that dies or stands still ends what depends on it, and nothing more."""

import time

from backplane_core.errors import WorkerDiedError
from backplane_core.testing.conformance.base import ConformanceBase
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_stream import Stream

_NOTICED_S = 2.0
_PAUSE_S = 1.3


class FailureTests(ConformanceBase):
    """Each has a worker of its own."""

    def test_death_ends_every_stream_at_once(self) -> None:
        """Nothing the backend started may hold a dead worker's sockets open."""
        worker = self.start_worker()
        try:
            client = worker.connect()
            stream = self._start_long(client)
            worker.kill()
            killed = time.monotonic()
            while not stream.done and time.monotonic() - killed < _NOTICED_S:
                client.read(0.1)
            assert isinstance(stream.error, WorkerDiedError), "the stream outlived its worker"
        finally:
            worker.close()

    def test_pause_is_survived(self) -> None:
        """A machine that sleeps a while stops the heartbeats, and the requests go on after."""
        worker = self.start_worker()
        try:
            client = worker.connect()
            stream = self._start_long(client)
            worker.pause()
            worker.observe(0.1)  # what was under way
            before = len(worker.heartbeats)
            worker.observe(_PAUSE_S)
            assert len(worker.heartbeats) == before, "a stopped worker cannot beat"
            while client.read(0.01):
                pass
            assert not stream.done, "too fast to be paused: raise `engine.max_total_tokens`"
            worker.resume()
            client.finish([stream])
            assert stream.error is None
            assert worker.alive, worker.log
        finally:
            worker.close()

    def _start_long(self, client: WorkerClient) -> Stream:
        stream = self.submit_longest(client, self.prompt(client))
        client.wait_for_stats(lambda now: now.used_tokens > 0, "the request to run")
        return stream
