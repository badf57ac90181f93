"""The workers this server is connected to, and which of them takes a request.

Connections come and go as the launcher says; a lost one is noticed at its end-of-file.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

from backplane_core.client import WorkerConnection
from backplane_core.control import WorkerDown, WorkerUp
from backplane_core.errors import BackplaneError, UnavailableError, WorkerDiedError
from backplane_core.messages import RunnerStats

from backplane_server.errors import NotReadyError
from backplane_server.services.readiness import Readiness

_log = logging.getLogger(__name__)

_STATS_TIMEOUT_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0

ReplicaPolicy = Callable[[Sequence[WorkerConnection], list[int]], WorkerConnection]
ConnectionHook = Callable[[WorkerConnection], Awaitable[None]]


def least_outstanding(replicas: Sequence[WorkerConnection], _: list[int]) -> WorkerConnection:
    """The replica with the fewest tokens promised and not yet delivered or given up."""
    return min(replicas, key=lambda replica: replica.outstanding_tokens)


class WorkerPool:
    """Connections to every worker that is up.

    Args:
        server_id: names this server to the workers.
        readiness: told of every change.
        on_connect: runs before a new connection takes requests.
        policy: picks a replica for a prompt's token ids; one that knows where a prefix is
            cached can stand here.
    """

    def __init__(
        self,
        server_id: str,
        readiness: Readiness,
        on_connect: ConnectionHook,
        policy: ReplicaPolicy = least_outstanding,
    ) -> None:
        self._server_id = server_id
        self._readiness = readiness
        self._on_connect = on_connect
        self._policy = policy
        self._connections: dict[str, WorkerConnection] = {}
        self._announced: dict[str, WorkerUp] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> list[WorkerConnection]:
        """The workers that answer now."""
        return [link for link in self._connections.values() if not link.closed.is_set()]

    def worker_up(self, message: WorkerUp) -> None:
        """Connect, in the background, to a worker the launcher announced.

        While the launcher has not said that the worker is down, a connection that fails or
        breaks is tried again.
        """
        self._announced[message.worker_id] = message
        self._spawn(self._keep_connected(message))

    def worker_down(self, message: WorkerDown) -> None:
        """The launcher says that a worker is gone, and why: its requests end now."""
        self._announced.pop(message.worker_id, None)
        connection = self._connections.pop(message.worker_id, None)
        if connection is not None:
            self._log_gone(message.worker_id, message.summary)
        self._readiness.down(message)
        if connection is not None:
            connection.abort(f"{message.worker_id}: {message.summary}; its requests are lost")

    def choose(self, token_ids: list[int], adapter: str | None = None) -> WorkerConnection:
        """The worker for a prompt: one of those that have its adapter.

        Raises:
            NotReadyError: there is none.
            UnavailableError: none of those that there are has the adapter.
        """
        if not (connections := self.connections):
            raise NotReadyError(self._readiness.report())
        if adapter is not None:
            connections = [link for link in connections if adapter in link.adapters]
            if not connections:
                raise UnavailableError(
                    f"no worker with the adapter {adapter} answers", retry_after_s=1.0
                )
        return self._policy(connections, token_ids)

    async def stats(self) -> dict[WorkerConnection, RunnerStats]:
        """What each worker says of itself; one that does not answer at once is left out."""
        connections = self.connections
        results = await asyncio.gather(
            *(asyncio.wait_for(link.stats(), _STATS_TIMEOUT_S) for link in connections),
            return_exceptions=True,
        )
        return {
            link: result
            for link, result in zip(connections, results, strict=True)
            if isinstance(result, RunnerStats)
        }

    async def close(self) -> None:
        """Drop every connection; workers cancel what is in flight on them."""
        self._announced.clear()
        connections = list(self._connections.values())
        self._connections.clear()
        for connection in connections:
            await connection.close()
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_connected(self, message: WorkerUp) -> None:
        """Connect again and again, until the launcher says otherwise or it makes no sense."""
        pause_s = _FIRST_PAUSE_S
        while self._is_current(message):
            connection = await self._connect(message)
            if connection is not None:
                pause_s = _FIRST_PAUSE_S
                await connection.closed.wait()
                self._lost(message, connection)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _is_current(self, message: WorkerUp) -> bool:
        """Whether this is still the launcher's last word on the worker."""
        return self._announced.get(message.worker_id) is message

    async def _connect(self, message: WorkerUp) -> WorkerConnection | None:
        """The connection, in use from now on; None where it failed or came too late."""
        worker_id = message.worker_id
        connection = None
        failure, final = "", True
        try:
            connection = await self._open(message.socket_path)
        except BackplaneError as error:
            failure, final = str(error), not isinstance(error, UnavailableError | WorkerDiedError)
            _log.warning("worker %s cannot be used: %s", worker_id, error)
        except Exception:  # noqa: BLE001 -- a plugin-fed hook can raise anything; it is logged whole
            _log.exception("worker %s cannot be used", worker_id)
            failure = "the server cannot use its worker; the server's log says why"
        if not self._is_current(message):
            if connection is not None:
                await connection.close()
            return None
        if connection is None:
            self._refuse(worker_id, failure, final=final)
            if final:
                del self._announced[worker_id]
            return None
        previous = self._connections.get(worker_id)
        self._connections[worker_id] = connection
        self._readiness.up(worker_id)
        _log.info("worker %s answers", worker_id)
        if previous is not None:
            await previous.close()
        return connection

    def _lost(self, message: WorkerUp, connection: WorkerConnection) -> None:
        if self._connections.get(message.worker_id) is connection:
            self._log_gone(message.worker_id, connection.close_cause)
            del self._connections[message.worker_id]
            # The launcher's WorkerDown knows more, and follows if the worker is gone.
            self._refuse(message.worker_id, connection.close_reason, final=False)
        if self._readiness.draining:
            self._announced.pop(message.worker_id, None)

    def _log_gone(self, worker_id: str, reason: str) -> None:
        """Said once, whether the launcher or the connection's end tells of it first."""
        level = logging.INFO if self._readiness.draining else logging.WARNING
        _log.log(level, "worker %s is gone: %s", worker_id, reason)

    async def _open(self, socket_path: str) -> WorkerConnection:
        connection = await WorkerConnection.connect(socket_path, self._server_id)
        try:
            await self._on_connect(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _refuse(self, worker_id: str, reason: str, *, final: bool) -> None:
        down = WorkerDown(worker_id=worker_id, reason=reason, summary=reason, final=final)
        self._readiness.down(down)
