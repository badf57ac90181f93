"""The asyncio side of a worker connection: what a server holds for each worker.

Routes each step's deltas to the stream of their request. A worker's end-of-file ends every
open stream at once with a `WorkerDiedError`.
"""

import asyncio
import itertools
from collections import deque
from typing import Final, TypeVar

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
    SequenceDelta,
    Stats,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
    UnloadAdapter,
)
from backplane_core.version import PROTOCOL
from backplane_core.wire import FrameDecoder, encode, read_messages

_HANDSHAKE_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 1.0

StreamItem = SequenceDelta | PromptLogprobs
AnswerT = TypeVar("AnswerT")


class RequestStream:
    """What a worker says about one accepted request, as an async iterator.

    Ends when every sequence has finished or was cancelled. Raises the `BackplaneError` that
    ended the request. Items that arrived before an error are yielded first.
    """

    def __init__(self, connection: "WorkerConnection", request: Submit) -> None:
        self.request_id: Final = request.request_id
        self.num_tokens: Final = len(request.prompt_token_ids) + (
            request.stopping.max_new_tokens * request.num_sequences
        )
        self._connection = connection
        self._open_indexes = set(range(request.num_sequences))
        self._items: deque[StreamItem] = deque()
        self._error: BackplaneError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> "RequestStream":
        return self

    async def __anext__(self) -> StreamItem:
        while not self._items:
            if self._error is not None:
                raise self._error
            if not self._open_indexes:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def drain_nowait(self) -> list[StreamItem]:
        """Whatever has arrived already, so that writes can be coalesced."""
        items = list(self._items)
        self._items.clear()
        return items

    @property
    def finished(self) -> bool:
        """Whether nothing more will arrive."""
        return self._error is not None or not self._open_indexes

    def cancel(self, index: int | None = None) -> None:
        """Stop the request, or one of its sequences. Idempotent; tokens on the way are dropped."""
        if self.finished:
            return
        self._connection.cancel(self.request_id, index)
        self._open_indexes -= set(self._open_indexes) if index is None else {index}
        if not self._open_indexes:
            self._connection.forget(self)
        self._wake()

    def abandon(self, error: BackplaneError) -> None:
        """Stop the request in the worker; the iterator raises `error` once it has run dry."""
        if not self.finished:
            self._connection.cancel(self.request_id)
            self.fail(error)

    def push(self, item: StreamItem) -> None:
        """For the connection: an item arrived."""
        if isinstance(item, SequenceDelta):
            if item.index not in self._open_indexes:
                return
            if item.finish_reason is not None:
                self._open_indexes.discard(item.index)
                if not self._open_indexes:
                    self._connection.forget(self)
        self._items.append(item)
        self._wake()

    def fail(self, error: BackplaneError) -> None:
        """For the connection: the request is over."""
        if not self.finished:
            self._error = error
            self._connection.forget(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WorkerConnection:
    """One connection to one worker. Use from one event loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_id: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._server_id = server_id
        self._frames: FrameDecoder[FromWorker] = FrameDecoder(FromWorker)
        self._counter = itertools.count()
        self._streams: dict[str, RequestStream] = {}
        self._answers: dict[str, asyncio.Future[object]] = {}
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.info: RunnerInfo
        self.adapters: frozenset[str] = frozenset()
        self.worker_id = ""
        self.socket_path = ""
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
        try:
            reader, writer = await asyncio.open_unix_connection(socket_path)
        except OSError as error:
            raise UnavailableError(f"no worker at {socket_path}: {error.strerror}") from error
        connection = cls(reader, writer, server_id)
        connection.socket_path = socket_path
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                pending = await connection._shake_hands()
        except (TimeoutError, OSError) as error:
            writer.close()
            raise UnavailableError(f"the worker at {socket_path} did not answer") from error
        except BackplaneError:
            writer.close()
            raise
        for message in pending:
            connection._receive(message)
        connection._task = asyncio.create_task(connection._read())
        return connection

    async def _shake_hands(self) -> list[FromWorker]:
        self._send(Hello(protocol=PROTOCOL, server_id=self._server_id))
        messages = await read_messages(self._reader, self._frames)
        if not messages:
            raise UnavailableError("the worker closed the connection during the handshake")
        match messages[0]:
            case Ready() as ready:
                self.info = ready.info
                self.adapters = frozenset(ready.adapters)
                self.worker_id = ready.worker_id
                return messages[1:]
            case Rejected() as rejected:
                raise rejected.error.restore()
            case other:
                raise ProtocolError(f"expected Ready, got {type(other).__name__}")

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
        self._writer.close()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)
            self._writer.transport.abort()
            await self._task

    def abort(self, reason: str) -> None:
        """End at once, as if the worker had gone: every stream fails with `reason`.

        For a worker that is known to be lost, whose sockets may stay open (it hangs).
        """
        self._end(reason)
        self._writer.transport.abort()

    # ── the wire ─────────────────────────────────────────────────────────────────────────

    def _send(self, message: msgspec.Struct) -> None:
        self._writer.write(encode(message))

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

    async def _read(self) -> None:
        cause = "its connection ended"
        try:
            while messages := await read_messages(self._reader, self._frames):
                for message in messages:
                    self._receive(message)
        except (OSError, ProtocolError) as error:
            cause = f"its connection broke: {error}"
        finally:
            lost = f"worker {self.worker_id} went away; its requests in flight are lost"
            self._end(lost, cause)

    def _receive(self, message: FromWorker) -> None:
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
        for item in (*step.prompt_logprobs, *step.deltas):
            if stream := self._streams.get(item.request_id):
                stream.push(item)
        for failed in step.failures:
            if stream := self._streams.get(failed.request_id):
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
        self._writer.close()
        for stream in list(self._streams.values()):
            stream.fail(WorkerDiedError(reason))
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(WorkerDiedError(reason))
        self._drained.set()
