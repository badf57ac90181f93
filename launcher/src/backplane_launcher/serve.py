"""`backplane`: bind the port, start servers, prepare the model, start workers, stop in order."""

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from backplane_core.backend import ModelSource
from backplane_core.process import configure_logging

from backplane_launcher import launch_documents
from backplane_launcher.choice import check_name
from backplane_launcher.commands import ServeCommand
from backplane_launcher.console_progress import ConsoleProgress, DownloadsOnly
from backplane_launcher.credentials import check_certificate, read_keys, what_keys_guard
from backplane_launcher.listener import (
    EVERY_INTERFACE,
    address_of,
    is_open_to_others,
    listen,
    resolves,
    url_of,
)
from backplane_launcher.model_source import DEMO_MODEL_ID, HubId, from_folder, locate
from backplane_launcher.preparation import PreparedModel, prepare
from backplane_launcher.readiness import wait_until_ready
from backplane_launcher.run_directory import RunDirectory
from backplane_launcher.runtime_environment import log_environment
from backplane_launcher.server_package import check_server_is_installed
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.supervisor import Supervisor
from backplane_launcher.template_files import check_template_files

_log = logging.getLogger("backplane_launcher")

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE_AFTER_FAILURE_S: Final = 2.0
# Signals so close are one stop told by many: make and shells pass theirs on to a child that the
# terminal or the service manager told already, and a manager may send SIGHUP after SIGTERM.
_ONE_STOP_S: Final = 1.0
_ResultT = TypeVar("_ResultT")


