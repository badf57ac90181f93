"""`POST /generate`, `/generate_stream`, `/` and `/tokenize`: TGI's native routes."""

from typing import Final

import msgspec
from litestar import Controller, post
from litestar.types import ASGIApp

from backplane_server.dialects.native import NativeCollector, NativePlan, NativeStream, plan
from backplane_server.dialects.native_types import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
    GenerateResponse,
    SimpleToken,
)
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange

_NESTED: Final[dict[str, type[msgspec.Struct]]] = {"parameters": GenerateParameters}
_generate_body: Final = BodyReader(GenerateRequest, _NESTED)
_compat_body: Final = BodyReader(CompatGenerateRequest, _NESTED)


class NativeController(Controller):
    """Generation and tokens the way TGI's own clients ask for them."""

    @post("/generate")
    async def generate(self, request: AnyRequest, services: Services) -> ASGIApp:
        """The whole text at once."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            native = plan(body.inputs, body.parameters, stream=False)
            return current.answer(await _generate(current, native))

        return await exchange(request, services, _generate_body, handle)

    @post("/generate_stream")
    async def generate_stream(self, request: AnyRequest, services: Services) -> ASGIApp:
        """One event a token."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            return await _stream(current, plan(body.inputs, body.parameters, stream=True))

        return await exchange(request, services, _generate_body, handle)

    @post("/")
    async def compat(self, request: AnyRequest, services: Services) -> ASGIApp:
        """The older form: an array of one answer, or a stream."""

        async def handle(current: Exchange, body: CompatGenerateRequest) -> ASGIApp:
            native = plan(body.inputs, body.parameters, stream=body.stream, full_text_default=True)
            if body.stream:
                return await _stream(current, native)
            return current.answer([await _generate(current, native)])

        return await exchange(request, services, _compat_body, handle)

    @post("/tokenize")
    async def tokenize(self, request: AnyRequest, services: Services) -> ASGIApp:
        """The tokens of `inputs` and where they stand in it."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            text = body.inputs.encode()
            spans = await services.generation.model.tokenizer.encode_spans(body.inputs)
            tokens = [
                SimpleToken(
                    span.token_id,
                    text[span.start : span.stop].decode("utf-8", "replace"),
                    span.start,
                    span.stop,
                )
                for span in spans
            ]
            return current.answer(tokens)

        return await exchange(request, services, _generate_body, handle)


async def _generate(current: Exchange, native: NativePlan) -> GenerateResponse:
    generation = await current.start(native.generation)
    collector = NativeCollector(native, generation)
    async for events in generation.batches():
        for event in events:
            collector.add(event)
    return collector.response()


async def _stream(current: Exchange, native: NativePlan) -> ASGIApp:
    generation = await current.start(native.generation)
    return current.stream(NativeStream(native, generation))
