"""The worker's I/O thread: servers' connections, admission, commands; and a step's way out.

All but `step` and `answer` runs on one asyncio loop. The engine thread sends a step's tokens
itself: to wake another thread for that would cost more, and take it from the engine's own.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from backplane_core.errors import (
    BackendError,
    BackplaneError,
    DeadlineExceededError,
    ErrorInfo,
    ProtocolError,
    UnavailableError,
    ValidationError,
)
from backplane_core.messages import (
    Accepted,
    Cancel,
    CommandFailed,
    Done,
    Drain,
    Drained,
    Failed,
    GetStats,
    Hello,
    LoadAdapter,
    Message,
    Ready,
    Rejected,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
    ToWorker,
    UnloadAdapter,
)
from backplane_core.runner import ModelRunner
from backplane_core.version import PROTOCOL, Protocol
from backplane_core.wire import encode
from backplane_core.worker.admission import check_request
from backplane_core.worker.connection import ServerConnection
from backplane_core.worker.engine import Command, EngineLoop
from backplane_core.worker.in_flight import InFlight

_log = logging.getLogger(__name__)

_DEADLINE_CHECK_S: Final = 0.25
_BACKLOG: Final = 128
_SHORT_CHARS: Final = 1024


class WorkerService:
    """Serves one runner to any number of servers."""

    def __init__(
        self,
        worker_id: str,
        runner: ModelRunner,
        max_concurrent_sequences: int,
        *,
        adapters: Iterable[str] = (),
    ) -> None:
        """Take a loaded runner.

        Raises:
            BackendError: what it says of itself cannot be told to a server.
        """
        self._worker_id = worker_id
        self._runner = runner
        self._info = runner.info
        self._adapters = dict.fromkeys(adapters)
        self._check_info()
        limits = self._info.limits
        self._in_flight: InFlight[ServerConnection] = InFlight(
            min(max_concurrent_sequences, limits.max_sequences + limits.max_waiting_requests)
        )
        self._loop = asyncio.get_running_loop()
        self.engine = EngineLoop(runner, self)
        self._connections: set[ServerConnection] = set()
        # Commands in flight: whom to answer.
        self._commands: dict[str, tuple[ServerConnection, Command]] = {}
        self._drain_watchers: list[ServerConnection] = []
        self._draining = False
        self._sending = False  # the engine thread has ended requests and not said so yet
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        # A long text takes long; heartbeats and cancels must not wait for it. Handing a short one
        # to another thread and back would take longer than encoding it.
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return len(self._in_flight) > 0

    async def start(self, socket_path: str) -> None:
        """Listen. A stale socket file of a dead worker is replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)  # noqa: PTH108 - pathlib's would be taken for blocking I/O
        listener = self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(socket_path)
        listener.listen(_BACKLOG)
        self._loop.add_reader(listener, self._accept, listener)
        self._spawn(self._watch_deadlines())

    async def drain(self, grace_s: float) -> None:
        """Take nothing new; return when all is done or after `grace_s` seconds."""
        self._draining = True
        self._check_drained()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._drained.wait()
        if self.busy:
            _log.warning("%d requests are cut off: the grace period is over", len(self._in_flight))

    async def close(self) -> None:
        """Close every connection."""
        self._encoder.shutdown(wait=False, cancel_futures=True)
        for task in list(self._tasks):
            task.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        for connection in list(self._connections):
            connection.close()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── what servers say ─────────────────────────────────────────────────────────────────

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return  # it was gone before it was taken
        connection = ServerConnection(peer, self._loop)
        self._connections.add(connection)
        connection.start(partial(self._handle_all, connection), partial(self._ended, connection))

    def _ended(self, connection: ServerConnection, error: Exception | None) -> None:
        who = connection.server_id or "?"
        if isinstance(error, ProtocolError):
            _log.error("closing the connection of %s: %s", who, error)
            connection.send(Rejected(request_id="", error=ErrorInfo.of(error)))
        elif error is not None:
            _log.warning("connection of %s broke: %s", who, error)
        connection.close()
        self._connections.discard(connection)
        # What was ordered is carried out all the same, so the order itself is kept.
        for request_id in self._in_flight.disown(connection):
            self._cancel(request_id, None)

    def _handle_all(self, connection: ServerConnection, messages: list[ToWorker]) -> None:
        admitted: list[Submit] = []
        for message in messages:
            if isinstance(message, Submit) and connection.server_id:
                if self._admits(connection, message):
                    admitted.append(message)
                continue
            self._start(connection, admitted)
            admitted = []
            self._handle(connection, message)
        self._start(connection, admitted)

    def _handle(self, connection: ServerConnection, message: ToWorker) -> None:
        if isinstance(message, Hello):
            self._greet(connection, message)
            return
        if not connection.server_id or isinstance(message, Submit):
            raise ProtocolError(f"{type(message).__name__} before Hello")
        match message:
            case Cancel(request_id=request_id, index=index):
                if self._in_flight.owner(request_id) is connection:
                    self._cancel(request_id, index)
            case Tokenize(texts=texts):
                if sum(len(text) + 1 for text in texts) <= _SHORT_CHARS:
                    connection.send(self._tokenized(message))
                else:
                    self._spawn(self._tokenize(connection, message))
            case GetStats() | LoadAdapter() | UnloadAdapter():
                self._commands[message.request_id] = (connection, message)
                self.engine.post(message)
            case Drain():
                self._draining = True
                self._drain_watchers.append(connection)
                self._check_drained()

    def _greet(self, connection: ServerConnection, hello: Hello) -> None:
        theirs = Protocol(*hello.protocol)
        if not PROTOCOL.accepts(theirs):
            raise ProtocolError(f"the server speaks {theirs}, this worker {PROTOCOL}")
        connection.server_id = hello.server_id
        connection.send(self._ready())

    def _ready(self) -> Ready:
        return Ready(
            protocol=PROTOCOL,
            info=self._info,
            worker_id=self._worker_id,
            adapters=tuple(self._adapters),
        )

    def _check_info(self) -> None:
        """Find out now, and not from every server that says hello."""
        try:
            encode(self._ready())
        except (TypeError, ValueError, ProtocolError) as error:
            raise BackendError(
                f"what {self._info.model.backend} says of its model cannot be told: {error}",
                remedy="its RunnerInfo must hold nothing but the types that it declares",
            ) from error

    def _admits(self, connection: ServerConnection, request: Submit) -> bool:
        """Take a request in, or send its refusal."""
        try:
            if not request.request_id.startswith(f"{connection.server_id}-"):
                raise ValidationError(f"request id {request.request_id} is not this server's")
            if self._draining:
                raise UnavailableError("the worker is shutting down", retry_after_s=1.0)
            check_request(request, self._info)
            self._in_flight.add(request, connection)
        except BackplaneError as error:
            connection.send(Rejected(request_id=request.request_id, error=ErrorInfo.of(error)))
            return False
        return True

    def _start(self, connection: ServerConnection, requests: list[Submit]) -> None:
        """Tell that requests are taken in, in one write, then let the engine have them."""
        if requests:
            connection.send(*(Accepted(request_id=one.request_id) for one in requests))
            self.engine.post(*requests)

    def _cancel(self, request_id: str, index: int | None) -> None:
        if self._in_flight.finish(request_id, index):
            self.engine.post(Cancel(request_id=request_id, index=index))
            self._check_drained()

    async def _tokenize(self, connection: ServerConnection, message: Tokenize) -> None:
        answer = await self._loop.run_in_executor(self._encoder, self._tokenized, message)
        connection.send(answer)

    def _tokenized(self, message: Tokenize) -> Message:
        """The answer to it. Any thread."""
        try:
            token_ids = self._runner.tokenize(
                message.texts,
                add_special=message.add_special,
                parse_special=message.parse_special,
            )
            return Tokenized(request_id=message.request_id, token_ids=token_ids)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- a plugin's, whose Rust may panic
            if not isinstance(error, BackplaneError):
                _log.exception("tokenizing failed")
            return CommandFailed(request_id=message.request_id, error=ErrorInfo.of(error))

    # ── what the engine says (on the engine thread) ──────────────────────────────────────

    def step(self, output: StepOutput) -> None:
        """Send a step's output, to each server its share."""
        self._sending = True
        try:
            for connection, share in self._in_flight.route(output):
                connection.send(share)
        finally:
            self._sending = False
        if self._draining and not self.busy:
            self._loop.call_soon_threadsafe(self._check_drained)

    def answer(self, request_id: str, message: Message) -> None:
        """Hand a command's answer to the I/O thread."""
        self._loop.call_soon_threadsafe(self._answer, request_id, message)

    # ── and back on the I/O thread ───────────────────────────────────────────────────────

    def _answer(self, request_id: str, message: Message) -> None:
        if (asked := self._commands.pop(request_id, None)) is None:
            return
        connection, command = asked
        if isinstance(message, Done):
            match command:
                case LoadAdapter(name=name):
                    self._adapters[name] = None
                case UnloadAdapter(name=name):
                    self._adapters.pop(name, None)
                case _:
                    pass
        connection.send(message)

    def _check_drained(self) -> None:
        # In this order: by the time that nothing is in flight, what ended it is being sent. Then
        # the engine thread has this called again, as it looks for a drain after it has sent.
        if not self._draining or self.busy or self._sending:
            return
        self._drained.set()
        for watcher in self._drain_watchers:
            watcher.send(Drained())
        self._drain_watchers.clear()

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(_DEADLINE_CHECK_S)
            for request_id in self._in_flight.overdue(time.time()):
                owner = self._in_flight.owner(request_id)
                error = DeadlineExceededError("the request's deadline passed")
                if owner is not None:
                    owner.send(Failed(request_id=request_id, error=ErrorInfo.of(error)))
                self._cancel(request_id, None)
