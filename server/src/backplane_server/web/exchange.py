"""One request on a route that generates or tokenizes, from its body to the end of its answer.

Counts it once, cancels what it started, and keeps the server from exiting under it.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive

from backplane_server.metrics.metrics import FailureLabel
from backplane_server.services.deadline import deadline
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader, arrived_body, read_body
from backplane_server.web.compute_headers import compute_headers, stream_compute_headers
from backplane_server.web.disconnect import until_disconnect
from backplane_server.web.errors import (
    Dialect,
    dialect_of,
    failure_label,
    map_error,
    told_in_stream,
)
from backplane_server.web.event_stream import DONE, EventStream, FrameSource, frame
from backplane_server.web.exchange_frames import GenerationFrames, Refusal, StreamRenderer
from backplane_server.web.request_record import RequestRecord, record_of
from backplane_server.web.responses import Answer

_STREAM_PATHS: Final = frozenset({"/generate_stream"})

# Which numbers a request is in: all of them, `tgi_request_count` alone (as TGI's, of chats that
# are only tokenized), or none. What generates nothing would move the shares of what does.
Counts = Literal["generation", "arrival", "nothing"]

BodyT = TypeVar("BodyT", bound=msgspec.Struct)


class Exchange:
    """What handlers use to start generations and to make answers.

    Args:
        services: the server's.
        record: what the log will tell of the request.
        dialect: how the route tells errors.
        counts: how the metrics tell of it.
    """

    def __init__(
        self,
        services: Services,
        record: RequestRecord | None = None,
        dialect: Dialect = "native",
        *,
        counts: Counts = "generation",
    ) -> None:
        self.services: Final = services
        self.arrived: Final = time.monotonic()
        self.ignored = ""
        self.streaming = False
        self.wants_stream = False
        self._record = record
        self._dialect: Dialect = dialect
        self._generations: list[Generation] = []
        self._settled = False
        self._num_bytes_starting: int | None = None
        self._generates = counts == "generation"
        if self._generates:
            services.metrics.arrived()
        elif counts == "arrival":
            services.metrics.arrived_only()
        services.enter()

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of all generations so far."""
        return sum(generation.num_new_tokens for generation in self._generations)

    def begin(self, num_bytes: int) -> None:
        """The request is on its way to a worker, until `start_all` or `end_start`.

        Raises:
            OverloadedError: too many are.
        """
        self.services.admission.begin(num_bytes)
        self._num_bytes_starting = num_bytes

    def end_start(self) -> None:
        """It is no longer on its way. Idempotent."""
        if self._num_bytes_starting is not None:
            self.services.admission.end(self._num_bytes_starting)
            self._num_bytes_starting = None

    async def start(self, request: GenerationRequest) -> Generation:
        """Have a worker accept a generation; it is cancelled when the exchange closes."""
        return (await self.start_all([request]))[0]

    async def start_all(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Like `start` for several; if one is refused, the ones before it are cancelled."""
        service = self.services.generation
        service.check_together(requests)
        for request in requests:
            self._generations.append(await service.start(request, arrived=self.arrived))
        self.end_start()
        return list(self._generations)

    def answer(self, value: msgspec.Struct | list[Any]) -> Answer:
        """A whole JSON answer with the headers that tell times and counts."""
        return Answer(
            msgspec.json.encode(value),
            headers=self._with_ignored({}),
            raw_headers=compute_headers(self._generations),
        )

    def stream(self, renderer: StreamRenderer) -> EventStream:
        """A stream of server-sent events; from here on it ends the exchange."""
        headers = stream_compute_headers(self._generations)
        return self._stream(GenerationFrames(self, self._generations, renderer), headers)

    def _stream(self, source: FrameSource, headers: Mapping[str, str]) -> EventStream:
        self.streaming = True
        return EventStream(
            source,
            headers=self._with_ignored(headers),
            write_timeout_s=self.services.settings.write_timeout_s,
        )

    def fail(self, error: BaseException) -> None:
        """The request ends by an error."""
        self._fail(failure_label(error))

    def _fail(self, label: FailureLabel) -> None:
        if self._settled:
            return
        self._settled = True
        if self._generates:
            self.services.metrics.failed(label)
        if self._record is not None:
            self._record.failure = label

    def close(self) -> None:
        """Cancel what still runs. A request that is neither answered nor failed was dropped."""
        metrics = self.services.metrics
        for generation in self._generations:
            generation.cancel()
            metrics.token_gaps(generation.times.token_gaps_s)
        self._fail("dropped")
        self._tell()
        if self._generates:
            metrics.left()
        self.services.leave()

    def succeed(self) -> None:
        """The request is answered in full."""
        if self._settled:
            return
        self._settled = True
        if not self._generates:
            return
        times = [generation.times for generation in self._generations]
        metrics = self.services.metrics
        for first_token in filter(None, (each.first_token for each in times)):
            metrics.first_token(first_token - self.arrived)
        last = max(times, key=lambda each: each.total_s)  # of several prompts, so that parts add up
        metrics.succeeded(
            total_s=last.total_s,
            validation_s=last.validation_s,
            queue_s=last.queue_s,
            inference_s=last.inference_s,
            num_tokens=self.num_generated_tokens,
        )

    def refuse_in_stream(self, error: Exception) -> EventStream:
        """TGI's way with `--tgi-strict`: a stream that says nothing but why it is none."""
        return self._stream(Refusal(self, error, self._dialect), {})

    def last_words(self, error: Exception, dialect: Dialect) -> bytes:
        """What a stream says of the error that ends it."""
        mapped = map_error(error)
        data = frame(mapped.event(dialect, tgi_strict=self.services.settings.tgi_strict))
        return data + DONE if dialect == "openai" else data

    def _tell(self) -> None:
        """What came of it, for the log."""
        record, generations = self._record, self._generations
        if record is None or not generations:
            return
        record.num_prompt_tokens = sum(each.num_prompt_tokens for each in generations)
        record.num_generated_tokens = self.num_generated_tokens
        finishes = [choice.finish for each in generations for choice in each.choices]
        record.finish = sorted({finish.name.lower() for finish in finishes if finish})
        record.worker_requests = [each.worker_request_id for each in generations]

    def _with_ignored(self, headers: Mapping[str, str]) -> dict[str, str]:
        ignored = {"x-ignored-parameters": self.ignored} if self.ignored else {}
        return {**headers, **ignored}


@dataclass(frozen=True)
class PostRoute(Generic[BodyT]):
    """A route that takes a body.

    Attributes:
        reader: of its bodies.
        handle: makes the answer, or raises the `BackplaneError` that is the answer.
        counts: how the metrics tell of it.
    """

    reader: BodyReader[BodyT]
    handle: Callable[[Exchange, BodyT], Awaitable[ASGIApp]]
    counts: Counts = "generation"


async def exchange(
    scope: HTTPScope, receive: Receive, services: Services, route: PostRoute[Any]
) -> ASGIApp:
    """Read a body and have it answered, unless the client leaves first or its time is up.

    A stream that has begun ends by its generations, which know the deadline as well.

    Raises:
        BackplaneError: the answer, for the error mapper; the request is counted as failed.
    """
    path = scope["path"]
    current = Exchange(services, record_of(scope), dialect_of(path), counts=route.counts)
    current.wants_stream = path in _STREAM_PATHS
    timeout_s = services.settings.request_timeout_s
    try:
        if timeout_s is None:
            result = await _answer(scope, receive, current, route)
        else:
            async with deadline(timeout_s):
                result = await _answer(scope, receive, current, route)
        if not current.streaming:
            current.succeed()
    except BaseException as error:
        current.fail(error)
        if services.settings.tgi_strict and current.wants_stream and told_in_stream(error):
            return current.refuse_in_stream(error)
        current.close()
        raise
    if not current.streaming:
        current.close()
    return result


async def _answer(
    scope: HTTPScope, receive: Receive, current: Exchange, route: PostRoute[Any]
) -> ASGIApp:
    services = current.services
    settings = services.settings
    data = arrived_body(scope, settings.payload_limit)
    if data is None:
        async with services.reading():
            data = await read_body(
                scope,
                receive,
                settings.payload_limit,
                stall_timeout_s=settings.write_timeout_s,
            )
    return await until_disconnect(scope, receive, _work(current, route, data))


async def _work(current: Exchange, route: PostRoute[Any], data: bytes) -> ASGIApp:
    admission = current.services.admission
    current.begin(len(data))
    try:
        if admission.waits_for_turn(len(data)):
            async with admission.turn():
                body = route.reader.decode(data)
        else:
            body = route.reader.decode(data)
        current.wants_stream |= bool(getattr(body.value, "stream", False))
        if body.ignored:
            current.ignored = current.services.note_ignored(body.ignored)
        return await route.handle(current, body.value)
    finally:
        current.end_start()
