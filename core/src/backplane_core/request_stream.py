"""What a worker says about one accepted request: told as it comes, or read as an iterator.

Knows nothing of sockets: a connection routes items here and is told what to cancel.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from backplane_core.errors import BackplaneError
from backplane_core.messages import PromptLogprobs, SequenceDelta, Submit

StreamItem = SequenceDelta | PromptLogprobs


class StreamListener(Protocol):
    """Who is told at once, within the callback that read the worker's bytes. Must not raise."""

    def take(self, delta: SequenceDelta) -> None:
        """New tokens of a sequence, or its end."""
        ...

    def take_prompt(self, chunk: PromptLogprobs) -> None:
        """Logprobs of some of the prompt's tokens."""
        ...

    def end(self, error: BackplaneError | None) -> None:
        """Nothing more comes: every sequence has ended, or `error` ended the request."""
        ...


class StreamOwner(Protocol):
    """The connection, as a stream sees it."""

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Tell the worker to stop a request or one of its sequences."""
        ...

    def forget(self, stream: "RequestStream") -> None:
        """Nothing more is to be routed to this stream."""
        ...


class RequestStream:
    """One accepted request's news. Have a listener told of them, or iterate; not both.

    Items that arrived before an error come first. As an iterator it ends when every sequence
    has finished or was cancelled, and raises the `BackplaneError` that ended the request.
    """

    def __init__(self, owner: StreamOwner, request: Submit) -> None:
        self.request_id: Final = request.request_id
        self.num_tokens: Final = len(request.prompt_token_ids) + (
            request.stopping.max_new_tokens * request.num_sequences
        )
        self._owner = owner
        self._open_indexes = set(range(request.num_sequences))
        self._items: deque[StreamItem] = deque()
        self._error: BackplaneError | None = None
        self._listener: StreamListener | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will arrive."""
        return self._error is not None or not self._open_indexes

    # ── being told ───────────────────────────────────────────────────────────────────────

    def listen(self, listener: StreamListener | None) -> None:
        """Tell `listener` what waits here, and from now on what comes; None holds it back again.

        What is held back is bounded by what the request may generate. The end is told once, and
        not to who cancelled.
        """
        self._listener = listener
        while self._items and self._listener is not None:
            item = self._items.popleft()
            if isinstance(item, SequenceDelta):
                self._listener.take(item)
            else:
                self._listener.take_prompt(item)
        if self.finished:
            self._tell_end()

    def _tell_end(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end(self._error)

    # ── iterating ────────────────────────────────────────────────────────────────────────

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

    # ── stopping ─────────────────────────────────────────────────────────────────────────

    def cancel(self, index: int | None = None) -> None:
        """Stop the request, or one of its sequences. Idempotent; tokens on the way are dropped."""
        if self.finished:
            return
        self._owner.cancel(self.request_id, index)
        self._open_indexes -= set(self._open_indexes) if index is None else {index}
        if not self._open_indexes:
            self._listener = None
            self._owner.forget(self)
        self._wake()

    def abandon(self, error: BackplaneError) -> None:
        """Stop the request in the worker; who listens or iterates is told `error` as its end."""
        if not self.finished:
            self._owner.cancel(self.request_id)
            self.fail(error)

    # ── the connection's side ────────────────────────────────────────────────────────────

    def push(self, delta: SequenceDelta) -> None:
        """New tokens arrived. What is done here is done for every token of every stream."""
        if delta.index not in self._open_indexes:
            return
        if delta.finish_reason is not None:
            self._open_indexes.discard(delta.index)
            if not self._open_indexes:
                self._owner.forget(self)
        listener = self._listener
        if listener is None:
            self._items.append(delta)
            self._wake()
            return
        listener.take(delta)
        if not self._open_indexes:
            self._tell_end()

    def push_prompt(self, chunk: PromptLogprobs) -> None:
        """Some of the prompt's logprobs arrived."""
        if self._listener is None:
            self._items.append(chunk)
            self._wake()
        else:
            self._listener.take_prompt(chunk)

    def fail(self, error: BackplaneError) -> None:
        """The request is over."""
        if not self.finished:
            self._error = error
            self._owner.forget(self)
            if not self._items:
                self._tell_end()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
