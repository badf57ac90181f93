"""A server that we start ourselves, time until it is ready, and stop with all its children."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import msgspec
from backplane_core.errors import SetupError

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.dialects import Ask
from backplane_launcher.bench.reply import OK, Reply
from backplane_launcher.bench.server_facts import served_model
from backplane_launcher.usage import UsageError

_POLL_S: Final = 0.02
# From the request to end until it is made to.
_GRACE_S: Final = 20.0
_TAIL_BYTES: Final = 1500
_PORT: Final = "{port}"
# Asked in turn until one is known; a server that knows neither is asked for tokens at once.
_HEALTH: Final = ("/health", "/v1/models")
_NOT_FOUND: Final = 404


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of a process.

    Attributes:
        ready_s: until its health said so.
        first_answer_s: until it had answered a request for one token.
    """

    ready_s: float
    first_answer_s: float


@dataclass(frozen=True, kw_only=True)
class StartOrder:
    """A command line, in which `{port}` stands for the port."""

    name: str
    command: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "StartOrder":
        """Read a value of `--start`.

        Raises:
            UsageError: it is no NAME=COMMAND, or has nowhere to put the port.
        """
        name, _, line = text.partition("=")
        try:
            words = tuple(shlex.split(line))
        except ValueError as error:
            raise UsageError(f"--start {text}: {error}", remedy="mind the quotes") from error
        if not name.strip() or not words:
            raise UsageError(f"--start {text} is not NAME='COMMAND …'")
        if not any(_PORT in word for word in words):
            raise UsageError(
                f"--start {text} does not say where the port goes", remedy="write {port} there"
            )
        return cls(name=name.strip(), command=words)


class StartedServer:
    """One run of such a command. It has a session of its own, and a file for what it prints."""

    def __init__(self, order: StartOrder) -> None:
        self._order = order
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0
        self._log = tempfile.TemporaryFile(prefix="backplane-bench-")  # noqa: SIM115 -- closed by stop()
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process.

        Raises:
            SetupError: it cannot be started.
        """
        words = [word.replace(_PORT, str(self.port)) for word in self._order.command]
        self._began = perf_counter()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(
                f"cannot start {self._order.name}: {words[0]}: {error.strerror}",
                remedy="check the command of --start",
            ) from error

    async def wait_until_ready(self, client: Client, ask: Ask, timeout_s: float) -> Readiness:
        """Wait for its health, then for an answer to `ask`.

        Raises:
            SetupError: it ended, or neither came in time; with the end of what it printed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: _is_healthy(client))
                ready = perf_counter()
                client.model = client.model or await served_model(client)
                await self._until(lambda: _answers(client, ask))
        except TimeoutError as error:
            raise SetupError(
                f"{self._order.name} was not ready within {timeout_s:g} s; it printed last: "
                f"{self._tail()}",
                remedy="give it longer with --start-timeout, or correct its command",
            ) from error
        return Readiness(ready_s=ready - self._began, first_answer_s=perf_counter() - self._began)

    async def stop(self) -> None:
        """Ask the whole group to end, and after a while make it."""
        if self._process is not None:
            await self._end(self._process)
        self._log.close()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return 0 if self._process is None else self._process.pid

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        while not await holds():
            if self._process is not None and self._process.returncode is not None:
                raise SetupError(
                    f"{self._order.name} ended with status {self._process.returncode} before it "
                    f"was ready; it printed last: {self._tail()}",
                    remedy="correct the command of --start",
                )
            await asyncio.sleep(_POLL_S)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._signal(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE_S):
                await process.wait()
        except TimeoutError:
            pass  # made to below
        # Whatever it left behind must not share the machine with the next one.
        self._signal(process.pid, signal.SIGKILL)
        await process.wait()

    @staticmethod
    def _signal(group: int, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of it is gone
            os.killpg(group, signum)

    def _tail(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _TAIL_BYTES))
        return self._log.read().decode(errors="replace").strip() or "nothing"


async def _is_healthy(client: Client) -> bool:
    for path in _HEALTH:
        status, _ = await client.get(path)
        if status != _NOT_FOUND:
            return status == OK
    return True


async def _answers(client: Client, ask: Ask) -> bool:
    reply = Reply(started=perf_counter())
    await client.send(ask, reply)
    return not reply.failure


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
