"""A blocking client of one worker, for tests: the wire, spoken a second time and plainly.

Independent of `backplane_core.client`, so that neither hides a mistake of the other.
"""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from backplane_core.errors import ProtocolError, WorkerDiedError
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
    Message,
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
    TokenSegment,
    UnloadAdapter,
)
from backplane_core.testing.blocking_channel import BlockingChannel
from backplane_core.testing.worker_stream import Stream
from backplane_core.version import PROTOCOL

_PAUSE_S = 0.002

AnswerT = TypeVar("AnswerT", bound=Message)


class WorkerClient:
    """One connection. Reads only inside its own calls; every wait has a limit."""

    def __init__(self, socket_path: str, server_id: str, timeout_s: float) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(socket_path)
        self._channel: BlockingChannel[FromWorker] = BlockingChannel(sock, FromWorker)
        self._server_id = server_id
        self._timeout_s = timeout_s
        self._num_requests = 0
        self._streams: dict[str, Stream] = {}
        self._answers: dict[str, Message] = {}
        self.tick = 0
        self.drained = False
        self.closed = False
        self.send(Hello(protocol=PROTOCOL, server_id=server_id))
        ready = self._channel.receive(timeout_s)
        if not isinstance(ready, Ready):
            raise ProtocolError(f"expected Ready, got {ready}")
        self.info: RunnerInfo = ready.info

    def close(self) -> None:
        """Leave; the worker cancels what is in flight here."""
        self._channel.close()

    # ── requests ─────────────────────────────────────────────────────────────────────────

    def submit(self, prompt: list[int], **fields: Any) -> Stream:
        """Send a request; does not wait for an answer. `fields` are `Submit`'s."""
        request = Submit(
            request_id=self._next_id(), prompt=[TokenSegment(token_ids=prompt)], **fields
        )
        stream = self._streams[request.request_id] = Stream(request)
        self.send(request)
        return stream

    def run(self, prompt: list[int], **fields: Any) -> Stream:
        """Send a request and wait for its end.

        Raises:
            BackplaneError: what ended it.
        """
        stream = self.submit(prompt, **fields)
        self.finish([stream])
        if stream.error is not None:
            raise stream.error
        return stream

    def finish(self, streams: Iterable[Stream]) -> None:
        """Wait until all are done, well or badly."""
        waiting = list(streams)
        self.wait(lambda: all(stream.done for stream in waiting), "requests to end")

    def cancel(self, stream: Stream, index: int | None = None) -> None:
        """Cancel a request or one of its sequences."""
        self.send(Cancel(request_id=stream.request.request_id, index=index))

    # ── commands ─────────────────────────────────────────────────────────────────────────

    def stats(self) -> RunnerStats:
        """The runner's gauges and counters."""
        return self._ask(GetStats(request_id=self._next_id()), Stats).stats

    def wait_for_stats(self, holds: Callable[[RunnerStats], bool], what: str) -> RunnerStats:
        """Ask for stats until they satisfy `holds`; the ones that did.

        Raises:
            BackplaneError: a request of this connection failed meanwhile, so it may be in vain.
            TimeoutError: they did not within the client's time limit.
        """
        deadline = time.monotonic() + self._timeout_s
        awaited = [stream for stream in self._streams.values() if not stream.done]
        while True:
            stats = self.stats()
            for stream in awaited:
                if stream.error is not None:
                    raise stream.error
            if holds(stats):
                return stats
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._timeout_s:g} s in vain for {what}: {stats}")
            time.sleep(_PAUSE_S)

    def tokenize(
        self, texts: list[str], *, add_special: bool = True, parse_special: bool = False
    ) -> list[list[int]]:
        """Encode texts in the worker."""
        [encoded] = self.tokenize_at_once(
            [texts], add_special=add_special, parse_special=parse_special
        )
        return encoded

    def tokenize_at_once(
        self, requests: list[list[str]], *, add_special: bool = True, parse_special: bool = False
    ) -> list[list[list[int]]]:
        """Send all, then wait for all: what each has for an answer."""
        questions = [
            Tokenize(
                request_id=self._next_id(),
                texts=texts,
                add_special=add_special,
                parse_special=parse_special,
            )
            for texts in requests
        ]
        for question in questions:
            self.send(question)
        return [self._answer(question, Tokenized).token_ids for question in questions]

    def load_adapter(self, name: str, path: str) -> None:
        """Make an adapter available."""
        self._ask(LoadAdapter(request_id=self._next_id(), name=name, path=path), Done)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        self._ask(UnloadAdapter(request_id=self._next_id(), name=name), Done)

    def drain(self) -> None:
        """Ask the worker to take nothing new; `drained` becomes true when all is done."""
        self.send(Drain())

    # ── the wire ─────────────────────────────────────────────────────────────────────────

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            WorkerDiedError: nobody is there to take it.
        """
        try:
            self._channel.send(message)
        except ConnectionError as error:
            self._end()
            raise WorkerDiedError(f"the worker went away: {error}") from error

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        """Read until `happened()`.

        Raises:
            TimeoutError: it did not within the client's time limit.
            WorkerDiedError: the worker went away before it.
        """
        deadline = time.monotonic() + self._timeout_s
        while not happened():
            if self.closed:
                raise WorkerDiedError(f"the worker went away while waiting for {what}")
            remaining = deadline - time.monotonic()
            if remaining <= 0.0 or not self.read(remaining):
                raise TimeoutError(f"waited {self._timeout_s:g} s in vain for {what}")

    def read(self, timeout_s: float) -> bool:
        """Take in one message. False if none came within `timeout_s`."""
        try:
            message = self._channel.receive(max(timeout_s, 1e-3))
        except TimeoutError:
            return False
        except ConnectionError:
            message = None
        if message is None:
            self._end()
        else:
            self.tick += 1
            self._take(message)
        return True

    def _next_id(self) -> str:
        self._num_requests += 1
        return f"{self._server_id}-{self._num_requests}"

    def _ask(self, question: Any, kind: type[AnswerT]) -> AnswerT:
        self.send(question)
        return self._answer(question, kind)

    def _answer(self, question: Any, kind: type[AnswerT]) -> AnswerT:
        key: str = question.request_id
        self.wait(lambda: key in self._answers, f"the answer to {type(question).__name__}")
        answer = self._answers.pop(key)
        if isinstance(answer, CommandFailed):
            raise answer.error.restore()
        if not isinstance(answer, kind):
            raise ProtocolError(f"expected {kind.__name__}, got {answer}")
        return answer

    def _take(self, message: FromWorker) -> None:
        match message:
            case Accepted(request_id=request_id):
                self._streams[request_id].accepted = True
            case (
                Rejected(request_id=request_id, error=error)
                | Failed(request_id=request_id, error=error)
            ):
                self._streams[request_id].error = error.restore()
            case StepOutput():
                self._take_step(message)
            case PromptLogprobs(request_id=request_id):
                self._streams[request_id].prompt_logprobs.append(message)
            case Drained():
                self.drained = True
            case Tokenized() | Done() | CommandFailed() | Stats():
                self._answers[message.request_id] = message
            case Ready():
                raise ProtocolError("a second Ready")

    def _take_step(self, step: StepOutput) -> None:
        for chunk in step.prompt_logprobs:
            self._streams[chunk.request_id].prompt_logprobs.append(chunk)
        for delta in step.deltas:
            self._streams[delta.request_id][delta.index].add(delta, self.tick)
        for failed in step.failures:
            self._streams[failed.request_id].error = failed.error.restore()

    def _end(self) -> None:
        self.closed = True
        for stream in self._streams.values():
            if not stream.done:
                stream.error = WorkerDiedError("the worker went away")
