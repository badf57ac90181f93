"""One request on a generating route, from its body to the end of its answer.

Counts it once, cancels what it started, and keeps the server from exiting under it.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.services import Services
from backplane_server.text.choice_decoder import ChoiceEvent
from backplane_server.web.body import BodyReader, read_body
from backplane_server.web.compute_headers import compute_headers, stream_compute_headers
from backplane_server.web.disconnect import until_disconnect
from backplane_server.web.errors import Dialect, failure_label, map_error
from backplane_server.web.event_stream import DONE, EventStream, frame
from backplane_server.web.merge import merge_batches
from backplane_server.web.responses import Answer

BodyT = TypeVar("BodyT", bound=msgspec.Struct)
AnyRequest = Request[Any, Any, Any]


class StreamRenderer(Protocol):
    """A dialect's way of writing a stream."""

    dialect: Dialect

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:
        """Frames for news of one sequence of prompt number `prompt`; may be none."""
        ...

    def end(self) -> bytes:
        """Frames after the last one of every sequence."""
        ...


class Exchange:
    """What handlers use to start generations and to make answers.

    Args:
        services: the server's.
    """

    def __init__(self, services: Services) -> None:
        self.services: Final = services
        self.arrived: Final = time.monotonic()
        self.ignored = ""
        self.streaming = False
        self._generations: list[Generation] = []
        self._settled = False
        services.metrics.arrived()
        services.enter()

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of all generations so far."""
        return sum(generation.num_new_tokens for generation in self._generations)

    async def start(self, request: GenerationRequest) -> Generation:
        """Have a worker accept a generation; it is cancelled when the exchange closes."""
        return (await self.start_all([request]))[0]

    async def start_all(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Like `start` for several; if one is refused, the ones before it are cancelled."""
        service = self.services.generation
        service.check_together(requests)
        for request in requests:
            self._generations.append(await service.start(request, arrived=self.arrived))
        return list(self._generations)

    def answer(self, value: msgspec.Struct | list[Any]) -> Answer:
        """A whole JSON answer with the headers that tell times and counts."""
        headers = compute_headers(self._generations)
        return Answer(msgspec.json.encode(value), headers=self._with_ignored(headers))

    def stream(self, renderer: StreamRenderer) -> EventStream:
        """A stream of server-sent events; from here on it ends the exchange."""
        self.streaming = True
        return EventStream(
            self._frames(renderer),
            headers=self._with_ignored(stream_compute_headers(self._generations)),
            write_timeout_s=self.services.settings.write_timeout_s,
            on_close=self.close,
        )

    def fail(self, error: BaseException) -> None:
        """The request ends by an error."""
        if not self._settled:
            self._settled = True
            self.services.metrics.failed(failure_label(error))

    def close(self) -> None:
        """Cancel what still runs. A request that is neither answered nor failed was dropped."""
        metrics = self.services.metrics
        for generation in self._generations:
            generation.cancel()
            metrics.token_gaps(generation.times.token_gaps_s)
        if not self._settled:
            self._settled = True
            metrics.failed("dropped")
        metrics.left()
        self.services.leave()

    def succeed(self) -> None:
        """The request is answered in full."""
        if self._settled:
            return
        self._settled = True
        times = [generation.times for generation in self._generations]
        metrics = self.services.metrics
        if not times:  # a route that generates nothing
            metrics.answered()
            return
        for first_token in filter(None, (each.first_token for each in times)):
            metrics.first_token(first_token - self.arrived)
        metrics.succeeded(
            total_s=max(each.total_s for each in times),
            validation_s=max(each.validation_s for each in times),
            queue_s=max(each.queue_s for each in times),
            inference_s=max(each.inference_s for each in times),
            num_tokens=self.num_generated_tokens,
        )

    async def _frames(self, renderer: StreamRenderer) -> AsyncGenerator[bytes, None]:
        try:
            async for prompt, events in merge_batches(self._generations):
                if data := b"".join([renderer.event(prompt, event) for event in events]):
                    yield data
            # Not before: the generations' decoders run ahead of what was merged.
            self.succeed()
            if data := renderer.end():
                yield data
        except Exception as error:  # noqa: BLE001 - the mapper logs what nobody expected
            self.fail(error)
            mapped = map_error(error)
            data = frame(mapped.body(renderer.dialect, in_stream=True))
            yield data + DONE if renderer.dialect == "openai" else data

    def _with_ignored(self, headers: Mapping[str, str]) -> dict[str, str]:
        ignored = {"x-ignored-parameters": self.ignored} if self.ignored else {}
        return {**headers, **ignored}


async def exchange(
    request: AnyRequest,
    services: Services,
    reader: BodyReader[BodyT],
    handle: Callable[[Exchange, BodyT], Awaitable[ASGIApp]],
) -> ASGIApp:
    """Read a body and have it answered, unless the client leaves first.

    Raises:
        BackplaneError: the answer, for the error mapper; the request is counted as failed.
    """
    current = Exchange(services)

    async def work() -> ASGIApp:
        body = reader.decode(data)
        current.ignored = services.note_ignored(body.ignored)
        return await handle(current, body.value)

    try:
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with services.reading():
            data = await read_body(
                request.receive,
                headers,
                services.settings.payload_limit,
                stall_timeout_s=services.settings.write_timeout_s,
            )
        result = await until_disconnect(request.receive, work())
        if not current.streaming:
            current.succeed()
    except BaseException as error:
        current.fail(error)
        current.close()
        raise
    if not current.streaming:
        current.close()
    return result
