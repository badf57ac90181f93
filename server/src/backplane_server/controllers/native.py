"""`POST /generate`, `/generate_stream` and `/tokenize`: TGI's native routes."""

import asyncio
from typing import Final

import msgspec
from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects.native import NativeCollector, NativePlan, NativeStream, plan
from backplane_server.dialects.native_types import (
    GenerateParameters,
    GenerateRequest,
    GenerateResponse,
    SimpleToken,
)
from backplane_server.dialects.not_yet import NATIVE, DefinedFields
from backplane_server.services.services import Services
from backplane_server.services.text_bounds import check_length
from backplane_server.tokenization.tokenizer import TokenSpan
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange

NESTED: Final[dict[str, type[msgspec.Struct]]] = {"parameters": GenerateParameters}
_generate_body: Final = BodyReader(GenerateRequest, NESTED, unknown=DefinedFields(NATIVE))


class NativeController(Controller):
    """Generation and tokens the way TGI's own clients ask for them."""

    @post("/generate")
    async def generate(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """The whole text at once."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            native = plan(body.inputs, body.parameters, stream=False)
            return current.answer(await answer_whole(current, native))

        return await exchange(request, services, _generate_body, handle)

    @post("/generate_stream")
    async def generate_stream(
        self, request: AnyRequest, services: NamedDependency[Services]
    ) -> ASGIApp:
        """One event a token."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            return await answer_stream(current, plan(body.inputs, body.parameters, stream=True))

        return await exchange(request, services, _generate_body, handle)

    @post("/tokenize")
    async def tokenize(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """The tokens of `inputs` and where they stand in it."""

        async def handle(current: Exchange, body: GenerateRequest) -> ASGIApp:
            model = services.generation.model
            max_tokens = model.info.limits.max_input_tokens
            check_length(body.inputs, "inputs", max_tokens, model.table)
            spans = await model.tokenizer.encode_spans(body.inputs, max_tokens)
            return current.answer(await asyncio.to_thread(_simple_tokens, body.inputs, spans))

        return await exchange(request, services, _generate_body, handle)


async def answer_whole(current: Exchange, native: NativePlan) -> GenerateResponse:
    """Generate to the end."""
    generation = await current.start(native.generation)
    collector = NativeCollector(native, generation)
    async for events in generation.batches():
        for event in events:
            collector.add(event)
    return collector.response()


async def answer_stream(current: Exchange, native: NativePlan) -> ASGIApp:
    """Have the request accepted; the stream follows."""
    generation = await current.start(native.generation)
    return current.stream(NativeStream(native, generation))


def _simple_tokens(inputs: str, spans: list[TokenSpan]) -> list[SimpleToken]:
    text = inputs.encode()
    return [
        SimpleToken(
            span.token_id,
            text[span.start : span.stop].decode("utf-8", "replace"),
            span.start,
            span.stop,
        )
        for span in spans
    ]