def serve(command: ServeCommand) -> int:
    """Serve until told to stop. The exit code.

    Raises:
        BackplaneError: it cannot start, or cannot go on; the message is for people.
    """
    settings = command.settings
    configure_logging(settings.log_level, as_json=settings.json_output, label="launcher")
    for chatty in ("httpx", "httpx2", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for sentence in command.warnings:
        _log.warning("%s", sentence)
    for sentence in command.notices:
        _log.info("%s", sentence)
    check_name(settings.backend, command.catalogue.facts)
    check_server_is_installed()
    settings = _with_files_read(settings)
    found = _locate(settings)
    if found.model_id == DEMO_MODEL_ID:
        _log.info(
            "serving the bundled demo model, which only shows that all works; "
            "--model-id owner/name serves one from the Hub, --model-id PATH one of yours"
        )
    if settings.env:
        log_environment(command.catalogue, os.environ)
    listening = listen(settings.hostname, settings.port)
    if is_open_to_others(listening) and not settings.api_key:
        _log.warning(
            "listening for other machines without --api-key: whoever reaches %s, port %d, can "
            "use the model; --hostname 127.0.0.1 keeps it to this machine",
            *listening.getsockname()[:2],
        )
    guards = settings.api_key and not settings.tgi_strict
    if guards and (told := what_keys_guard(settings.open_routes)):
        _log.info("%s", told)
    command = dataclasses.replace(command, settings=settings)
    with listening, RunDirectory(os.environ.get("XDG_RUNTIME_DIR")) as run:
        asyncio.run(_Service(command, run, listening, os.environ).run(found))
    return 0


def _with_files_read(settings: LaunchSettings) -> LaunchSettings:
    """The settings with the keys of `--api-key-file`; other files are looked at, and left."""
    check_template_files(settings)
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        check_certificate(settings.tls_cert_file, settings.tls_key_file)
    keys = settings.api_key
    if settings.api_key_file is not None:
        keys = (*keys, *read_keys(settings.api_key_file))
    hostname = settings.hostname
    if settings.tgi_strict and not resolves(hostname):
        _log.warning("--hostname %s does not resolve; listening on every interface", hostname)
        hostname = EVERY_INTERFACE
    return dataclasses.replace(settings, api_key=keys, hostname=hostname)


def _locate(settings: LaunchSettings) -> ModelSource | HubId:
    if settings.weights_cache_override is not None:
        return from_folder(
            settings.weights_cache_override, settings.model_id, gguf_file=settings.gguf_file
        )
    return locate(settings.model_id, revision=settings.revision, gguf_file=settings.gguf_file)


class _Service:
    """One life of the launcher, on one event loop."""

    def __init__(
        self,
        command: ServeCommand,
        run: RunDirectory,
        listening: socket.socket,
        environ: Mapping[str, str],
    ) -> None:
        self._command = command
        self._run_directory = run
        self._listening = listening
        self._environ = environ
        self._told = asyncio.Event()
        self._told_again = asyncio.Event()
        self._told_s = 0.0

    async def run(self, found: ModelSource | HubId) -> None:
        """Serve until a signal or a failure; no child outlives this call."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            # What was ignored from outside stays so: that is how `nohup` works.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)
        child_environ = launch_documents.child_environment(self._environ)
        supervisor = Supervisor(self._command.settings, self._run_directory, child_environ)
        failure: BaseException | None = None
        try:
            await self._live(supervisor, found)
        except BaseException as error:
            failure = error
            raise
        finally:
            grace_s = self._command.settings.graceful_termination_timeout
            await self._stop(supervisor, _GRACE_AFTER_FAILURE_S if failure else grace_s)
            _log.info("stopped")

    async def _live(self, supervisor: Supervisor, found: ModelSource | HubId) -> None:
        await supervisor.start_servers(found.model_id, self._listening)
        tasks = [
            asyncio.ensure_future(supervisor.failed),
            asyncio.create_task(self._bring_up(supervisor, found)),
            asyncio.create_task(self._told.wait()),
        ]
        try:
            pending = set(tasks)
            while tasks[2] in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if tasks[2] in done:
                    break  # what else ended may have had the same signal
                for task in done:
                    task.result()  # raises what ended it
        finally:
            for task in tasks[1:]:
                task.cancel()

    async def _bring_up(self, supervisor: Supervisor, found: ModelSource | HubId) -> None:
        loop = asyncio.get_running_loop()
        settings = self._command.settings
        shown = DownloadsOnly(ConsoleProgress(sys.stderr, as_json=settings.json_output))

        def progress(stage: str, fraction: float | None = None, detail: str = "") -> None:
            shown(stage, fraction, detail)
            loop.call_soon_threadsafe(supervisor.report, stage, fraction, detail)

        prepared = await _in_thread(lambda: prepare(self._command, found, self._environ, progress))
        self._start_workers(supervisor, prepared)
        await supervisor.serving.wait()
        keys = settings.api_key
        tls = settings.tls_cert_file is not None
        await wait_until_ready(
            *address_of(self._listening),
            api_key=keys[0] if keys else None,
            tls=tls,
            is_up=lambda: supervisor.is_up,
        )
        _log.info("Connected: %s serves %s", url_of(self._listening, tls=tls), found.model_id)

    def _start_workers(self, supervisor: Supervisor, prepared: PreparedModel) -> None:
        command = self._command
        chosen = command.backend_settings.get(prepared.backend, {})
        spec = launch_documents.runner_spec(prepared.model, prepared.engine, chosen)
        supervisor.start_workers(prepared.backend, prepared.python, spec)

    async def _stop(self, supervisor: Supervisor, grace_s: float) -> None:
        orderly = asyncio.create_task(supervisor.stop(grace_s))
        again = asyncio.create_task(self._told_again.wait())
        done, _ = await asyncio.wait((orderly, again), return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if orderly not in done:
            orderly.cancel()
            await supervisor.kill()
        else:
            orderly.result()

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        now = asyncio.get_running_loop().time()
        if self._told.is_set():
            if now - self._told_s < _ONE_STOP_S:
                _log.debug("%s so soon is the same stop", name)
                return
            _log.warning("%s again: stopping at once", name)
            self._told_again.set()
            return
        self._told_s = now
        grace_s = self._command.settings.graceful_termination_timeout
        _log.info(
            "%s: finishing what is in flight, %g s at most; again to stop at once", name, grace_s
        )
        self._told.set()


async def _in_thread(action: Callable[[], _ResultT]) -> _ResultT:
    """Run `action` on a daemon thread, which a launcher told to stop does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_ResultT] = loop.create_future()

    def settle(result: _ResultT | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # pyright: ignore[reportArgumentType] - None only if it is one

    def work() -> None:
        result, error = None, None
        try:
            result = action()
        except BaseException as caught:  # noqa: BLE001 - handed to whoever awaits
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name="prepare", daemon=True).start()
    return await future
