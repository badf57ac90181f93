"""`POST /generate` and `/generate_stream`: TGI's native generation; and `GET /ping`."""

from typing import Final

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.controllers.health import health_answer
from backplane_server.dialects.native import NativePlan, plan
from backplane_server.dialects.native_answers import NativeCollector
from backplane_server.dialects.native_stream import NativeStream
from backplane_server.dialects.native_types import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
    GenerateResponse,
)
from backplane_server.services.generation_group import GenerationGroup
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import Exchange, PostRoute

NESTED: Final[dict[str, type[msgspec.Struct]]] = {"parameters": GenerateParameters}
_body: Final = BodyReader(GenerateRequest, NESTED)


class NativeController(Controller):
    """What there is beside generation."""

    @get("/ping")
    async def ping(self, services: NamedDependency[Services]) -> ASGIApp:
        """The same as `/health`, by the name that SageMaker asks for."""
        return health_answer(services)


async def generate(current: Exchange, body: GenerateRequest) -> ASGIApp:
    """The whole text at once."""
    native = plan_for(current, body, stream=False)
    return current.answer(await answer_whole(current, native))


async def generate_stream(current: Exchange, body: GenerateRequest) -> ASGIApp:
    """One event a token."""
    return await answer_stream(current, plan_for(current, body, stream=True))


def plan_for(
    current: Exchange, body: GenerateRequest | CompatGenerateRequest, *, stream: bool
) -> NativePlan:
    """Understand a request. Raises as `plan`, and `NotReadyError`."""
    services = current.services
    return plan(body, services.settings, services.generation.model, stream=stream)


async def answer_whole(current: Exchange, native: NativePlan) -> GenerateResponse:
    """Generate to the end."""
    generation = await current.start(native.generation)
    collector = NativeCollector(native, generation)
    await GenerationGroup([generation]).run(collector.add)
    return collector.response()


async def answer_stream(current: Exchange, native: NativePlan) -> ASGIApp:
    """Have the request accepted; the stream follows."""
    generation = await current.start(native.generation)
    return current.stream(NativeStream(native, generation))


ROUTES: Final = {
    "/generate": PostRoute(_body, generate),
    "/generate_stream": PostRoute(_body, generate_stream),
}
