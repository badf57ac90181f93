"""The asyncio side of a worker connection: what a server holds for each worker.

Routes each step's deltas to the stream of their request, within the callback that read them. A
worker's end-of-file ends every open stream at once with a `WorkerDiedError`.
"""

import asyncio
import itertools
from typing import Final, TypeVar, cast

import msgspec

from backplane_core.errors import (
    BackplaneError,
    ProtocolError,
    UnavailableError,
    WorkerDiedError,
)
from backplane_core.messages import (
    Accepted,
    Cancel,
    CommandFailed,
    Done,
    Drain,
    Drained,
    Failed,
    FromWorker,
    GetStats,
    Hello,
    LoadAdapter,
    PromptLogprobs,
    Ready,
    Rejected,
    RunnerInfo,
    RunnerStats,
    Stats,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
    UnloadAdapter,
)
from backplane_core.request_stream import RequestStream
from backplane_core.version import PROTOCOL
from backplane_core.wire import FrameDecoder, encode

_HANDSHAKE_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 1.0

AnswerT = TypeVar("AnswerT")


class WorkerConnection:
    """One connection to one worker. Use from one event loop."""

    def __init__(self, socket_path: str, server_id: str) -> None:
        self.socket_path: Final = socket_path
        self._server_id = server_id
        self._transport: asyncio.WriteTransport
        self._frames: FrameDecoder[FromWorker] = FrameDecoder(FromWorker)
        self._greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counter = itertools.count()
        self._streams: dict[str, RequestStream] = {}
        self._answers: dict[str, asyncio.Future[object]] = {}
        self._drained = asyncio.Event()
        self.info: RunnerInfo
        self.adapters: frozenset[str] = frozenset()
        self.worker_id = ""
        self.outstanding_tokens = 0
        self.closed = asyncio.Event()
        self.close_reason = ""
        self.close_cause = ""

    @classmethod
    async def connect(cls, socket_path: str, server_id: str) -> "WorkerConnection":
        """Connect and shake hands.

        Args:
            socket_path: from the launcher's `WorkerUp`.
            server_id: prefix of this server's request ids; unique among the servers.

        Raises:
            UnavailableError: nobody listens, or the worker went away.
            ProtocolError: the worker speaks another major version.
        """
        loop = asyncio.get_running_loop()
        connection = cls(socket_path, server_id)
        try:
            await loop.create_unix_connection(lambda: _Line(connection), socket_path)
        except OSError as error:
            raise UnavailableError(f"no worker at {socket_path}: {error.strerror}") from error
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                await connection._greeting
        except TimeoutError as error:
            connection._transport.abort()
            raise UnavailableError(f"the worker at {socket_path} did not answer") from error
        except BaseException:
            connection._transport.close()
            raise
        return connection

    # ── requests ─────────────────────────────────────────────────────────────────────────

    def next_request_id(self) -> str:
        """A fresh id, "<server_id>-<n>"."""
        return f"{self._server_id}-{next(self._counter)}"

    async def submit(self, request: Submit) -> RequestStream:
        """Send a request and wait until the worker has admitted it.

        Raises:
            BackplaneError: the worker's refusal (overloaded, validation, unsupported,
                unavailable), or `WorkerDiedError`.
        """
        stream = RequestStream(self, request)
        self._streams[request.request_id] = stream
        self.outstanding_tokens += stream.num_tokens
        try:
            await self._ask(request.request_id, request, Accepted)
        except BaseException:
            if request.request_id in self._streams:
                self.cancel(request.request_id)
                self.forget(stream)
            raise
        return stream

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Tell the worker to stop a request or one of its sequences."""
        if not self.closed.is_set():
            self._send(Cancel(request_id=request_id, index=index))

    async def tokenize(
        self, texts: list[str], *, add_special: bool = True, parse_special: bool = False
    ) -> list[list[int]]:
        """Encode texts in the worker, one list of token ids per text."""
        request_id = self.next_request_id()
        message = Tokenize(
            request_id=request_id,
            texts=texts,
            add_special=add_special,
            parse_special=parse_special,
        )
        return (await self._ask(request_id, message, Tokenized)).token_ids

    async def stats(self) -> RunnerStats:
        """The runner's gauges and counters."""
        request_id = self.next_request_id()
        return (await self._ask(request_id, GetStats(request_id=request_id), Stats)).stats

    async def load_adapter(self, name: str, path: str) -> None:
        """Make an adapter available under a name."""
        request_id = self.next_request_id()
        await self._ask(request_id, LoadAdapter(request_id=request_id, name=name, path=path), Done)
        self.adapters |= {name}

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        request_id = self.next_request_id()
        await self._ask(request_id, UnloadAdapter(request_id=request_id, name=name), Done)
        self.adapters -= {name}

    async def drain(self) -> None:
        """Ask the worker to take nothing new from anyone; returns when all is done."""
        self._drained.clear()
        self._send(Drain())
        await self._drained.wait()
        if self.closed.is_set() and self.close_reason:
            raise WorkerDiedError(self.close_reason)

    async def close(self) -> None:
        """Close the connection; the worker cancels what is in flight on it.

        A worker that reads nothing more is given a second to take what was sent.
        """
        self._transport.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.closed.wait()
        except TimeoutError:
            self._transport.abort()
            await self.closed.wait()

    def abort(self, reason: str) -> None:
        """End at once, as if the worker had gone: every stream fails with `reason`.

        For a worker that is known to be lost, whose sockets may stay open (it hangs).
        """
        self._end(reason)
        self._transport.abort()

    # ── the wire ─────────────────────────────────────────────────────────────────────────

    def _send(self, message: msgspec.Struct) -> None:
        self._transport.write(encode(message))

    async def _ask(
        self, request_id: str, message: msgspec.Struct, answer: type[AnswerT]
    ) -> AnswerT:
        if self.closed.is_set():
            raise WorkerDiedError(self.close_reason)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        try:
            self._send(message)
            result = await future
        finally:
            del self._answers[request_id]
        if not isinstance(result, answer):
            raise ProtocolError(f"expected {answer.__name__}, got {type(result).__name__}")
        return result

    def connected(self, transport: asyncio.WriteTransport) -> None:
        """For the line: it is open."""
        self._transport = transport
        self._send(Hello(protocol=PROTOCOL, server_id=self._server_id))

    def received(self, data: bytes) -> None:
        """For the line: bytes came. Whoever waits for what they say is told before it returns."""
        try:
            for message in self._frames.feed(data):
                self._receive(message)
        except ProtocolError as error:
            self._break(error)

    def lost(self, error: Exception | None) -> None:
        """For the line: it is gone."""
        if error is None:
            self._end_by_loss("its connection ended")
        else:
            self._end_by_loss(f"its connection broke: {error}")

    def _break(self, error: ProtocolError) -> None:
        """What the worker says makes no sense."""
        if not self._greeting.done():
            self._greeting.set_exception(error)
        self._end_by_loss(f"its connection broke: {error}")
        self._transport.abort()

    def _end_by_loss(self, cause: str) -> None:
        if not self._greeting.done():
            gone = "the worker closed the connection during the handshake"
            self._greeting.set_exception(UnavailableError(gone))
        lost = f"worker {self.worker_id} went away; its requests in flight are lost"
        self._end(lost, cause)

    def _greet(self, message: FromWorker) -> None:
        """The handshake's answer, before which nothing else counts."""
        match message:
            case Ready() as ready:
                self.info = ready.info
                self.adapters = frozenset(ready.adapters)
                self.worker_id = ready.worker_id
                self._greeting.set_result(None)
            case Rejected() as rejected:
                self._greeting.set_exception(rejected.error.restore())
            case other:
                raise ProtocolError(f"expected Ready, got {type(other).__name__}")

    def _receive(self, message: FromWorker) -> None:
        if not self._greeting.done():
            self._greet(message)
            return
        match message:
            case StepOutput():
                self._receive_step(message)
            case PromptLogprobs():
                self._receive_step(StepOutput(prompt_logprobs=[message]))
            case Failed():
                self._receive_step(StepOutput(failures=[message]))
            case Rejected() | CommandFailed():
                self._answer(message.request_id, message.error.restore())
            case Accepted() | Tokenized() | Done() | Stats():
                self._answer(message.request_id, message)
            case Drained():
                self._drained.set()
            case Ready():
                raise ProtocolError("a second Ready")

    def _receive_step(self, step: StepOutput) -> None:
        streams = self._streams
        for chunk in step.prompt_logprobs:
            if stream := streams.get(chunk.request_id):
                stream.push_prompt(chunk)
        for delta in step.deltas:
            if stream := streams.get(delta.request_id):
                stream.push(delta)
        for failed in step.failures:
            if stream := streams.get(failed.request_id):
                stream.fail(failed.error.restore())

    def _answer(self, request_id: str, result: object) -> None:
        future = self._answers.get(request_id)
        if future is None or future.done():
            return
        if isinstance(result, BackplaneError):
            if stream := self._streams.get(request_id):
                self.forget(stream)
            future.set_exception(result)
        else:
            future.set_result(result)

    def forget(self, stream: RequestStream) -> None:
        """For streams: nothing more is to be routed to this one."""
        if self._streams.pop(stream.request_id, None) is not None:
            self.outstanding_tokens -= stream.num_tokens

    def _end(self, reason: str, cause: str = "") -> None:
        """Fail what is open with `reason`; `cause` is what follows "the worker is gone: "."""
        if self.closed.is_set():
            return
        self.close_reason = reason
        self.close_cause = cause or reason
        self.closed.set()
        self._transport.close()
        for stream in list(self._streams.values()):
            stream.fail(WorkerDiedError(reason))
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(WorkerDiedError(reason))
        self._drained.set()


class _Line(asyncio.Protocol):
    """The transport's side of a connection."""

    def __init__(self, connection: WorkerConnection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connected(cast("asyncio.WriteTransport", transport))

    def data_received(self, data: bytes) -> None:
        self._connection.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost(exc)
