"""The server process: HTTP on one side, the launcher's orders on the other, an orderly end."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final

from backplane_core.control import (
    Join,
    Progress,
    ServerLaunch,
    ServerUp,
    Shutdown,
    ToChild,
    WorkerDown,
    WorkerUp,
)
from backplane_core.control_client import ControlConnection
from backplane_core.messages import RunnerStats
from backplane_core.version import PROTOCOL

from backplane_server.app import create_app
from backplane_server.metrics.telling import note
from backplane_server.metrics.worker_series import name_of_life
from backplane_server.services.services import Services
from backplane_server.templates.renderer import RendererProcess
from backplane_server.web.http_server import HttpServer, address_of, open_listener
from backplane_server.web.tls import server_context

_log = logging.getLogger(__name__)

LAUNCHER_DIED_STATUS: Final = 4
_REMEMBER_EVERY_S: Final = 5.0
# The collector looks at new objects when there are so many more: a request makes hundreds, nearly
# all of which are gone without its help by then.
_YOUNG_OBJECTS: Final = 20_000


class ServerProcess:
    """Runs one server until it is told to stop, or until the launcher is gone."""

    def __init__(self, settings: ServerLaunch) -> None:
        self._settings = settings
        self._stopping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._status = 0

    async def run(self) -> int:
        """Serve; the process's exit status.

        Raises:
            OSError: the address cannot be bound.
            SetupError: a setting names what there is not.
            UnavailableError: no launcher listens.
        """
        settings = self._settings
        tls = server_context(settings.tls_cert_file, settings.tls_key_file)
        renderer = RendererProcess()
        services = Services(settings, renderer)
        app = create_app(services)
        listener = open_listener(
            settings.hostname,
            settings.port,
            settings.listen_fd,
            write_timeout_s=settings.write_timeout_s,
        )
        server = HttpServer(app, listener, stall_timeout_s=settings.write_timeout_s, tls=tls)
        address = address_of(listener, settings.hostname, tls=tls is not None)
        control = await ControlConnection.connect(
            settings.control_path,
            Join(role="server", member_id=settings.server_id, pid=os.getpid(), protocol=PROTOCOL),
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(
            signal.SIGTERM,
            lambda: self._begin_stop(services, server, settings.graceful_timeout_s),
        )
        self._spawn(self._announce(server, control, address))
        self._spawn(self._obey(services, server, control))
        self._spawn(self._remember_workers(services))
        # What is alive now lives as long as the process: keep the collector off it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
        gc.enable()
        try:
            helpers = [renderer.start()]
            if not settings.disable_grammar_support:
                helpers.append(services.generation.grammars.start())
            await asyncio.gather(*helpers)
            await server.run_until_stopped()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await services.close()
            await control.close()
        return self._status

    async def _announce(self, server: HttpServer, control: ControlConnection, address: str) -> None:
        await server.listening.wait()
        if self._stopping is not None:
            return
        _log.info("listening at %s", address)
        control.send(ServerUp(server_id=self._settings.server_id, address=address))

    async def _obey(
        self, services: Services, server: HttpServer, control: ControlConnection
    ) -> None:
        """Follow the launcher's messages; its end is the order to stop at once."""
        async for message in control:
            self._handle(message, services, server)
        # Also in the midst of a drain, which SIGTERM may have begun: the kernel sends it to
        # children of a launcher that was killed.
        _log.error("the launcher is gone; stopping")
        self._status = LAUNCHER_DIED_STATUS
        server.stop()

    async def _remember_workers(self, services: Services) -> None:
        """Note now and then what the workers say, so that little is lost with one that dies."""
        pool = services.generation.pool
        while True:
            await asyncio.sleep(_REMEMBER_EVERY_S)
            stats = await pool.stats()
            await asyncio.to_thread(note, services.metrics, pool.connections, stats)

    def _handle(self, message: ToChild, services: Services, server: HttpServer) -> None:
        match message:
            case Progress():
                services.generation.readiness.progress(message)
            case WorkerUp():
                life = name_of_life(message.worker_id, message.socket_path)
                services.metrics.note_workers({life: RunnerStats()})
                services.generation.pool.worker_up(message)
            case WorkerDown():
                services.generation.pool.worker_down(message)
            case Shutdown():
                self._begin_stop(services, server, message.grace_s)

    def _begin_stop(self, services: Services, server: HttpServer, grace_s: float) -> None:
        if self._stopping is None:
            self._stopping = self._spawn(self._stop(services, server, grace_s))

    async def _stop(self, services: Services, server: HttpServer, grace_s: float) -> None:
        await services.drain(grace_s)
        server.stop()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
